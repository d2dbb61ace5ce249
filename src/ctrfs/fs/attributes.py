"""What ``stat`` shows of an entry, and what ``chmod``, ``touch`` and ``truncate`` ask of it."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from ctrfs.tree.nodes import InodeNumber


class EntryKind(enum.Enum):
    """What an entry is; there are no links and no devices."""

    FILE = "file"
    DIRECTORY = "directory"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attributes:
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


@dataclass(frozen=True, slots=True, kw_only=True)
class NoEntry:
    """The answer of a lookup that found nothing, which the kernel may also keep."""

    entry_timeout_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AttributeChanges:
    """What a setattr wants; None leaves a fact alone."""

    size_bytes: int | None = None
    permissions: int | None = None
    uid: int | None = None
    gid: int | None = None
    mtime_ns: int | None = None
    atime_ns: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectoryEntry:
    """One line of a directory snapshot."""

    name: bytes
    attributes: Attributes
    next_cookie: int
    """Where the listing goes on after this entry; > 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenFlags:
    """How a file is opened, out of the kernel's flag bits."""

    can_read: bool
    can_write: bool
    truncate: bool = False
    append: bool = False
    exclusive: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """What ``df`` shows: never zero, never asked of the service."""

    block_bytes: int
    blocks: int
    blocks_free: int
    entries: int
    entries_free: int
    name_bytes_max: int
