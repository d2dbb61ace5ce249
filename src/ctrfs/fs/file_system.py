"""The file system: every operation of the kernel in our own words.

Owns no state. It decides the order of things; the namespace knows what exists, the content
store has the bytes, and the ``Workers`` carry out changes.
Called by ``fuse.operations`` and, in process, by tests.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence

from ctrfs.errors import (
    EntryExistsError,
    IsADirectoryEntryError,
    LocalDiskError,
    NoSuchAttributeError,
    NoSuchEntryError,
    NotADirectoryEntryError,
    NotPermittedError,
    ReadOnlyError,
    UnsupportedAttributeError,
)
from ctrfs.fs.attributes import (
    AttributeChanges,
    Attributes,
    Capacity,
    DirectoryEntry,
    NoEntry,
    OpenFlags,
    attributes_of,
    capacity,
)
from ctrfs.fs.control import CONTROL_INODE, ControlDirectory
from ctrfs.fs.creating import check_name
from ctrfs.fs.describing import Describer
from ctrfs.fs.directories import DirectoryReader
from ctrfs.fs.extended_attributes import ExtendedAttributes
from ctrfs.fs.files import Files
from ctrfs.fs.handles import (
    ControlHandle,
    HandleNumber,
    OpenedFile,
)
from ctrfs.fs.moving import check_rename
from ctrfs.fs.parts import Parts
from ctrfs.fs.workers import Workers
from ctrfs.tree.container_tree import CONTROL_NAME
from ctrfs.tree.nodes import (
    ROOT_INODE,
    ContainerDirectory,
    Directory,
    File,
    InodeNumber,
    Node,
    Parent,
    Root,
)

log = logging.getLogger(__name__)


class FileSystem:
    """The operations. Each waits only where its docstring says so.

    Attributes:
        describer: Says in the log which entry an operation was about.
        restorer: Brings back what earlier mounts have left.
        retries: Sends what is kept here, and tries again what has failed.
        postponed: Makes the deletions that are put off.
        read_ahead: Fetches what a walk comes to next.
    """

    def __init__(
        self,
        parts: Parts,
        *,
        attributes_timeout_s: float,
        control: ControlDirectory,
        on_pages_stale: Callable[[InodeNumber], None],
        holds_open: Callable[[int, bytes], bool],
    ) -> None:
        """Work with ``parts``.

        Args:
            parts: The floors below.
            attributes_timeout_s: How long the kernel may believe attributes; an inode is one
                version, so only changes made through this mount alter them.
            control: The ``.ctrfs`` directory.
            on_pages_stale: Told of an inode whose cached pages and length must be dropped.
            holds_open: Asked whether a process has a descriptor of the file at a path, which
                is given below the mount point; must not block.
        """
        self._parts = parts
        self._attributes_timeout_s = attributes_timeout_s
        self._control = control
        self.describer = Describer(parts)
        workers = Workers.build(parts)
        self._reader = DirectoryReader(
            parts, control, workers.read_ahead, attributes_of=self._attributes
        )
        self._recorder = workers.recorder
        self._saver = workers.saver
        self._remover = workers.remover
        self._mover = workers.mover
        self._folder_mover = workers.folder_mover
        self._creator = workers.creator
        self._drainer = workers.drainer
        self._syncer = workers.syncer
        self._files = Files(
            parts,
            workers.saver,
            workers.holder,
            workers.read_ahead,
            on_pages_stale=on_pages_stale,
            holds_open=holds_open,
        )
        self._extended = ExtendedAttributes(parts, workers.discarder)
        self.retries = workers.retries
        self.postponed = workers.postponed
        self.read_ahead = workers.read_ahead
        self.restorer = workers.restorer

    # -- names and attributes --------------------------------------------------------------

    async def lookup(self, parent: InodeNumber, name: bytes) -> Attributes | NoEntry:
        """Return the attributes of an entry, or for how long there is none.

        Waits for a listing only where ``Namespace.child`` does.
        """
        if parent == ROOT_INODE and name == CONTROL_NAME:
            return self._control.attributes(CONTROL_INODE)
        if parent == CONTROL_INODE:
            return self._control.attributes(self._control.inode_of(name))
        directory = self._directory(parent)
        if not self._parts.namespace.is_listed(directory):
            self.read_ahead.entering(directory)
        node = await self._parts.namespace.child(directory, name)
        if node is None:
            self._parts.tree.note_denied(directory, name)
            return NoEntry(entry_timeout_s=self._parts.namespace.missing_timeout_s(directory))
        return self._attributes(node)

    def remember(self, inode: InodeNumber) -> None:
        """Count one lookup; right before the reply that tells the kernel of ``inode``."""
        if not self._control.owns(inode):
            self._parts.tree.inodes.remember(inode)

    def forget(self, pairs: Sequence[tuple[InodeNumber, int]]) -> None:
        """Take back lookups that the kernel no longer needs."""
        own = [(inode, count) for inode, count in pairs if not self._control.owns(inode)]
        self._parts.tree.inodes.forget(own)

    async def getattr(self, inode: InodeNumber) -> Attributes:
        """Return the attributes of a known entry; never waits."""
        if self._control.owns(inode):
            return self._control.attributes(inode)
        return self._attributes(self._parts.tree.inodes.node(inode))

    async def setattr(
        self, inode: InodeNumber, changes: AttributeChanges, handle: HandleNumber | None
    ) -> Attributes:
        """Change size, mode or times; waits for the service only for a size without a handle.

        Raises:
            NotPermittedError: Another owner is asked for.
            ReadOnlyError: Nothing can be changed here.
        """
        node = self._changeable(inode)
        config = self._parts.config
        if changes.uid not in {None, config.uid} or changes.gid not in {None, config.gid}:
            raise NotPermittedError("entries belong to the owner of the mount")
        if changes.size_bytes is not None:
            if not isinstance(node, File):
                raise IsADirectoryEntryError("a directory has no length")
            await self._files.truncate(node, changes.size_bytes, handle)
        if changes.permissions is not None:
            node.mode = changes.permissions
        if changes.mtime_ns is not None:
            node.mtime_ns = changes.mtime_ns
        if changes.permissions is not None or changes.mtime_ns is not None:
            await self._keep_facts(node)
        return self._attributes(node)

    async def access(self, inode: InodeNumber, mode: int) -> bool:  # noqa: ARG002  # see below
        """Allow: the kernel itself judges by owner and mode (``default_permissions``)."""
        await self.getattr(inode)
        return True

    def statfs(self) -> Capacity:
        """Return what ``df`` shows."""
        return capacity()

    # -- directories -----------------------------------------------------------------------

    async def opendir(self, inode: InodeNumber) -> HandleNumber:
        """Open a directory; waits for a listing no older than ``ttl_s``."""
        return await self._reader.open(None if inode == CONTROL_INODE else self._directory(inode))

    def readdir(self, handle: HandleNumber, cookie: int) -> Iterator[DirectoryEntry]:
        """Yield the entries after ``cookie``; see ``DirectoryReader.read``."""
        return self._reader.read(handle, cookie)

    def releasedir(self, handle: HandleNumber) -> None:
        """Close a directory."""
        self._parts.handles.remove(handle)

    async def fsyncdir(self, handle: HandleNumber) -> None:
        """Return once the service has all that is pending below; see ``Syncer.sync``."""
        parent = self._parts.handles.directory(handle).parent
        if parent is not None:
            await self._syncer.sync(parent)

    async def mkdir(self, parent: InodeNumber, name: bytes, permissions: int) -> Attributes:
        """Make a container (in the root, waiting for the service) or a folder.

        Raises:
            EntryExistsError: The name is taken.
        """
        directory = self._changeable_directory(parent)
        check_name(directory, name, is_folder=True)
        async with self._parts.directory_locks.hold(directory.inode):
            await self._check_free(directory, name)
            made: ContainerDirectory | Directory
            if isinstance(directory, Root):
                made = await self._creator.create_container(directory, name)
            else:
                made = self._creator.create_folder(directory, name, permissions)
        return self._attributes(made)

    async def rmdir(self, parent: InodeNumber, name: bytes) -> None:
        """Remove an empty container (waiting for the service) or folder.

        Raises:
            NotADirectoryEntryError: It is a file.
            DirectoryNotEmptyError: It has entries.
        """
        directory = self._changeable_directory(parent)
        async with self._parts.directory_locks.hold(directory.inode):
            node = await self._existing(directory, name)
            if isinstance(node, File):
                raise NotADirectoryEntryError("a file has that name")
            if isinstance(node, ContainerDirectory):
                # After the root's lock, as everywhere: nobody may create a file in it meanwhile.
                async with self._parts.directory_locks.hold(node.inode):
                    with self._parts.failures.noting(node.inode):
                        await self._remover.remove_container(node)
            else:
                await self._remover.remove_folder(node)

    async def unlink(self, parent: InodeNumber, name: bytes) -> None:
        """Delete a file; waits for the service.

        Raises:
            IsADirectoryEntryError: It is a directory.
        """
        directory = self._changeable_directory(parent)
        async with self._parts.directory_locks.hold(directory.inode):
            node = await self._existing(directory, name)
            if not isinstance(node, File):
                raise IsADirectoryEntryError("a directory has that name")
            self._parts.tree.note_alias(node, name)
            await self._remover.remove_file(node)
            self._parts.namespace.changed_by_us()

    async def rename(
        self,
        old_parent: InodeNumber,
        old_name: bytes,
        new_parent: InodeNumber,
        new_name: bytes,
        *,
        no_replace: bool,
    ) -> None:
        """Give an entry another name; waits for the service (see ``Mover``)."""
        source = self._changeable_directory(old_parent)
        destination = self._changeable_directory(new_parent)
        async with self._parts.directory_locks.hold(source.inode, destination.inode):
            node = await self._existing(source, old_name)
            target = await self._parts.namespace.child(destination, new_name)
            if target is node:
                return
            self._parts.check_attached(node)  # the look at the new name may have taken it away
            check_name(destination, new_name, is_folder=not isinstance(node, File))
            check_rename(node, destination, target, no_replace=no_replace)
            if isinstance(node, ContainerDirectory):
                assert target is None or isinstance(target, ContainerDirectory)
                both = [entry.inode for entry in (node, target) if entry is not None]
                async with self._parts.directory_locks.hold(*both):
                    await self._mover.move_container(node, new_name, target=target)
                return
            assert not isinstance(destination, Root)
            if isinstance(node, File):
                self._parts.tree.note_alias(node, old_name)
            assert not isinstance(target, ContainerDirectory)
            if isinstance(node, Directory):
                await self._folder_mover.move_folder(node, destination, new_name, target=target)
            else:
                await self._mover.move_file(node, destination, new_name, target=target)

    # -- files -----------------------------------------------------------------------------

    async def open(
        self, inode: InodeNumber, flags: OpenFlags, *, opener_pid: int | None = None
    ) -> OpenedFile:
        """Open a file, or a file of the control directory; see ``Files.open``."""
        if self._control.owns(inode):
            return self._open_control(inode, flags)
        return await self._files.open(self._file(inode), flags, opener_pid=opener_pid)

    async def create(
        self,
        parent: InodeNumber,
        name: bytes,
        permissions: int,
        flags: OpenFlags,
        *,
        opener_pid: int | None = None,
    ) -> tuple[OpenedFile, Attributes]:
        """Create and open a file; the service hears of it at the first flush.

        Raises:
            EntryExistsError: The name is taken and ``flags.exclusive`` is set.
            NotPermittedError: Files directly in the root, or outside the data folder.
        """
        self._parts.handles.check_room()
        directory = self._changeable_directory(parent)
        if isinstance(directory, Root):
            raise NotPermittedError("only containers stand in the root: mkdir makes one")
        check_name(directory, name, is_folder=False)
        async with self._parts.directory_locks.hold(directory.inode):
            found = await self._parts.namespace.child(directory, name)
            if found is None:
                self._parts.check_attached(directory)
                file = self._creator.create_file(directory, name, permissions)
                try:
                    opened = self._files.open_new(file, flags, opener_pid=opener_pid)
                except LocalDiskError:
                    self._parts.tree.take_name(file)
                    raise
                return opened, self._attributes(file)
        if flags.exclusive:
            raise EntryExistsError("the name is taken")
        opened = await self.open(found.inode, flags, opener_pid=opener_pid)
        return opened, self._attributes(found)

    async def read(self, handle: HandleNumber, offset: int, size: int) -> bytes:
        """Return up to ``size`` bytes; see ``Files.read``."""
        return await self._files.read(handle, offset, size)

    async def write(self, handle: HandleNumber, offset: int, data: bytes) -> int:
        """Write to the local copy; see ``Files.write``."""
        return await self._files.write(handle, offset, data)

    async def flush(self, handle: HandleNumber) -> None:
        """Send what the service lacks; see ``Files.flush``."""
        await self._files.flush(handle)

    async def fsync(self, handle: HandleNumber) -> None:
        """Return once the service has all bytes of the file; see ``Files.fsync``."""
        await self._files.fsync(handle)

    async def release(self, handle: HandleNumber) -> None:
        """Close a handle for good; see ``Files.release``."""
        await self._files.release(handle)

    # -- extended attributes ---------------------------------------------------------------

    async def getxattr(self, inode: InodeNumber, name: bytes) -> bytes:
        """Return an attribute; asks nobody."""
        if self._control.owns(inode):
            raise NoSuchAttributeError("the control directory has no attributes")
        return self._extended.get(self._parts.tree.inodes.node(inode), name)

    async def listxattr(self, inode: InodeNumber) -> list[bytes]:
        """Return the names of an entry's attributes; asks nobody."""
        if self._control.owns(inode):
            return []
        return self._extended.names(self._parts.tree.inodes.node(inode))

    async def setxattr(self, inode: InodeNumber, name: bytes, value: bytes) -> None:
        """Carry out what the attribute stands for; see ``ExtendedAttributes.set``."""
        if self._control.owns(inode):
            raise UnsupportedAttributeError("the control directory has no attributes")
        await self._extended.set(self._parts.tree.inodes.node(inode), name, value)

    async def removexattr(self, inode: InodeNumber, name: bytes) -> None:
        """Refuse."""
        if self._control.owns(inode):
            raise NoSuchAttributeError("the control directory has no attributes")
        self._extended.remove(self._parts.tree.inodes.node(inode), name)

    # -- end -------------------------------------------------------------------------------

    def unsent_count(self) -> int:
        """Return how many files have bytes that the service lacks."""
        return self._drainer.unsent_count()

    async def drain(self) -> int:
        """Try to send everything that is still unsent; see ``Drainer.drain``."""
        return await self._drainer.drain()

    async def record_unsent(self) -> None:
        """Record all that is still unsent, so that it outlives this mount; sends nothing."""
        await self._drainer.record_unsent()

    # -- pieces ----------------------------------------------------------------------------

    def _attributes(self, node: Node) -> Attributes:
        return attributes_of(
            node,
            self._parts.config,
            entry_timeout_s=self._parts.namespace.known_timeout_s(node),
            attributes_timeout_s=self._attributes_timeout_s,
        )

    def _directory(self, inode: InodeNumber) -> Parent:
        node = self._parts.tree.inodes.node(inode)
        if isinstance(node, File):
            raise NotADirectoryEntryError("a file is no directory")
        return node

    def _file(self, inode: InodeNumber) -> File:
        node = self._parts.tree.inodes.node(inode)
        if not isinstance(node, File):
            raise IsADirectoryEntryError("a directory is no file")
        return node

    def _changeable_directory(self, inode: InodeNumber) -> Parent:
        if self._control.owns(inode):
            raise NotPermittedError("the control directory takes no entries")
        directory = self._directory(inode)
        self._parts.check_changeable(directory)
        self._parts.check_attached(directory)
        return directory

    def _changeable(self, inode: InodeNumber) -> Node:
        if self._control.owns(inode):
            raise NotPermittedError("the control directory is not for changing")
        if self._parts.config.read_only:
            raise ReadOnlyError("mounted read-only")
        return self._parts.tree.inodes.node(inode)

    async def _existing(
        self, directory: Parent, name: bytes
    ) -> ContainerDirectory | Directory | File:
        node = await self._parts.namespace.child(directory, name)
        if node is None:
            raise NoSuchEntryError(f"no entry {name!r}")
        return node

    async def _check_free(self, directory: Parent, name: bytes) -> None:
        if await self._parts.namespace.child(directory, name) is not None:
            raise EntryExistsError("the name is taken")
        self._parts.check_attached(directory)

    def _open_control(self, inode: InodeNumber, flags: OpenFlags) -> OpenedFile:
        if flags.can_write:
            raise NotPermittedError("the control directory is not for changing")
        handle = self._parts.handles.add(ControlHandle(text=self._control.text(inode)))
        return OpenedFile(handle=handle, direct_io=True, keep_cache=False)

    async def _keep_facts(self, node: Node) -> None:
        """Keep a time or mode that was set; a local-only file keeps its own."""
        if isinstance(node, File) and node.is_local_only and not node.is_claimed:
            open_file = self._parts.store.get(node.inode)
            if open_file is not None and node.parent is not None:
                await self._saver.keep_local(node, open_file)
                return
        if isinstance(node, File) and node.is_claimed:
            self._recorder.touched(node)
        self._parts.keep_facts(node)
