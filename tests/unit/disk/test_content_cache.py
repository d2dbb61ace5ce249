from __future__ import annotations

import os
import random
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from ctrfs.disk import content_cache
from ctrfs.disk.block_sums import BLOCK_BYTES
from ctrfs.disk.content_cache import CachedCopy, ContentCache, IdentityKey, clear, measure
from ctrfs.disk.extents import Extents, Range
from ctrfs.disk.spool import SpoolDirectory
from ctrfs.errors import LocalDiskFullError
from ctrfs.units import GIB, KIB, MIB

KEY: Final[IdentityKey] = ("cntr_1", "cfile_1", 2_600_000, 17)
# Two blocks and a half.
CONTENT: Final = random.Random(1).randbytes(2_600_000)  # noqa: S311  # needs no secrecy


class Side:
    """One mount's half: its spool, and the cache that it shares with others."""

    def __init__(self, top: Path, name: str, **limits: int) -> None:
        self.path = top / "cache"
        self.path.mkdir(mode=0o700, exist_ok=True)
        (top / name).mkdir()
        self.spool = SpoolDirectory(top / name, bytes_max=GIB)
        self.cache = ContentCache(self.path, self.spool, **({"bytes_max": GIB} | limits))

    def put(
        self,
        key: IdentityKey = KEY,
        content: bytes = CONTENT,
        *,
        ranges: list[Range] | None = None,
    ) -> None:
        """Put ``content``, or only ``ranges`` of it."""
        file = self.spool.create()
        extents = Extents([(0, len(content))] if ranges is None else ranges)
        for start, end in extents:
            file.pwrite(start, content[start:end])
        self.cache.put(
            key,
            CachedCopy(
                spool_file=file, extents=extents, digest="d" * 32, is_complete=ranges is None
            ),
        )

    def entry(self) -> Path:
        """The file of the only entry."""
        (path,) = self.path.iterdir()
        return path

    def read(self, key: IdentityKey = KEY) -> bytes | None:
        """Take a copy and read it as an open file does; None if it is not there or damaged."""
        copy = self.cache.take(key)
        if copy is None:
            return None
        assert copy.sums is not None
        if copy.sums.verify(copy.spool_file, 0, copy.spool_file.size_bytes):
            return None
        return b"".join(copy.spool_file.pieces())


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


def test_a_copy_is_taken_out_once(side: Side) -> None:
    side.put()
    assert KEY in side.cache

    copy = side.cache.take(KEY)

    assert KEY not in side.cache
    assert copy is not None
    assert (copy.is_complete, copy.digest) == (True, "d" * 32)
    assert list(copy.extents) == [(0, len(CONTENT))]
    assert b"".join(copy.spool_file.pieces()) == CONTENT
    assert side.cache.take(KEY) is None
    assert side.cache.bytes_used == 0


def test_a_later_mount_finds_the_copy(side: Side, other: Side) -> None:
    side.put()

    assert other.read() == CONTENT


def test_only_the_owner_can_read_an_entry(side: Side) -> None:
    side.put()

    assert stat.S_IMODE(side.entry().stat().st_mode) == 0o600


def test_a_copy_is_not_found_under_another_identity(side: Side) -> None:
    side.put()

    assert side.cache.take((*KEY[:-1], 18)) is None
    assert side.read() == CONTENT


def test_ids_with_half_surrogates_are_keys_like_others(side: Side) -> None:
    side.put(("cntr_\ud800", "x", None, 1))

    assert side.read(("cntr_\ud800", "x", None, 1)) == CONTENT


def test_a_partial_copy_keeps_what_is_there_and_no_more(side: Side) -> None:
    ranges = [(0, 16 * KIB), (BLOCK_BYTES, BLOCK_BYTES + 10), (2_500_000, 2_600_000)]
    side.put(ranges=ranges)

    copy = side.cache.take(KEY)

    assert copy is not None
    assert not copy.is_complete
    assert list(copy.extents) == ranges
    for start, end in ranges:
        assert copy.spool_file.pread(start, end - start) == CONTENT[start:end]
    assert copy.spool_file.allocated_bytes < 200 * KIB


def test_a_copy_that_was_filled_further_is_compared_with_sums_old_and_new(side: Side) -> None:
    side.put(ranges=[(0, BLOCK_BYTES), (BLOCK_BYTES, BLOCK_BYTES + 10)])
    copy = side.cache.take(KEY)
    assert copy is not None
    copy.spool_file.pwrite(BLOCK_BYTES + 10, CONTENT[BLOCK_BYTES + 10 :])
    whole = Extents([(0, len(CONTENT))])

    side.cache.put(
        KEY,
        CachedCopy(
            spool_file=copy.spool_file, extents=whole, digest=None, is_complete=True, sums=copy.sums
        ),
    )

    assert side.read() == CONTENT


def test_damage_that_nobody_has_read_yet_is_not_made_right_by_putting_it_back(side: Side) -> None:
    side.put()
    copy = side.cache.take(KEY)
    assert copy is not None
    copy.spool_file.pwrite(BLOCK_BYTES + 5, b"\0\0\0\0")  # what a bad disk would do
    side.cache.put(KEY, copy)

    assert side.read() is None


def test_damage_in_a_block_shows_where_it_is_read_and_nowhere_else(side: Side) -> None:
    side.put()
    flip(side.entry(), BLOCK_BYTES + 5)
    copy = side.cache.take(KEY)
    assert copy is not None
    assert copy.sums is not None

    assert copy.sums.verify(copy.spool_file, 0, BLOCK_BYTES) == []
    assert copy.sums.verify(copy.spool_file, BLOCK_BYTES, BLOCK_BYTES + 1) == [
        (BLOCK_BYTES, 2 * BLOCK_BYTES)
    ]
    assert copy.sums.verify(copy.spool_file, 2 * BLOCK_BYTES, len(CONTENT)) == []
    assert copy.sums.is_verified


def test_damage_in_a_partial_block_is_dropped_before_anything_is_added_to_it(side: Side) -> None:
    side.put(ranges=[(0, BLOCK_BYTES), (BLOCK_BYTES, BLOCK_BYTES + 10)])
    flip(side.entry(), BLOCK_BYTES + 5)

    copy = side.cache.take(KEY)

    assert copy is not None
    assert list(copy.extents) == [(0, BLOCK_BYTES)]


@pytest.mark.parametrize("end", [True, False], ids=["in the record", "in the bytes"])
def test_no_flipped_bit_is_ever_shown(side: Side, end: bool) -> None:
    side.put()
    good = side.entry().read_bytes()
    record_bytes = len(good) - len(CONTENT)
    offsets = range(-record_bytes, 0) if end else range(0, len(CONTENT), 300_007)
    for offset in offsets:
        if measure(side.path)[0] == 0:
            side.put()
        path = side.entry()
        path.write_bytes(good)
        flip(path, offset % len(good))

        assert side.read() is None


@pytest.mark.parametrize("left", [0, 1, 23, 24, MIB, len(CONTENT), len(CONTENT) + 20])
def test_a_file_that_was_cut_off_is_dropped(side: Side, left: int) -> None:
    side.put()
    os.truncate(side.entry(), left)

    assert side.read() is None
    assert list(side.path.iterdir()) == []


def test_zeros_where_the_bytes_should_be_are_not_shown(side: Side) -> None:
    side.put()
    with side.entry().open("r+b") as file:
        file.write(bytes(len(CONTENT)))

    assert side.read() is None


def test_anything_else_under_the_name_of_an_entry_is_not_shown(side: Side) -> None:
    side.put()
    path = side.entry()
    for content in (b"", b"x", bytes(100), CONTENT, bytes(64 * KIB)):
        path.write_bytes(content)

        assert side.read() is None


def test_an_entry_of_other_bytes_under_this_name_is_not_shown(side: Side) -> None:
    side.put()
    name = side.entry().name
    side.cache.drop(KEY)
    side.put(("cntr_2", "cfile_2", 5, 1), b"other")
    side.entry().rename(side.path / name)

    assert side.read() is None


def test_a_link_a_folder_and_a_pipe_are_left_alone(side: Side, tmp_path: Path) -> None:
    side.put()
    path = side.entry()
    treasure = tmp_path / "treasure"
    shutil.move(path, treasure)
    before = treasure.read_bytes()
    traps: list[Callable[[], None]] = [
        lambda: path.symlink_to(treasure),
        lambda: path.hardlink_to(treasure),
        path.mkdir,
        lambda: os.mkfifo(path),
    ]
    for trap in traps:
        trap()

        assert side.cache.take(KEY) is None
        side.cache.tidy()
        assert treasure.read_bytes() == before
        assert os.path.lexists(path)
        path.rmdir() if path.is_dir() else path.unlink()


def test_a_copy_in_use_by_one_mount_is_just_missing_for_another(side: Side, other: Side) -> None:
    side.put()
    held = side.cache.take(KEY)
    assert held is not None
    assert other.cache.take(KEY) is None
    other.put()
    side.cache.put(KEY, held)

    assert other.read() == CONTENT
    assert side.cache.take(KEY) is None


def test_a_partial_copy_does_not_take_the_place_of_a_complete_one(side: Side, other: Side) -> None:
    side.put()
    other.put(ranges=[(0, 10)])

    assert side.read() == CONTENT
    assert other.spool.bytes_used == 0


def test_the_copies_put_longest_ago_are_given_up_first(tmp_path: Path) -> None:
    side = Side(tmp_path, "spool", bytes_max=64 * KIB)
    for number in range(20):
        side.put((number,), bytes(4 * KIB))
        os.utime(newest(side.path), ns=(number, number))

    side.cache.tidy()

    kept = [number for number in range(20) if side.cache.take((number,)) is not None]
    assert kept == list(range(20 - len(kept), 20))
    assert 0 < len(kept) * 8 * KIB <= 64 * KIB  # 4 KiB, and the record in a block of its own
    side.spool.close()


def test_two_mounts_hold_the_limit_together(tmp_path: Path) -> None:
    sides = [Side(tmp_path, str(number), bytes_max=256 * KIB) for number in range(2)]
    for number in range(100):
        each = sides[number % 2]
        each.put((number,), bytes(4 * KIB))
        if each.cache.needs_tidying:
            each.cache.tidy()

        assert measure(each.path)[1] <= 256 * KIB + 2 * 256 * KIB // 16
    for each in sides:
        each.spool.close()


def test_what_earlier_mounts_left_counts_once_it_was_counted(side: Side, tmp_path: Path) -> None:
    side.put()
    later = Side(tmp_path, "later")

    later.cache.tidy()

    assert later.cache.bytes_used == side.cache.bytes_used > len(CONTENT)
    assert not later.cache.needs_tidying
    later.spool.close()


def test_a_copy_larger_than_the_cache_is_deleted(tmp_path: Path) -> None:
    side = Side(tmp_path, "spool", bytes_max=4 * KIB)

    side.put(content=bytes(8 * KIB))

    assert (list(side.path.iterdir()), side.spool.bytes_used) == ([], 0)


def test_a_cache_of_size_0_neither_keeps_nor_shows_nor_deletes(side: Side, tmp_path: Path) -> None:
    side.put()
    off = Side(tmp_path, "off", bytes_max=0)

    off.put(("other",))

    assert off.cache.take(KEY) is None
    assert not off.cache.needs_tidying
    assert side.read() == CONTENT


def test_copies_are_given_up_while_less_than_the_minimum_is_free(tmp_path: Path) -> None:
    roomy = Side(tmp_path, "roomy", free_bytes_min=1)
    roomy.put()
    roomy.cache.tidy()
    assert measure(roomy.path)[0] == 1
    roomy.spool.close()

    tight = Side(tmp_path, "tight", free_bytes_min=1 << 60)
    tight.cache.tidy()

    assert measure(tight.path) == (0, 0)
    tight.put()
    assert tight.cache.needs_tidying
    tight.spool.close()


def test_no_more_is_given_up_than_needed(side: Side) -> None:
    for number in range(3):
        side.put((number,), bytes(8 * KIB))
        os.utime(newest(side.path), ns=(number, number))

    assert side.cache.give_up(9 * KIB) >= 9 * KIB

    assert [side.cache.take((number,)) is None for number in range(3)] == [True, False, False]


def test_the_cache_makes_room_for_a_write(tmp_path: Path) -> None:
    side = Side(tmp_path, "spool")
    spool = SpoolDirectory(tmp_path / "spool", bytes_max=48 * KIB)
    cache = ContentCache(side.path, spool, bytes_max=GIB)
    spool.reclaim = cache.give_up
    spool.outside_bytes = lambda: cache.bytes_used
    copy = spool.create()
    copy.pwrite(0, bytes(32 * KIB))
    extents = Extents([(0, 32 * KIB)])
    cache.put(KEY, CachedCopy(spool_file=copy, extents=extents, digest=None, is_complete=True))
    file = spool.create()

    file.pwrite(0, bytes(48 * KIB))

    assert cache.take(KEY) is None
    with pytest.raises(LocalDiskFullError):
        file.pwrite(48 * KIB, b"x")
    spool.close()


def test_writes_into_a_full_spool_do_not_read_the_directory_of_copies_each_time(
    tmp_path: Path,
) -> None:
    side = Side(tmp_path, "spool")
    side.spool.close()
    spool = SpoolDirectory(tmp_path / "spool", bytes_max=4 * MIB)
    cache = ContentCache(side.path, spool, bytes_max=GIB)
    asked: list[int] = []

    def reclaim(needed_bytes: int) -> None:
        asked.append(needed_bytes)
        cache.give_up(needed_bytes)

    spool.reclaim = reclaim
    spool.outside_bytes = lambda: cache.bytes_used
    extents = Extents([(0, 1)])
    while spool.bytes_free > 4 * KIB:
        copy = spool.create()
        copy.pwrite(0, b"x")
        key = (spool.bytes_free,)
        cache.put(key, CachedCopy(spool_file=copy, extents=extents, digest=None, is_complete=True))
    file = spool.create()

    for number in range(64):
        file.pwrite(number * 4 * KIB, bytes(4 * KIB))

    assert len(asked) <= 4
    spool.close()


def test_a_write_has_the_room_of_copies_that_somebody_else_has_deleted(tmp_path: Path) -> None:
    """``ctrfs cache --clear`` does, and another mount that needs space: this one is not told."""
    side = Side(tmp_path, "spool")
    side.spool.close()
    spool = SpoolDirectory(tmp_path / "spool", bytes_max=48 * KIB)
    cache = ContentCache(side.path, spool, bytes_max=GIB)
    spool.reclaim = cache.give_up
    spool.outside_bytes = lambda: cache.bytes_used
    copy = spool.create()
    copy.pwrite(0, bytes(32 * KIB))
    extents = Extents([(0, 32 * KIB)])
    cache.put(KEY, CachedCopy(spool_file=copy, extents=extents, digest=None, is_complete=True))
    clear(side.path)
    file = spool.create()

    file.pwrite(0, bytes(48 * KIB))

    assert cache.bytes_used == 0
    spool.close()


def test_making_room_does_not_begin_to_count_what_others_have_put(side: Side, other: Side) -> None:
    """The room would be gone as soon as it is made: only a survey counts that."""
    side.put(("mine",), bytes(8 * KIB))
    os.utime(newest(side.path), ns=(1, 1))
    other.put()
    used_before = side.cache.bytes_used

    freed = side.cache.give_up(8 * KIB)

    assert side.cache.bytes_used == used_before - freed
    assert other.read() == CONTENT


def test_what_a_killed_mount_held_is_gone_and_the_rest_is_there(tmp_path: Path) -> None:
    killed = Side(tmp_path, "spool")
    killed.put()
    killed.put(("other",), b"other")
    assert killed.cache.take(KEY) is not None
    killed.spool.close()

    later = SpoolDirectory(tmp_path / "spool", bytes_max=GIB)
    assert later.sweep(keep=set()) == 1
    cache = ContentCache(killed.path, later, bytes_max=GIB)

    assert cache.take(KEY) is None
    assert cache.take(("other",)) is not None
    later.close()


def test_an_entry_that_was_used_since_it_was_counted_stays(side: Side, other: Side) -> None:
    side.put()
    os.utime(side.entry(), ns=(1, 1))
    counted = list(content_cache._entries(side.path))
    taken = other.cache.take(KEY)
    assert taken is not None
    other.cache.put(KEY, taken)

    content_cache._give_up(side.path, counted, None)

    assert side.read() == CONTENT


def test_a_dropped_copy_is_gone_for_all(side: Side, other: Side) -> None:
    side.put()

    other.cache.drop(KEY)
    other.cache.drop(KEY)

    assert side.cache.take(KEY) is None


def test_clearing_deletes_every_entry_and_nothing_else(side: Side) -> None:
    side.put()
    side.put(("other",), b"other")
    (side.path / "note").write_text("mine")

    assert measure(side.path)[0] == 2
    assert clear(side.path) > len(CONTENT)

    assert [path.name for path in side.path.iterdir()] == ["note"]


def test_a_cache_whose_directory_is_gone_has_nothing_and_keeps_nothing(side: Side) -> None:
    side.path.rmdir()

    side.put()
    side.cache.tidy()

    assert side.cache.take(KEY) is None
    assert (side.cache.give_up(10), side.spool.bytes_used) == (0, 0)


def flip(path: Path, offset: int) -> None:
    """Change one bit."""
    with path.open("r+b") as file:
        file.seek(offset)
        (byte,) = file.read(1)
        file.seek(offset)
        file.write(bytes([byte ^ 4]))


def newest(directory: Path) -> Path:
    return max(directory.iterdir(), key=lambda path: path.stat().st_mtime_ns)
