"""The local bytes of files: one sparse file each in a private directory, under one quota.

Reads and writes are made inline: 128 KiB from the page cache take 10 µs, to it 40 (4 KiB: 2 and
10; measured on ext4, 2 cores), a hop to a thread and back 100.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from ctrfs.disk.failures import error_from_os_error
from ctrfs.disk.syncing import sync_directory
from ctrfs.errors import LocalDiskError, LocalDiskFullError
from ctrfs.failpoints import reached
from ctrfs.ownership import complaint_about_file
from ctrfs.units import MIB

# Large enough that the calls cost nothing beside the bytes, small enough not to be felt.
PIECE_BYTES: Final = 1 * MIB

# Whoever gives up copies reads their whole directory first, 3 µs an entry: not for each write.
_RECLAIM_PART: Final = 64

_NAME: Final = re.compile(r"[0-9a-f]{32}", re.ASCII)
_BLOCK_BYTES: Final = 4096  # what file systems of today allocate at least
_SECTOR_BYTES: Final = 512  # the unit of st_blocks, always
_FLAGS: Final = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC


class SpoolDirectory:
    """All spool files, and how much of the disk they may take.

    What counts is what the file system has allocated: holes are free.

    Attributes:
        reclaim: Called with a number of bytes when space is short, before a write is refused;
            gives up what can be had again. It is asked for a 64th of the quota at least, so that
            the next writes find room.
        outside_bytes: Tells how much of the quota is used by files that were moved out.

    Invariant: ``bytes_used`` is the sum of ``_allocated``, one entry for each file there is.
    """

    def __init__(
        self, path: Path, *, bytes_max: int, reclaim: Callable[[int], object] | None = None
    ) -> None:
        """Take over the directory at ``path``, and count what an earlier mount left there."""
        self._path = path
        self._bytes_max = bytes_max
        self.reclaim = reclaim
        self.outside_bytes: Callable[[], int] = lambda: 0
        self._open: dict[str, SpoolFile] = {}
        self._allocated: dict[str, int] = {}
        self._bytes_used = 0
        with _translated(f"read {path}"):
            for entry in os.scandir(path):
                if is_spool_name(entry.name):
                    blocks = entry.stat(follow_symlinks=False).st_blocks
                    self._note(entry.name, blocks * _SECTOR_BYTES)

    @property
    def bytes_used(self) -> int:
        """How many bytes of disk all spool files take."""
        return self._bytes_used

    @property
    def bytes_free(self) -> int:
        """How much of the quota is left; below 0 after more was moved in than it has."""
        return self._bytes_max - self._bytes_used - self.outside_bytes()

    @property
    def room_bytes(self) -> int:
        """How much may be written yet, by the quota and by what the disk has free."""
        facts = os.statvfs(self._path)
        return max(0, min(self.bytes_free, facts.f_bavail * facts.f_frsize))

    def create(self) -> SpoolFile:
        """Return a new, empty file of a name that nobody can guess."""
        name = secrets.token_hex(16)

        def make() -> int:
            return os.open(self._path / name, _FLAGS | os.O_CREAT | os.O_EXCL, 0o600)

        fd = self._with_space(make, needed_bytes=_BLOCK_BYTES, what="create a spool file")
        self._note(name, 0)
        return SpoolFile(self, self._path / name, fd, size_bytes=0)

    def open(self, name: str) -> SpoolFile:
        """Return the file that was once created under ``name``; not twice at the same time.

        Raises:
            LocalDiskError: There is none, or somebody has it: two records speak of it.
        """
        if name in self._open:
            raise LocalDiskError(f"the spool file {name!r} has an owner already")
        if not is_spool_name(name):
            raise LocalDiskError(f"not the name of a spool file: {name!r}")
        fd = _opened(self._path / name)
        return SpoolFile(self, self._path / name, fd, size_bytes=os.fstat(fd).st_size)

    def move_in(self, source: Path) -> SpoolFile:
        """Make the file at ``source`` one of the spool, under a new name and beyond any quota.

        It must be an ordinary file of ours, on the same file system.

        Raises:
            LocalDiskError: It is gone, or cannot be moved.
        """
        name = secrets.token_hex(16)
        with _translated(f"move {source} into the spool"):
            source.rename(self._path / name)
        self._note(name, 0)
        try:
            fd = _opened(self._path / name)
        except LocalDiskError:
            with _translated(f"remove the spool file {name}"):
                (self._path / name).unlink(missing_ok=True)
            self._forget(name)
            raise
        file = SpoolFile(self, self._path / name, fd, size_bytes=os.fstat(fd).st_size)
        file.account()
        return file

    def sweep(self, keep: set[str]) -> int:
        """Remove the files that a crash left, all but ``keep`` and the open ones; count them."""
        leftovers = self._allocated.keys() - keep - self._open.keys()
        for name in leftovers:
            with _translated(f"remove the spool file {name}"):
                (self._path / name).unlink(missing_ok=True)
            self._forget(name)
        return len(leftovers)

    def close(self) -> None:
        """Close every file that is open, deleting none."""
        for file in list(self._open.values()):
            file.close()

    def check_invariants(self) -> None:
        """Raise AssertionError if the count is not that of the files there are."""
        assert self._bytes_used == sum(self._allocated.values())
        assert self._open.keys() <= self._allocated.keys()
        assert {path.name for path in self._path.iterdir()} == self._allocated.keys()

    def _adopt(self, file: SpoolFile) -> None:
        self._open[file.name] = file

    def _let_go(self, name: str) -> None:
        self._open.pop(name, None)

    def _note(self, name: str, allocated_bytes: int) -> None:
        self._bytes_used += allocated_bytes - self._allocated.get(name, 0)
        self._allocated[name] = allocated_bytes

    def _forget(self, name: str) -> None:
        self._bytes_used -= self._allocated.pop(name, 0)

    def _make_room(self, growth_bytes: int) -> None:
        """Raise LocalDiskFullError unless the quota has room, if need be after a reclaim."""
        excess = growth_bytes - self.bytes_free
        if excess > 0 and self.reclaim is not None:
            self.reclaim(max(excess, self._bytes_max // _RECLAIM_PART))
            excess = growth_bytes - self.bytes_free
        if excess > 0:
            raise LocalDiskFullError(
                f"the local copies of files may take {self._bytes_max} bytes, "
                f"and {self._bytes_max - self.bytes_free} are in use"
            )

    def _with_space(self, call: Callable[[], int], *, needed_bytes: int, what: str) -> int:
        """Return what ``call`` returns; if the disk is full, reclaim and try once more."""
        try:
            with _translated(what):
                return call()
        except LocalDiskFullError:
            if self.reclaim is None:
                raise
            self.reclaim(max(needed_bytes, self._bytes_max // _RECLAIM_PART))
        with _translated(what):
            return call()


class SpoolFile:
    """The local bytes of one file; keeps its name for life.

    Owner: whoever holds it; there is one. A file at rest holds no descriptor, and takes one
    again when it is used.

    Attributes:
        name: Under which ``SpoolDirectory.open`` finds it again.
        size_bytes: Its length, holes included.

    Invariant: while ``_pins`` is above 0 the descriptor stays open.
    """

    def __init__(self, directory: SpoolDirectory, path: Path, fd: int, *, size_bytes: int) -> None:
        self._directory = directory
        self._path = path
        self._fd: int | None = fd
        self._pins = 0
        self._is_over = self._is_at_rest = False
        self.name = path.name
        self.size_bytes = size_bytes
        directory._adopt(self)  # noqa: SLF001  # directory and file are one unit

    @property
    def allocated_bytes(self) -> int:
        """How many bytes of disk it takes."""
        return self._directory._allocated.get(self.name, 0)  # noqa: SLF001

    @property
    def room_bytes(self) -> int:
        """How much may be written yet, to this file and all others together."""
        return self._directory.room_bytes

    def pread(self, offset: int, size: int) -> bytes:
        """Return up to ``size`` bytes from ``offset``; fewer only at the end."""
        fd = self._descriptor()
        try:  # written out: the busiest call of all
            return os.pread(fd, size, offset)
        except OSError as error:
            raise error_from_os_error(error, "read the spool") from error

    def pwrite(self, offset: int, data: bytes | memoryview) -> int:
        """Write all of ``data`` at ``offset``, and return how many bytes that is.

        Raises:
            LocalDiskFullError: The quota or the disk is full, even after a reclaim. Length
                and all bytes outside the range to write are as before.
        """
        self._claim(offset, len(data))
        size_before = self.size_bytes
        fd = self._descriptor()
        view = memoryview(data)
        written = 0

        def write_rest() -> int:
            nonlocal written
            while written < len(view):
                written += os.pwrite(fd, view[written:], offset + written)
            return written

        try:
            self._directory._with_space(  # noqa: SLF001
                write_rest, needed_bytes=len(data), what="write the spool"
            )
        except LocalDiskError:
            if offset + written > size_before:
                self.truncate(size_before)
            raise
        finally:
            self.account()
        self.size_bytes = max(size_before, offset + len(view))
        return written

    def truncate(self, size: int) -> None:
        """Set the length; what is added reads as zeros and takes no space."""
        with _translated("change the length of a spool file"):
            os.ftruncate(self._descriptor(), size)
        self.size_bytes = size
        self.account()

    def take_bytes_of(self, source: SpoolFile) -> None:
        """Become a copy of ``source``, holes included; ``account`` must follow. May take long.

        A thread may do this while both are pinned and nobody changes either. File systems that
        can share blocks do; the others copy inside the kernel (copy_file_range(2)).
        """
        fd, source_fd = self._descriptor(), source._descriptor()  # one of ours
        with _translated("copy a spool file"):
            for start, end in _data_between(source_fd, 0, source.size_bytes):
                position = start
                while position < end:
                    copied = os.copy_file_range(source_fd, fd, end - position, position, position)
                    if copied == 0:
                        raise LocalDiskError("a spool file has become shorter")
                    position += copied
            os.ftruncate(fd, source.size_bytes)
        self.size_bytes = source.size_bytes

    def reserve(self, growth_bytes: int) -> None:
        """Raise LocalDiskFullError unless the quota has room, if need be after a reclaim."""
        self._directory._make_room(growth_bytes)  # noqa: SLF001

    def sync(self) -> None:
        """Return when the disk holds the bytes and the name; may take long."""
        with _translated("sync the spool"):
            os.fsync(self._descriptor())
            sync_directory(self._path.parent)
        reached("spool.synced", str(self._path))

    def pieces(self, piece_bytes: int = PIECE_BYTES) -> Iterator[bytes]:
        """Yield all bytes in order, ``piece_bytes`` at a time."""
        offset = 0
        while piece := self.pread(offset, piece_bytes):
            yield piece
            offset += len(piece)

    @contextmanager
    def pinned(self) -> Iterator[None]:
        """Keep the descriptor open inside, also through ``close`` and ``delete``.

        For work that another task or thread could otherwise lose its descriptor under, or,
        worse, find that its number now means another file.
        """
        self._descriptor()
        self._pins += 1
        try:
            yield
        finally:
            self._pins -= 1
            if self._is_over or self._is_at_rest:
                self._close_descriptor()

    def rest(self) -> None:
        """Give the descriptor back until the next use, once it is not pinned."""
        self._is_at_rest = True
        self._close_descriptor()

    def close(self) -> None:
        """Give the file up without deleting it: ``SpoolDirectory.open`` may take it again."""
        self._is_over = True
        self._close_descriptor()
        self._directory._let_go(self.name)  # noqa: SLF001

    def delete(self) -> None:
        """Remove the file and give its space back; harmless a second time."""
        if self._is_over:
            return
        self._is_over = True
        with _translated("remove a spool file"):
            self._path.unlink(missing_ok=True)
        self._close_descriptor()
        self._directory._let_go(self.name)  # noqa: SLF001
        self._directory._forget(self.name)  # noqa: SLF001

    def move_out(self, target: Path, trailer: bytes) -> int:
        """Put ``trailer`` behind the bytes and give the file to ``target``, in place of what is there.

        Beyond any quota: the trailer is small. Return how many bytes of disk the file takes.

        Raises:
            LocalDiskError: The disk refuses; the file is still here, perhaps with a trailer.
        """
        assert not self._is_over, "a spool file is used after its end"
        fd = self._descriptor()
        with _translated(f"move a spool file to {target}"):
            view = memoryview(trailer)
            written = 0
            while written < len(view):
                written += os.pwrite(fd, view[written:], self.size_bytes + written)
            self._path.rename(target)
            allocated_bytes = os.fstat(fd).st_blocks * _SECTOR_BYTES
        self.close()
        self._directory._forget(self.name)  # noqa: SLF001
        return allocated_bytes

    def _descriptor(self) -> int:
        if self._fd is None:
            assert not self._is_over, "a spool file is used after its end"
            self._fd = _opened(self._path)
            self._is_at_rest = False
        return self._fd

    def _close_descriptor(self) -> None:
        if self._fd is not None and self._pins == 0:
            os.close(self._fd)
            self._fd = None

    def _claim(self, offset: int, size: int) -> None:
        """Raise LocalDiskFullError unless the quota has room for a write there."""
        start = offset - offset % _BLOCK_BYTES
        end = offset + size + -(offset + size) % _BLOCK_BYTES
        if end - start <= self._directory.bytes_free:
            return
        # Only near the limit is it worth two calls a piece to know what is there already.
        growth = end - start - _allocated_between(self._descriptor(), start, end)
        if growth > 0:
            self._directory._make_room(growth)  # noqa: SLF001

    def account(self) -> None:
        """Count what the file takes of the disk now."""
        if not self._is_over:
            blocks = os.fstat(self._descriptor()).st_blocks
            self._directory._note(self.name, blocks * _SECTOR_BYTES)  # noqa: SLF001


def is_spool_name(name: str) -> bool:
    """Tell whether ``SpoolDirectory`` gives such names."""
    return _NAME.fullmatch(name) is not None


def _opened(path: Path) -> int:
    """Return a descriptor of a spool file that is there, and is ours."""
    with _translated(f"open the spool file {path.name}"):
        fd = os.open(path, _FLAGS)
    complaint = complaint_about_file(os.fstat(fd))
    if complaint is not None:
        os.close(fd)
        raise LocalDiskError(f"the spool file {path.name} {complaint}")
    return fd


def _allocated_between(fd: int, start: int, end: int) -> int:
    """Return how many bytes from ``start`` to ``end`` are data and not holes."""
    total = 0
    for data_start, data_end in _data_between(fd, start, end):
        # Linux counts the end of the file as a hole; the block that it lies in is allocated.
        total += min(end, data_end + -data_end % _BLOCK_BYTES) - data_start
    return total


def _data_between(fd: int, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield start and end of each piece from ``start`` to ``end`` that is no hole."""
    position = start
    while position < end:
        try:
            data_start = os.lseek(fd, position, os.SEEK_DATA)
        except OSError:  # no data from here on
            return
        if data_start >= end:
            return
        position = min(os.lseek(fd, data_start, os.SEEK_HOLE), end)
        yield data_start, position


@contextmanager
def _translated(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise error_from_os_error(error, what) from error
