"""Complete clean copies, kept after the last close for as long as the mount lives."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Final

from cachetools import LRUCache
from typing_extensions import override

from ctrfs.disk.extents import Extents
from ctrfs.disk.spool import SpoolFile

# An empty file takes no block, but a name and a row here; it must not be for nothing.
_ENTRY_BYTES_MIN: Final = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedCopy:
    """The bytes of one version of a file, or some of them."""

    spool_file: SpoolFile
    extents: Extents
    """Which of the bytes are there."""
    digest: str | None
    """blake2b of all bytes, 32 hex digits; None where it is not known."""
    is_complete: bool
    """Whether all bytes are there, and were checked as a whole when the last one came."""


class ContentCache:
    """Spool files by content identity, least recently put given up first.

    Owner: of every file put here, until ``take`` gives it back; evicted files are deleted.
    A file that is open is not in the cache, and so cannot be evicted.
    """

    def __init__(self, bytes_max: int) -> None:
        self._files = _DeletingCache(bytes_max)

    def __contains__(self, identity_key: Hashable) -> bool:
        return identity_key in self._files

    @property
    def bytes_used(self) -> int:
        """How many bytes the cache counts, at least 4 KiB a file."""
        return int(self._files.currsize)

    def put(self, identity_key: Hashable, copy: CachedCopy) -> None:
        """Keep ``copy`` under ``identity_key``, or delete it."""
        self.drop(identity_key)
        copy.spool_file.rest()
        if not copy.is_complete or _cost(copy) > self._files.maxsize:
            copy.spool_file.delete()
        else:
            self._files[identity_key] = copy

    def take(self, identity_key: Hashable) -> CachedCopy | None:
        """Return the copy of ``identity_key``, which then is the caller's; None without one."""
        return self._files.pop(identity_key, None)

    def drop(self, identity_key: Hashable) -> None:
        """Delete the copy of ``identity_key``, if there is one."""
        copy = self.take(identity_key)
        if copy is not None:
            copy.spool_file.delete()

    def give_up(self, needed_bytes: int) -> None:
        """Delete the oldest copies until ``needed_bytes`` are freed, or all are gone."""
        goal = self._files.deleted_bytes + needed_bytes
        while self._files and self._files.deleted_bytes < goal:
            self._files.popitem()

    def clear(self) -> None:
        """Delete all copies."""
        while self._files:
            self._files.popitem()


class _DeletingCache(LRUCache[Hashable, CachedCopy]):
    """Deletes what it evicts.

    Attributes:
        deleted_bytes: How many bytes of disk evictions have given back so far.
    """

    def __init__(self, bytes_max: int) -> None:
        super().__init__(bytes_max, getsizeof=_cost)
        self.deleted_bytes = 0

    @override
    def popitem(self) -> tuple[Hashable, CachedCopy]:
        key, copy = super().popitem()
        self.deleted_bytes += copy.spool_file.allocated_bytes
        copy.spool_file.delete()
        return key, copy


def _cost(copy: CachedCopy) -> int:
    return max(copy.spool_file.allocated_bytes, _ENTRY_BYTES_MIN)
