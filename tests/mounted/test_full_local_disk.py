"""The spool on a disk that is really full: a tmpfs of one MiB."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ctrfs.disk.content_cache import CachedCopy, ContentCache
from ctrfs.disk.extents import Extents
from ctrfs.disk.spool import SpoolDirectory
from ctrfs.errors import LocalDiskFullError
from ctrfs.units import GIB, KIB, MIB

pytestmark = pytest.mark.mounted


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("only root can mount a tmpfs")
    point = tmp_path / "disk"
    point.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "ctrfs-test", point], check=True)
    yield point
    subprocess.run(["umount", point], check=True)


def test_a_write_on_a_full_disk_leaves_length_and_other_bytes(small_disk: Path) -> None:
    spool = SpoolDirectory(small_disk, bytes_max=GIB)
    file = spool.create()
    file.pwrite(0, b"a" * 900 * KIB)

    with pytest.raises(LocalDiskFullError):
        file.pwrite(900 * KIB, b"b" * MIB)

    assert file.size_bytes == 900 * KIB
    assert b"".join(file.pieces()) == b"a" * 900 * KIB
    file.pwrite(900 * KIB, b"c" * 4 * KIB)
    spool.check_invariants()
    spool.close()


def test_the_cache_is_given_up_before_a_full_disk_is_reported(small_disk: Path) -> None:
    (small_disk / "spool").mkdir()
    (small_disk / "cache").mkdir()
    spool = SpoolDirectory(small_disk / "spool", bytes_max=GIB)
    cache = ContentCache(small_disk / "cache", spool, bytes_max=GIB)
    spool.reclaim = cache.give_up
    copy = spool.create()
    copy.pwrite(0, b"a" * 800 * KIB)
    extents = Extents([(0, 800 * KIB)])
    cache.put(("a",), CachedCopy(spool_file=copy, extents=extents, digest=None, is_complete=True))
    file = spool.create()

    file.pwrite(0, b"b" * 800 * KIB)

    assert cache.take(("a",)) is None
    assert b"".join(file.pieces()) == b"b" * 800 * KIB
    spool.close()
