"""Copies that two mounts of a source give to the cache that they share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from ctrfs.api.models import ContainerId, FileId
from ctrfs.content.closed_copies import ClosedCopies
from ctrfs.content.identity import CacheKey
from ctrfs.disk.content_cache import CachedCopy, ContentCache
from ctrfs.disk.extents import Extents
from ctrfs.disk.spool import SpoolDirectory
from ctrfs.units import KIB, MIB

KEY: Final[CacheKey] = (ContainerId("cntr_1"), FileId("cfile_1"), None, 17)


class Side:
    """One mount's half: its spool, and its view of the cache."""

    def __init__(self, top: Path, name: str) -> None:
        (top / "cache").mkdir(mode=0o700, exist_ok=True)
        (top / name).mkdir()
        self.spool = SpoolDirectory(top / name, bytes_max=64 * MIB)
        self.cache = ContentCache(top / "cache", self.spool, bytes_max=64 * MIB)
        self.copies = ClosedCopies(self.cache)

    def put(self, there_bytes: int, *, is_complete: bool) -> None:
        """Close a file of which so many bytes are there."""
        spool_file = self.spool.create()
        spool_file.pwrite(0, b"x" * there_bytes)
        copy = CachedCopy(
            spool_file=spool_file,
            extents=Extents([(0, there_bytes)]),
            digest=None,
            is_complete=is_complete,
        )
        self.copies.put(KEY, copy)


@pytest.fixture
def side(tmp_path: Path) -> Iterator[Side]:
    side = Side(tmp_path, "spool")
    yield side
    side.spool.check_invariants()
    side.spool.close()


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Side]:
    """Another mount of the same source."""
    other = Side(tmp_path, "other spool")
    yield other
    other.spool.check_invariants()
    other.spool.close()


@pytest.mark.parametrize(
    ("part_bytes", "whole_bytes"),
    [(1 * KIB, 2 * KIB), (5 * KIB, 4 * MIB), (2 * MIB, 4 * MIB)],
    ids=["of-one-block", "put-at-once", "summed-up-later"],
)
def test_a_part_of_a_file_leaves_the_whole_that_another_mount_has_put(
    side: Side, other: Side, part_bytes: int, whole_bytes: int
) -> None:
    side.put(whole_bytes, is_complete=True)
    side.copies.finish()

    other.put(part_bytes, is_complete=False)
    other.copies.finish()

    copy = side.copies.take(KEY)
    assert copy is not None
    assert copy.is_complete


def test_a_whole_file_takes_the_place_of_the_part_that_another_mount_has_put(
    side: Side, other: Side
) -> None:
    side.put(2 * MIB, is_complete=False)
    side.copies.finish()

    other.put(4 * MIB, is_complete=True)
    other.copies.finish()

    copy = side.copies.take(KEY)
    assert copy is not None
    assert copy.is_complete


def test_what_has_lost_its_place_to_another_copy_does_not_count_as_used(side: Side) -> None:
    side.put(2 * MIB, is_complete=False)
    side.copies.finish()
    side.put(4 * MIB, is_complete=True)
    side.copies.finish()

    used_bytes = side.cache.bytes_used

    side.cache.tidy()
    assert side.cache.bytes_used == used_bytes


def test_a_copy_takes_the_place_of_one_that_still_waits(side: Side) -> None:
    side.put(2 * MIB, is_complete=False)

    side.put(4 * MIB, is_complete=True)

    assert side.copies.waiting_bytes == 4 * MIB
    assert side.spool.bytes_used == 4 * MIB
