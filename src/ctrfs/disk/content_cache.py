"""Copies of what the service has, kept after the last close, for later mounts too.

One directory for each source, beside the slots, shared by all its mounts. An entry is one file: the
bytes, sparse if only some are there, and a record behind them (``cache_record``). Its name is a
hash of the identity of the content, so that no index is needed to find it.

Whoever holds a copy owns it alone: ``take`` moves the file out of here into the taker's spool and
``put`` moves it back, each by one rename. Another mount that wants the same bytes meanwhile simply
finds none; and nobody's writing can harm another. Nothing is synced: what a power cut has torn does
not fit its record, or the sums in that, and is dropped when it is read.

What a mount holds open when it is killed is swept with its spool, and fetched again.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final, TypeAlias

import msgspec

from ctrfs.disk.block_sums import BlockSums, sums_now
from ctrfs.disk.cache_record import (
    FOOTER_BYTES,
    Record,
    record_from,
    record_length,
    sums_in,
    trailer_for,
)
from ctrfs.disk.extents import Extents
from ctrfs.disk.spool import SpoolDirectory, SpoolFile
from ctrfs.errors import LocalDiskError
from ctrfs.ownership import complaint_about_file, has_other_names

log = logging.getLogger(__name__)

IdentityKey: TypeAlias = tuple[str | int | None, ...]

# An empty file takes no block, but a name here; it must not be for nothing.
_ENTRY_BYTES_MIN: Final = 4096
_SECTOR_BYTES: Final = 512  # the unit of st_blocks, always
_NAME: Final = re.compile(r"[0-9a-f]{40}", re.ASCII)
# Counting the entries takes 3 µs each; it is done once for so much of the limit that was put.
_SURVEY_PART: Final = 16


class CachedCopy(msgspec.Struct, frozen=True, kw_only=True):
    """The bytes of one version of a file, or some of them."""

    spool_file: SpoolFile
    extents: Extents
    """Which of the bytes are there."""
    digest: str | None
    """blake2b of all bytes, 32 hex digits; None where it is not known."""
    is_complete: bool
    """Whether all bytes are there, and were checked as a whole when the last one came."""
    sums: BlockSums | None = None
    """What the bytes are to be compared with before anybody is shown them; None if they have come
    in this mount."""


class _Entry(msgspec.Struct, frozen=True, kw_only=True, order=True):
    mtime_ns: int
    cost_bytes: int
    name: str


class ContentCache:
    """The directory of copies as one mount sees it; least recently put go first.

    The limits hold for all mounts of the source together, but each counts the others only from time
    to time (a sixteenth of the limit): with n mounts at work there may be n sixteenths more.

    No failure leaves this class but through ``take`` of nothing: a cache that cannot be used is
    one that has nothing and keeps nothing.

    Invariant: a file here is nobody's but for the moment of a rename.
    """

    def __init__(
        self, path: Path, spool: SpoolDirectory, *, bytes_max: int, free_bytes_min: int = 0
    ) -> None:
        """Use the private directory at ``path``, on the file system of ``spool``; read nothing yet.

        Args:
            path: Exists, is of mode 0700 and ours.
            spool: Where copies go that are taken.
            bytes_max: What all entries together may take of the disk; 0 keeps nothing.
            free_bytes_min: How much of the disk is to stay free; below, entries are given up.
        """
        self._path = path
        self._spool = spool
        self._bytes_max = bytes_max
        self._free_bytes_min = free_bytes_min
        self._surveying = threading.Lock()
        # The first two are written by the mount's own thread only, the others by whoever holds
        # ``_surveying``.
        self._put_bytes = 0
        self._gone_bytes = 0
        self._put_when_surveyed: int | None = None
        self._counted_bytes = 0

    @property
    def bytes_used(self) -> int:
        """How many bytes of disk the entries take, as far as they were counted."""
        return max(0, self._counted_bytes + self._put_bytes - self._gone_bytes)

    @property
    def needs_tidying(self) -> bool:
        """Whether ``tidy`` has something to count or to give up."""
        if self._bytes_max == 0:  # what other mounts have put is theirs
            return False
        return (
            self._put_when_surveyed is None
            or self.bytes_used > self._bytes_max
            or self._put_bytes - self._put_when_surveyed > self._bytes_max // _SURVEY_PART
            or (self.bytes_used > 0 and self._missing_free_bytes() > 0)
        )

    def __contains__(self, key: IdentityKey) -> bool:
        """Tell whether there is an entry of ``key``, whole or not; 3 µs."""
        try:
            return self._bytes_max > 0 and _is_usable(self._path_of(key))
        except OSError:
            return False

    def take(self, key: IdentityKey) -> CachedCopy | None:
        """Return the copy of ``key``, which then is the caller's alone; None without one.

        Its bytes are yet to be compared with ``sums``, but for blocks of which a part is missing.
        """
        path = self._path_of(key)
        spool_file: SpoolFile | None = None
        try:
            if self._bytes_max == 0 or not _is_usable(path):
                return None
            spool_file = self._spool.move_in(path)
            self._gone_bytes += _cost(spool_file.allocated_bytes)
            copy = _copy_in(spool_file, key)
        except (LocalDiskError, OSError) as error:
            log.info("a cached copy cannot be used: %s", error)
            copy = None
        if copy is None and spool_file is not None:
            log.warning("a cached copy is damaged, and is fetched again")
            _delete(spool_file)
        return copy

    def has_place_for(self, copy: CachedCopy) -> bool:
        """Whether ``put`` would not simply delete ``copy``."""
        cost = _cost(copy.spool_file.allocated_bytes)
        return cost <= self._bytes_max and copy.extents.total_bytes > 0

    def put(self, key: IdentityKey, copy: CachedCopy) -> None:
        """Keep ``copy`` under ``key``, or delete it where it does not fit.

        Reads what ``sums`` does not tell: about 0.3 ms for a MiB.
        """
        spool_file = copy.spool_file
        path = self._path_of(key)
        try:
            if self.has_place_for(copy) and not _has_better(path, copy):
                replaced_bytes = _cost_at(path)
                self._put_bytes += _cost(spool_file.move_out(path, _trailer(key, copy)))
                self._gone_bytes += replaced_bytes
                return
        except (LocalDiskError, OSError) as error:
            log.info("a copy is not kept: %s", error)
        _delete(spool_file)

    def drop(self, key: IdentityKey) -> None:
        """Delete the copy of ``key``, if there is one."""
        path = self._path_of(key)
        cost = _cost_at(path)
        try:
            path.unlink()
        except OSError:  # there is none, or it is no file of ours
            return
        self._gone_bytes += cost

    def tidy(self) -> None:
        """Count what is here, and delete the oldest until the limits hold; may run in a thread.

        Takes 3 µs an entry. A second call at the same time returns at once.
        """
        if not self._surveying.acquire(blocking=False):
            return
        try:
            put_bytes, gone_bytes = self._put_bytes, self._gone_bytes
            entries = list(_entries(self._path))
            used = sum(entry.cost_bytes for entry in entries)
            excess = self._missing_free_bytes()
            if used > self._bytes_max:
                # Somewhat more than the excess, so that the next put is not over again.
                excess = max(excess, used - (self._bytes_max - self._bytes_max // _SURVEY_PART))
            used -= _give_up(self._path, entries, excess)
            self._counted_bytes = used - put_bytes + gone_bytes
            self._put_when_surveyed = put_bytes
        finally:
            self._surveying.release()

    def give_up(self, needed_bytes: int) -> int:
        """Delete the oldest copies until ``needed_bytes`` are freed, or all are gone.

        Notices, too, what others have deleted meanwhile: that does not count any more.

        Returns how many bytes of disk that has freed.
        """
        entries = list(_entries(self._path))
        freed = _give_up(self._path, entries, needed_bytes)
        self._gone_bytes += freed
        # What others have deleted frees nothing here, but the count must learn of it: else its
        # space would be taken until the next survey, which may wait for a put that never comes.
        # What they have put is for the survey: it must not fill the room that was just made.
        if self._surveying.acquire(blocking=False):
            left = sum(entry.cost_bytes for entry in entries) - freed
            counted = left - self._put_bytes + self._gone_bytes
            self._counted_bytes = min(self._counted_bytes, counted)
            self._surveying.release()
        return freed

    def _path_of(self, key: IdentityKey) -> Path:
        return self._path / hashlib.blake2b(_text_of(key).encode(), digest_size=20).hexdigest()

    def _missing_free_bytes(self) -> int:
        try:
            facts = os.statvfs(self._path)
        except OSError:
            return 0
        return max(0, self._free_bytes_min - facts.f_bavail * facts.f_frsize)


def clear(path: Path) -> int:
    """Delete all entries of the cache at ``path``, mounted or not; return the bytes of them."""
    return _give_up(path, list(_entries(path)), None)


def measure(path: Path) -> tuple[int, int]:
    """Return how many entries the cache at ``path`` has, and how many bytes of disk they take."""
    costs = [entry.cost_bytes for entry in _entries(path)]
    return len(costs), sum(costs)


def _text_of(key: IdentityKey) -> str:
    return ascii(key)  # ids come from outside, and may hold half surrogates


def _cost(allocated_bytes: int) -> int:
    return max(allocated_bytes, _ENTRY_BYTES_MIN)


def _cost_at(path: Path) -> int:
    """Return how many bytes of disk the entry at ``path`` takes; 0 without one."""
    try:
        return _cost(path.lstat().st_blocks * _SECTOR_BYTES)
    except OSError:
        return 0


def _is_usable(path: Path) -> bool:
    """Tell whether there is a file of ours; what else lies there is left alone.

    A second name may be a backup's: cutting off the record would change that, too.
    """
    try:
        facts = path.lstat()
    except FileNotFoundError:
        return False
    return complaint_about_file(facts) is None and not has_other_names(facts)


def _copy_in(spool_file: SpoolFile, key: IdentityKey) -> CachedCopy | None:
    """Return what a taken file holds, its record cut off; None if nothing in it can be trusted."""
    size = spool_file.size_bytes
    footer = spool_file.pread(max(0, size - FOOTER_BYTES), FOOTER_BYTES)
    length = record_length(footer)
    if length is None or length + FOOTER_BYTES > size:
        return None
    body = spool_file.pread(size - FOOTER_BYTES - length, length)
    record = record_from(body, footer, file_bytes=size)
    if record is None or record.key != _text_of(key):
        return None
    sums = sums_in(record)
    if sums is None:
        return None
    spool_file.truncate(record.stored_bytes)
    extents = Extents(record.extents)
    if not record.is_complete:
        for start, end in sums.verify_ragged(spool_file):
            log.warning("a part of a cached copy is damaged, and is fetched again")
            extents.remove(start, end)
    elif not extents.covers(0, record.stored_bytes):
        return None
    return CachedCopy(
        spool_file=spool_file,
        extents=extents,
        digest=record.digest,
        is_complete=record.is_complete,
        sums=sums,
    )


def _trailer(key: IdentityKey, copy: CachedCopy) -> bytes:
    sums = sums_now(copy.spool_file, copy.extents, copy.sums)
    return trailer_for(
        Record(
            key=_text_of(key),
            stored_bytes=copy.spool_file.size_bytes,
            is_complete=copy.is_complete,
            digest=copy.digest,
            extents=list(copy.extents),
            sums=sums.sums,
        )
    )


def _has_better(path: Path, copy: CachedCopy) -> bool:
    """Tell whether another mount has put as much of the same bytes as a partial ``copy``."""
    if copy.is_complete:
        return False
    try:
        return path.lstat().st_blocks * _SECTOR_BYTES >= copy.spool_file.allocated_bytes
    except FileNotFoundError:
        return False


def _entries(path: Path) -> Iterator[_Entry]:
    """Yield all entries, in no order; what is no file of the cache is none of our business."""
    try:
        with os.scandir(path) as found:
            for each in found:
                if not _NAME.fullmatch(each.name):
                    continue
                try:
                    facts = each.stat(follow_symlinks=False)
                except FileNotFoundError:  # taken by another mount
                    continue
                if complaint_about_file(facts) is None:
                    cost = _cost(facts.st_blocks * _SECTOR_BYTES)
                    yield _Entry(mtime_ns=facts.st_mtime_ns, cost_bytes=cost, name=each.name)
    except OSError as error:
        log.info("the cache cannot be read: %s", error)


def _give_up(path: Path, entries: list[_Entry], needed_bytes: int | None) -> int:
    """Delete entries, the oldest first, until ``needed_bytes`` are freed; return how many were.

    None stands for all. What another mount has taken or deleted meanwhile counts as freed.
    """
    freed = 0
    for entry in sorted(entries):
        if needed_bytes is not None and freed >= needed_bytes:
            break
        target = path / entry.name
        try:
            if target.lstat().st_mtime_ns != entry.mtime_ns:
                continue  # taken and put again: one of the youngest now
            target.unlink()
        except FileNotFoundError:
            pass
        except OSError as error:
            log.info("a cached copy cannot be deleted: %s", error)
            continue
        freed += entry.cost_bytes
    return freed


def _delete(spool_file: SpoolFile) -> None:
    try:
        spool_file.delete()
    except LocalDiskError as error:
        log.info("a copy cannot be deleted: %s", error)
