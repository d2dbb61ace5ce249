"""Where the things of one mounted source lie on this machine.

``base/<source>/<slot>/`` holds a lock file, the format version, the database and the spool;
``base/<source>/cache/`` the copies that all mounts of the source share (``content_cache``).
Each mount of a source takes the first slot that no other mount holds: one mount alone always
finds what the last one left, two at once live side by side.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import re
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

from ctrfs.clock import Clock
from ctrfs.disk.database import StateDatabase
from ctrfs.disk.failures import error_from_os_error
from ctrfs.disk.small_bytes import bring_back_small_bytes
from ctrfs.disk.syncing import make_directories
from ctrfs.errors import LocalDiskError, MountError
from ctrfs.ownership import complaint_about_directory, complaint_about_file, has_other_names
from ctrfs.units import NS_PER_S

log = logging.getLogger(__name__)

FORMAT_VERSION: Final = 1

# Mounts of one source at the same time; more are rather a script gone wild.
SLOTS_MAX: Final = 64

CACHE_NAME: Final = "cache"

_READABLE_MAX: Final = 40
_OPEN_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_FILE: Final = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
# Source: sqlite.org/tempfiles.html: what SQLite opens beside a database, following links.
_DATABASE: Final = "state.db"
_DATABASE_FILES: Final = tuple(_DATABASE + end for end in ("", "-wal", "-shm", "-journal"))


class StateDirectory:
    """One slot, held by this process until the ``with`` block of ``open`` ends.

    Attributes:
        path: The slot's directory, mode 0700.
        slot: Its number; 0 for a mount alone.
        spool_path: The directory of local bytes, mode 0700.
        cache_path: The directory of copies, shared by all slots, mode 0700.
        database: The open state database.
    """

    def __init__(self, *, path: Path, slot: int, database: StateDatabase) -> None:
        self.path = path
        self.slot = slot
        self.spool_path = path / "spool"
        self.cache_path = path.parent / CACHE_NAME
        self.database = database

    @classmethod
    @contextmanager
    def open(cls, base: Path, binding: str, *, clock: Clock) -> Iterator[StateDirectory]:
        """Take the first free slot of ``binding`` below ``base``, making what is missing.

        Args:
            base: Our directory among the user's state files.
            binding: What is mounted, such that equal texts mean the same files.
            clock: Tells when the slot was taken, for people who read the lock file.

        Raises:
            MountError: A directory is a link, belongs to someone else, lets others in, or was
                written by a newer version; or all slots are taken.
            LocalDiskError: The disk failed us.
        """
        with ExitStack() as stack:
            try:
                make_directories(base, mode=0o700)
                base_fd = _open_directory(base.name, _open_parent(base, stack), base, stack)
                home = base / directory_name(binding)
                home_fd = _make_directory(home.name, base_fd, home, stack)
                slot, slot_fd = _take_slot(home, home_fd, stack, clock)
                state = cls._prepared(home / str(slot), home_fd, slot_fd, stack)
                try:
                    bring_back_small_bytes(state.database, state.spool_path)
                except LocalDiskError as error:
                    # They are where they were; a full disk is no reason not to mount.
                    log.warning("bytes of small unsent files stay in the database: %s", error)
            except OSError as error:
                raise error_from_os_error(error, f"prepare the state in {base}") from error
            yield state

    @classmethod
    @contextmanager
    def open_slot(cls, path: Path, *, clock: Clock) -> Iterator[StateDirectory]:
        """Take one given slot, as the mount would that left it; nobody else holds it meanwhile.

        Args:
            path: One of ``slot_paths``.
            clock: As for ``open``.

        Raises:
            MountError: Somebody else holds it; or as for ``open``.
            LocalDiskError: There is no such slot, or the disk failed us.
        """
        with ExitStack() as stack:
            try:
                home_fd = _open_directory(
                    path.parent.name, _open_parent(path.parent, stack), path.parent, stack
                )
                slot_fd = _open_directory(path.name, home_fd, path, stack)
                if not _lock_slot(slot_fd, stack, clock):
                    raise MountError(f"{path} is in use by a mount")
                state = cls._prepared(path, home_fd, slot_fd, stack)
                bring_back_small_bytes(state.database, state.spool_path)
            except OSError as error:
                raise error_from_os_error(error, f"open the state in {path}") from error
            yield state

    @classmethod
    def _prepared(cls, path: Path, home_fd: int, slot_fd: int, stack: ExitStack) -> StateDirectory:
        """Check what lies in a slot that is locked, make what is missing, open the database."""
        _check_format(path, slot_fd)
        _make_directory("spool", slot_fd, path / "spool", stack)
        _make_directory(CACHE_NAME, home_fd, path.parent / CACHE_NAME, stack)
        _check_database_files(path, slot_fd)
        database = StateDatabase(path / _DATABASE)
        stack.callback(database.close)
        return cls(path=path, slot=int(path.name), database=database)


def directory_name(binding: str) -> str:
    """Return the name of the directory of ``binding``: readable, and unlike any other's."""
    readable = re.sub(r"[^A-Za-z0-9._-]+", "-", binding).strip("-.")[:_READABLE_MAX]
    digest = hashlib.blake2b(binding.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
    return f"{readable or 'source'}-{digest}"


def slot_paths(base: Path, binding: str) -> list[Path]:
    """Return the directories of all slots that were ever used, held or not, in order."""
    home = base / directory_name(binding)
    slots = (home / str(slot) for slot in range(SLOTS_MAX))
    return [path for path in slots if path.is_dir() and not path.is_symlink()]


def cache_beside(slot: Path) -> Path | None:
    """Return the directory of copies that a slot shares, if there is one and it is ours."""
    path = slot.parent / CACHE_NAME
    try:
        complaint = complaint_about_directory(path.lstat())
    except FileNotFoundError:
        return None
    return path if complaint is None else None


def _open_parent(base: Path, stack: ExitStack) -> int:
    # Links on the way to our directory are the user's business: a home may well be one.
    fd = os.open(base.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    stack.callback(os.close, fd)
    mode = os.fstat(fd).st_mode
    if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        # Anybody could put a directory of theirs in place of ours, at any time.
        raise MountError(f"{base.parent} can be written by others: chmod o-w it, or name another")
    return fd


def _open_directory(name: str, parent_fd: int, path: Path, stack: ExitStack) -> int:
    """Return a descriptor of a directory that is ours and that no one else can change."""
    try:
        fd = os.open(name, _OPEN_DIRECTORY, dir_fd=parent_fd)
    except NotADirectoryError as error:  # what Linux says of a link, given these flags
        raise MountError(f"{path} is a link or not a directory") from error
    stack.callback(os.close, fd)
    facts = os.fstat(fd)
    complaint = complaint_about_directory(facts)
    if complaint is not None:
        raise MountError(f"{path} {complaint}")
    if facts.st_mode & stat.S_IWGRP:
        raise MountError(f"{path} can be written by others: chmod go-w it, or name another")
    return fd


def _make_directory(name: str, parent_fd: int, path: Path, stack: ExitStack) -> int:
    """Return a descriptor of a directory that only we can enter, made if it is missing."""
    with suppress(FileExistsError):
        os.mkdir(name, mode=0o700, dir_fd=parent_fd)
        # A power cut that takes the name takes all that is synced below it.
        os.fsync(parent_fd)
    fd = _open_directory(name, parent_fd, path, stack)
    if os.fstat(fd).st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise MountError(f"{path} is open to others: chmod 700 it")
    return fd


def _take_slot(home: Path, home_fd: int, stack: ExitStack, clock: Clock) -> tuple[int, int]:
    for slot in range(SLOTS_MAX):
        with ExitStack() as attempt:
            slot_fd = _make_directory(str(slot), home_fd, home / str(slot), attempt)
            if _lock_slot(slot_fd, attempt, clock):
                stack.push(attempt.pop_all())
                return slot, slot_fd
    raise MountError(f"{SLOTS_MAX} mounts hold {home} already")


def _lock_slot(slot_fd: int, stack: ExitStack, clock: Clock) -> bool:
    """Lock a slot until ``stack`` ends; tell whether nobody else holds it."""
    lock_fd = _open_file("lock", slot_fd)
    stack.callback(os.close, lock_fd)
    try:
        fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    # The text is for people; the lock is what counts, and it ends with the process. With a second
    # name the file may be one that somebody else needs.
    if not has_other_names(os.fstat(lock_fd)):
        os.ftruncate(lock_fd, 0)
        os.pwrite(lock_fd, f"{os.getpid()} {clock.wall_ns() // NS_PER_S}\n".encode(), 0)
    return True


def _open_file(name: str, directory_fd: int) -> int:
    """Return a descriptor of a file of ours, made if it is missing.

    Raises:
        MountError: What is there is another user's, a pipe, or something else that is no file.
    """
    fd = os.open(name, _OPEN_FILE, 0o600, dir_fd=directory_fd)
    complaint = complaint_about_file(os.fstat(fd))
    if complaint is not None:
        os.close(fd)
        raise MountError(f"the state file {name} {complaint}")
    return fd


def _check_database_files(path: Path, slot_fd: int) -> None:
    """Refuse to let SQLite follow a link, or write what is not ours."""
    for name in _DATABASE_FILES:
        with suppress(FileNotFoundError):
            facts = os.stat(name, dir_fd=slot_fd, follow_symlinks=False)
            complaint = complaint_about_file(facts)
            if complaint is not None:
                raise MountError(f"{path / name} {complaint}")


def _check_format(path: Path, slot_fd: int) -> None:
    """Refuse a slot of a newer version; note ours in one that is new."""
    fd = _open_file("format", slot_fd)
    try:
        text = os.read(fd, 64).decode("ascii", "replace").strip()
        if not text:
            os.pwrite(fd, f"{FORMAT_VERSION}\n".encode(), 0)
        elif not text.isdecimal():
            raise LocalDiskError(f"{path / 'format'} holds no version number")
        elif int(text) > FORMAT_VERSION:
            raise MountError(
                f"{path} was written by a newer version of this program "
                f"(format {text}, this one knows {FORMAT_VERSION})"
            )
    finally:
        os.close(fd)
