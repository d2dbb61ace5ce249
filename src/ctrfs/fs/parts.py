"""What the operations share: the floors below, built once in ``mount.run``."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

import msgspec

from ctrfs.api.models import ContainerFile
from ctrfs.api.protocol import ContainersApi
from ctrfs.clock import Clock
from ctrfs.config import FileSystemConfig
from ctrfs.content.identity import ContentIdentity
from ctrfs.content.store import ContentStore
from ctrfs.content.upload import Uploader, UploadKey, lookalikes
from ctrfs.disk.journal import Journal
from ctrfs.disk.local_entries import LocalEntries
from ctrfs.disk.overlay import Overlay, OverlayRow
from ctrfs.errors import (
    LocalDiskError,
    NoSuchEntryError,
    NotPermittedError,
    ReadOnlyError,
    StaleHandleError,
)
from ctrfs.fs.failure_log import FailureLog
from ctrfs.fs.handles import HandleTable
from ctrfs.fs.local_only import LocalOnlyNames
from ctrfs.keyed_lock import KeyedLock
from ctrfs.tree.entries import EntryTree
from ctrfs.tree.making import overlay_key
from ctrfs.tree.names import OUTSIDE_FOLDER
from ctrfs.tree.namespace import Namespace
from ctrfs.tree.naming import NamingRules
from ctrfs.tree.nodes import (
    ContainerDirectory,
    EntryPath,
    File,
    Folder,
    Node,
    Parent,
    Root,
    is_attached,
    owner_of,
    path_in_container,
)

# Says in which container, and where in it, something is to be as of now: folders move while a
# change waits, or go, which raises NoSuchEntryError. See ``Parts.place_in``.
Place: TypeAlias = Callable[[], tuple[ContainerDirectory, EntryPath]]

log = logging.getLogger(__name__)


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """The floors below and the tables of this floor; holds them, decides nothing.

    Lock order: directories (sorted), then files (sorted); neither is held while a listing of
    its own container is fetched on behalf of a lookup. Stored paths are the innermost.
    """

    api: ContainersApi
    clock: Clock
    config: FileSystemConfig
    tree: EntryTree
    namespace: Namespace
    naming: NamingRules
    store: ContentStore
    uploader: Uploader
    overlay: Overlay
    local: LocalEntries
    journal: Journal
    local_only: LocalOnlyNames
    handles: HandleTable
    mount_id: str
    """Tells what this mount records from what earlier ones have left."""
    failures: FailureLog = msgspec.field(default_factory=FailureLog)
    directory_locks: KeyedLock[int] = msgspec.field(default_factory=KeyedLock)
    file_locks: KeyedLock[int] = msgspec.field(default_factory=KeyedLock)
    stored_paths: KeyedLock[str] = msgspec.field(default_factory=KeyedLock)
    """By ``stored_at``: on some servers the path of a stored file is its id, and a deletion under
    way would take what is stored there meanwhile."""

    def keep_facts(self, node: Root | Folder | File) -> None:
        """Keep the time and mode of an entry where the next mount finds them.

        Not the root's; and not those of bytes that the service lacks: the next mount may find
        the old bytes, and they must not look like the new. ``Saver.bind`` keeps them then.
        """
        if isinstance(node, Root) or (isinstance(node, File) and node.is_claimed):
            return
        key = overlay_key(node)
        if key is not None:
            owner = node.owner if isinstance(node, File) else owner_of(node)
            row = OverlayRow(mtime_ns=node.mtime_ns, mode=node.mode)
            self.overlay.put(owner.container.id, key, row)

    def is_changed_here(self, file: File) -> bool:
        """Tell whether the service lacks bytes of ``file``, so that a save is sure to come.

        A claim alone does not tell: a change claims the name of its file before it waits for the
        old bytes, and where those never come nothing is changed and nothing will be saved.
        """
        open_file = self.store.get(file.inode)
        return file.is_claimed and open_file is not None and open_file.is_unsent

    @contextmanager
    def spared(self) -> Iterator[None]:
        """Let this machine's disk fail in the block: what the service has done stays done."""
        try:
            yield
        except LocalDiskError as error:
            log.warning("what this machine keeps of an entry could not be stored: %s", error)

    def touch(self, *folders: Folder) -> None:
        """Give folders whose entries have just changed the present as their time."""
        for folder in folders:
            folder.mtime_ns = self.clock.wall_ns()

    def check_changeable(self, directory: Parent) -> None:
        """Refuse changes where none can be made.

        Raises:
            ReadOnlyError: The mount is read-only, or the container has expired.
            StaleHandleError: The container is gone.
        """
        if self.config.read_only:
            raise ReadOnlyError("mounted read-only")
        if isinstance(directory, Root):
            return
        owner = owner_of(directory)
        if owner.is_gone:
            raise StaleHandleError(f"container {owner.container.id} is gone")
        if owner.container.is_expired:
            raise ReadOnlyError(f"container {owner.container.id} has expired")

    def check_attached(self, *nodes: Node) -> None:
        """Refuse to change entries that are gone, as in a directory that was removed.

        To be asked again after each wait in which a listing may land, before a folder gets an
        entry: nobody would see that, and its path would be another.

        Raises:
            NoSuchEntryError: A listing, or a removal, has taken one away.
        """
        for node in nodes:
            if not is_attached(node):
                raise NoSuchEntryError(f"{node.name!r} is gone from the tree")

    def place_in(self, folder: Folder, name: bytes) -> tuple[ContainerDirectory, EntryPath]:
        """Return where ``name`` in ``folder`` is; a ``Place``, once both are given.

        Raises:
            NoSuchEntryError: The folder is gone.
        """
        self.check_attached(folder)
        return owner_of(folder), (*path_in_container(folder), name)

    def check_takes_files(self, folder: Folder) -> None:
        """Refuse what would have to be uploaded to a place where no upload lands.

        Raises:
            NotPermittedError: Outside the data folder.
        """
        if is_outside(path_in_container(folder)):
            raise NotPermittedError("uploads land in the data folder, not under @root")


def stored_at(row: ContainerFile) -> str:
    """Return the key of a stored file's path, for ``Parts.stored_paths``."""
    return f"{row.container_id} {row.path}"


def may_be_stored_at(upload: UploadKey) -> list[str]:
    """Return the keys, as of ``stored_at``, of all paths that an upload may get."""
    paths = lookalikes(upload.stored_name, upload.digest)
    return [f"{upload.container_id} {path}" for path in paths]


def is_outside(path: EntryPath) -> bool:
    """Tell whether a path inside a container lies outside the data folder."""
    return path[:1] == (OUTSIDE_FOLDER,)


def identity_of_remote(file: File) -> ContentIdentity | None:
    """Return the identity of the bytes that the service has of ``file``."""
    if file.remote is None:
        return None
    return ContentIdentity(
        container_id=file.remote.container_id,
        file_id=file.remote.id,
        size_bytes=file.size_bytes if file.remote.size_bytes is None else file.remote.size_bytes,
        created_at_s=file.remote.created_at_s,
        digest=file.digest,
    )
