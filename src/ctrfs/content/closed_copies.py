"""Copies between the last close and the cache: large ones are summed up in a thread first."""

from __future__ import annotations

from contextlib import suppress
from typing import Final

import trio
from msgspec.structs import replace

from ctrfs.content.identity import CacheKey
from ctrfs.disk.block_sums import fresh_bytes, sums_now
from ctrfs.disk.content_cache import CachedCopy, ContentCache
from ctrfs.errors import LocalDiskError
from ctrfs.units import MIB

# A MiB takes 0.3 ms, most of it reading; a hop to a thread and back 0.1.
_SUM_INLINE_MAX: Final = 1 * MIB
# Entries of earlier mounts are counted when nobody waits for the first listing any more.
_FIRST_LOOK_S: Final = 5.0
# How soon space that others have filled is noticed.
_LOOK_S: Final = 60.0


class ClosedCopies:
    """The cache as the store uses it. Everything but ``run`` is a plain ``def``.

    Owner: of the copies in ``_waiting``, which are not in the cache yet and are found all the same.
    """

    def __init__(self, cache: ContentCache) -> None:
        self._cache = cache
        self._waiting: dict[CacheKey, CachedCopy] = {}
        self._something_to_do = trio.Event()

    def __contains__(self, key: CacheKey) -> bool:
        """Tell whether there is a copy of ``key``, whole or not."""
        return key in self._waiting or key in self._cache

    @property
    def waiting_bytes(self) -> int:
        """How many bytes of the spool are copies that are not in the cache yet."""
        return sum(copy.spool_file.allocated_bytes for copy in self._waiting.values())

    async def run(self) -> None:
        """Sum up what waits, and keep the cache within its limits, until cancelled."""
        with trio.move_on_after(_FIRST_LOOK_S):
            await self._something_to_do.wait()
        while True:
            self._something_to_do = trio.Event()
            while self._waiting:
                await self._put_first()
            if self._cache.needs_tidying:
                await trio.to_thread.run_sync(self._cache.tidy)
            with trio.move_on_after(_LOOK_S):
                await self._something_to_do.wait()

    def take(self, key: CacheKey) -> CachedCopy | None:
        """Return the copy of ``key``, which then is the caller's alone; None without."""
        copy = self._waiting.pop(key, None)
        return self._cache.take(key) if copy is None else copy

    def put(self, key: CacheKey, copy: CachedCopy) -> None:
        """Keep ``copy`` under ``key`` for later mounts, now or soon.

        Unless it is a part, and another mount has put as much of the same bytes into the cache.
        """
        self._drop_waiting(key)
        is_cheap = fresh_bytes(copy.extents, copy.sums) <= _SUM_INLINE_MAX
        if is_cheap or not self._cache.has_place_for(copy):
            self._cache.put(key, copy)
            if not self._cache.needs_tidying:
                return
        else:
            copy.spool_file.rest()
            self._waiting[key] = copy
        self._something_to_do.set()

    def drop(self, key: CacheKey) -> None:
        """Delete the copy of ``key``, if there is one."""
        self._drop_waiting(key)
        self._cache.drop(key)

    def give_up(self, needed_bytes: int) -> None:
        """Delete copies, the oldest first, until ``needed_bytes`` are freed or all are gone."""
        freed = self._cache.give_up(needed_bytes)
        while self._waiting and freed < needed_bytes:
            copy = self._waiting.pop(next(iter(self._waiting)))
            freed += copy.spool_file.allocated_bytes
            copy.spool_file.delete()

    def finish(self) -> None:
        """Put what still waits into the cache, however long that takes: 0.3 s a GiB."""
        while self._waiting:
            key = next(iter(self._waiting))
            self._cache.put(key, self._waiting.pop(key))

    def _drop_waiting(self, key: CacheKey) -> None:
        copy = self._waiting.pop(key, None)
        if copy is not None:
            copy.spool_file.delete()

    async def _put_first(self) -> None:
        key, copy = next(iter(self._waiting.items()))
        sums = copy.sums
        with suppress(LocalDiskError), copy.spool_file.pinned():
            sums = await trio.to_thread.run_sync(sums_now, copy.spool_file, copy.extents, sums)
        if self._waiting.get(key) is copy:  # nobody has taken it meanwhile
            del self._waiting[key]
            # Without sums, because the disk failed, the cache fails likewise and gives it up.
            self._cache.put(key, replace(copy, sums=sums))
