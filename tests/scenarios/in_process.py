"""The file system in this process as a workplace: what the kernel would do, done by hand.

Only so much of the kernel is here as path walks, open flags and the order of flush and release
need; every check is the file system's own.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import trio
from tests.scenarios.workplace import (
    RENAME_EXCHANGE,
    RENAME_NOREPLACE,
    OpenWork,
    Status,
    Workplace,
)
from tests.support.service import InProcessService
from typing_extensions import override

from ctrfs.api.client import open_client
from ctrfs.clock import SystemClock
from ctrfs.config import ApiConfig, ContentConfig, FileSystemConfig, Secret, TreeConfig, WriteMode
from ctrfs.disk.state_dir import StateDirectory
from ctrfs.errors import CtrfsError
from ctrfs.fs.attributes import AttributeChanges, Attributes, EntryKind, NoEntry
from ctrfs.fs.file_system import FileSystem
from ctrfs.fs.handles import HandleNumber
from ctrfs.fuse.convert import flags_from_bits
from ctrfs.fuse.errno_map import errno_for
from ctrfs.mount.graph import GraphConfig, KernelCaches, build_floors
from ctrfs.tree.nodes import ROOT_INODE, InodeNumber

PERMISSIONS = 0o644


class InProcessWorkplace(Workplace):
    """A container of a ``FileSystem``.

    Invariant: each inode in ``_known`` has been remembered exactly that often.
    """

    def __init__(self, fs: FileSystem, top: InodeNumber) -> None:
        self._fs = fs
        self._top = top
        self._known: dict[InodeNumber, int] = {}

    def forget_all(self) -> None:
        """Give back what was remembered, as the kernel does when a mount ends."""
        self._fs.forget(list(self._known.items()))
        self._known.clear()

    @override
    @asynccontextmanager
    async def opened(self, path: str, flags: int) -> AsyncIterator[OpenWork]:
        with as_os_errors(path):
            handle, inode = await self._open(path, flags)
        try:
            yield _Handle(self._fs, handle, inode, is_appending=bool(flags & os.O_APPEND))
        finally:
            with trio.CancelScope(shield=True), as_os_errors(path):
                try:
                    await self._fs.flush(handle)
                finally:
                    await self._fs.release(handle)

    @override
    async def make_folder(self, path: str) -> None:
        with as_os_errors(path):
            parent, name = await self._parent(path)
            made = await self._fs.mkdir(parent, name, 0o755)
            self._remember(made.inode)

    @override
    async def remove_folder(self, path: str) -> None:
        with as_os_errors(path):
            await self._fs.rmdir(*await self._parent(path))

    @override
    async def sync_folder(self, path: str = "") -> None:
        with as_os_errors(path):
            handle = await self._fs.opendir((await self._walk(path)).inode)
            try:
                await self._fs.fsyncdir(handle)
            finally:
                self._fs.releasedir(handle)

    @override
    async def remove_file(self, path: str) -> None:
        with as_os_errors(path):
            await self._fs.unlink(*await self._parent(path))

    @override
    async def rename(self, old: str, new: str, *, flags: int = 0) -> None:
        if flags & RENAME_EXCHANGE:
            raise NotImplementedError("refused before the file system is asked")
        with as_os_errors(old):
            await self._fs.rename(
                *await self._parent(old),
                *await self._parent(new),
                no_replace=bool(flags & RENAME_NOREPLACE),
            )

    @override
    async def names(self, path: str = "") -> list[str]:
        with as_os_errors(path):
            handle = await self._fs.opendir((await self._walk(path)).inode)
            try:
                return sorted(
                    os.fsdecode(entry.name)
                    for entry in self._fs.readdir(handle, 0)
                    if entry.name not in {b".", b".."}
                )
            finally:
                self._fs.releasedir(handle)

    @override
    async def status(self, path: str) -> Status:
        with as_os_errors(path):
            found = await self._walk(path)
        return Status(
            size_bytes=found.size_bytes,
            permissions=found.permissions,
            mtime_ns=found.mtime_ns,
            is_folder=found.kind is EntryKind.DIRECTORY,
            inode=found.inode,
        )

    @override
    async def truncate(self, path: str, size: int) -> None:
        await self._change(path, AttributeChanges(size_bytes=size))

    @override
    async def set_permissions(self, path: str, permissions: int) -> None:
        await self._change(path, AttributeChanges(permissions=permissions))

    @override
    async def set_mtime(self, path: str, mtime_ns: int) -> None:
        await self._change(path, AttributeChanges(mtime_ns=mtime_ns, atime_ns=mtime_ns))

    @override
    async def make_symlink(self, path: str) -> None:
        raise NotImplementedError("refused before the file system is asked")

    @override
    async def make_hard_link(self, path: str, other: str) -> None:
        raise NotImplementedError("refused before the file system is asked")

    @override
    async def attribute(self, path: str, name: str) -> bytes:
        with as_os_errors(path):
            return await self._fs.getxattr((await self._walk(path)).inode, name.encode())

    @override
    async def set_attribute(self, path: str, name: str, value: bytes) -> None:
        with as_os_errors(path):
            await self._fs.setxattr((await self._walk(path)).inode, name.encode(), value)

    async def _open(self, path: str, flags: int) -> tuple[HandleNumber, InodeNumber]:
        parent, name = await self._parent(path)
        found = await self._fs.lookup(parent, name)
        if isinstance(found, NoEntry) and flags & os.O_CREAT:
            opened, made = await self._fs.create(parent, name, PERMISSIONS, flags_from_bits(flags))
            self._remember(made.inode)
            return opened.handle, made.inode
        if flags & os.O_CREAT and flags & os.O_EXCL:
            raise FileExistsError(17, "File exists", path)
        existing = await self._walk(path)
        opened = await self._fs.open(existing.inode, flags_from_bits(flags))
        return opened.handle, existing.inode

    async def _change(self, path: str, changes: AttributeChanges) -> None:
        with as_os_errors(path):
            await self._fs.setattr((await self._walk(path)).inode, changes, None)

    async def _parent(self, path: str) -> tuple[InodeNumber, bytes]:
        folder, _, name = path.rpartition("/")
        return (await self._walk(folder)).inode, os.fsencode(name)

    async def _walk(self, path: str) -> Attributes:
        at = await self._fs.getattr(self._top)
        for part in filter(None, path.split("/")):
            found = await self._fs.lookup(at.inode, os.fsencode(part))
            if isinstance(found, NoEntry):
                raise FileNotFoundError(2, "No such file or directory", path)
            self._remember(found.inode)
            # The kernel asks for fresh attributes of what it knows; so do we.
            at = await self._fs.getattr(found.inode)
        return at

    def _remember(self, inode: InodeNumber) -> None:
        self._fs.remember(inode)
        self._known[inode] = self._known.get(inode, 0) + 1


class _Handle(OpenWork):
    def __init__(
        self, fs: FileSystem, handle: HandleNumber, inode: InodeNumber, *, is_appending: bool
    ) -> None:
        self._fs = fs
        self._handle = handle
        self._inode = inode
        self._is_appending = is_appending

    @override
    async def read(self, offset: int, size: int) -> bytes:
        with as_os_errors("read"):
            return await self._fs.read(self._handle, offset, size)

    @override
    async def write(self, offset: int, content: bytes) -> int:
        with as_os_errors("write"):
            # The kernel turns an append into a write at the end it knows.
            start = await self.size() if self._is_appending else offset
            return await self._fs.write(self._handle, start, content)

    @override
    async def truncate(self, size: int) -> None:
        with as_os_errors("truncate"):
            changes = AttributeChanges(size_bytes=size)
            await self._fs.setattr(self._inode, changes, self._handle)

    @override
    async def sync(self) -> None:
        with as_os_errors("fsync"):
            await self._fs.fsync(self._handle)

    @override
    async def size(self) -> int:
        return (await self._fs.getattr(self._inode)).size_bytes


@asynccontextmanager
async def in_process_workplace(
    directory: Path, mode: WriteMode
) -> AsyncIterator[InProcessWorkplace]:
    """Provide a new container of a whole object graph, from the service up, without a kernel."""
    clock = SystemClock()
    with InProcessService(directory / "service") as service:
        api_config = ApiConfig(base_url=service.base_url, key=Secret(service.key))
        client = open_client(api_config, clock=clock, transport_factory=lambda: service.transport)
        with StateDirectory.open(directory / "state", "in process", clock=clock) as state:
            async with client as api, trio.open_nursery() as nursery:
                floors = build_floors(
                    api,
                    state,
                    clock=clock,
                    config=GraphConfig(
                        tree=TreeConfig(),
                        content=ContentConfig(),
                        files=FileSystemConfig(write_mode=mode),
                        source="openai:",
                    ),
                    nursery=nursery,
                    caches=KernelCaches(
                        on_changes=lambda _changes: None, on_pages_stale=lambda _inode: None
                    ),
                )
                await floors.start(nursery)
                fs = floors.file_system
                container = await fs.mkdir(ROOT_INODE, b"work", 0o755)
                fs.remember(container.inode)
                place = InProcessWorkplace(fs, container.inode)
                yield place
                place.forget_all()
                fs.forget([(container.inode, 1)])
                nursery.cancel_scope.cancel()


@contextmanager
def as_os_errors(path: str) -> Iterator[None]:
    """Raise what a program would see in place of our own words."""
    try:
        yield
    except CtrfsError as error:
        number = errno_for(error)
        raise OSError(number, os.strerror(number), path) from error
