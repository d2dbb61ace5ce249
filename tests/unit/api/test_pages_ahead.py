"""Pages asked for at once show what pages asked for one after another would: nothing is missed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from ctrfs import errors
from ctrfs.api.models import ContainerFile, ContainerId, FileId, Listing, Page
from ctrfs.api.paging import AHEAD_AT_ONCE, marks_among, walk

PAGE_ROWS = 3
CALL_S = 1.0


@dataclass(slots=True)
class Row:
    """A row of the service, from when to when it is there, in seconds of virtual time."""

    file: ContainerFile
    since_s: float = -1.0
    until_s: float = float("inf")

    def is_there(self, now_s: float) -> bool:
        return self.since_s <= now_s < self.until_s


class Container:
    """Files of a service, oldest first, in pages of three; a call takes a second.

    Attributes:
        cursors: What was asked for, in order, with when.
        forgets_cursors: Whether a row that is gone cannot be a cursor.
    """

    def __init__(self, files: int, *, forgets_cursors: bool = False) -> None:
        self.rows = [Row(file(f"{number}", f"name{number}")) for number in range(files)]
        self.cursors: list[tuple[str | None, float]] = []
        self.forgets_cursors = forgets_cursors
        self.delays_s: Sequence[float] = ()

    def ids(self) -> list[str]:
        return [row.file.id for row in self.rows]

    def replace(self, number: int, *, at_s: float) -> None:
        """Do as a program that saves: the new row comes a moment before the old one goes."""
        old = self.rows[number]
        new_id = f"{old.file.id}-{len(self.rows)}"
        self.rows.append(Row(file(new_id, old.file.path), since_s=at_s))
        old.until_s = min(old.until_s, at_s + 0.01)

    async def __call__(self, cursor: str | None) -> Page[ContainerFile]:
        self.cursors.append((cursor, trio.current_time()))
        delay_s = self.delays_s[len(self.cursors) % len(self.delays_s)] if self.delays_s else CALL_S
        await trio.sleep(delay_s / 2)
        page = self._page(cursor)
        await trio.sleep(delay_s / 2)
        return page

    def _page(self, cursor: str | None) -> Page[ContainerFile]:
        now_s = trio.current_time()
        start = 0
        if cursor is not None:
            place = self.ids().index(cursor)
            if self.forgets_cursors and not self.rows[place].is_there(now_s):
                raise errors.RemoteNotFoundError("no such cursor")
            start = place + 1
        there = [row.file for row in self.rows[start:] if row.is_there(now_s)]
        page = there[:PAGE_ROWS]
        return Page(
            items=tuple(page),
            has_more=len(there) > PAGE_ROWS,
            cursor=page[-1].id if page else None,
        )


def file(file_id: str, path: str) -> ContainerFile:
    return ContainerFile(
        id=FileId(file_id),
        container_id=ContainerId("cntr_1"),
        path=path,
        size_bytes=1,
        created_at_s=1,
        source="assistant",
    )


def marks_of(ids: Sequence[str]) -> list[str]:
    return list(ids[PAGE_ROWS - 1 : -1 : PAGE_ROWS])


async def walked(container: Container, marks: Sequence[str]) -> Listing[ContainerFile]:
    return await walk(container, pages_max=500, marks=marks)


def ids_of(listing: Listing[ContainerFile]) -> list[str]:
    return [item.id for item in listing.items]


def test_pages_begin_behind_every_hundredth_row_but_the_last() -> None:
    assert marks_among([]) == []
    assert marks_among([str(number) for number in range(100)]) == []
    assert marks_among([str(number) for number in range(101)]) == ["99"]
    assert marks_among([str(number) for number in range(300)]) == ["99", "199"]


async def test_an_unchanged_listing_costs_the_same_requests_and_two_waits(
    autojump_clock: trio.testing.MockClock,
) -> None:
    container = Container(3 * (AHEAD_AT_ONCE + 1))

    listing = await walked(container, marks_of(container.ids()))

    assert ids_of(listing) == container.ids()
    assert len(container.cursors) == AHEAD_AT_ONCE + 1
    assert trio.current_time() == pytest.approx(2 * CALL_S)


async def test_the_end_is_asked_for_when_all_before_it_is_known(
    autojump_clock: trio.testing.MockClock,
) -> None:
    container = Container(12)
    container.replace(10, at_s=0.2)
    container.rows[10].until_s = 0.2

    listing = await walked(container, marks_of(container.ids()[:12]))

    assert {item.path for item in listing.items} == {f"name{number}" for number in range(12)}


async def test_a_listing_that_has_become_short_is_looked_at_behind_its_end(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The page that turns out to be the last was asked for too early to be the end."""
    container = Container(12)
    for row in container.rows[5:]:
        row.until_s = -0.5
    container.delays_s = (0.5, 3.0)  # the first page is slow, that behind the first mark is not
    container.replace(0, at_s=1.0)

    listing = await walked(container, marks_of(container.ids()[:12]))

    assert {item.path for item in listing.items} == {f"name{number}" for number in range(5)}


async def test_rows_added_since_are_found_behind_the_last_mark(
    autojump_clock: trio.testing.MockClock,
) -> None:
    container = Container(20)

    listing = await walked(container, marks_of(container.ids()[:8]))

    assert ids_of(listing) == container.ids()
    assert len(container.cursors) == 7


@pytest.mark.parametrize("gone", [[2], [5], [2, 5, 8], [3, 4, 5, 6], list(range(12))])
@pytest.mark.parametrize("forgets_cursors", [True, False])
async def test_marks_that_are_gone_lead_nowhere_and_hide_nothing(
    autojump_clock: trio.testing.MockClock, gone: list[int], *, forgets_cursors: bool
) -> None:
    container = Container(15, forgets_cursors=forgets_cursors)
    marks = marks_of(container.ids())
    for number in gone:
        container.rows[number].until_s = -0.5

    listing = await walked(container, marks)

    assert ids_of(listing) == [
        row.file.id for row in container.rows if row.is_there(trio.current_time())
    ]


async def test_rows_that_stand_between_two_marks_are_not_skipped(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A server may sort otherwise than by age; then there are more rows than a page holds."""
    container = Container(20)

    listing = await walked(container, ["2", "14", "19"])

    assert ids_of(listing) == container.ids()


async def test_marks_in_any_order_or_of_another_container_hide_nothing(
    autojump_clock: trio.testing.MockClock,
) -> None:
    container = Container(12)
    container.rows.insert(0, Row(file("stranger", "x"), until_s=-0.5))
    container.forgets_cursors = True

    listing = await walked(container, ["8", "stranger", "2", "5", "11"])

    assert ids_of(listing) == [str(number) for number in range(12)]


async def test_a_row_that_has_moved_to_the_end_does_not_lead_the_walk_back(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Some servers keep the id of a path that is stored again."""
    pages = {None: "abd", "c": "def", "d": "efg", "f": "ghi", "i": "jkl", "l": "mcn", "n": "o"}

    async def fetch(cursor: str | None) -> Page[ContainerFile]:
        await trio.sleep(CALL_S)
        items = tuple(file(each, each) for each in pages[cursor])
        return Page(items=items, has_more=cursor != "n", cursor=items[-1].id)

    listing = await walk(fetch, pages_max=50, marks=["c", "f", "i", "l"])

    assert sorted(ids_of(listing)) == list("abcdefghijklmno")


async def test_a_page_ahead_that_fails_is_the_failure_of_the_walk(
    autojump_clock: trio.testing.MockClock,
) -> None:
    container = Container(12)

    async def fetch(cursor: str | None) -> Page[ContainerFile]:
        if cursor == "5":
            raise errors.RemoteUnavailableError("down")
        return await container(cursor)

    with pytest.raises(errors.RemoteUnavailableError):
        await walk(fetch, pages_max=50, marks=["2", "5", "8"])


async def test_a_walk_that_fails_leaves_no_page_under_way(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def fetch(cursor: str | None) -> Page[ContainerFile]:
        if cursor is not None:
            await trio.sleep(1000)
        raise errors.RemoteUnavailableError("down")

    with pytest.raises(errors.RemoteUnavailableError):
        await walk(fetch, pages_max=50, marks=["2", "5", "8"])

    assert trio.current_time() < 1


async def test_no_more_pages_are_under_way_than_leave_room_for_readers(
    autojump_clock: trio.testing.MockClock,
) -> None:
    container = Container(300)

    await walked(container, marks_of(container.ids()))

    at_once = [sum(abs(when - each) < CALL_S / 2 for _, each in container.cursors)
               for _, when in container.cursors]  # fmt: skip
    assert max(at_once) <= AHEAD_AT_ONCE + 1


@dataclass(frozen=True, slots=True)
class Happening:
    """Something that another program does while the walk lasts."""

    kind: str
    number: int
    at_s: float


moments = st.floats(min_value=-0.5, max_value=6.0)
happenings = st.builds(
    Happening,
    kind=st.sampled_from(["add", "remove", "replace"]),
    number=st.integers(min_value=0, max_value=30),
    at_s=moments,
)


@settings(max_examples=500, deadline=None)
@given(
    files=st.integers(min_value=0, max_value=24),
    known=st.integers(min_value=0, max_value=24),
    cut=st.integers(min_value=0, max_value=24),
    forgotten=st.sets(st.integers(min_value=0, max_value=24), max_size=4),
    forgets_cursors=st.booleans(),
    delays_s=st.lists(st.floats(min_value=0.1, max_value=2.0), min_size=1, max_size=7),
    happened=st.lists(happenings, max_size=6),
)
def test_whatever_happens_meanwhile_what_was_there_all_the_time_is_listed_once(
    *,
    files: int,
    known: int,
    cut: int,
    forgotten: set[int],
    forgets_cursors: bool,
    delays_s: list[float],
    happened: list[Happening],
) -> None:
    container = Container(files, forgets_cursors=forgets_cursors)
    container.delays_s = delays_s
    ids = [each for number, each in enumerate(container.ids()[:known]) if number not in forgotten]
    marks = marks_of(ids)
    for row in container.rows[cut:]:
        row.until_s = -0.5
    play(container, sorted(happened, key=lambda each: each.at_s))

    async def timed() -> tuple[Listing[ContainerFile], float]:
        listing = await walked(container, marks)
        return listing, trio.current_time()

    listing, end_s = trio.run(timed, clock=trio.testing.MockClock(autojump_threshold=0))

    shown = ids_of(listing)
    assert len(shown) == len(set(shown))
    all_the_time = {
        row.file.id for row in container.rows if row.since_s <= 0 and row.until_s > end_s
    }
    at_some_time = {
        row.file.id for row in container.rows if row.since_s <= end_s and row.until_s > 0
    }
    assert all_the_time <= set(shown) <= at_some_time
    shown_names = {item.path for item in listing.items}
    assert names_all_the_time(container, end_s) <= shown_names


def play(container: Container, happened: Sequence[Happening]) -> None:
    for each in happened:
        if each.kind == "add" or not container.rows:
            name = f"added{len(container.rows)}"
            container.rows.append(Row(file(name, name), since_s=each.at_s))
            continue
        number = each.number % len(container.rows)
        row = container.rows[number]
        if not row.is_there(each.at_s):
            continue
        if each.kind == "remove":
            row.until_s = each.at_s
        else:
            container.replace(number, at_s=each.at_s)


def names_all_the_time(container: Container, end_s: float) -> set[str]:
    """Return the names that some row had at each moment from 0 to ``end_s``."""
    found: set[str] = set()
    for name in {row.file.path for row in container.rows}:
        rows = [row for row in container.rows if row.file.path == name]
        edges = [0.0, end_s, *(row.until_s for row in rows if 0 <= row.until_s <= end_s)]
        if all(any(row.is_there(edge) for row in rows) for edge in edges):
            found.add(name)
    return found
