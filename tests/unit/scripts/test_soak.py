"""The soak's own judgement: its ledger, its trends, its plan of failures."""

from __future__ import annotations

from pathlib import Path

import pytest
from scripts.soak.checks import is_local_only
from scripts.soak.faults import KINDS, PERIOD_S, kind_at
from scripts.soak.hands import Hands
from scripts.soak.ledger import ABSENT, Ledger, digest_of
from scripts.soak.samples import Bound, Sample, per_minute, slope, trend
from scripts.soak.verdict import complaints_of_rest, complaints_of_trends

OLD, NEW = digest_of(b"old"), digest_of(b"new")


def samples(*values: float) -> list[Sample]:
    return [
        Sample(elapsed_s=10.0 * number, figures={"rss_mib": value})
        for number, value in enumerate(values)
    ]


@pytest.fixture
def hands(tmp_path: Path) -> Hands:
    (tmp_path / "top").mkdir()
    return Hands(tmp_path / "top", tmp_path, seed=1)


def test_a_path_never_written_to_holds_nothing() -> None:
    assert Ledger().may_hold("a", ABSENT)
    assert not Ledger().may_hold("a", OLD)


def test_after_a_failure_a_path_may_be_as_before_or_as_after() -> None:
    ledger = Ledger()
    ledger.settle("a", OLD)
    ledger.doubt("a", NEW)

    assert ledger.acceptable("a") == {OLD, NEW}
    ledger.settle("a", NEW)
    assert ledger.acceptable("a") == {NEW}


def test_a_move_that_succeeded_takes_the_content_along_and_leaves_nothing() -> None:
    ledger = Ledger({"a": [OLD], "b": [NEW]})
    ledger.move("a", "b")

    assert ledger.differences({"b": OLD}) == []
    assert len(ledger.differences({"a": OLD, "b": NEW})) == 2


def test_a_move_that_failed_leaves_each_name_open() -> None:
    ledger = Ledger({"a": [OLD], "b": [NEW]})
    ledger.doubt_move("a", "b")

    assert ledger.differences({"a": OLD, "b": NEW}) == []
    assert ledger.differences({"b": OLD}) == []
    assert ledger.differences({"a": NEW, "b": OLD}) != []


def test_a_file_that_the_ledger_does_not_know_is_a_difference() -> None:
    assert Ledger().differences({"stray": OLD}) == [f"stray: {OLD} instead of nothing"]


def test_a_ledger_survives_its_way_through_a_file() -> None:
    ledger = Ledger({"a": [OLD, NEW], "b": [ABSENT]})
    again = Ledger.from_json(ledger.to_json())
    assert {path: again.acceptable(path) for path in again} == {"a": {OLD, NEW}, "b": {ABSENT}}


def test_hands_complain_of_a_file_that_another_changed(hands: Hands) -> None:
    assert hands.put("a", b"old")
    hands.check("a")
    assert hands.wrong == []

    (hands.top / "a").write_bytes(b"new")
    hands.check("a")
    assert len(hands.wrong) == 1


def test_hands_complain_of_a_file_that_is_gone(hands: Hands) -> None:
    assert hands.put("a", b"old")
    (hands.top / "a").unlink()

    assert not hands.delete("a")
    assert len(hands.wrong) == 1


@pytest.mark.parametrize("keeps_bytes", [None, 0, 2, 90])
@pytest.mark.parametrize("piece", [b"", b"xyz"])
def test_a_patch_leaves_what_the_ledger_says(
    hands: Hands, piece: bytes, keeps_bytes: int | None
) -> None:
    hands.put("a", b"0123456789")
    assert hands.patch("a", offset=20, piece=piece, keeps_bytes=keeps_bytes)
    hands.check("a")
    assert hands.wrong == []


def test_a_failed_write_is_counted_and_leaves_the_path_in_doubt(hands: Hands) -> None:
    (hands.top / "a").mkdir()
    assert not hands.put("a", b"new")
    assert hands.failed == {"write: EISDIR": 1}
    assert hands.ledger.acceptable("a") == {ABSENT, NEW, digest_of(b"")}


def test_a_slope_ignores_an_outlier() -> None:
    assert slope([(0, 5), (1, 5), (2, 900), (3, 5), (4, 5)]) == 0


def test_growth_beyond_the_bound_is_not_flat_and_shrinking_is() -> None:
    bound = Bound(figure="rss_mib", growth_max=5)
    growing = trend(samples(50, 53, 56, 59), bound)
    shrinking = trend(samples(59, 40, 30, 20), bound)

    assert growing.growth == pytest.approx(9)
    assert len(complaints_of_trends([growing, shrinking])) == 1


def test_a_share_of_the_median_is_allowed_on_top() -> None:
    assert trend(
        samples(100, 103, 106), Bound(figure="rss_mib", growth_max=0, share_max=0.1)
    ).is_flat


def test_what_has_not_come_back_at_rest_is_told() -> None:
    figures = {
        "open_handles": 0.0,
        "unsent_files": 0.0,
        "unsent_deletes": 0.0,
        "tasks": 7.0,
        "descriptors": 20.0,
    }
    before = Sample(elapsed_s=0, figures=figures)
    after = Sample(elapsed_s=60, figures=figures | {"open_handles": 1.0, "tasks": 9.0})

    assert [each.split()[2] for each in complaints_of_rest(before, after)] == ["open_handles"]


def test_minutes_show_the_median_of_their_samples() -> None:
    shown = per_minute(samples(1, 2, 9, 2, 1, 2, 7, 7))
    assert [(each.elapsed_s, each.figures["rss_mib"]) for each in shown] == [(60, 2), (120, 7)]


def test_every_kind_of_failure_comes_in_a_long_run_and_none_at_its_end() -> None:
    moments = [float(second) for second in range(600)]
    met = {kind.name for at_s in moments if (kind := kind_at(at_s, quiet_from_s=528.0))}

    assert met == {kind.name for kind in KINDS}
    assert all(kind_at(at_s, quiet_from_s=528.0) is None for at_s in moments[528:])
    assert kind_at(PERIOD_S, quiet_from_s=528.0) is None


@pytest.mark.parametrize(
    ("path", "is_local"),
    [("a/b~", True), (".draft1.swp", True), (".goutputstream-X", True), ("a~/b", False)],
)
def test_names_that_never_leave_this_machine_are_known(path: str, is_local: bool) -> None:
    assert is_local_only(path) is is_local
