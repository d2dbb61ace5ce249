"""The kernel's requests against a file system that only writes down what it is asked."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from typing import cast

import pyfuse3
import pytest

from ctrfs.clock import SystemClock
from ctrfs.errors import RemoteNotFoundError
from ctrfs.fs.attributes import (
    AttributeChanges,
    Attributes,
    Capacity,
    DirectoryEntry,
    EntryKind,
    NoEntry,
    OpenFlags,
)
from ctrfs.fs.file_system import FileSystem
from ctrfs.fs.handles import HandleNumber, OpenedFile
from ctrfs.fuse.operations import Operations
from ctrfs.tree.nodes import InodeNumber

# Only the kernel makes these; no handler looks into them.
CONTEXT = pyfuse3.RequestContext()
TOKEN = cast("pyfuse3.ReaddirToken", None)


def attributes(inode: int) -> Attributes:
    return Attributes(
        inode=InodeNumber(inode),
        kind=EntryKind.FILE,
        permissions=0o644,
        uid=0,
        gid=0,
        size_bytes=3,
        mtime_ns=0,
        atime_ns=0,
        ctime_ns=0,
        link_count=1,
        entry_timeout_s=1,
        attributes_timeout_s=1,
    )


class Numbers:
    """Stands in for ``Describer``."""

    def inode(self, inode: InodeNumber) -> str:
        return f"inode {inode}"

    def handle(self, handle: HandleNumber) -> str:
        return f"handle {handle}"


class Recorder:
    """Stands in for ``FileSystem``: every call becomes a line in ``calls``."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.failure: Exception | None = None
        self.describer = Numbers()

    def note(self, *words: object) -> None:
        self.calls.append(" ".join(str(word) for word in words))
        if self.failure is not None:
            raise self.failure

    async def lookup(self, parent: InodeNumber, name: bytes) -> Attributes | NoEntry:
        self.note("lookup", parent, name)
        return attributes(7) if name == b"a" else NoEntry(entry_timeout_s=9)

    def remember(self, inode: InodeNumber) -> None:
        self.note("remember", inode)

    def forget(self, pairs: Sequence[tuple[InodeNumber, int]]) -> None:
        self.note("forget", pairs)

    async def setattr(
        self, inode: InodeNumber, changes: AttributeChanges, handle: HandleNumber | None
    ) -> Attributes:
        self.note("setattr", inode, changes, handle)
        return attributes(inode)

    def readdir(self, handle: HandleNumber, cookie: int) -> Iterator[DirectoryEntry]:
        self.note("readdir", handle, cookie)
        return iter(
            DirectoryEntry(name=b"%d" % number, attributes=attributes(number), next_cookie=number)
            for number in range(cookie + 1, 5)
        )

    async def create(
        self,
        parent: InodeNumber,
        name: bytes,
        permissions: int,
        flags: OpenFlags,
        *,
        opener_pid: int | None = None,  # noqa: ARG002  # who opens is for the floors below
    ) -> tuple[OpenedFile, Attributes]:
        self.note("create", parent, name, oct(permissions), flags.exclusive)
        opened = OpenedFile(handle=HandleNumber(3), direct_io=False, keep_cache=True)
        return opened, attributes(8)

    async def flush(self, handle: HandleNumber) -> None:
        self.note("flush", handle)

    async def release(self, handle: HandleNumber) -> None:
        self.note("release", handle)

    async def mkdir(self, parent: InodeNumber, name: bytes, permissions: int) -> Attributes:
        self.note("mkdir", parent, name, oct(permissions))
        return attributes(9)

    async def rename(
        self,
        old_parent: InodeNumber,
        old_name: bytes,
        new_parent: InodeNumber,
        new_name: bytes,
        *,
        no_replace: bool,
    ) -> None:
        self.note("rename", old_parent, old_name, new_parent, new_name, no_replace)

    async def read(self, handle: HandleNumber, offset: int, size: int) -> bytes:
        self.note("read", handle, offset, size)
        return b"abc"

    async def getxattr(self, inode: InodeNumber, name: bytes) -> bytes:
        self.note("getxattr", inode, name)
        return b"value"

    async def setxattr(self, inode: InodeNumber, name: bytes, value: bytes) -> None:
        self.note("setxattr", inode, name, value)

    def statfs(self) -> Capacity:
        return Capacity(
            block_bytes=4096, blocks=5, blocks_free=4, entries=3, entries_free=2, name_bytes_max=255
        )


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def operations(recorder: Recorder) -> Operations:
    return Operations(cast("FileSystem", recorder), clock=SystemClock())


async def test_a_lookup_is_counted_in_the_last_step(
    operations: Operations, recorder: Recorder
) -> None:
    entry = await operations.lookup(1, b"a", CONTEXT)

    assert entry.st_ino == 7
    assert recorder.calls == ["lookup 1 b'a'", "remember 7"]


async def test_a_missing_name_is_an_answer_that_may_be_kept_and_is_not_counted(
    operations: Operations, recorder: Recorder
) -> None:
    entry = await operations.lookup(1, b"none", CONTEXT)

    assert (entry.st_ino, entry.entry_timeout) == (0, 9)
    assert recorder.calls == ["lookup 1 b'none'"]


async def test_every_entry_that_is_made_is_counted_once(
    operations: Operations, recorder: Recorder
) -> None:
    await operations.create(1, b"f", stat.S_IFREG | 0o640, os.O_CREAT | os.O_EXCL, CONTEXT)
    await operations.mkdir(1, b"d", stat.S_IFDIR | 0o750, CONTEXT)

    assert recorder.calls == [
        "create 1 b'f' 0o640 True",
        "remember 8",
        "mkdir 1 b'd' 0o750",
        "remember 9",
    ]


async def test_mknod_of_a_file_creates_stores_and_closes_it(
    operations: Operations, recorder: Recorder
) -> None:
    await operations.mknod(1, b"f", stat.S_IFREG | 0o600, 0, CONTEXT)

    assert recorder.calls == ["create 1 b'f' 0o600 True", "flush 3", "release 3", "remember 8"]


@pytest.mark.parametrize("kind", [stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFSOCK])
async def test_devices_pipes_and_sockets_are_not_permitted(
    operations: Operations, recorder: Recorder, kind: int
) -> None:
    with pytest.raises(pyfuse3.FUSEError) as caught:
        await operations.mknod(1, b"f", kind | 0o600, 0, CONTEXT)
    assert caught.value.errno == errno.EPERM
    assert recorder.calls == []


async def test_links_are_not_permitted(operations: Operations) -> None:
    with pytest.raises(pyfuse3.FUSEError) as soft:
        await operations.symlink(1, b"l", b"target", CONTEXT)
    with pytest.raises(pyfuse3.FUSEError) as hard:
        await operations.link(7, 1, b"l", CONTEXT)
    assert (soft.value.errno, hard.value.errno) == (errno.EPERM, errno.EPERM)


async def test_rename_can_be_told_not_to_replace_and_never_exchanges(
    operations: Operations, recorder: Recorder
) -> None:
    await operations.rename(1, b"a", 2, b"b", 0, CONTEXT)
    await operations.rename(1, b"a", 2, b"b", pyfuse3.RENAME_NOREPLACE, CONTEXT)
    with pytest.raises(pyfuse3.FUSEError) as caught:
        await operations.rename(1, b"a", 2, b"b", pyfuse3.RENAME_EXCHANGE, CONTEXT)

    assert caught.value.errno == errno.EINVAL
    assert recorder.calls == ["rename 1 b'a' 2 b'b' False", "rename 1 b'a' 2 b'b' True"]


@pytest.mark.parametrize(
    "name",
    [
        b"system.posix_acl_access",
        b"system.posix_acl_default",
        b"security.selinux",
        b"security.capability",
        b"trusted.overlay.opaque",
    ],
)
async def test_what_is_never_kept_is_called_not_supported_and_asked_of_nobody(
    operations: Operations, recorder: Recorder, name: bytes
) -> None:
    """``ls -l`` asks for the label of the next file, too, if it hears that this one has none."""
    with pytest.raises(pyfuse3.FUSEError) as when_read:
        await operations.getxattr(7, name, CONTEXT)
    with pytest.raises(pyfuse3.FUSEError) as when_set:
        await operations.setxattr(7, name, b"x", CONTEXT)

    assert when_read.value.errno == when_set.value.errno == errno.EOPNOTSUPP
    assert recorder.calls == []


async def test_attributes_of_users_pass(operations: Operations, recorder: Recorder) -> None:
    await operations.setxattr(7, b"user.ctrfs.refresh", b"1", CONTEXT)

    assert await operations.getxattr(7, b"user.ctrfs.id", CONTEXT) == b"value"
    assert recorder.calls == [
        "setxattr 7 b'user.ctrfs.refresh' b'1'",
        "getxattr 7 b'user.ctrfs.id'",
    ]


async def test_a_file_gone_from_the_service_is_stale_under_a_handle(
    operations: Operations, recorder: Recorder
) -> None:
    recorder.failure = RemoteNotFoundError("gone")

    with pytest.raises(pyfuse3.FUSEError) as by_handle:
        await operations.read(3, 0, 10)
    with pytest.raises(pyfuse3.FUSEError) as by_name:
        await operations.lookup(1, b"a", CONTEXT)

    assert (by_handle.value.errno, by_name.value.errno) == (errno.ESTALE, errno.ENOENT)


async def test_forget_never_raises(operations: Operations, recorder: Recorder) -> None:
    recorder.failure = ZeroDivisionError()

    await operations.forget([(7, 2)])

    assert recorder.calls == ["forget [(7, 2)]"]


async def test_a_bug_in_a_directory_walk_is_an_error_and_not_the_end(
    operations: Operations, recorder: Recorder
) -> None:
    recorder.failure = ZeroDivisionError()

    with pytest.raises(pyfuse3.FUSEError) as caught:
        await operations.readdir(3, 0, TOKEN)
    assert caught.value.errno == errno.EIO


async def test_df_asks_only_for_the_capacity(operations: Operations) -> None:
    assert (await operations.statfs(CONTEXT)).f_bavail == 4


def test_lookups_of_dot_are_left_to_the_kernel(operations: Operations) -> None:
    assert not operations.supports_dot_lookup
