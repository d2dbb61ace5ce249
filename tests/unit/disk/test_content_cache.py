from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ctrfs.disk.content_cache import CachedCopy, ContentCache
from ctrfs.disk.extents import Extents
from ctrfs.disk.spool import SpoolDirectory
from ctrfs.errors import LocalDiskFullError
from ctrfs.units import KIB


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[SpoolDirectory]:
    spool = SpoolDirectory(tmp_path, bytes_max=32 * KIB)
    yield spool
    spool.check_invariants()
    spool.close()


def filled(spool: SpoolDirectory, size: int) -> CachedCopy:
    file = spool.create()
    file.pwrite(0, bytes(size))
    return CachedCopy(spool_file=file, extents=Extents([(0, size)]), digest=None, is_complete=True)


def test_a_copy_is_taken_out_once(spool: SpoolDirectory) -> None:
    cache = ContentCache(16 * KIB)
    file = filled(spool, 10)

    cache.put("a", file)

    assert cache.take("a") is file
    assert cache.take("a") is None


def test_the_copy_put_longest_ago_is_deleted_first(spool: SpoolDirectory) -> None:
    cache = ContentCache(16 * KIB)
    for key in ("a", "b", "c"):
        cache.put(key, filled(spool, 8 * KIB))

    assert cache.take("a") is None
    assert spool.bytes_used == cache.bytes_used == 16 * KIB


def test_a_copy_larger_than_the_cache_is_deleted(spool: SpoolDirectory) -> None:
    cache = ContentCache(4 * KIB)
    cache.put("a", filled(spool, 8 * KIB))

    assert cache.take("a") is None
    assert spool.bytes_used == 0


def test_a_second_copy_of_the_same_bytes_replaces_the_first(spool: SpoolDirectory) -> None:
    cache = ContentCache(16 * KIB)
    cache.put("a", filled(spool, 10))
    second = filled(spool, 10)
    cache.put("a", second)

    assert cache.take("a") is second
    assert spool.bytes_used == 4 * KIB


def test_no_more_is_given_up_than_needed(spool: SpoolDirectory) -> None:
    cache = ContentCache(32 * KIB)
    for key in ("a", "b", "c"):
        cache.put(key, filled(spool, 8 * KIB))

    cache.give_up(9 * KIB)

    assert cache.take("b") is None
    assert cache.take("c") is not None


def test_the_cache_makes_room_for_a_write(spool: SpoolDirectory) -> None:
    cache = ContentCache(32 * KIB)
    spool.reclaim = cache.give_up
    cache.put("a", filled(spool, 32 * KIB))
    file = spool.create()

    file.pwrite(0, bytes(32 * KIB))

    assert cache.take("a") is None
    with pytest.raises(LocalDiskFullError):
        file.pwrite(32 * KIB, b"x")
