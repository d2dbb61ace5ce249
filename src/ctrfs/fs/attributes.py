"""What ``stat`` shows of an entry, and what ``chmod``, ``touch`` and ``truncate`` ask of it."""

from __future__ import annotations

import enum
from typing import Final

import msgspec

from ctrfs.config import FileSystemConfig
from ctrfs.tree.names import NAME_BYTES_MAX
from ctrfs.tree.nodes import File, InodeNumber, Node


class EntryKind(enum.Enum):
    """What an entry is; there are no links and no devices."""

    FILE = "file"
    DIRECTORY = "directory"


class Attributes(msgspec.Struct, frozen=True, kw_only=True):
    """The facts of one entry, and how long the kernel may keep them."""

    inode: InodeNumber
    kind: EntryKind
    permissions: int
    """The low twelve bits of ``st_mode``."""
    uid: int
    gid: int
    size_bytes: int
    mtime_ns: int
    atime_ns: int
    ctime_ns: int
    link_count: int
    entry_timeout_s: float
    attributes_timeout_s: float


class NoEntry(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of a lookup that found nothing, which the kernel may also keep."""

    entry_timeout_s: float


class AttributeChanges(msgspec.Struct, frozen=True, kw_only=True):
    """What a setattr wants; None leaves a fact alone."""

    size_bytes: int | None = None
    permissions: int | None = None
    uid: int | None = None
    gid: int | None = None
    mtime_ns: int | None = None
    atime_ns: int | None = None


class DirectoryEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a directory snapshot."""

    name: bytes
    attributes: Attributes
    next_cookie: int
    """Where the listing goes on after this entry; > 0."""


class OpenFlags(msgspec.Struct, frozen=True, kw_only=True):
    """How a file is opened, out of the kernel's flag bits."""

    can_read: bool
    can_write: bool
    truncate: bool = False
    append: bool = False
    exclusive: bool = False


class Capacity(msgspec.Struct, frozen=True, kw_only=True):
    """What ``df`` shows: never zero, never asked of the service."""

    block_bytes: int
    blocks: int
    blocks_free: int
    entries: int
    entries_free: int
    name_bytes_max: int


# No service limit is known: df shows a PiB, which no copy tool will refuse to write to.
_BLOCK_BYTES: Final = 4096
_BLOCKS: Final = 1 << 38
_ENTRIES: Final = 1 << 32


def capacity() -> Capacity:
    """Return what ``df`` shows; asks nobody."""
    return Capacity(
        block_bytes=_BLOCK_BYTES,
        blocks=_BLOCKS,
        blocks_free=_BLOCKS,
        entries=_ENTRIES,
        entries_free=_ENTRIES,
        name_bytes_max=NAME_BYTES_MAX,
    )


def attributes_of(
    node: Node, config: FileSystemConfig, *, entry_timeout_s: float, attributes_timeout_s: float
) -> Attributes:
    """Return what ``stat`` shows of ``node``."""
    is_file = isinstance(node, File)
    default = default_permissions(config, is_file=is_file)
    return Attributes(
        inode=node.inode,
        kind=EntryKind.FILE if is_file else EntryKind.DIRECTORY,
        permissions=default if node.mode is None else node.mode,
        uid=config.uid,
        gid=config.gid,
        size_bytes=(node.size_bytes or 0) if isinstance(node, File) else 0,
        mtime_ns=node.mtime_ns,
        atime_ns=node.mtime_ns,
        ctime_ns=node.mtime_ns,
        link_count=_link_count(node),
        entry_timeout_s=entry_timeout_s,
        attributes_timeout_s=attributes_timeout_s,
    )


def default_permissions(config: FileSystemConfig, *, is_file: bool) -> int:
    """Return the permission bits of an entry that nobody has changed them of."""
    given = config.file_mode if is_file else config.directory_mode
    if given is not None:
        return given
    return (0o666 if is_file else 0o777) & ~config.umask


def _link_count(node: Node) -> int:
    """Return 1 for a file with a name and 0 without; 2 for a directory, as network mounts do."""
    if not isinstance(node, File):
        return 2
    return 0 if node.parent is None else 1
