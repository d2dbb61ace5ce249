"""The walk over all pages of a listing.

Rows may come and go while it lasts. Asked oldest first, what is added meanwhile lands behind
the cursor and is seen; if the row that is the cursor goes, the walk starts again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from itertools import pairwise
from typing import Final, TypeVar

from ctrfs import errors
from ctrfs.api.models import Container, ContainerFile, Listing, Page, RejectedRow

PAGE_LIMIT: Final = 100  # the most that the service gives
RESTARTS_MAX: Final = 3

ModelT = TypeVar("ModelT", Container, ContainerFile)

FetchPage = Callable[[str | None], Awaitable[Page[ModelT]]]


class _CursorGoneError(Exception):
    """The row that the cursor names is not there any more."""


async def walk(fetch_page: FetchPage[ModelT], *, pages_max: int) -> Listing[ModelT]:
    """Return all rows, oldest first, each id once.

    Cancelling ends the walk and keeps nothing.

    Args:
        fetch_page: Fetches the page behind a cursor, or the first one for None.
        pages_max: More pages than that, restarts included, are a broken server.

    Raises:
        RemoteProtocolError: The pages do not end or go in a circle.
        RemoteError: Whatever ``fetch_page`` raises for the first page.
    """
    budget = _PageBudget(pages_max)
    for restart in range(RESTARTS_MAX + 1):
        try:
            return await _walk_once(fetch_page, budget)
        except _CursorGoneError as error:
            if restart == RESTARTS_MAX and error.__cause__ is not None:
                raise error.__cause__ from None
    raise AssertionError("the last restart returns or raises")


async def _walk_once(fetch_page: FetchPage[ModelT], budget: _PageBudget) -> Listing[ModelT]:
    items: dict[str, ModelT] = {}
    rejected: list[RejectedRow] = []
    cursors: set[str] = set()
    cursor: str | None = None
    while True:
        budget.spend()
        try:
            page = await fetch_page(cursor)
        except (errors.RemoteNotFoundError, errors.RemoteInvalidError) as error:
            if cursor is None:
                raise
            raise _CursorGoneError from error
        for item in page.items:
            items.setdefault(item.id, item)
        rejected += page.rejected
        if not page.has_more:
            return Listing(items=oldest_first(tuple(items.values())), rejected=tuple(rejected))
        if page.cursor is None:
            raise errors.RemoteProtocolError("a listing has more pages but no cursor to them")
        if page.cursor in cursors:
            raise errors.RemoteProtocolError("a listing goes in a circle: its cursor came again")
        cursor = page.cursor
        cursors.add(cursor)


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
