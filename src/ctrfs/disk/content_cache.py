"""Complete clean copies, kept after the last close for as long as the mount lives."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final

from cachetools import LRUCache
from typing_extensions import override

from ctrfs.disk.spool import SpoolFile

# An empty file takes no block, but a name and a row here; it must not be for nothing.
_ENTRY_BYTES_MIN: Final = 4096


class ContentCache:
    """Spool files by content identity, least recently put given up first.

    Owner: of every file put here, until ``take`` gives it back; evicted files are deleted.
    A file that is open is not in the cache, and so cannot be evicted.
    """

    def __init__(self, bytes_max: int) -> None:
        self._files = _DeletingCache(bytes_max)

    @property
    def bytes_used(self) -> int:
        """How many bytes the cache counts, at least 4 KiB a file."""
        return int(self._files.currsize)

    def put(self, identity_key: Hashable, spool_file: SpoolFile, size: int) -> None:
        """Keep the ``size`` bytes of ``spool_file`` under ``identity_key``, or delete them."""
        self.drop(identity_key)
        assert spool_file.size_bytes == size, "only complete copies are kept"
        spool_file.rest()
        if _cost(spool_file) > self._files.maxsize:
            spool_file.delete()
        else:
            self._files[identity_key] = spool_file

    def take(self, identity_key: Hashable) -> SpoolFile | None:
        """Return the copy of ``identity_key``, which then is the caller's; None without one."""
        return self._files.pop(identity_key, None)

    def drop(self, identity_key: Hashable) -> None:
        """Delete the copy of ``identity_key``, if there is one."""
        spool_file = self.take(identity_key)
        if spool_file is not None:
            spool_file.delete()

    def give_up(self, needed_bytes: int) -> None:
        """Delete the oldest copies until ``needed_bytes`` are freed, or all are gone."""
        goal = self._files.deleted_bytes + needed_bytes
        while self._files and self._files.deleted_bytes < goal:
            self._files.popitem()

    def clear(self) -> None:
        """Delete all copies."""
        while self._files:
            self._files.popitem()


class _DeletingCache(LRUCache[Hashable, SpoolFile]):
    """Deletes what it evicts.

    Attributes:
        deleted_bytes: How many bytes of disk evictions have given back so far.
    """

    def __init__(self, bytes_max: int) -> None:
        super().__init__(bytes_max, getsizeof=_cost)
        self.deleted_bytes = 0

    @override
    def popitem(self) -> tuple[Hashable, SpoolFile]:
        key, spool_file = super().popitem()
        self.deleted_bytes += spool_file.allocated_bytes
        spool_file.delete()
        return key, spool_file


def _cost(spool_file: SpoolFile) -> int:
    return max(spool_file.allocated_bytes, _ENTRY_BYTES_MIN)
