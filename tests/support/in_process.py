"""A whole mount in this process, without a kernel, in the virtual time of trio's ``MockClock``.

What the kernel would do is done here by hand: path walks, lookup counts, open, flush, release.
Failures arrive in our own words (``ctrfs.errors``). Nothing is cached on this side, so what a
test sees is always the file system's present answer.

The clock stands still but for ``MockClock.jump`` and, with ``autojump_clock``, for waits that
nothing else can end. A sync of the spool runs in a thread; autojump then finds nothing to jump
to, as no task of an idle mount has a deadline.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import trio
from tests.support.service import InProcessService, TrioClock

from ctrfs.api.client import open_client
from ctrfs.api.connections import TransportFactory
from ctrfs.config import ApiConfig, ContentConfig, FileSystemConfig, Secret, TreeConfig
from ctrfs.disk.state_dir import StateDirectory
from ctrfs.errors import NoSuchEntryError
from ctrfs.fs.attributes import AttributeChanges, Attributes, EntryKind, NoEntry, OpenFlags
from ctrfs.fs.file_system import FileSystem
from ctrfs.fs.handles import HandleNumber
from ctrfs.fs.parts import Parts
from ctrfs.mount.graph import Floors, GraphConfig, KernelCaches, build_floors
from ctrfs.mount.one_container import container_named
from ctrfs.tree.container_tree import Change
from ctrfs.tree.nodes import InodeNumber

READ: Final = OpenFlags(can_read=True, can_write=False)
WRITE: Final = OpenFlags(can_read=True, can_write=True)
TRUNCATE: Final = OpenFlags(can_read=False, can_write=True, truncate=True)
EXCLUSIVE: Final = OpenFlags(can_read=True, can_write=True, exclusive=True)

_PIECE_BYTES: Final = 128 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a mount is made with."""

    tree: TreeConfig = field(default_factory=TreeConfig)
    content: ContentConfig = field(default_factory=ContentConfig)
    files: FileSystemConfig = field(default_factory=FileSystemConfig)
    only: str | None = None
    """The name or id of the one container to show as the root."""


class InProcessMount:
    """A mount to work with; paths are relative to its root.

    Attributes:
        floors: What the mount is made of.
        fs: For what has no short form here.
        parts: The floors below and their tables, to look at.
        changes: Every name that the kernel was told to forget.
        stale_pages: Every inode whose pages the kernel was told to forget.

    Invariant: each inode in ``_known`` has been remembered exactly that often.
    """

    def __init__(
        self, floors: Floors, *, changes: Sequence[Change], stale_pages: Sequence[InodeNumber]
    ) -> None:
        self.floors = floors
        self.fs: FileSystem = floors.file_system
        self.parts: Parts = floors.file_system._parts
        self.changes = changes
        self.stale_pages = stale_pages
        self._known: dict[InodeNumber, int] = {}

    # Names

    async def stat(self, path: str) -> Attributes:
        """Return what stat(2) shows."""
        at = await self.fs.getattr(self.parts.tree.root.inode)
        for part in filter(None, path.split("/")):
            found = await self.fs.lookup(at.inode, os.fsencode(part))
            if isinstance(found, NoEntry):
                raise NoSuchEntryError(path)
            self.remember(found.inode)
            at = found
        return at

    async def exists(self, path: str) -> bool:
        """Tell whether ``path`` leads anywhere."""
        try:
            await self.stat(path)
        except NoSuchEntryError:
            return False
        return True

    async def names(self, path: str = "") -> list[str]:
        """Return the names in a directory, in order."""
        handle = await self.fs.opendir((await self.stat(path)).inode)
        try:
            entries = list(self.fs.readdir(handle, 0))
        finally:
            self.fs.releasedir(handle)
        return [os.fsdecode(entry.name) for entry in entries if entry.name not in {b".", b".."}]

    async def walk(self, path: str = "") -> dict[str, bytes | None]:
        """Return everything below ``path``: bytes of files, None for directories."""
        found: dict[str, bytes | None] = {}
        for name in await self.names(path):
            inner = f"{path}/{name}" if path else name
            if (await self.stat(inner)).kind is EntryKind.DIRECTORY:
                found[inner] = None
                found |= await self.walk(inner)
            else:
                found[inner] = await self.read_file(inner)
        return found

    async def mkdir(self, path: str) -> Attributes:
        """Make a container or a folder."""
        parent, name = await self._place_of(path)
        made = await self.fs.mkdir(parent, name, 0o755)
        self.remember(made.inode)
        return made

    async def rmdir(self, path: str) -> None:
        """Remove a container or a folder."""
        await self.fs.rmdir(*await self._place_of(path))

    async def unlink(self, path: str) -> None:
        """Remove a file."""
        await self.fs.unlink(*await self._place_of(path))

    async def rename(self, old: str, new: str, *, no_replace: bool = False) -> None:
        """Give an entry another name."""
        source, destination = await self._place_of(old), await self._place_of(new)
        await self.fs.rename(*source, *destination, no_replace=no_replace)

    # Files

    async def open(self, path: str, flags: OpenFlags = READ) -> HandleNumber:
        """Open a file that is there."""
        opened = await self.fs.open((await self.stat(path)).inode, flags)
        return opened.handle

    async def create(self, path: str, flags: OpenFlags = WRITE) -> HandleNumber:
        """Make and open a file, or open the one that is there."""
        parent, name = await self._place_of(path)
        opened, made = await self.fs.create(parent, name, 0o644, flags)
        self.remember(made.inode)
        return opened.handle

    async def close(self, handle: HandleNumber) -> None:
        """Do what the last close(2) of a descriptor does; its error is that of the flush."""
        try:
            await self.fs.flush(handle)
        finally:
            await self.fs.release(handle)

    async def read_all(self, handle: HandleNumber) -> bytes:
        """Return all bytes of an open file."""
        content = b""
        while piece := await self.fs.read(handle, len(content), _PIECE_BYTES):
            content += piece
        return content

    async def read_file(self, path: str) -> bytes:
        """Open, read to the end, close."""
        handle = await self.open(path)
        try:
            return await self.read_all(handle)
        finally:
            await self.close(handle)

    async def write_file(self, path: str, content: bytes) -> None:
        """Make or overwrite a file, as a shell's ``>`` does."""
        is_there = await self.exists(path)
        handle = await (self.open(path, TRUNCATE) if is_there else self.create(path))
        try:
            await self.fs.write(handle, 0, content)
        finally:
            await self.close(handle)

    # Facts

    async def set(self, path: str, changes: AttributeChanges) -> Attributes:
        """Change attributes by name: no handle is given."""
        return await self.fs.setattr((await self.stat(path)).inode, changes, None)

    async def attribute(self, path: str, name: str) -> str:
        """Return an extended attribute of ours."""
        value = await self.fs.getxattr(
            (await self.stat(path)).inode, b"user.ctrfs." + name.encode()
        )
        return value.decode()

    async def refresh(self, path: str) -> None:
        """Have the listing of a directory fetched anew."""
        await self.fs.setxattr((await self.stat(path)).inode, b"user.ctrfs.refresh", b"1")

    async def sync(self, path: str = "") -> None:
        """Do what ``sync DIR`` does: have the service get all that is pending below."""
        handle = await self.fs.opendir((await self.stat(path)).inode)
        try:
            await self.fs.fsyncdir(handle)
        finally:
            self.fs.releasedir(handle)

    def remember(self, inode: InodeNumber) -> None:
        """Count a lookup, as the kernel does for each entry that it is told of."""
        self.fs.remember(inode)
        self._known[inode] = self._known.get(inode, 0) + 1

    def forget_all(self) -> None:
        """Give back all lookups, as the kernel does under memory pressure and at the end."""
        self.fs.forget(list(self._known.items()))
        self._known.clear()

    def check_invariants(self) -> None:
        """Raise AssertionError if any of the stateful objects contradicts itself."""
        self.parts.tree.check_invariants()
        self.parts.handles.check_invariants()
        self.parts.store.check_invariants()

    async def _place_of(self, path: str) -> tuple[InodeNumber, bytes]:
        folder, _, name = path.rpartition("/")
        return (await self.stat(folder)).inode, os.fsencode(name)


@asynccontextmanager
async def mounted(
    service: InProcessService,
    directory: Path,
    settings: Settings | None = None,
    *,
    transport_factory: TransportFactory | None = None,
) -> AsyncIterator[InProcessMount]:
    """Mount ``service``, keeping state in ``directory``; the same one again is a remount.

    Leaving the block is an orderly end without a drain: what is unsent then stays unsent.
    ``transport_factory`` leads another way than straight to the service.
    """
    wanted = settings or Settings()
    clock = TrioClock()
    changes: list[Change] = []
    stale_pages: list[InodeNumber] = []
    config = ApiConfig(base_url=service.base_url, key=Secret(service.key))
    with StateDirectory.open(directory, "in-process", clock=clock) as state:
        async with (
            open_client(
                config,
                clock=clock,
                transport_factory=transport_factory or (lambda: service.transport),
                jitter=lambda: 0.0,
            ) as api,
            trio.open_nursery() as nursery,
        ):
            floors = build_floors(
                api,
                state,
                clock=clock,
                config=GraphConfig(
                    tree=wanted.tree,
                    content=wanted.content,
                    files=wanted.files,
                    source="in-process:",
                ),
                nursery=nursery,
                caches=KernelCaches(on_changes=changes.extend, on_pages_stale=stale_pages.append),
            )
            only = None if wanted.only is None else await container_named(api, wanted.only)
            await floors.start(nursery, only=only)
            mount = InProcessMount(floors, changes=changes, stale_pages=stale_pages)
            yield mount
            mount.check_invariants()
            mount.forget_all()
            mount.check_invariants()
            nursery.cancel_scope.cancel()
