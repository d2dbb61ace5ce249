"""Between the kernel's records and our own: pure functions, no decisions."""

from __future__ import annotations

import os
import stat
from typing import Final

import pyfuse3

from ctrfs.fs.attributes import (
    AttributeChanges,
    Attributes,
    Capacity,
    EntryKind,
    NoEntry,
    OpenFlags,
)
from ctrfs.fs.handles import OpenedFile
from ctrfs.units import KIB

# C libraries and Python size their buffers by st_blksize. A write of 4 KiB costs the same
# upcall as one of 128 KiB: 79 against 980 MB/s, measured through this stack.
BLOCK_BYTES: Final = 128 * KIB
_STAT_BLOCK_BYTES: Final = 512  # st_blocks counts these, whatever st_blksize says
_TYPE_BITS: Final = {EntryKind.FILE: stat.S_IFREG, EntryKind.DIRECTORY: stat.S_IFDIR}
# File times before 1970 and beyond the year 2262 do not fit the kernel's record.
_TIME_NS_MAX: Final = 2**63 - 1


def entry_from_attributes(attributes: Attributes) -> pyfuse3.EntryAttributes:
    """Return the kernel's record of one entry, with how long it may be kept."""
    entry = pyfuse3.EntryAttributes()
    entry.st_ino = attributes.inode
    entry.st_mode = _TYPE_BITS[attributes.kind] | attributes.permissions
    entry.st_nlink = attributes.link_count
    entry.st_uid = attributes.uid
    entry.st_gid = attributes.gid
    entry.st_size = attributes.size_bytes
    entry.st_blksize = BLOCK_BYTES
    entry.st_blocks = -(-attributes.size_bytes // _STAT_BLOCK_BYTES)
    entry.st_atime_ns = _kernel_time_ns(attributes.atime_ns)
    entry.st_mtime_ns = _kernel_time_ns(attributes.mtime_ns)
    entry.st_ctime_ns = _kernel_time_ns(attributes.ctime_ns)
    entry.entry_timeout = attributes.entry_timeout_s
    entry.attr_timeout = attributes.attributes_timeout_s
    return entry


def entry_from_nothing(nothing: NoEntry) -> pyfuse3.EntryAttributes:
    """Return the record for "no such name", which the kernel keeps for the given time.

    Source: pyfuse3's ``Operations.lookup``: an inode of 0 is a cached negative answer, while
    ENOENT is asked again each time.
    """
    entry = pyfuse3.EntryAttributes()
    entry.st_ino = 0
    entry.entry_timeout = nothing.entry_timeout_s
    entry.attr_timeout = 0
    return entry


def changes_from_fields(
    wanted: pyfuse3.EntryAttributes, fields: pyfuse3.SetattrFields
) -> AttributeChanges:
    """Return what a setattr asks for; the change time follows by itself and is left out."""
    return AttributeChanges(
        size_bytes=wanted.st_size if fields.update_size else None,
        permissions=stat.S_IMODE(wanted.st_mode) if fields.update_mode else None,
        uid=wanted.st_uid if fields.update_uid else None,
        gid=wanted.st_gid if fields.update_gid else None,
        mtime_ns=wanted.st_mtime_ns if fields.update_mtime else None,
        atime_ns=wanted.st_atime_ns if fields.update_atime else None,
    )


def flags_from_bits(bits: int) -> OpenFlags:
    """Return the parts of open(2)'s flags that mean something here."""
    access = bits & os.O_ACCMODE
    return OpenFlags(
        can_read=access in {os.O_RDONLY, os.O_RDWR},
        can_write=access in {os.O_WRONLY, os.O_RDWR},
        truncate=bool(bits & os.O_TRUNC),
        append=bool(bits & os.O_APPEND),
        exclusive=bool(bits & os.O_EXCL),
    )


def file_info_from_opened(opened: OpenedFile) -> pyfuse3.FileInfo:
    """Return what the kernel must know of an open file."""
    return pyfuse3.FileInfo(
        fh=opened.handle, direct_io=opened.direct_io, keep_cache=opened.keep_cache
    )


def statvfs_from_capacity(capacity: Capacity) -> pyfuse3.StatvfsData:
    """Return what ``df`` shows."""
    data = pyfuse3.StatvfsData()
    data.f_bsize = capacity.block_bytes
    data.f_frsize = capacity.block_bytes
    data.f_blocks = capacity.blocks
    data.f_bfree = capacity.blocks_free
    data.f_bavail = capacity.blocks_free
    data.f_files = capacity.entries
    data.f_ffree = capacity.entries_free
    data.f_favail = capacity.entries_free
    data.f_namemax = capacity.name_bytes_max
    return data


def _kernel_time_ns(time_ns: int) -> int:
    return min(max(time_ns, 0), _TIME_NS_MAX)
