"""Handle numbers, given to the kernel at open and opendir and taken back at release."""

from __future__ import annotations

from typing import NewType

import msgspec

from ctrfs.content.open_file import OpenFile
from ctrfs.errors import BadHandleError, TooManyOpenFilesError
from ctrfs.fs.attributes import OpenFlags
from ctrfs.tree.nodes import File, InodeNumber, Parent

HandleNumber = NewType("HandleNumber", int)


class OpenedFile(msgspec.Struct, frozen=True, kw_only=True):
    """What the kernel needs to know of an open file."""

    handle: HandleNumber
    direct_io: bool
    """Keep the page cache out: the length was not known at the last stat."""
    keep_cache: bool
    """Pages of an earlier open are still the content of this version."""


class FileHandle(msgspec.Struct, frozen=True, kw_only=True):
    """A file as one opener has it."""

    file: File
    open_file: OpenFile
    flags: OpenFlags
    opener_pid: int | None = None
    """The process that opened it, where the kernel says so."""


class ControlHandle(msgspec.Struct, frozen=True, kw_only=True):
    """A file of the control directory: its text as it was at open."""

    text: bytes


class DirectoryHandle(msgspec.Struct, kw_only=True):
    """A directory as one reader sees it; taken anew when the reader begins again."""

    parent: Parent | None
    """None for the control directory."""
    names: tuple[bytes, ...] = ()
    """Those there were when the reader began."""


class HandleTable:
    """Who has what open. Not async on purpose: all of it is atomic.

    Invariant: ``_writers`` and ``_openers`` count exactly the file handles in ``_handles``.
    """

    def __init__(self, *, handles_max: int) -> None:
        self._handles: dict[HandleNumber, FileHandle | ControlHandle | DirectoryHandle] = {}
        self._handles_max = handles_max
        self._next = 1
        self._openers: dict[InodeNumber, int] = {}
        self._writers: dict[InodeNumber, int] = {}

    def __len__(self) -> int:
        return len(self._handles)

    def check_room(self) -> None:
        """Refuse before anything is begun.

        Raises:
            TooManyOpenFilesError: The limit is reached.
        """
        if len(self._handles) >= self._handles_max:
            raise TooManyOpenFilesError(f"{self._handles_max} files are open")

    def add(self, handle: FileHandle | ControlHandle | DirectoryHandle) -> HandleNumber:
        """Give ``handle`` a number."""
        number = HandleNumber(self._next)
        self._next += 1
        self._handles[number] = handle
        if isinstance(handle, FileHandle):
            inode = handle.file.inode
            self._openers[inode] = self._openers.get(inode, 0) + 1
            if handle.flags.can_write:
                self._writers[inode] = self._writers.get(inode, 0) + 1
        return number

    def remove(self, number: HandleNumber) -> FileHandle | ControlHandle | DirectoryHandle | None:
        """Take a number back; None if there is no such handle."""
        handle = self._handles.pop(number, None)
        if isinstance(handle, FileHandle):
            _count_down(self._openers, handle.file.inode)
            if handle.flags.can_write:
                _count_down(self._writers, handle.file.inode)
        return handle

    def opened(self, number: HandleNumber) -> FileHandle | ControlHandle:
        """Return an open file or control file.

        Raises:
            BadHandleError: There is none with that number.
        """
        handle = self._handles.get(number)
        if handle is None or isinstance(handle, DirectoryHandle):
            raise BadHandleError(f"no open file has handle {number}")
        return handle

    def writable(self, number: HandleNumber) -> FileHandle:
        """Return a file that is open for writing.

        Raises:
            BadHandleError: There is none with that number.
        """
        handle = self.opened(number)
        if isinstance(handle, ControlHandle) or not handle.flags.can_write:
            raise BadHandleError(f"handle {number} is not open for writing")
        return handle

    def directory(self, number: HandleNumber) -> DirectoryHandle:
        """Return an open directory.

        Raises:
            BadHandleError: There is none with that number.
        """
        handle = self._handles.get(number)
        if not isinstance(handle, DirectoryHandle):
            raise BadHandleError(f"no open directory has handle {number}")
        return handle

    def inode_of(self, number: HandleNumber) -> InodeNumber | None:
        """Return what a handle is of; None for none, and for the control directory's."""
        handle = self._handles.get(number)
        if isinstance(handle, FileHandle):
            return handle.file.inode
        if isinstance(handle, DirectoryHandle) and handle.parent is not None:
            return handle.parent.inode
        return None

    def is_open(self, inode: InodeNumber) -> bool:
        """Tell whether anybody has the file open."""
        return inode in self._openers

    def is_being_written(self, inode: InodeNumber) -> bool:
        """Tell whether anybody has the file open for writing."""
        return inode in self._writers

    def check_invariants(self) -> None:
        """Raise AssertionError if the counts contradict the handles."""
        files = [handle for handle in self._handles.values() if isinstance(handle, FileHandle)]
        assert sum(self._openers.values()) == len(files)
        assert sum(self._writers.values()) == sum(handle.flags.can_write for handle in files)


def _count_down(counts: dict[InodeNumber, int], inode: InodeNumber) -> None:
    counts[inode] -= 1
    if counts[inode] == 0:
        del counts[inode]
