from __future__ import annotations

import pytest

from ctrfs import errors
from ctrfs.api.models import ContainerFile, ContainerId, FileId, Page, RejectedRow
from ctrfs.api.paging import RESTARTS_MAX, oldest_first, walk


def file(name: str, created_at_s: int = 0) -> ContainerFile:
    return ContainerFile(
        id=FileId(name),
        container_id=ContainerId("cntr_1"),
        path=f"/mnt/data/{name}",
        size_bytes=1,
        created_at_s=created_at_s,
        source="user",
    )


def page(*names: str, more: bool = False, cursor: str | None = None) -> Page[ContainerFile]:
    items = tuple(file(name) for name in names)
    return Page(items=items, has_more=more, cursor=cursor or (names[-1] if names else None))


class Pages:
    """Gives the pages in turn, later calls the last; an exception among them is raised."""

    def __init__(self, *steps: Page[ContainerFile] | errors.RemoteError) -> None:
        self._steps = steps
        self.cursors: list[str | None] = []

    async def __call__(self, cursor: str | None) -> Page[ContainerFile]:
        self.cursors.append(cursor)
        step = self._steps[min(len(self.cursors), len(self._steps)) - 1]
        if isinstance(step, errors.RemoteError):
            raise step
        return step


async def names_of(pages: Pages, *, pages_max: int = 50) -> list[str]:
    return [item.id for item in (await walk(pages, pages_max=pages_max)).items]


async def test_one_page_is_one_request() -> None:
    pages = Pages(page("a", "b"))

    assert await names_of(pages) == ["a", "b"]
    assert pages.cursors == [None]


async def test_each_page_is_asked_for_behind_the_one_before() -> None:
    pages = Pages(page("a", "b", more=True), page("c", "d", more=True), page("e"))

    assert await names_of(pages) == ["a", "b", "c", "d", "e"]
    assert pages.cursors == [None, "b", "d"]


async def test_a_row_on_two_pages_is_listed_once() -> None:
    pages = Pages(page("a", "b", more=True), page("b", "c"))

    assert await names_of(pages) == ["a", "b", "c"]


async def test_an_empty_page_with_more_behind_it_is_walked_past() -> None:
    pages = Pages(page(more=True, cursor="x"), page(more=True, cursor="y"), page("a"))

    assert await names_of(pages) == ["a"]
    assert pages.cursors == [None, "x", "y"]


async def test_rejected_rows_of_all_pages_are_kept() -> None:
    rejected = RejectedRow(reason="no id", excerpt="{}")
    with_rejected: Page[ContainerFile] = Page(
        items=(), rejected=(rejected,), has_more=True, cursor="x"
    )

    listing = await walk(Pages(with_rejected, page("a")), pages_max=5)

    assert listing.rejected == (rejected,)


async def test_a_cursor_that_does_not_move_is_an_error() -> None:
    with pytest.raises(errors.RemoteProtocolError, match="circle"):
        await names_of(Pages(page("a", "b", more=True)))


async def test_cursors_that_go_in_a_circle_are_an_error() -> None:
    circle = [page("a", more=True), page("b", more=True), page("a", more=True)]

    with pytest.raises(errors.RemoteProtocolError, match="circle"):
        await names_of(Pages(*circle))


async def test_more_pages_without_a_cursor_are_an_error() -> None:
    with pytest.raises(errors.RemoteProtocolError, match="no cursor"):
        await names_of(Pages(page(more=True)))


async def test_a_listing_without_end_is_an_error_at_the_limit() -> None:
    pages = Pages(*[page(str(number), more=True) for number in range(20)])

    with pytest.raises(errors.RemoteProtocolError, match="more than 10 pages"):
        await names_of(pages, pages_max=10)

    assert len(pages.cursors) == 10


@pytest.mark.parametrize("error", [errors.RemoteNotFoundError, errors.RemoteInvalidError])
async def test_the_walk_starts_again_when_the_row_of_its_cursor_was_deleted(
    error: type[errors.RemoteError],
) -> None:
    pages = Pages(page("a", "b", more=True), error("gone"), page("a", more=True), page("c"))

    assert await names_of(pages) == ["a", "c"]
    assert pages.cursors == [None, "b", None, "a"]


async def test_a_cursor_that_is_always_gone_is_given_up() -> None:
    gone = errors.RemoteNotFoundError("gone")
    pages = Pages(*(step for _ in range(4) for step in (page("a", more=True), gone)))

    with pytest.raises(errors.RemoteNotFoundError):
        await names_of(pages)

    assert len(pages.cursors) == 2 * (1 + RESTARTS_MAX)


@pytest.mark.parametrize("error", [errors.RemoteNotFoundError, errors.RemoteInvalidError])
async def test_a_first_page_that_is_refused_is_not_asked_for_again(
    error: type[errors.RemoteError],
) -> None:
    pages = Pages(error("no such container"))

    with pytest.raises(error):
        await names_of(pages)

    assert len(pages.cursors) == 1


async def test_a_container_that_expires_during_the_walk_ends_it() -> None:
    pages = Pages(page("a", more=True), errors.ContainerExpiredError("expired"))

    with pytest.raises(errors.ContainerExpiredError):
        await names_of(pages)


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        ("", ""),
        ("a1", "a1"),
        ("a1 b2 c2 d3", "a1 b2 c2 d3"),
        ("d3 c2 b2 a1", "a1 b2 c2 d3"),
        ("a1 b1 c1", "a1 b1 c1"),
        ("c2 b2 a1 d1", "d1 a1 b2 c2"),
        ("a1 c3 b2 d4", "a1 b2 c3 d4"),
        ("a1 d4 b2 c2 e5", "a1 b2 c2 d4 e5"),
    ],
)
def test_rows_are_sorted_by_age_and_keep_the_order_of_the_server_within_a_second(
    sent: str, expected: str
) -> None:
    items = tuple(file(row[0], int(row[1])) for row in sent.split())

    ordered = oldest_first(items)

    assert " ".join(f"{item.id}{item.created_at_s}" for item in ordered) == expected
