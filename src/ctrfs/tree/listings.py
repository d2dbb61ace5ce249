"""How old each listing is, and one fetch at a time of each.

The entries themselves are kept in the tree; this says whether they may be believed.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final, NewType

import trio
from cachetools import TTLCache

from ctrfs import deadlines, errands
from ctrfs.clock import Clock
from ctrfs.config import TreeConfig
from ctrfs.errors import CtrfsError, RemoteStalledError
from ctrfs.single_flight import SingleFlight

log = logging.getLogger(__name__)

ListingKey = NewType("ListingKey", str)
"""A container's id, or ``ROOT_LISTING``."""

ROOT_LISTING: Final = ListingKey("")
# What a reader was told of a silent service goes for those, too, whom the kernel has let wait
# behind that reader: it sends the lookups of one directory one after another, and each would
# wait as long again. They come within milliseconds.
FAILURE_LASTS_S: Final = 1.0
# After a refresh behind a reader's back has failed, the next waits this long: the readers are
# served from what is known, and a dead server is not asked at each lookup.
REFRESH_PAUSE_S: Final = 5.0


class ListingCache:
    """The age of each listing, from when it was asked for.

    Invariant: a listing counts as fresh for ``ttl_s`` and as known for ``max_stale_s``.
    """

    def __init__(
        self,
        fetch: Callable[[ListingKey], Awaitable[None]],
        *,
        clock: Clock,
        config: TreeConfig,
        nursery: trio.Nursery,
    ) -> None:
        """Fetches run in ``nursery``; ``fetch`` lays what it got over the tree."""
        self._fetch = fetch
        self._clock = clock
        self._ttl_s = config.ttl_s
        self._max_stale_s = config.max_stale_s
        self._wait_max_s = config.listing_wait_max_s
        self._nursery = nursery
        self._flights: SingleFlight[ListingKey, None] = SingleFlight(self._fly, nursery=nursery)
        self._started: TTLCache[ListingKey, float] = TTLCache(
            maxsize=config.listings_max, ttl=config.max_stale_s, timer=clock.monotonic_s
        )
        self._behind: set[ListingKey] = set()
        # With an end of their own, as nobody may ever ask for those listings again.
        self._paused: TTLCache[ListingKey, None] = TTLCache(
            maxsize=config.listings_max, ttl=REFRESH_PAUSE_S, timer=clock.monotonic_s
        )
        self._failures: TTLCache[ListingKey, RemoteStalledError] = TTLCache(
            maxsize=config.listings_max, ttl=FAILURE_LASTS_S, timer=clock.monotonic_s
        )

    def age_s(self, key: ListingKey) -> float | None:
        """Return how old the listing is; None when it is unknown or too old for anything."""
        started_s = self._started.get(key)
        if started_s is None:
            return None
        # The cache counts from when the answer came, which may be long after the question.
        age_s = self._clock.monotonic_s() - started_s
        return age_s if age_s < self._max_stale_s else None

    def is_fresh(self, key: ListingKey) -> bool:
        """Tell whether the listing answers everything without a request."""
        age_s = self.age_s(key)
        return age_s is not None and age_s < self._ttl_s

    def is_known(self, key: ListingKey) -> bool:
        """Tell whether an entry of the listing may still be shown without waiting."""
        return self.age_s(key) is not None

    def known_keys(self) -> list[ListingKey]:
        """Return the listings that ``is_known`` is true of."""
        return [key for key in list(self._started) if self.is_known(key)]

    async def freshen(self, key: ListingKey) -> None:
        """Return once the listing is fresh; waits for a request if it is not.

        Each page has the time of one call, so that the wait ends soon after the last page that
        comes; a walk over many takes longer than other calls, ``listing_wait_max_s`` at most.
        Cancelling the wait leaves the request running for others, as does its end.

        Raises:
            RemoteStalledError: It takes too long; the next reader joins the walk.
            RemoteError: The service did not give the listing.
        """
        if self.is_fresh(key):
            return
        error = self._failures.get(key)
        if error is not None:
            raise error
        with self._in_time():
            await self._flights.get(key)

    async def refetch(self, key: ListingKey) -> None:
        """Return once a listing asked for after this call has arrived; raises as ``freshen``."""
        with self._in_time():
            if self._flights.is_under_way(key):
                # The service may have answered that one before this call was made.
                with suppress(CtrfsError):
                    await self._flights.get(key)
            await self._flights.get(key)

    def refresh_behind(self, key: ListingKey) -> None:
        """Begin to fetch the listing, unless that is under way or has just failed."""
        if key in self._behind or key in self._paused:
            return
        self._behind.add(key)
        with deadlines.none():
            self._nursery.start_soon(self._refresh, key, name=f"refresh {key or 'containers'}")

    def forget(self, key: ListingKey) -> None:
        """Let the next reader fetch the listing anew."""
        self._started.pop(key, None)
        self._failures.pop(key, None)

    def put(self, key: ListingKey, *, started_s: float) -> None:
        """Take note of a listing that was asked for at ``started_s``."""
        self._started[key] = started_s
        self._paused.pop(key, None)

    @contextmanager
    def _in_time(self) -> Iterator[None]:
        with trio.move_on_after(self._wait_max_s) as patience:
            yield
        if patience.cancelled_caught:
            raise RemoteStalledError(f"a listing did not end within {self._wait_max_s:g} s")

    async def _refresh(self, key: ListingKey) -> None:
        try:
            await self._flights.get(key)
        except CtrfsError as error:
            log.info("refreshing the listing of %s failed: %s", key or "containers", error)
            self._paused[key] = None
        except Exception:
            # Nobody waits for this one to be told, and a bug met here must not end the mount.
            log.exception("refreshing the listing of %s: unexpected failure", key or "containers")
            self._paused[key] = None
        finally:
            self._behind.discard(key)

    async def _fly(self, key: ListingKey) -> None:
        started_s = self._clock.monotonic_s()
        is_errand = errands.unwanted() is not None
        self._failures.pop(key, None)
        try:
            await self._fetch(key)
        except RemoteStalledError as error:
            # What was begun on an errand was not tried again, but a reader's fetch would be.
            if not is_errand:
                self._failures[key] = error
            raise
        # A walk over many pages may take longer than the listing lasts. What it brought is good
        # for half the time at least, or a large container would be listed at every look.
        self.put(key, started_s=max(started_s, self._clock.monotonic_s() - self._ttl_s / 2))
