"""Locks by key that exist only while somebody holds or awaits them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Generic, TypeVar

import trio

from ctrfs import deadlines
from ctrfs.errors import RemoteStalledError

K = TypeVar("K", int, str, tuple[int, bytes])


class KeyedLock(Generic[K]):
    """One mutual exclusion a key, fair, without a table that grows.

    Invariant: a key is in ``_locks`` exactly while a task holds it or waits for it.
    """

    def __init__(self) -> None:
        self._locks: dict[K, _CountedLock] = {}

    @asynccontextmanager
    async def hold(self, *keys: K) -> AsyncIterator[None]:
        """Hold all ``keys``, taken in sorted order so that two holders cannot deadlock.

        Waits for current holders, at most until the request under way must end
        (``deadlines``). Cancelling the wait gives back what was taken.

        Raises:
            RemoteStalledError: A holder, which waits for the service, has not ended in time.
        """
        async with AsyncExitStack() as stack:
            for key in sorted(set(keys)):
                await stack.enter_async_context(self._hold_one(key))
            yield

    @asynccontextmanager
    async def _hold_one(self, key: K) -> AsyncIterator[None]:
        lock = self._locks.setdefault(key, _CountedLock())
        lock.users += 1
        try:
            await _take(lock.lock)
            try:
                yield
            finally:
                lock.lock.release()
        finally:
            lock.users -= 1
            if lock.users == 0:
                del self._locks[key]


async def _take(lock: trio.Lock) -> None:
    if not lock.locked():
        await lock.acquire()
        return
    with trio.move_on_after(deadlines.remaining_s()) as patience:
        await lock.acquire()
    if patience.cancelled_caught:
        raise RemoteStalledError("another request on the same entry did not end in time")


class _CountedLock:
    __slots__ = ("lock", "users")

    def __init__(self) -> None:
        self.lock = trio.Lock()
        self.users = 0
