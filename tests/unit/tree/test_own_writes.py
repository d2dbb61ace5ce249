"""Our own changes against answers that lag behind them: docs/semantics.md, promises 3, 5 and 7."""

from __future__ import annotations

from msgspec.structs import replace

from ctrfs.api.models import ContainerFile, ContainerId, FileId
from ctrfs.tree.own_writes import REMOVED_KEPT_S, OwnWrites


def row(file_id: str) -> ContainerFile:
    return ContainerFile(
        id=FileId(file_id),
        container_id=ContainerId("cntr_1"),
        path=f"/mnt/data/{file_id}",
        size_bytes=1,
        created_at_s=1,
        source="user",
    )


A, B, C = row("a"), row("b"), row("c")


def fold(
    own: OwnWrites[ContainerFile],
    *rows: ContainerFile,
    at_s: float,
    gone: frozenset[str] = frozenset(),
) -> list[ContainerFile]:
    """Fold an answer that was asked for, and came, at ``at_s``."""
    return own.fold(rows, started_s=at_s, now_s=at_s, gone=gone)


def test_a_row_of_ours_shows_last_until_a_listing_has_it() -> None:
    own: OwnWrites[ContainerFile] = OwnWrites()
    own.add(B, now_s=1)

    assert fold(own, A, C, at_s=2) == [A, C, B]
    assert fold(own, A, B, C, at_s=3) == [A, B, C]
    # Listed once, it is the service's business: somebody else may delete it.
    assert fold(own, A, C, at_s=4) == [A, C]


def test_a_row_is_doubtful_only_if_the_answer_was_asked_for_after_it() -> None:
    own: OwnWrites[ContainerFile] = OwnWrites()
    own.add(A, now_s=5)

    assert own.doubtful([], started_s=4) == []
    assert own.doubtful([], started_s=6) == [A]
    assert own.doubtful([A], started_s=6) == []


def test_a_doubtful_row_that_is_really_gone_is_dropped() -> None:
    own: OwnWrites[ContainerFile] = OwnWrites()
    own.add(A, now_s=1)

    assert fold(own, at_s=2, gone=frozenset({"a"})) == []
    assert fold(own, at_s=3) == []


def test_a_removed_row_stays_hidden_until_the_service_has_confirmed() -> None:
    own: OwnWrites[ContainerFile] = OwnWrites()
    own.remove("a", now_s=1)

    assert fold(own, A, B, at_s=2) == [B]
    assert fold(own, A, B, at_s=2 + 2 * REMOVED_KEPT_S) == [B]
    assert own.is_removed("a")


def test_a_confirmed_removal_is_settled_by_a_listing_without_the_row() -> None:
    own: OwnWrites[ContainerFile] = OwnWrites()
    own.remove("a", now_s=1)
    own.confirm_removed("a", now_s=2)

    assert fold(own, B, at_s=1.5) == [B]
    assert own.is_removed("a")  # that answer was on its way before
    assert fold(own, B, at_s=3) == [B]
    assert not own.is_removed("a")


def test_a_row_that_is_listed_long_after_its_removal_is_believed() -> None:
    own: OwnWrites[ContainerFile] = OwnWrites()
    own.remove("a", now_s=1)
    own.confirm_removed("a", now_s=2)

    assert fold(own, A, at_s=2 + REMOVED_KEPT_S) == []
    assert fold(own, A, at_s=3 + REMOVED_KEPT_S) == [A]


def test_a_refused_removal_shows_the_row_again_whether_listed_or_not() -> None:
    own: OwnWrites[ContainerFile] = OwnWrites()
    own.add(A, now_s=1)
    own.remove("a", now_s=2)

    own.unremove("a")

    assert fold(own, B, at_s=3) == [B, A]


def test_an_id_that_is_born_again_is_shown() -> None:
    own: OwnWrites[ContainerFile] = OwnWrites()
    own.remove("a", now_s=1)
    own.confirm_removed("a", now_s=1)

    own.add(A, now_s=2)

    assert fold(own, A, at_s=3) == [A]
    assert not own.is_removed("a")


def test_an_answer_asked_for_before_an_overwrite_says_nothing_of_the_new_version() -> None:
    """On servers that keep an id over an overwrite."""
    own: OwnWrites[ContainerFile] = OwnWrites()
    stored_again = replace(A, created_at_s=3, size_bytes=9)
    own.add(stored_again, now_s=3)

    assert own.fold([A, B], started_s=2, now_s=4, gone=()) == [B, stored_again]
    assert fold(own, stored_again, B, at_s=5) == [stored_again, B]


def test_what_was_stored_again_while_the_service_was_asked_for_it_is_not_gone() -> None:
    """On servers that give an id again to what is stored under its path."""
    own: OwnWrites[ContainerFile] = OwnWrites()
    own.add(A, now_s=1)
    stored_again = replace(A, created_at_s=3, size_bytes=9)
    own.add(stored_again, now_s=3)

    assert own.fold([], started_s=2, now_s=4, gone={"a"}) == [stored_again]
