"""The entries of the tree: identity and current facts, data only.

Owned and changed by ``tree.entries.EntryTree`` (names, parents, service facts) and, for times,
modes and sizes, by ``fs``. Nothing here waits or sends.
"""

from __future__ import annotations

from typing import Final, NewType, TypeAlias

import msgspec

from ctrfs.api.models import Container, ContainerFile, FileId

InodeNumber = NewType("InodeNumber", int)

ROOT_INODE: Final = InodeNumber(1)


class Root:
    """The account: its children are containers."""

    __slots__ = ("children", "inode", "mode", "mtime_ns", "name", "parent")

    def __init__(self, *, mtime_ns: int) -> None:
        self.inode = ROOT_INODE
        self.parent: None = None
        self.name = b""
        self.mode: int | None = None
        self.mtime_ns = mtime_ns
        self.children: dict[bytes, ContainerDirectory] = {}


class ContainerDirectory:
    """A container, below the root or itself the root of a one-container mount."""

    __slots__ = (
        "children", "container", "files", "inode", "is_as_listed", "is_gone", "mode", "mtime_ns",
        "name", "parent",
    )  # fmt: skip

    def __init__(self, container: Container, *, inode: InodeNumber, mtime_ns: int) -> None:
        self.inode = inode
        self.container = container
        self.parent: Root | None = None
        self.name = b""
        self.mtime_ns = mtime_ns
        self.mode: int | None = None
        self.is_gone = False
        """Removed here, or deleted or expired on the service."""
        self.is_as_listed = False
        """No entry in it has come, gone or moved since a listing was laid over it."""
        self.children: dict[bytes, Directory | File] = {}
        self.files: dict[FileId, File] = {}
        """Every file in it that the service has confirmed, by id, at whatever depth."""


class Directory:
    """A folder inside a container; the service knows it only through the files in it."""

    __slots__ = ("children", "inode", "is_local", "mode", "mtime_ns", "name", "owner", "parent")

    def __init__(self, *, inode: InodeNumber, owner: ContainerDirectory, mtime_ns: int) -> None:
        self.inode = inode
        self.owner = owner
        self.parent: ContainerDirectory | Directory | None = None
        self.name = b""
        self.mtime_ns = mtime_ns
        self.mode: int | None = None
        self.is_local = False
        """Made or emptied here: stays without files until it is removed here."""
        self.children: dict[bytes, Directory | File] = {}


class Doubt(msgspec.Struct, frozen=True):
    """An upload whose outcome is open.

    Attributes:
        path: Where it was to show, in the file's container.
        digest: blake2b of its bytes, 32 hex digits.
        since_s: When it ended at the latest, in seconds since 1970.
    """

    path: EntryPath
    digest: str
    since_s: int


class File:
    """A file: one version of the service's, or bytes of ours that are on their way there.

    Invariant: ``remote`` is None exactly while the service has never confirmed this file.
    Invariant: ``owner.files[remote.id] is self`` exactly while it has a name and a remote.
    """

    __slots__ = (
        "digest", "doubt", "former_path", "inode", "is_claimed", "is_local_only", "is_made_here",
        "is_removed", "is_restored", "journal_key", "may_be_gone", "mode", "mtime_ns",
        "name", "owner", "parent", "remote", "replaces", "shown_at", "size_bytes",
    )  # fmt: skip

    def __init__(
        self,
        *,
        inode: InodeNumber,
        owner: ContainerDirectory,
        remote: ContainerFile | None,
        mtime_ns: int,
    ) -> None:
        self.inode = inode
        self.owner = owner
        self.parent: ContainerDirectory | Directory | None = None
        """None once the name is gone; open handles keep the file itself alive."""
        self.former_path: EntryPath = ()
        """Where in its container the name was when it was taken away."""
        self.name = b""
        self.remote = remote
        self.size_bytes: int | None = remote.size_bytes if remote is not None else 0
        self.digest: str | None = None
        """blake2b of ``remote``'s bytes, 32 hex digits, where known."""
        self.mtime_ns = mtime_ns
        self.mode: int | None = None
        self.shown_at: EntryPath | None = None
        """Where ``remote`` shows by its stored path; elsewhere means renamed here, not yet sent."""
        self.replaces: tuple[ContainerFile, ...] = ()
        """What the user overwrote by renaming this file onto it: deleted after it is sent."""
        self.journal_key: str | None = None
        """Under which the journal has its unsent bytes; None while it has none."""
        self.is_restored = False
        """Has unsent bytes of an earlier mount: what they replace may have changed since."""
        self.doubt: Doubt | None = None
        """An upload of bytes of this file that may have been carried out unseen."""
        self.is_claimed = False
        """Has bytes of ours that the service lacks: no listing may take its name away."""
        self.is_local_only = False
        """Its name says that it never leaves this machine."""
        self.is_made_here = False
        """Created by a program through this mount, not shown by a listing first."""
        self.is_removed = False
        """Unlinked here: its bytes are for open handles only and are never sent."""
        self.may_be_gone = False
        """A deletion of ``remote`` was asked for and failed: it may have been made all the same."""


Folder: TypeAlias = ContainerDirectory | Directory
Parent: TypeAlias = Root | ContainerDirectory | Directory
Node: TypeAlias = Root | ContainerDirectory | Directory | File
EntryPath: TypeAlias = tuple[bytes, ...]


def owner_of(folder: Folder) -> ContainerDirectory:
    """Return the container that a folder lies in; a container lies in itself."""
    return folder if isinstance(folder, ContainerDirectory) else folder.owner


def is_attached(node: Node) -> bool:
    """Tell whether an entry still has its place: in a container that is there, by each name.

    The kernel, and whoever waits, may go on knowing a folder that a listing has taken away.
    What is left of its path then leads to another place.
    """
    step: Node | None = node
    while isinstance(step, Directory | File):
        step = step.parent
    return isinstance(step, Root) or (step is not None and not step.is_gone)


def path_in_container(node: Folder | File) -> EntryPath:
    """Return the names from the container down to ``node``; empty for the container.

    Of no use for a node that is not ``is_attached``.
    """
    names: list[bytes] = []
    step: Folder | File | Root | None = node
    while isinstance(step, Directory | File):
        names.append(step.name)
        step = step.parent
    return tuple(reversed(names))


def path_from_root(node: Node) -> bytes:
    """Return the path of ``node`` below the mount point, without a leading slash."""
    names: list[bytes] = []
    step: Node | None = node
    while step is not None:
        names.append(step.name)
        step = step.parent
    return b"/".join(name for name in reversed(names) if name)
