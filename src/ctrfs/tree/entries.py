"""The tree of entries: one owner, changed in single steps.

Listings are laid over it (``apply_*``), operations change it (``new_*``, ``place``, ``bind``,
``take_name``). Nothing here waits, so no reader ever sees a half-made change.

Invariant: ``parent.children[node.name] is node`` exactly while ``node.parent is parent``.
Invariant: every node with a name is registered in the inode table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from ctrfs.api.models import Container, ContainerFile, ContainerId, RejectedRow
from ctrfs.clock import Clock
from ctrfs.disk.local_entries import LocalEntries, LocalFileRow
from ctrfs.disk.overlay import Overlay
from ctrfs.errors import LocalDiskError
from ctrfs.tree.inodes import InodeTable
from ctrfs.tree.making import NodeMaker
from ctrfs.tree.names import split_prefix, with_id
from ctrfs.tree.naming import NamingRules
from ctrfs.tree.nodes import (
    ContainerDirectory,
    Directory,
    EntryPath,
    File,
    Folder,
    InodeNumber,
    Node,
    Parent,
    Root,
    owner_of,
    path_in_container,
)
from ctrfs.tree.plan import Reserved, plan_containers, plan_files

CONTROL_NAME = b".ctrfs"


@dataclass(frozen=True, slots=True)
class Change:
    """A name that now means something else, for the kernel's caches."""

    parent: InodeNumber
    name: bytes


class EntryTree:
    """Every entry with a name, from the root down."""

    def __init__(
        self,
        *,
        clock: Clock,
        overlay: Overlay,
        local: LocalEntries,
        naming: NamingRules,
        adopt: Callable[[File, LocalFileRow], bool],
        show_expired: bool = False,
    ) -> None:
        """Begin with an empty root.

        Args:
            clock: Tells the times that entries get when they change.
            overlay: Times and modes that the service cannot hold.
            local: Folders and files that live on this machine only.
            naming: How stored names show.
            adopt: Told of each file restored from ``local``, to take charge of its bytes; tells
                whether they are still there.
            show_expired: List containers whose data is gone.
        """
        self._clock = clock
        self._local = local
        self._naming = naming
        self._adopt = adopt
        self._show_expired = show_expired
        self._containers: dict[ContainerId, ContainerDirectory] = {}
        self._changes: list[Change] = []
        self.inodes = InodeTable()
        self._maker = NodeMaker(clock=clock, inodes=self.inodes, overlay=overlay)
        self.root: Root | ContainerDirectory = Root(mtime_ns=clock.wall_ns())
        self.inodes.register(self.root)

    # -- reading ---------------------------------------------------------------------------

    def child(self, parent: Parent, name: bytes) -> ContainerDirectory | Directory | File | None:
        """Return the entry called ``name``; a file also answers to its full stored name."""
        found = parent.children.get(name)
        if found is not None or isinstance(parent, Root):
            return found
        prefix = split_prefix(name)
        if prefix is None:
            return None
        digest, rest = prefix
        alias = parent.children.get(rest)
        return alias if isinstance(alias, File) and alias.digest == digest else None

    def container(self, container_id: ContainerId) -> ContainerDirectory | None:
        """Return the directory of a container that is shown."""
        return self._containers.get(container_id)

    def files_below(self, folder: Folder) -> Iterator[File]:
        """Yield every file in ``folder``, at whatever depth."""
        for node in folder.children.values():
            if isinstance(node, Directory):
                yield from self.files_below(node)
            else:
                yield node

    def folders_below(self, folder: Folder) -> Iterator[Directory]:
        """Yield every folder in ``folder``, inner ones after the outer."""
        for node in folder.children.values():
            if isinstance(node, Directory):
                yield node
                yield from self.folders_below(node)

    def take_changes(self) -> list[Change]:
        """Return the names that listings have changed since the last call."""
        changes, self._changes = self._changes, []
        return changes

    # -- listings --------------------------------------------------------------------------

    def become_one_container(self, container: Container) -> ContainerDirectory:
        """Make ``container`` the root of this mount; before anything was looked up."""
        assert isinstance(self.root, Root)
        assert not self._containers
        self.root = self._maker.root_container(container)
        self._containers = {container.id: self.root}
        self._restore(self.root)
        return self.root

    def apply_containers(self, rows: Sequence[Container]) -> None:
        """Lay a listing of all containers over the root."""
        root = self.root
        assert isinstance(root, Root)
        names = plan_containers(rows, show_expired=self._show_expired, reserved={CONTROL_NAME})
        by_id = {row.id: row for row in rows}
        for container_id, directory in list(self._containers.items()):
            if container_id in by_id:
                directory.container = by_id[container_id]
            if names.get(container_id) == directory.name:
                continue
            self._changed(root, directory.name)
            del root.children[directory.name]
            if container_id not in names:
                self._forget_container(directory)
        for container_id, name in names.items():
            directory = self._containers.get(container_id) or self._new_container(
                by_id[container_id]
            )
            if root.children.get(name) is not directory:
                directory.name = name
                directory.parent = root
                root.children[name] = directory
                self._changed(root, name)

    def apply_files(
        self, owner: ContainerDirectory, rows: Sequence[ContainerFile]
    ) -> list[RejectedRow]:
        """Lay a listing of one container's files over its directory; return what made no sense."""
        ours = {file_id for file_id, file in owner.files.items() if file.is_claimed}
        plan = plan_files(
            [row for row in rows if row.id not in ours],
            reserved=self._reserved(owner),
            may_have_prefix=self._naming.may_have_prefix,
        )
        for file_id, file in list(owner.files.items()):
            if file.is_claimed:
                continue
            planned = plan.files.get(file_id)
            if planned is None:
                self._changed_name(file)
                self.take_name(file)
            elif planned.path != path_in_container(file):
                self._changed_name(file)
                self._unlink(file)
        kept = self._maker.kept_facts(owner)
        for planned in plan.files.values():
            shown = owner.files.get(planned.file.id)
            if shown is None:
                shown = self._maker.remote_file(owner, planned, kept)
                owner.files[planned.file.id] = shown
            elif shown.remote != planned.file:
                shown.remote = planned.file
                shown.size_bytes = planned.file.size_bytes
            shown.shown_at = planned.path
            if shown.parent is None:
                parent = self._folder_at(owner, planned.path[:-1])
                self._link(shown, parent, planned.path[-1])
                self._changed(parent, planned.path[-1])
        self._prune(owner)
        return plan.rejected

    def forget_container(self, directory: ContainerDirectory) -> None:
        """Take a container away: the service says that it is gone, or it was removed here."""
        root = self.root
        if isinstance(root, Root) and root.children.get(directory.name) is directory:
            self._changed(root, directory.name)
            del root.children[directory.name]
        self._forget_container(directory)

    # -- changes made here -----------------------------------------------------------------

    def new_container(self, container: Container, name: bytes) -> ContainerDirectory:
        """Add a container that was just created here."""
        root = self.root
        assert isinstance(root, Root)
        directory = self._containers.get(container.id) or self._new_container(container)
        if directory.parent is not None and root.children.get(directory.name) is directory:
            del root.children[directory.name]
        directory.name = name
        directory.parent = root
        root.children[name] = directory
        root.mtime_ns = self._clock.wall_ns()
        return directory

    def rename_container(
        self, directory: ContainerDirectory, container: Container, name: bytes
    ) -> None:
        """Let ``directory`` stand for another container, under another name."""
        root = self.root
        assert isinstance(root, Root)
        double = self._containers.get(container.id)
        if double is not None and double is not directory:
            self.forget_container(double)
        root.children.pop(directory.name, None)
        self._containers.pop(directory.container.id, None)
        directory.container = container
        directory.name = name
        root.children[name] = directory
        self._containers[container.id] = directory

    def new_folder(self, parent: Folder, name: bytes) -> Directory:
        """Add an empty folder that lasts on this machine until it is removed.

        Raises:
            LocalDiskError: This machine's disk did not take it; there is no folder.
        """
        folder = self._maker.directory(owner_of(parent), (*path_in_container(parent), name))
        folder.mtime_ns = self._clock.wall_ns()
        try:
            self._local.add_folder(
                folder.owner.container.id, b"/".join((*path_in_container(parent), name))
            )
        except LocalDiskError:
            self.inodes.drop(folder.inode)
            raise
        folder.is_local = True
        self._link(folder, parent, name)
        return folder

    def keep_folder(self, folder: Folder) -> None:
        """Let a folder stay although no file may be left in it.

        Raises:
            LocalDiskError: It stays for this mount only.
        """
        if isinstance(folder, Directory) and not folder.is_local:
            folder.is_local = True
            path = b"/".join(path_in_container(folder))
            self._local.add_folder(folder.owner.container.id, path)

    def remove_folder(self, folder: Directory) -> None:
        """Take an empty folder away."""
        self._local.remove_folder(folder.owner.container.id, b"/".join(path_in_container(folder)))
        self._unlink(folder)
        self.inodes.drop(folder.inode)

    def new_file(self, parent: Folder, name: bytes) -> File:
        """Add an empty file that the service does not know yet."""
        file = self._maker.local_file(owner_of(parent))
        self._link(file, parent, name)
        return file

    def take_name(self, file: File) -> None:
        """Take a file out of its folder; handles and the kernel may still hold it."""
        if file.parent is None:
            return
        file.former_parent = file.parent
        self._unlink(file)
        if file.remote is not None and file.owner.files.get(file.remote.id) is file:
            del file.owner.files[file.remote.id]
        self.inodes.drop(file.inode)

    def give_name_back(self, file: File) -> None:
        """Put a file back where it was: its bytes are ours again, or its removal failed.

        Whoever has the name meanwhile steps aside to its other name.
        """
        if file.parent is not None:
            return
        if file.remote is not None and file.remote.id in file.owner.files:
            self.take_name(file.owner.files[file.remote.id])
        parent = file.former_parent
        if parent is None or not self._is_in_tree(parent):
            parent = file.owner
        self._step_aside(parent, file.name)
        self._link(file, parent, file.name)
        self._changed(parent, file.name)
        self.inodes.restore(file)
        if file.remote is not None:
            file.owner.files[file.remote.id] = file

    def place(self, node: Directory | File, parent: Folder, name: bytes) -> None:
        """Move ``node`` to ``name`` in ``parent``, which must be free there."""
        assert name not in parent.children or parent.children[name] is node
        if node.parent is not None:
            self._unlink(node)
        self._link(node, parent, name)
        self.inodes.restore(node)
        if isinstance(node, File) and node.owner is not owner_of(parent):
            if node.remote is not None and node.owner.files.get(node.remote.id) is node:
                del node.owner.files[node.remote.id]
            node.owner = owner_of(parent)

    def bind(self, file: File, remote: ContainerFile, *, digest: str | None) -> None:
        """Let ``file`` be what the service stored as ``remote``; one step, same inode."""
        owner = file.owner
        double = owner.files.get(remote.id)
        if double is not None and double is not file:
            self._changed_name(double)
            self.take_name(double)
        if file.remote is not None and owner.files.get(file.remote.id) is file:
            del owner.files[file.remote.id]
        file.remote = remote
        file.digest = digest
        file.is_claimed = False
        file.replaces = ()
        file.shown_at = path_in_container(file)
        if file.parent is not None:
            owner.files[remote.id] = file

    def unbind(self, file: File) -> None:
        """Let ``file`` live on this machine only; what the service had of it is given up."""
        if file.remote is not None and file.owner.files.get(file.remote.id) is file:
            del file.owner.files[file.remote.id]
        file.remote = None
        file.digest = None
        file.shown_at = None

    def _step_aside(self, parent: Folder, name: bytes) -> None:
        other = parent.children.get(name)
        if other is None:
            return
        identity = str(other.inode)
        if isinstance(other, File) and other.remote is not None:
            identity = other.remote.id
        free = with_id(name, identity, whole=False)
        if free in parent.children:
            free = with_id(name, f"{identity}~{other.inode}", whole=True)
        self._unlink(other)
        self._link(other, parent, free)
        self._changed(parent, free)

    # -- pieces ----------------------------------------------------------------------------

    def _changed(self, parent: Parent, name: bytes) -> None:
        self._changes.append(Change(parent.inode, name))

    def _changed_name(self, file: File) -> None:
        if file.parent is not None:
            self._changed(file.parent, file.name)

    def _link(self, node: Directory | File, parent: Folder, name: bytes) -> None:
        assert node.parent is None
        assert name not in parent.children
        node.parent = parent
        node.name = name
        parent.children[name] = node

    def _unlink(self, node: Directory | File) -> None:
        assert node.parent is not None
        assert node.parent.children[node.name] is node
        del node.parent.children[node.name]
        node.parent = None

    def _is_in_tree(self, folder: Folder) -> bool:
        step: Folder | Root | None = folder
        while isinstance(step, Directory):
            step = step.parent
        return isinstance(step, ContainerDirectory) and not step.is_gone

    def _new_container(self, container: Container) -> ContainerDirectory:
        directory = self._maker.container(container)
        self._containers[container.id] = directory
        self._restore(directory)
        return directory

    def _forget_container(self, directory: ContainerDirectory) -> None:
        directory.is_gone = True
        self._containers.pop(directory.container.id, None)
        for folder in self.folders_below(directory):
            self.inodes.drop(folder.inode)
        for file in self.files_below(directory):
            self.inodes.drop(file.inode)
        self.inodes.drop(directory.inode)

    def _restore(self, directory: ContainerDirectory) -> None:
        """Bring back what this machine kept of a container from earlier mounts."""
        container_id = directory.container.id
        for path in self._local.folders(container_id):
            folder = self._folder_at(directory, tuple(path.split(b"/")))
            if isinstance(folder, Directory):
                folder.is_local = True
        for row in self._local.files(container_id):
            names = tuple(row.path.split(b"/"))
            parent = self._folder_at(directory, names[:-1])
            if names[-1] in parent.children:
                continue
            file = self.new_file(parent, names[-1])
            file.is_claimed = False
            file.is_local_only = True
            file.mtime_ns, file.mode, file.size_bytes = row.mtime_ns, row.mode, row.size_bytes
            if not self._adopt(file, row):
                self.take_name(file)

    def _folder_at(self, owner: ContainerDirectory, path: EntryPath) -> Folder:
        folder: Folder = owner
        for depth, name in enumerate(path, start=1):
            found = folder.children.get(name)
            if isinstance(found, Directory):
                folder = found
                continue
            self._step_aside(folder, name)
            made = self._maker.directory(owner, path[:depth])
            self._link(made, folder, name)
            self._changed(folder, name)
            folder = made
        return folder

    def _prune(self, folder: Folder) -> None:
        """Drop folders that no file on the service and nothing here holds up any more."""
        for node in list(folder.children.values()):
            if not isinstance(node, Directory):
                continue
            self._prune(node)
            if not node.children and not node.is_local:
                self._changed(folder, node.name)
                self._unlink(node)
                self.inodes.drop(node.inode)

    def _reserved(self, owner: ContainerDirectory) -> Reserved:
        # Where a container is the root, a file of that name would be hidden by the directory.
        files: set[EntryPath] = {(CONTROL_NAME,)} if owner is self.root else set()
        folders: set[EntryPath] = set()
        for file in self.files_below(owner):
            if file.is_claimed or file.remote is None:
                path = path_in_container(file)
                files.add(path)
                folders.update(path[:depth] for depth in range(1, len(path)))
        for folder in self.folders_below(owner):
            if folder.is_local:
                path = path_in_container(folder)
                folders.update(path[:depth] for depth in range(1, len(path) + 1))
        return Reserved(files=files, folders=folders)

    def check_invariants(self) -> None:
        """Raise AssertionError if the state contradicts itself."""
        self.inodes.check_invariants()
        todo: list[Node] = [self.root]
        while todo:
            node = todo.pop()
            assert self.inodes.node(node.inode) is node
            if isinstance(node, File):
                assert node.remote is None or node.owner.files[node.remote.id] is node
                continue
            for name, child in node.children.items():
                assert child.name == name
                assert child.parent is node
                todo.append(child)
