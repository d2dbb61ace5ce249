from __future__ import annotations

import os
import stat

import pyfuse3
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctrfs.fs.attributes import Attributes, Capacity, EntryKind, NoEntry, OpenFlags
from ctrfs.fs.handles import HandleNumber, OpenedFile
from ctrfs.fuse.convert import (
    entry_from_attributes,
    entry_from_nothing,
    file_info_from_opened,
    flags_from_bits,
    statvfs_from_capacity,
)
from ctrfs.tree.nodes import InodeNumber

INODES = st.integers(min_value=1, max_value=2**63 - 1)
TIMES_NS = st.integers(min_value=0, max_value=2**63 - 1)


def attributes(
    *,
    inode: int = 5,
    kind: EntryKind = EntryKind.FILE,
    size_bytes: int = 0,
    mtime_ns: int = 0,
) -> Attributes:
    return Attributes(
        inode=InodeNumber(inode),
        kind=kind,
        permissions=0o640,
        uid=1000,
        gid=100,
        size_bytes=size_bytes,
        mtime_ns=mtime_ns,
        atime_ns=1,
        ctime_ns=2,
        link_count=1,
        entry_timeout_s=1.5,
        attributes_timeout_s=2.5,
    )


@given(inode=INODES, size_bytes=st.integers(0, 2**62), mtime_ns=TIMES_NS)
def test_numbers_reach_the_kernel_unchanged(inode: int, size_bytes: int, mtime_ns: int) -> None:
    entry = entry_from_attributes(attributes(inode=inode, size_bytes=size_bytes, mtime_ns=mtime_ns))

    assert (entry.st_ino, entry.st_size, entry.st_mtime_ns) == (inode, size_bytes, mtime_ns)
    assert (entry.st_blocks - 1) * 512 < size_bytes <= entry.st_blocks * 512


@pytest.mark.parametrize(
    ("kind", "is_kind"), [(EntryKind.FILE, stat.S_ISREG), (EntryKind.DIRECTORY, stat.S_ISDIR)]
)
def test_kind_and_permissions_make_the_mode(kind: EntryKind, is_kind: object) -> None:
    entry = entry_from_attributes(attributes(kind=kind))

    assert callable(is_kind)
    assert is_kind(entry.st_mode)
    assert stat.S_IMODE(entry.st_mode) == 0o640
    assert (entry.st_uid, entry.st_gid) == (1000, 100)
    assert (entry.entry_timeout, entry.attr_timeout) == (1.5, 2.5)


@pytest.mark.parametrize(("time_ns", "shown_ns"), [(-5, 0), (2**70, 2**63 - 1)])
def test_a_time_that_the_kernel_cannot_hold_is_brought_into_range(
    time_ns: int, shown_ns: int
) -> None:
    assert entry_from_attributes(attributes(mtime_ns=time_ns)).st_mtime_ns == shown_ns


def test_no_entry_is_an_inode_of_zero_that_may_be_kept() -> None:
    entry = entry_from_nothing(NoEntry(entry_timeout_s=7.5))

    assert entry.st_ino == 0
    assert entry.entry_timeout == 7.5


@pytest.mark.parametrize(
    ("bits", "flags"),
    [
        (os.O_RDONLY, OpenFlags(can_read=True, can_write=False)),
        (os.O_WRONLY, OpenFlags(can_read=False, can_write=True)),
        (os.O_RDWR | os.O_APPEND, OpenFlags(can_read=True, can_write=True, append=True)),
        (
            os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_TRUNC,
            OpenFlags(can_read=False, can_write=True, truncate=True, exclusive=True),
        ),
    ],
)
def test_open_flags_are_read_from_their_bits(bits: int, flags: OpenFlags) -> None:
    assert flags_from_bits(bits) == flags


def test_an_open_file_tells_the_kernel_how_to_cache_it() -> None:
    answer = file_info_from_opened(
        OpenedFile(handle=HandleNumber(9), direct_io=True, keep_cache=False)
    )

    assert (answer.fh, answer.direct_io, answer.keep_cache) == (9, True, False)


def test_capacity_becomes_what_df_shows() -> None:
    answer = statvfs_from_capacity(
        Capacity(
            block_bytes=4096,
            blocks=10,
            blocks_free=4,
            entries=7,
            entries_free=3,
            name_bytes_max=255,
        )
    )

    assert (answer.f_bsize, answer.f_frsize, answer.f_namemax) == (4096, 4096, 255)
    assert (answer.f_blocks, answer.f_bfree, answer.f_bavail) == (10, 4, 4)
    assert (answer.f_files, answer.f_ffree, answer.f_favail) == (7, 3, 3)


def test_a_fresh_kernel_record_holds_what_is_written_to_it() -> None:
    entry = pyfuse3.EntryAttributes()
    entry.st_size = 3

    assert entry.st_size == 3
