"""The kernel's requests: convert, delegate, convert back. Nothing is decided here.

pyfuse3 calls one method a request, each in a task of its own. Whatever a method raises but
``FUSEError`` would end the mount, so each wears ``replies_with_errno``. ``poll`` and
the file locks stay unimplemented: the kernel then does them by itself. ``readlink`` is never
asked, there being no links.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeAlias

import pyfuse3
import trio
from typing_extensions import override

from ctrfs.clock import Clock
from ctrfs.errors import NotPermittedError, UnsupportedAttributeError, UnsupportedRenameError
from ctrfs.fs.attributes import NoEntry
from ctrfs.fs.file_system import FileSystem
from ctrfs.fs.handles import HandleNumber
from ctrfs.fuse.convert import (
    changes_from_fields,
    entry_from_attributes,
    entry_from_nothing,
    file_info_from_opened,
    flags_from_bits,
    statvfs_from_capacity,
)
from ctrfs.fuse.errno_map import replies_with_errno
from ctrfs.fuse.time_limits import TimeLimits
from ctrfs.tree.nodes import InodeNumber

# What is outside it (access control lists, security labels, capabilities) is never kept, and
# "not supported" is the answer that programs remember: ls -l then asks for the first file only.
_KEPT_ATTRIBUTES: Final = b"user."
# Read, it has no value, but says so only once the kernel knows all that a refresh has found.
_REFRESH: Final = b"user.ctrfs.refresh"
# What mknod of a regular file amounts to.
_MKNOD_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL

# pyfuse3 annotates its base class with these very types; the short names keep lines readable.
Context: TypeAlias = pyfuse3.RequestContext
Entry: TypeAlias = pyfuse3.EntryAttributes


class Operations(pyfuse3.Operations):
    """Answers the kernel out of a ``FileSystem``.

    A lookup count rises by exactly one for each entry the kernel is told of, in the last step
    before the reply, without an await between: ``forget`` then always finds it.
    """

    supports_dot_lookup = False  # only NFS exports need it
    enable_writeback_cache = False
    enable_acl = False

    def __init__(
        self,
        file_system: FileSystem,
        *,
        clock: Clock,
        limits: TimeLimits | None = None,
        on_begin: Callable[[], None] = lambda: None,
        kernel_is_told: Callable[[], Awaitable[object]] = trio.lowlevel.checkpoint,
    ) -> None:
        """Answer out of ``file_system``.

        Args:
            file_system: Decides everything.
            clock: Measures how long a request takes.
            limits: How long one may take; None is the usual ones.
            on_begin: Told once the kernel begins to ask.
            kernel_is_told: Waits until the kernel knows of all changes that were noticed.
        """
        super().__init__()
        self.clock = clock
        self.limits = limits or TimeLimits()
        self._fs = file_system
        self._on_begin = on_begin
        self._kernel_is_told = kernel_is_told

    @override
    def init(self) -> None:
        # The kernel gets our answer to its greeting in the step that this is called from.
        trio.lowlevel.current_trio_token().run_sync_soon(self._on_begin)

    def path_of(self, number: int, *, is_handle: bool) -> str:
        """Return the path that an inode or a handle stands for, for the log; never raises."""
        if is_handle:
            return self._fs.describer.handle(HandleNumber(number))
        return self._fs.describer.inode(InodeNumber(number))

    @override
    @replies_with_errno
    async def lookup(self, parent_inode: int, name: bytes, ctx: Context) -> Entry:
        found = await self._fs.lookup(InodeNumber(parent_inode), name)
        if isinstance(found, NoEntry):
            return entry_from_nothing(found)
        entry = entry_from_attributes(found)
        self._fs.remember(found.inode)
        return entry

    @override
    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        # Nobody waits for an answer here, and even FUSEError would end the mount.
        with contextlib.suppress(pyfuse3.FUSEError):
            await self._forget(inode_list)

    @replies_with_errno
    async def _forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        self._fs.forget([(InodeNumber(inode), count) for inode, count in inode_list])

    @override
    @replies_with_errno
    async def getattr(self, inode: int, ctx: Context) -> Entry:
        return entry_from_attributes(await self._fs.getattr(InodeNumber(inode)))

    @override
    @replies_with_errno
    async def setattr(
        self,
        inode: int,
        attr: Entry,
        fields: pyfuse3.SetattrFields,
        fh: int | None,
        ctx: Context,
    ) -> Entry:
        attributes = await self._fs.setattr(
            InodeNumber(inode),
            changes_from_fields(attr, fields),
            None if fh is None else HandleNumber(fh),
        )
        return entry_from_attributes(attributes)

    @override
    @replies_with_errno
    async def access(self, inode: int, mode: int, ctx: Context) -> bool:
        return await self._fs.access(InodeNumber(inode), mode)

    @override
    @replies_with_errno
    async def statfs(self, ctx: Context) -> pyfuse3.StatvfsData:
        return statvfs_from_capacity(self._fs.statfs())

    # Names

    @override
    @replies_with_errno
    async def mkdir(self, parent_inode: int, name: bytes, mode: int, ctx: Context) -> Entry:
        made = await self._fs.mkdir(InodeNumber(parent_inode), name, stat.S_IMODE(mode))
        entry = entry_from_attributes(made)
        self._fs.remember(made.inode)
        return entry

    @override
    @replies_with_errno
    async def mknod(
        self, parent_inode: int, name: bytes, mode: int, rdev: int, ctx: Context
    ) -> Entry:
        if stat.S_IFMT(mode) not in {0, stat.S_IFREG}:
            raise NotPermittedError("only regular files can be made")
        opened, made = await self._fs.create(
            InodeNumber(parent_inode),
            name,
            stat.S_IMODE(mode),
            flags_from_bits(_MKNOD_FLAGS),
        )
        # mknod leaves nothing open; letting go of the file is what stores it.
        try:
            await self._fs.flush(opened.handle)
        finally:
            await self._fs.release(opened.handle)
        entry = entry_from_attributes(made)
        self._fs.remember(made.inode)
        return entry

    @override
    @replies_with_errno
    async def unlink(self, parent_inode: int, name: bytes, ctx: Context) -> None:
        await self._fs.unlink(InodeNumber(parent_inode), name)

    @override
    @replies_with_errno
    async def rmdir(self, parent_inode: int, name: bytes, ctx: Context) -> None:
        await self._fs.rmdir(InodeNumber(parent_inode), name)

    @override
    @replies_with_errno
    async def rename(
        self,
        parent_inode_old: int,
        name_old: bytes,
        parent_inode_new: int,
        name_new: bytes,
        flags: int,
        ctx: Context,
    ) -> None:
        if flags & ~pyfuse3.RENAME_NOREPLACE:
            raise UnsupportedRenameError("entries cannot be exchanged")
        await self._fs.rename(
            InodeNumber(parent_inode_old),
            name_old,
            InodeNumber(parent_inode_new),
            name_new,
            no_replace=bool(flags & pyfuse3.RENAME_NOREPLACE),
        )

    @override
    @replies_with_errno
    async def symlink(self, parent_inode: int, name: bytes, target: bytes, ctx: Context) -> Entry:
        raise NotPermittedError("the service has no symbolic links")

    @override
    @replies_with_errno
    async def link(self, inode: int, new_parent_inode: int, new_name: bytes, ctx: Context) -> Entry:
        raise NotPermittedError("the service has no hard links")

    # Directories

    @override
    @replies_with_errno
    async def opendir(self, inode: int, ctx: Context) -> int:
        return await self._fs.opendir(InodeNumber(inode))

    @override
    @replies_with_errno
    async def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        for line in self._fs.readdir(HandleNumber(fh), start_id):
            entry = entry_from_attributes(line.attributes)
            if not pyfuse3.readdir_reply(token, line.name, entry, line.next_cookie):
                break
            # The kernel took the entry together with its attributes, which counts as a lookup;
            # not for the two dots. Source: fuse_direntplus_link in fs/fuse/readdir.c of Linux.
            if line.name not in {b".", b".."}:
                self._fs.remember(line.attributes.inode)

    @override
    @replies_with_errno
    async def fsyncdir(self, fh: int, datasync: bool) -> None:
        await self._fs.fsyncdir(HandleNumber(fh))

    @override
    @replies_with_errno
    async def releasedir(self, fh: int) -> None:
        self._fs.releasedir(HandleNumber(fh))

    # Files

    @override
    @replies_with_errno
    async def open(self, inode: int, flags: int, ctx: Context) -> pyfuse3.FileInfo:
        return file_info_from_opened(
            await self._fs.open(InodeNumber(inode), flags_from_bits(flags), opener_pid=ctx.pid)
        )

    @override
    @replies_with_errno
    async def create(
        self, parent_inode: int, name: bytes, mode: int, flags: int, ctx: Context
    ) -> tuple[pyfuse3.FileInfo, Entry]:
        opened, made = await self._fs.create(
            InodeNumber(parent_inode),
            name,
            stat.S_IMODE(mode),
            flags_from_bits(flags),
            opener_pid=ctx.pid,
        )
        answer = file_info_from_opened(opened), entry_from_attributes(made)
        self._fs.remember(made.inode)
        return answer

    @override
    @replies_with_errno
    async def read(self, fh: int, off: int, size: int) -> bytes:
        return await self._fs.read(HandleNumber(fh), off, size)

    @override
    @replies_with_errno
    async def write(self, fh: int, off: int, buf: bytes) -> int:
        return await self._fs.write(HandleNumber(fh), off, buf)

    @override
    @replies_with_errno
    async def flush(self, fh: int) -> None:
        await self._fs.flush(HandleNumber(fh))

    @override
    @replies_with_errno
    async def fsync(self, fh: int, datasync: bool) -> None:
        await self._fs.fsync(HandleNumber(fh))

    @override
    @replies_with_errno
    async def release(self, fh: int) -> None:
        await self._fs.release(HandleNumber(fh))

    # Extended attributes

    @override
    @replies_with_errno
    async def getxattr(self, inode: int, name: bytes, ctx: Context) -> bytes:
        _refuse_foreign(name)
        if name == _REFRESH:
            await self._kernel_is_told()
        return await self._fs.getxattr(InodeNumber(inode), name)

    @override
    @replies_with_errno
    async def setxattr(self, inode: int, name: bytes, value: bytes, ctx: Context) -> None:
        _refuse_foreign(name)
        await self._fs.setxattr(InodeNumber(inode), name, value)

    @override
    @replies_with_errno
    async def listxattr(self, inode: int, ctx: Context) -> Sequence[bytes]:
        return await self._fs.listxattr(InodeNumber(inode))

    @override
    @replies_with_errno
    async def removexattr(self, inode: int, name: bytes, ctx: Context) -> None:
        _refuse_foreign(name)
        await self._fs.removexattr(InodeNumber(inode), name)


def _refuse_foreign(name: bytes) -> None:
    if not name.startswith(_KEPT_ATTRIBUTES):
        raise UnsupportedAttributeError("attributes outside user. are not kept")
