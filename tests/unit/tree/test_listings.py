"""How old a listing may be, and that one fetch serves all who wait: docs/semantics.md, 8."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

from ctrfs import deadlines, errands
from ctrfs.clock import SystemClock
from ctrfs.config import TreeConfig
from ctrfs.errands import Errand
from ctrfs.errors import RemoteStalledError, RemoteUnavailableError
from ctrfs.tree.listings import FAILURE_LASTS_S, REFRESH_PAUSE_S, ListingCache, ListingKey

KEY = ListingKey("cntr_1")


class Fetches:
    """Fetches that take a second each, and fail while ``is_failing``."""

    def __init__(self, *, takes_s: float = 1) -> None:
        self.began_s: list[float] = []
        self._takes_s = takes_s
        self.is_failing = False

    async def __call__(self, _key: ListingKey) -> None:
        self.began_s.append(trio.current_time())
        await trio.sleep(self._takes_s)
        if self.is_failing:
            raise RemoteUnavailableError("down")


class BuggyFetches:
    """Fetches that fail as only a mistake of ours does."""

    def __init__(self) -> None:
        self.count = 0

    async def __call__(self, _key: ListingKey) -> None:
        self.count += 1
        await trio.lowlevel.checkpoint()
        raise AssertionError("a mistake of ours")


class SilentFetches:
    """Fetches that wait for a service that says nothing."""

    def __init__(self) -> None:
        self.count = 0

    async def __call__(self, _key: ListingKey) -> None:
        self.count += 1
        await trio.sleep(30)
        raise RemoteStalledError("no answer within 30 s")


def cache_of(
    fetches: Callable[[ListingKey], Awaitable[None]],
    nursery: trio.Nursery,
    *,
    ttl_s: float = 10.0,
    listings_max: int = 100,
) -> ListingCache:
    config = TreeConfig(ttl_s=ttl_s, max_stale_s=60.0, listings_max=listings_max)
    return ListingCache(fetches, clock=SystemClock(), config=config, nursery=nursery)


async def test_a_listing_is_fresh_for_the_ttl_from_when_it_was_asked_for(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    fetches = Fetches()
    listings = cache_of(fetches, nursery)

    await listings.freshen(KEY)
    assert listings.age_s(KEY) == 1.0
    await trio.sleep(8.9)
    assert listings.is_fresh(KEY)
    await listings.freshen(KEY)
    assert len(fetches.began_s) == 1
    await trio.sleep(0.1)
    assert not listings.is_fresh(KEY)
    await listings.freshen(KEY)
    assert len(fetches.began_s) == 2


async def test_a_listing_is_known_for_max_stale_and_then_forgotten(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    listings = cache_of(Fetches(), nursery)
    assert not listings.is_known(KEY)
    await listings.freshen(KEY)

    await trio.sleep(58.9)
    assert listings.is_known(KEY)
    await trio.sleep(0.2)
    assert not listings.is_known(KEY)
    assert listings.age_s(KEY) is None


async def test_callers_at_one_time_share_one_fetch(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    fetches = Fetches()
    listings = cache_of(fetches, nursery)

    async with trio.open_nursery() as callers:
        for _ in range(5):
            callers.start_soon(listings.freshen, KEY)
        listings.refresh_behind(KEY)

    assert len(fetches.began_s) == 1


async def test_a_refetch_is_never_answered_by_a_fetch_that_began_before_it(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    fetches = Fetches()
    listings = cache_of(fetches, nursery)
    nursery.start_soon(listings.freshen, KEY)
    await trio.sleep(0.5)

    asked_s = trio.current_time()
    await listings.refetch(KEY)

    assert fetches.began_s[-1] >= asked_s
    assert len(fetches.began_s) == 2


async def test_refetches_at_one_time_share_one_new_fetch(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    fetches = Fetches()
    listings = cache_of(fetches, nursery)
    nursery.start_soon(listings.freshen, KEY)
    await trio.sleep(0.5)

    async with trio.open_nursery() as callers:
        for _ in range(3):
            callers.start_soon(listings.refetch, KEY)

    assert len(fetches.began_s) == 2


async def test_a_refetch_looks_past_the_failure_of_an_earlier_fetch(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    fetches = Fetches()
    listings = cache_of(fetches, nursery)
    fetches.is_failing = True
    listings.refresh_behind(KEY)
    await trio.sleep(0.5)

    nursery.start_soon(listings.refetch, KEY)
    await trio.sleep(0.6)
    fetches.is_failing = False
    await trio.sleep(1)

    assert listings.is_fresh(KEY)


async def test_a_failed_fetch_is_raised_to_who_waits_and_not_remembered(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    fetches = Fetches()
    listings = cache_of(fetches, nursery)
    fetches.is_failing = True
    with pytest.raises(RemoteUnavailableError):
        await listings.freshen(KEY)
    assert not listings.is_known(KEY)

    fetches.is_failing = False
    await listings.freshen(KEY)

    assert listings.is_fresh(KEY)


async def test_a_failed_refresh_behind_readers_pauses_the_next(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    fetches = Fetches()
    listings = cache_of(fetches, nursery)
    fetches.is_failing = True
    listings.refresh_behind(KEY)
    await trio.sleep(1.5)

    listings.refresh_behind(KEY)
    await trio.sleep(1.5)
    assert len(fetches.began_s) == 1
    await trio.sleep(REFRESH_PAUSE_S)
    listings.refresh_behind(KEY)
    await trio.sleep(1.5)
    assert len(fetches.began_s) == 2


async def test_a_bug_met_behind_readers_ends_nothing_and_pauses_the_next(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """Nobody waits for it, so nobody else would catch it: the whole mount would end."""
    buggy = BuggyFetches()
    listings = ListingCache(buggy, clock=SystemClock(), config=TreeConfig(), nursery=nursery)

    listings.refresh_behind(KEY)
    await trio.sleep(0.5)
    listings.refresh_behind(KEY)
    await trio.sleep(0.5)
    assert buggy.count == 1
    await trio.sleep(REFRESH_PAUSE_S)
    listings.refresh_behind(KEY)
    await trio.sleep(0.5)

    assert buggy.count == 2
    assert not listings.is_known(KEY)


async def test_what_is_put_is_fresh_and_what_is_forgotten_is_not(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    listings = cache_of(Fetches(), nursery)

    listings.put(KEY, started_s=trio.current_time() - 3)
    assert listings.age_s(KEY) == 3.0
    listings.forget(KEY)

    assert not listings.is_known(KEY)


async def test_more_listings_than_the_limit_push_out_the_oldest(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    listings = cache_of(Fetches(), nursery, listings_max=2)

    for name in "abc":
        listings.put(ListingKey(name), started_s=trio.current_time())

    assert [listings.is_known(ListingKey(name)) for name in "abc"] == [False, True, True]


async def test_a_ttl_of_zero_asks_each_time(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    fetches = Fetches()
    listings = cache_of(fetches, nursery, ttl_s=0.0)

    for _ in range(3):
        await listings.freshen(KEY)

    assert len(fetches.began_s) == 3


async def test_a_wait_for_a_listing_ends_and_the_walk_goes_on_for_the_next_reader(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    fetches = Fetches(takes_s=500)
    listings = cache_of(fetches, nursery)

    with pytest.raises(RemoteStalledError), deadlines.within(30):
        await listings.freshen(KEY)
    assert trio.current_time() - fetches.began_s[0] == 300
    await listings.freshen(KEY)

    assert trio.current_time() - fetches.began_s[0] == 500
    assert len(fetches.began_s) == 1


async def test_a_fresh_listing_is_had_even_when_no_time_is_left(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    fetches = Fetches()
    listings = cache_of(fetches, nursery)
    await listings.freshen(KEY)

    with deadlines.within(0):
        await listings.freshen(KEY)

    assert len(fetches.began_s) == 1


async def test_readers_queued_behind_one_who_waited_in_vain_do_not_wait_as_long_again(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    fetches = SilentFetches()
    listings = cache_of(fetches, nursery)
    for _ in range(100):
        with pytest.raises(RemoteStalledError):
            await listings.freshen(KEY)
    assert fetches.count == 1
    await trio.sleep(FAILURE_LASTS_S)

    with pytest.raises(RemoteStalledError):
        await listings.freshen(KEY)

    assert fetches.count == 2


async def test_a_reader_is_not_told_that_an_errand_before_met_a_silent_service(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    fetches = SilentFetches()
    listings = cache_of(fetches, nursery)
    with errands.on(Errand()):
        listings.refresh_behind(KEY)
    await trio.sleep(30 + FAILURE_LASTS_S / 2)

    with pytest.raises(RemoteStalledError):
        await listings.freshen(KEY)

    assert fetches.count == 2


async def test_pauses_and_failures_take_no_more_room_than_listings(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """Those of a container that is gone nobody would ever take back."""
    listings = cache_of(SilentFetches(), nursery, listings_max=2)

    for name in "abc":
        listings.refresh_behind(ListingKey(name))
    await trio.sleep(31)

    assert len(listings._paused) == 2
    assert len(listings._failures) <= 2
    await trio.sleep(REFRESH_PAUSE_S)
    assert len(listings._paused) == 0
