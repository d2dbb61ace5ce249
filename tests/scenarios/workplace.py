"""One directory to work in, by system calls: a mounted one, or the file system in this process.

Paths are relative to the directory. Whatever fails raises ``OSError`` with the errno that a
program on the mount would see, in both.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, ParamSpec, Protocol, TypeVar

import trio
from tests.support.write_modes import sync_directory
from typing_extensions import override

P = ParamSpec("P")
R = TypeVar("R")

AT_FDCWD: Final = -100
RENAME_NOREPLACE: Final = 1
RENAME_EXCHANGE: Final = 2
_LIBC: Final = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """What stat says."""

    size_bytes: int
    permissions: int
    mtime_ns: int
    is_folder: bool
    inode: int


class OpenWork(Protocol):
    """A file that is open."""

    async def read(self, offset: int, size: int) -> bytes: ...

    async def write(self, offset: int, content: bytes) -> int: ...

    async def truncate(self, size: int) -> None: ...

    async def sync(self) -> None: ...

    async def size(self) -> int: ...


class Workplace(Protocol):
    """A directory to work in."""

    def opened(self, path: str, flags: int) -> AbstractAsyncContextManager[OpenWork]: ...

    async def make_folder(self, path: str) -> None: ...

    async def remove_folder(self, path: str) -> None: ...

    async def sync_folder(self, path: str = "") -> None: ...

    async def remove_file(self, path: str) -> None: ...

    async def rename(self, old: str, new: str, *, flags: int = 0) -> None: ...

    async def names(self, path: str = "") -> list[str]: ...

    async def status(self, path: str) -> Status: ...

    async def truncate(self, path: str, size: int) -> None: ...

    async def set_permissions(self, path: str, permissions: int) -> None: ...

    async def set_mtime(self, path: str, mtime_ns: int) -> None: ...

    async def make_symlink(self, path: str) -> None: ...

    async def make_hard_link(self, path: str, other: str) -> None: ...

    async def attribute(self, path: str, name: str) -> bytes: ...

    async def set_attribute(self, path: str, name: str, value: bytes) -> None: ...


async def write_file(place: Workplace, path: str, content: bytes) -> None:
    """Make or overwrite a file, as a shell's ``>`` does."""
    async with place.opened(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) as file:
        await file.write(0, content)


async def read_file(place: Workplace, path: str) -> bytes:
    """Return all bytes of a file."""
    content = b""
    async with place.opened(path, os.O_RDONLY) as file:
        while piece := await file.read(len(content), 65536):
            content += piece
    return content


class DirectoryWorkplace(Workplace):
    """Any directory of this machine; calls run in threads, so that a hung one can be aborted."""

    def __init__(self, top: Path) -> None:
        self._top = top

    @override
    @asynccontextmanager
    async def opened(self, path: str, flags: int) -> AsyncIterator[OpenWork]:
        descriptor = await in_thread(os.open, self._top / path, flags, 0o644)
        try:
            yield _Descriptor(descriptor)
        finally:
            with trio.CancelScope(shield=True):
                await in_thread(os.close, descriptor)

    @override
    async def make_folder(self, path: str) -> None:
        await in_thread((self._top / path).mkdir)

    @override
    async def remove_folder(self, path: str) -> None:
        await in_thread((self._top / path).rmdir)

    @override
    async def sync_folder(self, path: str = "") -> None:
        await in_thread(sync_directory, self._top / path)

    @override
    async def remove_file(self, path: str) -> None:
        await in_thread((self._top / path).unlink)

    @override
    async def rename(self, old: str, new: str, *, flags: int = 0) -> None:
        await in_thread(_renameat2, self._top / old, self._top / new, flags)

    @override
    async def names(self, path: str = "") -> list[str]:
        entries = await in_thread(lambda: list((self._top / path).iterdir()))
        return sorted(entry.name for entry in entries)

    @override
    async def status(self, path: str) -> Status:
        found = await in_thread((self._top / path).lstat)
        return Status(
            size_bytes=found.st_size,
            permissions=stat.S_IMODE(found.st_mode),
            mtime_ns=found.st_mtime_ns,
            is_folder=stat.S_ISDIR(found.st_mode),
            inode=found.st_ino,
        )

    @override
    async def truncate(self, path: str, size: int) -> None:
        await in_thread(os.truncate, self._top / path, size)

    @override
    async def set_permissions(self, path: str, permissions: int) -> None:
        await in_thread((self._top / path).chmod, permissions)

    @override
    async def set_mtime(self, path: str, mtime_ns: int) -> None:
        await in_thread(lambda: os.utime(self._top / path, ns=(mtime_ns, mtime_ns)))

    @override
    async def make_symlink(self, path: str) -> None:
        await in_thread((self._top / path).symlink_to, "target")

    @override
    async def make_hard_link(self, path: str, other: str) -> None:
        await in_thread((self._top / path).hardlink_to, self._top / other)

    @override
    async def attribute(self, path: str, name: str) -> bytes:
        return await in_thread(os.getxattr, self._top / path, name)

    @override
    async def set_attribute(self, path: str, name: str, value: bytes) -> None:
        await in_thread(os.setxattr, self._top / path, name, value)


class _Descriptor(OpenWork):
    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @override
    async def read(self, offset: int, size: int) -> bytes:
        return await in_thread(os.pread, self._descriptor, size, offset)

    @override
    async def write(self, offset: int, content: bytes) -> int:
        return await in_thread(os.pwrite, self._descriptor, content, offset)

    @override
    async def truncate(self, size: int) -> None:
        await in_thread(os.ftruncate, self._descriptor, size)

    @override
    async def sync(self) -> None:
        await in_thread(os.fsync, self._descriptor)

    @override
    async def size(self) -> int:
        return (await in_thread(os.fstat, self._descriptor)).st_size


async def in_thread(call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Run a system call that may wait for the mount."""
    return await trio.to_thread.run_sync(lambda: call(*args, **kwargs))


def _renameat2(old: Path, new: Path, flags: int) -> None:
    """Rename with flags, for which the standard library has no function."""
    if _LIBC.renameat2(AT_FDCWD, os.fsencode(old), AT_FDCWD, os.fsencode(new), flags) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), old, None, new)


def errno_of(error: BaseException) -> str:
    """Return the name of an ``OSError``'s errno, which reads better than its number."""
    assert isinstance(error, OSError)
    # One number has two names on Linux.
    name = errno.errorcode[error.errno or 0]
    return "EOPNOTSUPP" if name == "ENOTSUP" else name
