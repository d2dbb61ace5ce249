"""What goes through every byte of a local file: inline if they are few, else in a thread."""

from __future__ import annotations

from collections.abc import Mapping

import trio

from ctrfs.disk.block_sums import damaged_blocks
from ctrfs.disk.spool import SpoolDirectory, SpoolFile
from ctrfs.running_digest import INLINE_MAX, new_hasher


async def digest_of(spool_file: SpoolFile) -> str:
    """Return the blake2b of all bytes, which must hold still meanwhile."""
    if spool_file.size_bytes <= INLINE_MAX:
        return _digest(spool_file)
    with spool_file.pinned():
        return await trio.to_thread.run_sync(_digest_in_thread, spool_file)


async def damage_in(spool_file: SpoolFile, expected: Mapping[int, int]) -> list[int]:
    """Return the blocks whose bytes do not have the sum in ``expected``."""
    if spool_file.size_bytes <= INLINE_MAX:
        return damaged_blocks(spool_file, expected)
    with spool_file.pinned():
        return await trio.to_thread.run_sync(damaged_blocks, spool_file, expected)


async def sync(spool_file: SpoolFile) -> None:
    """Return when the disk has all bytes: milliseconds, or seconds for many."""
    # A commit of the journal, which follows, waits for the disk in the same way.
    if spool_file.size_bytes <= INLINE_MAX:
        spool_file.sync()
        return
    with spool_file.pinned():
        await trio.to_thread.run_sync(spool_file.sync)


async def copy_of(spool_file: SpoolFile, spool: SpoolDirectory) -> SpoolFile:
    """Return a new spool file with all bytes, which must hold still meanwhile.

    Raises:
        LocalDiskFullError: There is no room for it.
    """
    copy = spool.create()
    try:
        copy.reserve(spool_file.allocated_bytes)
        if spool_file.size_bytes <= INLINE_MAX:
            copy.take_bytes_of(spool_file)
        else:
            with spool_file.pinned(), copy.pinned():
                await trio.to_thread.run_sync(copy.take_bytes_of, spool_file)
        copy.account()
    except BaseException:
        copy.delete()
        raise
    return copy


def _digest(spool_file: SpoolFile) -> str:
    hasher = new_hasher()
    for piece in spool_file.pieces():
        hasher.update(piece)
    return hasher.hexdigest()


def _digest_in_thread(spool_file: SpoolFile) -> str:
    # The bytes hold still and the descriptor is pinned: the thread shares nothing that changes.
    hasher = new_hasher()
    for piece in spool_file.pieces():
        trio.from_thread.check_cancelled()
        hasher.update(piece)
    return hasher.hexdigest()
