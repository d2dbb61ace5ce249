"""One mount as the players of ``operations`` see it: system calls in, bytes or ``OSError`` out.

Also what it shows at this moment, by path, which a player compares with what it ought to be.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import trio
from tests.support.in_process import WRITE, InProcessMount, Settings, mounted
from tests.support.service import InProcessService

from ctrfs.errors import CtrfsError
from ctrfs.fs.attributes import AttributeChanges, EntryKind, OpenFlags
from ctrfs.fs.handles import HandleNumber
from ctrfs.fuse.errno_map import errno_for
from ctrfs.tree.nodes import ContainerDirectory, Directory, File, InodeNumber

OVERWRITE: Final = OpenFlags(can_read=True, can_write=True, truncate=True)


@dataclass(frozen=True, slots=True)
class Shown:
    """A file that a mount shows.

    Attributes:
        inode: The same for as long as it is the same file.
        id: Of the service's row that its bytes are or were made from.
    """

    inode: int
    id: str | None


@dataclass(frozen=True, slots=True)
class View:
    """What a mount shows of a container at one moment, without asking anybody."""

    container_id: str
    files: dict[str, Shown]
    folders: frozenset[str]


class Machine(Protocol):
    """A mount. Everything but ``view`` raises OSError as a system call would."""

    async def start(self) -> None: ...
    async def stop(self) -> None: ...
    async def kill(self) -> None: ...
    async def open(self, path: str, *, makes: bool = False, empties: bool = False) -> int: ...
    async def inode(self, descriptor: int) -> int: ...
    async def read(self, descriptor: int) -> bytes: ...
    async def write(self, descriptor: int, offset: int, content: bytes) -> None: ...
    async def truncate(self, descriptor: int, size: int) -> None: ...
    async def sync(self, descriptor: int) -> None: ...
    async def close(self, descriptor: int) -> None: ...
    async def is_folder(self, path: str) -> bool: ...
    async def names(self, path: str) -> list[str]: ...
    async def unlink(self, path: str) -> None: ...
    async def rename(self, old: str, new: str) -> None: ...
    async def mkdir(self, path: str) -> None: ...
    async def rmdir(self, path: str) -> None: ...
    async def refresh(self, path: str) -> None: ...
    async def view(self, container: str) -> View | None: ...


class InProcessMachine:
    """A mount in this process, in virtual time.

    Owner: the nursery that it is given runs it; ``kill`` drops it where it stands.
    """

    def __init__(
        self,
        service: InProcessService,
        state: Path,
        nursery: trio.Nursery,
        settings: Settings | None = None,
    ) -> None:
        self._service = service
        self._state = state
        self._nursery = nursery
        self._settings = settings
        self._mount: InProcessMount | None = None
        self._scope = trio.CancelScope()
        self._is_told_to_end = trio.Event()
        self._has_ended = trio.Event()

    @property
    def mount(self) -> InProcessMount:
        """What runs now."""
        assert self._mount is not None, "not mounted"
        return self._mount

    async def start(self) -> None:
        """Mount."""
        self._scope = trio.CancelScope()
        self._is_told_to_end, self._has_ended = trio.Event(), trio.Event()
        with _as_os_error("mount"):
            await self._nursery.start(self._run)

    async def stop(self) -> None:
        """Unmount in order: what is unsent is sent first, or else recorded."""
        await self.mount.fs.drain()
        await self.mount.fs.record_unsent()
        self._is_told_to_end.set()
        await self._has_ended.wait()

    async def kill(self) -> None:
        """Drop the mount: nothing is drained or recorded, and its descriptors go with it."""
        spool = self.mount.parts.store._spool._path
        self._scope.cancel()
        await self._has_ended.wait()
        _close_all_below(spool)

    async def _run(self, task_status: trio.TaskStatus[None]) -> None:
        try:
            with self._scope:
                async with mounted(self._service, self._state, self._settings) as self._mount:
                    task_status.started()
                    await self._is_told_to_end.wait()
        finally:
            self._mount = None
            self._has_ended.set()

    # Files

    async def open(self, path: str, *, makes: bool = False, empties: bool = False) -> int:
        """Open for reading and writing."""
        with _as_os_error("open"):
            if makes and not await self.mount.exists(path):
                return await self.mount.create(path)
            return await self.mount.open(path, OVERWRITE if empties else WRITE)

    async def inode(self, descriptor: int) -> int:
        """Return which file it is."""
        opened = self.mount.parts.handles.writable(HandleNumber(descriptor))
        return opened.file.inode

    async def read(self, descriptor: int) -> bytes:
        """Read all."""
        with _as_os_error("read"):
            return await self.mount.read_all(HandleNumber(descriptor))

    async def write(self, descriptor: int, offset: int, content: bytes) -> None:
        """Write all of ``content``."""
        with _as_os_error("write"):
            written = await self.mount.fs.write(HandleNumber(descriptor), offset, content)
            assert written == len(content)

    async def truncate(self, descriptor: int, size: int) -> None:
        """Do ftruncate(2)."""
        inode = await self.inode(descriptor)
        with _as_os_error("setattr"):
            await self.mount.fs.setattr(
                InodeNumber(inode), AttributeChanges(size_bytes=size), HandleNumber(descriptor)
            )

    async def sync(self, descriptor: int) -> None:
        """Do fsync(2)."""
        with _as_os_error("fsync"):
            await self.mount.fs.fsync(HandleNumber(descriptor))

    async def close(self, descriptor: int) -> None:
        """Do close(2)."""
        with _as_os_error("flush"):
            await self.mount.close(HandleNumber(descriptor))

    # Names

    async def is_folder(self, path: str) -> bool:
        """Do stat(2)."""
        with _as_os_error("lookup"):
            return (await self.mount.stat(path)).kind is EntryKind.DIRECTORY

    async def names(self, path: str) -> list[str]:
        """Do readdir(3)."""
        with _as_os_error("opendir"):
            return await self.mount.names(path)

    async def unlink(self, path: str) -> None:
        """Do unlink(2)."""
        with _as_os_error("unlink"):
            await self.mount.unlink(path)

    async def rename(self, old: str, new: str) -> None:
        """Do rename(2)."""
        with _as_os_error("rename"):
            await self.mount.rename(old, new)

    async def mkdir(self, path: str) -> None:
        """Do mkdir(2)."""
        with _as_os_error("mkdir"):
            await self.mount.mkdir(path)

    async def rmdir(self, path: str) -> None:
        """Do rmdir(2)."""
        with _as_os_error("rmdir"):
            await self.mount.rmdir(path)

    async def refresh(self, path: str) -> None:
        """Set ``user.ctrfs.refresh``."""
        with _as_os_error("setxattr"):
            await self.mount.refresh(path)

    async def view(self, container: str) -> View | None:
        """Return what the tree has of a container; sends nothing."""
        self.mount.check_invariants()
        owner = self.mount.parts.tree.root.children.get(os.fsencode(container))
        if not isinstance(owner, ContainerDirectory):
            return None
        files: dict[str, Shown] = {}
        folders: set[str] = set()
        for path, node in _below(owner, ""):
            if isinstance(node, File):
                files[path] = Shown(node.inode, None if node.remote is None else node.remote.id)
            else:
                folders.add(path)
        return View(owner.container.id, files, frozenset(folders))


def _below(
    folder: ContainerDirectory | Directory, above: str
) -> Iterator[tuple[str, Directory | File]]:
    for name, node in folder.children.items():
        path = above + os.fsdecode(name)
        yield path, node
        if isinstance(node, Directory):
            yield from _below(node, f"{path}/")


def _close_all_below(directory: Path) -> None:
    for link in list(Path("/proc/self/fd").iterdir()):
        with suppress(FileNotFoundError):
            if directory in link.readlink().parents:
                os.close(int(link.name))


@contextmanager
def _as_os_error(operation: str) -> Iterator[None]:
    """Turn our errors into those that a program sees."""
    try:
        yield
    except (CtrfsError, BaseExceptionGroup) as caught:
        error = _one_of(caught)
        number = errno_for(error, operation=operation)
        text = f"{errno.errorcode[number]}: {type(error).__name__}: {error}"
        raise OSError(number, text) from error


def _one_of(caught: BaseException) -> CtrfsError:
    """Return the only error in what nurseries have wrapped; raise what is more than that."""
    inner = caught
    while isinstance(inner, BaseExceptionGroup) and len(inner.exceptions) == 1:
        inner = inner.exceptions[0]
    if isinstance(inner, CtrfsError):
        return inner
    raise caught
