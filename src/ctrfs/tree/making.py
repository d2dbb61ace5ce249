"""New nodes, with their numbers and with the times and modes that this machine kept for them."""

from __future__ import annotations

from collections.abc import Mapping

from ctrfs.api.models import Container
from ctrfs.clock import Clock
from ctrfs.disk.overlay import Overlay, OverlayRow
from ctrfs.tree.inodes import InodeTable
from ctrfs.tree.nodes import (
    ROOT_INODE,
    ContainerDirectory,
    Directory,
    EntryPath,
    File,
    Folder,
    InodeNumber,
    path_in_container,
)
from ctrfs.tree.plan import PlannedFile
from ctrfs.units import NS_PER_S


def overlay_key(node: Folder | File) -> str | None:
    """Return the key under which the overlay keeps a node's time and mode.

    A file without a remote has none: what there is of it is kept with its bytes. A folder that
    is gone has none either.
    """
    if isinstance(node, File):
        return None if node.remote is None else node.remote.id
    if isinstance(node, Directory) and node.parent is None:
        return None
    return folder_key(path_in_container(node))


def folder_key(path: EntryPath) -> str:
    """Return the overlay's key of a folder; no file id begins with a slash and a name."""
    return "/" + b"/".join(path).decode("utf-8", "surrogateescape")


class NodeMaker:
    """Makes nodes and registers them; the tree gives them their names."""

    def __init__(self, *, clock: Clock, inodes: InodeTable, overlay: Overlay) -> None:
        self._clock = clock
        self._inodes = inodes
        self._overlay = overlay
        self._serial = 0

    def kept_facts(self, owner: ContainerDirectory) -> Mapping[str, OverlayRow]:
        """Return what was kept for the entries of one container, by key."""
        return self._overlay.load(owner.container.id)

    def root_container(self, container: Container) -> ContainerDirectory:
        """Return the one container of a one-container mount, in the place of the root."""
        directory = self._container(container, ROOT_INODE)
        self._inodes.restore(directory)
        return directory

    def container(self, container: Container) -> ContainerDirectory:
        """Return a directory for a container."""
        directory = self._container(container, self._inodes.number_for(f"container:{container.id}"))
        self._inodes.register(directory)
        return directory

    def directory(self, owner: ContainerDirectory, path: EntryPath) -> Directory:
        """Return a folder that will stand at ``path``."""
        key = folder_key(path)
        folder = Directory(
            inode=self._inodes.number_for(f"folder:{owner.container.id}:{key}"),
            owner=owner,
            mtime_ns=owner.container.created_at_s * NS_PER_S,
        )
        self._take_kept(folder, self._overlay.get(owner.container.id, key))
        self._inodes.register(folder)
        return folder

    def remote_file(
        self, owner: ContainerDirectory, planned: PlannedFile, kept: Mapping[str, OverlayRow]
    ) -> File:
        """Return a file for a row of a listing."""
        remote = planned.file
        file = File(
            inode=self._inodes.number_for(f"file:{owner.container.id}:{remote.id}"),
            owner=owner,
            remote=remote,
            mtime_ns=remote.created_at_s * NS_PER_S,
        )
        file.digest = planned.digest
        self._take_kept(file, kept.get(remote.id))
        self._inodes.register(file)
        return file

    def local_file(self, owner: ContainerDirectory) -> File:
        """Return an empty file that the service does not know yet."""
        self._serial += 1
        now_ns = self._clock.wall_ns()
        number = self._inodes.number_for(f"new:{self._serial}:{now_ns}")
        file = File(inode=number, owner=owner, remote=None, mtime_ns=now_ns)
        file.is_claimed = True
        file.is_made_here = True
        self._inodes.register(file)
        return file

    def _container(self, container: Container, number: InodeNumber) -> ContainerDirectory:
        directory = ContainerDirectory(
            container, inode=number, mtime_ns=container.created_at_s * NS_PER_S
        )
        self._take_kept(directory, self._overlay.get(container.id, folder_key(())))
        return directory

    def _take_kept(self, node: Folder | File, kept: OverlayRow | None) -> None:
        if kept is not None:
            node.mode = kept.mode
            if kept.mtime_ns is not None:
                node.mtime_ns = kept.mtime_ns
