"""The walk over all pages of a listing.

Rows may come and go while it lasts. Asked oldest first, what is added meanwhile lands behind
the cursor and is seen; if the row that is the cursor goes, the walk starts again.

A page is named by the row before it, so the pages of an unknown listing can only be asked for
one after another. Rows that an earlier walk has met lead to many pages at once
(``_PagesAhead``). The walk takes such a page only if it begins behind a row of the page before
it, or holds the last row of that, so nothing lies between unseen; and it asks for the end last.
A program that replaces a file adds the new row before it removes the old one; an end that was
read before the old row's page would show neither.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from itertools import pairwise
from typing import Final, Generic, TypeVar

import msgspec
import trio

from ctrfs import errors
from ctrfs.api.models import Container, ContainerFile, Listing, Page, RejectedRow

PAGE_LIMIT: Final = 100  # the most that the service gives
RESTARTS_MAX: Final = 3
# Half of the requests that are let through at first: the other half is for those who read and
# write while 10,000 rows are on their way.
AHEAD_AT_ONCE: Final = 8

ModelT = TypeVar("ModelT", Container, ContainerFile)

FetchPage = Callable[[str | None], Awaitable[Page[ModelT]]]


class _CursorGoneError(Exception):
    """The row that the cursor names is not there any more, or not in its place."""


def marks_among(ids: Sequence[str]) -> list[str]:
    """Return the ids behind which the pages of a listing of ``ids``, oldest first, begin."""
    return list(ids[PAGE_LIMIT - 1 : -1 : PAGE_LIMIT])


async def walk(
    fetch_page: FetchPage[ModelT], *, pages_max: int, marks: Sequence[str] = ()
) -> Listing[ModelT]:
    """Return all rows, oldest first, each id once.

    Cancelling ends the walk and keeps nothing.

    Args:
        fetch_page: Fetches the page behind a cursor, or the first one for None.
        pages_max: More pages than that, restarts included, are a broken server.
        marks: Rows behind which pages are expected to begin, oldest first; only a hint.

    Raises:
        RemoteProtocolError: The pages do not end or go in a circle.
        RemoteError: Whatever ``fetch_page`` raises for the first page.
    """
    budget = _PageBudget(pages_max)
    try:
        # Behind the last mark is the end, which is asked for last.
        return await _walk_with_pages_ahead(fetch_page, budget, marks[:-1][:pages_max])
    except _CursorGoneError as error:
        gone = error
    for _ in range(RESTARTS_MAX):
        try:
            return await _walk_once(fetch_page, budget, _PagesAhead(fetch_page, ()))
        except _CursorGoneError as error:
            gone = error
    assert gone.__cause__ is not None
    raise gone.__cause__


async def _walk_with_pages_ahead(
    fetch_page: FetchPage[ModelT], budget: _PageBudget, marks: Sequence[str]
) -> Listing[ModelT]:
    ahead = _PagesAhead(fetch_page, marks)
    failure: errors.RemoteError | _CursorGoneError
    async with trio.open_nursery() as nursery:
        for _ in range(min(AHEAD_AT_ONCE, len(marks))):
            nursery.start_soon(ahead.ask)
        try:
            return await _walk_once(fetch_page, budget, ahead)
        except (errors.RemoteError, _CursorGoneError) as error:
            failure = error  # the nursery would wrap it
        finally:
            nursery.cancel_scope.cancel()
    raise failure


async def _walk_once(
    fetch_page: FetchPage[ModelT], budget: _PageBudget, ahead: _PagesAhead[ModelT]
) -> Listing[ModelT]:
    rows = _Rows[ModelT]()
    cursors: set[str] = set()
    cursor: str | None = None
    early: _EarlyPage[ModelT] | None = None
    while True:
        budget.spend()
        page = await _page_behind(cursor, fetch_page) if early is None else early.page
        rows.add(page)
        if not page.has_more and early is None:
            return rows.listing()
        next_early = await ahead.page_after(page)
        if next_early is not None:
            early, cursor = next_early, next_early.mark
            rows.will_overlap = cursor != page.cursor
        elif early is not None and page.cursor is None:
            early = None  # nothing was behind its mark: asked again, as the end that it may be
            continue
        elif page.cursor is None:
            raise errors.RemoteProtocolError("a listing has more pages but no cursor to them")
        else:
            early, cursor = None, page.cursor
        if cursor in cursors:
            circle = errors.RemoteProtocolError("a listing goes in a circle: its cursor came again")
            if ahead.is_used:  # rows may have moved since the earlier walk
                raise _CursorGoneError from circle
            raise circle
        cursors.add(cursor)


async def _page_behind(cursor: str | None, fetch_page: FetchPage[ModelT]) -> Page[ModelT]:
    try:
        return await fetch_page(cursor)
    except (errors.RemoteNotFoundError, errors.RemoteInvalidError) as error:
        if cursor is None:
            raise
        raise _CursorGoneError from error


class _Rows(Generic[ModelT]):
    """What the walk has met so far.

    Attributes:
        will_overlap: Whether the next page repeats some of the last one.
    """

    def __init__(self) -> None:
        self._items: dict[str, ModelT] = {}
        self._rejected: list[RejectedRow] = []
        self.will_overlap = False

    def add(self, page: Page[ModelT]) -> None:
        for item in page.items:
            self._items.setdefault(item.id, item)
        known = self._rejected if self.will_overlap else ()
        self._rejected += [row for row in page.rejected if row not in known]
        self.will_overlap = False

    def listing(self) -> Listing[ModelT]:
        return Listing(
            items=oldest_first(tuple(self._items.values())), rejected=tuple(self._rejected)
        )


class _EarlyPage(msgspec.Struct, Generic[ModelT], frozen=True):
    """A page that was asked for before the walk had come to its mark."""

    mark: str
    page: Page[ModelT]


class _PagesAhead(Generic[ModelT]):
    """Pages that are asked for before the walk comes to them.

    Invariant: each lies behind a later mark than the one given out before it, so that a row
    which has moved cannot lead the walk back for ever.
    """

    def __init__(self, fetch_page: FetchPage[ModelT], marks: Sequence[str]) -> None:
        self._fetch_page: FetchPage[ModelT] = fetch_page
        self._marks = list(dict.fromkeys(marks))
        self._unasked = self._marks[::-1]
        self._answered = {mark: trio.Event() for mark in self._marks}
        self._pages: dict[str, Page[ModelT]] = {}
        self._failures: dict[str, errors.RemoteError] = {}
        self._next_place = 0

    @property
    def is_used(self) -> bool:
        """Whether the walk has taken a page from here."""
        return self._next_place > 0

    async def ask(self) -> None:
        """Ask for one page after the other, until all have been; several of these run at once."""
        while self._unasked:
            mark = self._unasked.pop()
            try:
                self._pages[mark] = await self._fetch_page(mark)
            except (errors.RemoteNotFoundError, errors.RemoteInvalidError):
                pass  # the row is gone; the walk finds its way by others
            except errors.RemoteError as error:
                self._failures[mark] = error
            self._answered[mark].set()

    async def page_after(self, page: Page[ModelT]) -> _EarlyPage[ModelT] | None:
        """Return the page that goes on furthest behind ``page``, waiting for it; None without one.

        Raises:
            RemoteError: Asking for it has failed.
        """
        ids = {row.id for row in page.items}
        last_id = page.items[-1].id if page.items else None
        found: int | None = None
        for place in range(self._next_place, len(self._marks)):
            mark = self._marks[place]
            await self._answered[mark].wait()
            if mark in ids and mark in self._failures:
                raise self._failures[mark]
            early = self._pages.get(mark)
            if early is None:
                continue
            # A mark that others have removed is met by nobody, but its page may hold our last row.
            if mark not in ids and all(row.id != last_id for row in early.items):
                break
            found = place
            if mark == last_id:
                break  # nothing can go on further
        if found is None:
            return None
        self._next_place = found + 1
        return _EarlyPage(self._marks[found], self._pages.pop(self._marks[found]))


def oldest_first(items: tuple[ModelT, ...]) -> tuple[ModelT, ...]:
    """Return ``items`` by creation, whichever way the server sent them.

    Times are whole seconds, so within one the server's own order counts: "the newest wins"
    depends on it. A server that ignored the order asked for sends all of it backwards.
    """
    pairs = [(earlier.created_at_s, later.created_at_s) for earlier, later in pairwise(items)]
    falling = sum(earlier > later for earlier, later in pairs)
    rising = sum(earlier < later for earlier, later in pairs)
    if falling == 0:
        return items
    in_order = items[::-1] if falling > rising else items
    return tuple(sorted(in_order, key=lambda item: item.created_at_s))


class _PageBudget:
    def __init__(self, pages_max: int) -> None:
        self._pages_max = pages_max
        self._pages = 0

    def spend(self) -> None:
        self._pages += 1
        if self._pages > self._pages_max:
            raise errors.RemoteProtocolError(f"a listing has more than {self._pages_max} pages")
