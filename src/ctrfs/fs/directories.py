"""Reading directories: names as they were when the reader began, facts as they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from ctrfs.fs.attributes import Attributes, DirectoryEntry
from ctrfs.fs.control import CONTROL_INODE, ControlDirectory
from ctrfs.fs.handles import DirectoryHandle, HandleNumber
from ctrfs.fs.parts import Parts
from ctrfs.fs.read_ahead import ReadAhead
from ctrfs.tree.nodes import Node, Parent

_DOTS: Final = 2  # how many entries come before the named ones


class DirectoryReader:
    """opendir and readdir."""

    def __init__(
        self,
        parts: Parts,
        control: ControlDirectory,
        read_ahead: ReadAhead,
        *,
        attributes_of: Callable[[Node], Attributes],
    ) -> None:
        self._parts = parts
        self._control = control
        self._read_ahead = read_ahead
        self._attributes_of = attributes_of

    async def open(self, directory: Parent | None) -> HandleNumber:
        """Open a directory, or the control directory; waits for a listing within ``ttl_s``.

        Raises:
            TooManyOpenFilesError: The mount's limit is reached.
            NoSuchEntryError: The container is gone.
            RemoteError: The listing was needed and could not be had.
        """
        self._parts.handles.check_room()
        if directory is not None:
            self._read_ahead.entering(directory)
            await self._parts.namespace.children(directory)
            self._read_ahead.reading_names(directory)
        return self._parts.handles.add(DirectoryHandle(parent=directory))

    def read(self, handle: HandleNumber, cookie: int) -> Iterator[DirectoryEntry]:
        """Yield the entries after ``cookie``, of those there were when the reader began at 0.

        What has gone since is passed over, and what a name stands for is that of the moment:
        the kernel believes it for a long time. The first two are ``.`` and ``..``, which
        are never remembered as lookups.

        Raises:
            BadHandleError: No directory is open under this handle.
        """
        opened = self._parts.handles.directory(handle)
        if opened.parent is None:
            return self._control_entries(cookie)
        if cookie == 0:
            opened.names = tuple(sorted(opened.parent.children))
        return self._entries(opened, opened.parent, cookie)

    def _entries(
        self, opened: DirectoryHandle, parent: Parent, cookie: int
    ) -> Iterator[DirectoryEntry]:
        dots: tuple[tuple[bytes, Node], ...] = ((b".", parent), (b"..", parent.parent or parent))
        for index, (name, node) in enumerate(dots[cookie:], start=cookie + 1):
            yield self._line(name, node, index)
        start = max(cookie - _DOTS, 0)
        for index in range(start, len(opened.names)):
            present = parent.children.get(opened.names[index])
            if present is not None:
                yield self._line(opened.names[index], present, index + 1 + _DOTS)

    def _line(self, name: bytes, node: Node, cookie: int) -> DirectoryEntry:
        attributes = self._attributes_of(node)
        return DirectoryEntry(name=name, attributes=attributes, next_cookie=cookie)

    def _control_entries(self, cookie: int) -> Iterator[DirectoryEntry]:
        named = [
            (b".", self._control.attributes(CONTROL_INODE)),
            (b"..", self._attributes_of(self._parts.tree.root)),
            *(
                (name, self._control.attributes(self._control.inode_of(name)))
                for name in self._control.names
            ),
        ]
        for index, (name, attributes) in enumerate(named[cookie:], start=cookie + 1):
            yield DirectoryEntry(name=name, attributes=attributes, next_cookie=index)
