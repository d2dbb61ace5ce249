"""The tree of entries: one owner, changed in single steps.

Listings are laid over it (``apply_*``), operations change it (``new_*``, ``place``, ``bind``,
``take_name``). Nothing here waits, so no reader ever sees a half-made change.

Invariant: ``parent.children[node.name] is node`` exactly while ``node.parent is parent``.
Invariant: every node with a name is registered in the inode table.
Invariant: a folder inside a container that has no name has no entries either.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
from typing_extensions import override

from ctrfs.api.models import ContainerFile, ContainerId, FileId, RejectedRow
from ctrfs.clock import Clock
from ctrfs.disk.local_entries import LocalEntries, LocalFileRow
from ctrfs.disk.overlay import Overlay
from ctrfs.errors import LocalDiskError
from ctrfs.tree.container_tree import CONTROL_NAME
from ctrfs.tree.folder_tree import FolderTree, identity_of
from ctrfs.tree.names import with_id
from ctrfs.tree.naming import NamingRules
from ctrfs.tree.nodes import (
    ContainerDirectory,
    Directory,
    EntryPath,
    File,
    Folder,
    Node,
    owner_of,
    path_in_container,
)
from ctrfs.tree.plan import FilePlan, Reserved, plan_files


class _Basis(msgspec.Struct, frozen=True, kw_only=True):
    """What a plan is made of: the same again would lead to the same entries."""

    rows: list[ContainerFile]
    reserved: Reserved
    may_have_prefix: bool


class _Laid(msgspec.Struct, frozen=True, kw_only=True):
    """A listing that was laid over a container, and what of it made no sense."""

    basis: _Basis
    rejected: list[RejectedRow]


class EntryTree(FolderTree):
    """Every entry with a name, from the root down.

    Attributes:
        restore: Told of each container that has come into the tree, to add what the service
            lacks of it.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        overlay: Overlay,
        local: LocalEntries,
        naming: NamingRules,
        adopt: Callable[[File, LocalFileRow], int | None],
        show_expired: bool = False,
    ) -> None:
        """Begin with an empty root.

        Args:
            clock: Tells the times that entries get when they change.
            overlay: Times and modes that the service cannot hold.
            local: Folders and files that live on this machine only.
            naming: How stored names show.
            adopt: Told of each file restored from ``local``, to take charge of its bytes; tells
                how many there are, None if they are lost.
            show_expired: List containers whose data is gone.
        """
        super().__init__(clock=clock, overlay=overlay, show_expired=show_expired)
        self._local = local
        self._naming = naming
        self._adopt = adopt
        self.restore: Callable[[ContainerDirectory], None] = lambda _directory: None
        self._laid: dict[ContainerId, _Laid] = {}

    # -- listings --------------------------------------------------------------------------

    def apply_files(
        self, owner: ContainerDirectory, rows: Sequence[ContainerFile]
    ) -> list[RejectedRow]:
        """Lay a listing of one container's files over its directory; return what made no sense."""
        ours = {file_id for file_id, file in owner.files.items() if file.is_claimed}
        for gone_id in ours - {row.id for row in rows}:
            owner.files[gone_id].shown_at = None  # its save must not take it for stored already
        basis = _Basis(
            rows=[_known_row(owner, row) for row in rows if row.id not in ours],
            reserved=self._reserved(owner),
            may_have_prefix=self._naming.may_have_prefix,
        )
        before = self._laid.get(owner.container.id)
        if before is not None and owner.is_as_listed and before.basis == basis:
            return before.rejected
        plan = plan_files(
            basis.rows, reserved=basis.reserved, may_have_prefix=basis.may_have_prefix
        )
        self._apply_plan(owner, plan)
        self._laid[owner.container.id] = _Laid(basis=basis, rejected=plan.rejected)
        owner.is_as_listed = True
        return plan.rejected

    def listed_ids(self, owner: ContainerDirectory) -> list[FileId]:
        """Return the ids that a listing of ``owner`` is expected to have, oldest first."""
        laid = self._laid.get(owner.container.id)
        rows = [] if laid is None else laid.basis.rows
        return [row.id for row in rows if row.id in owner.files]

    def _apply_plan(self, owner: ContainerDirectory, plan: FilePlan) -> None:
        for file_id, file in list(owner.files.items()):
            if file.is_claimed:
                continue
            planned = plan.files.get(file_id)
            if planned is None or not _is_same_version(file, planned.file):
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
            shown.remote = planned.file
            if planned.file.size_bytes not in {None, shown.size_bytes}:
                # The service did not say so before: the kernel may have kept another length.
                self._changed_name(shown)
                shown.size_bytes = planned.file.size_bytes
            shown.shown_at = planned.path
            if shown.parent is None:
                parent = self.folder_at(owner, planned.path[:-1])
                self._drop_empty_folder(parent, planned.path[-1])
                self._link(shown, parent, planned.path[-1])
                self._name_came(parent, planned.path[-1])
        self._prune(owner)

    # -- changes made here -----------------------------------------------------------------

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
        """Let a folder stay although no file may be left in it; one that has gone stays gone.

        Raises:
            LocalDiskError: It stays for this mount only.
        """
        if isinstance(folder, Directory) and folder.parent is not None and not folder.is_local:
            folder.is_local = True
            path = b"/".join(path_in_container(folder))
            self._local.add_folder(folder.owner.container.id, path)

    def remove_folder(self, folder: Directory) -> None:
        """Take an empty folder away."""
        self._local.remove_folder(folder.owner.container.id, b"/".join(path_in_container(folder)))
        self.replace_folder(folder)

    def replace_folder(self, folder: Directory) -> None:
        """Take an empty folder away, whose record has become that of another in its place."""
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
        file.former_path = path_in_container(file)
        self._unlink(file)
        if file.remote is not None and file.owner.files.get(file.remote.id) is file:
            del file.owner.files[file.remote.id]
        self.inodes.drop(file.inode)

    def give_name_back(self, file: File) -> None:
        """Put a file back where it was: its bytes are ours again, or its removal failed.

        A file that was made here since keeps the name, and this one takes it with its id;
        anybody else who has it steps aside to its other name.
        """
        if file.parent is not None:
            return
        if file.remote is not None and file.remote.id in file.owner.files:
            self.take_name(file.owner.files[file.remote.id])
        parent = self.folder_at(file.owner, file.former_path[:-1])
        name = file.name
        successor = parent.children.get(name)
        if isinstance(successor, File) and successor.is_made_here:
            # A program here has made another file of that name since: it keeps the name.
            name = with_id(name, identity_of(file), whole=False)
        self.make_room(parent, name)
        self._link(file, parent, name)
        self._name_came(parent, name)
        self.inodes.restore(file)
        if file.remote is not None:
            file.owner.files[file.remote.id] = file

    def place(self, node: Directory | File, parent: Folder, name: bytes) -> None:
        """Move ``node`` to ``name`` in ``parent``; whoever has the name there steps aside."""
        if node.parent is not None:
            self._unlink(node)
        self.make_room(parent, name)
        self._link(node, parent, name)
        self.inodes.restore(node)
        if isinstance(node, File) and node.owner is not owner_of(parent):
            if node.remote is not None and node.owner.files.get(node.remote.id) is node:
                del node.owner.files[node.remote.id]
            node.owner = owner_of(parent)

    def forget_double(self, owner: ContainerDirectory, stored: ContainerFile, file: File) -> None:
        """Drop the entry that a listing has made of what we stored, before ``file`` is it."""
        double = owner.files.get(stored.id)
        if double is not None and double is not file:
            self._changed_name(double)
            self.take_name(double)

    def bind(self, file: File, remote: ContainerFile, *, digest: str | None) -> None:
        """Let ``file`` be what the service stored as ``remote``; one step, same inode."""
        owner = file.owner
        self.forget_double(owner, remote, file)
        if file.remote is not None and owner.files.get(file.remote.id) is file:
            del owner.files[file.remote.id]
        file.remote = remote
        file.digest = digest
        file.may_be_gone = False
        file.is_claimed = False
        file.replaces = ()
        file.shown_at = path_in_container(file)
        owner.is_as_listed = False
        if file.parent is not None:
            owner.files[remote.id] = file

    def unbind(self, file: File) -> None:
        """Let ``file`` live on this machine only; what the service had of it is given up."""
        if file.remote is not None and file.owner.files.get(file.remote.id) is file:
            del file.owner.files[file.remote.id]
        file.remote = None
        file.digest = None
        file.shown_at = None
        file.owner.is_as_listed = False

    def note_alias(self, node: File, name: bytes) -> None:
        """Tell the kernel of the name of a file that is being changed through its other name."""
        if node.name != name:
            self._changed_name(node)

    # -- pieces ----------------------------------------------------------------------------

    @override
    def _drop_inodes(self, directory: ContainerDirectory) -> bool:
        files = list(self.files_below(directory))
        if any(file.is_claimed or file.is_local_only for file in files):
            return False
        for folder in self.folders_below(directory):
            self.inodes.drop(folder.inode)
        for file in files:
            self.inodes.drop(file.inode)
        self.inodes.drop(directory.inode)
        return True

    @override
    def _forget_id(self, container_id: ContainerId) -> None:
        self._laid.pop(container_id, None)
        super()._forget_id(container_id)

    @override
    def _restore(self, directory: ContainerDirectory) -> None:
        """Bring back what this machine kept of a container from earlier mounts."""
        container_id = directory.container.id
        for path in self._local.folders(container_id):
            folder = self.folder_at(directory, tuple(path.split(b"/")))
            if isinstance(folder, Directory):
                folder.is_local = True
        for row in self._local.files(container_id):
            names = tuple(row.path.split(b"/"))
            parent = self.folder_at(directory, names[:-1])
            if names[-1] in parent.children:
                continue
            file = self.new_file(parent, names[-1])
            file.is_claimed = False
            file.is_local_only = True
            file.mtime_ns, file.mode = row.mtime_ns, row.mode
            file.size_bytes = self._adopt(file, row)
            if file.size_bytes is None:
                self.take_name(file)
        self.restore(directory)

    @override
    def _resume(self, directory: ContainerDirectory) -> None:
        self.restore(directory)

    def _prune(self, folder: Folder) -> None:
        """Drop folders that no file on the service and nothing here holds up any more."""
        for inner in reversed(list(self.folders_below(folder))):
            # Inner ones first: what they held up is empty by now.
            if not inner.is_local and not inner.children:
                self._drop(inner)

    def _reserved(self, owner: ContainerDirectory) -> Reserved:
        # Where a container is the root, a file of that name would be hidden by the directory.
        files: set[EntryPath] = {(CONTROL_NAME,)} if owner is self.root else set()
        folders: set[EntryPath] = set()
        for file in self.files_below(owner):
            if file.is_claimed or file.remote is None:
                path = path_in_container(file)
                files.add(path)
                _add_with_parents(folders, path[:-1])
        for folder in self.folders_below(owner):
            if folder.is_local:
                _add_with_parents(folders, path_in_container(folder))
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


def _add_with_parents(folders: set[EntryPath], path: EntryPath) -> None:
    """Add a path and those above it, up to one that is there: the rest is there too."""
    while path and path not in folders:
        folders.add(path)
        path = path[:-1]


def _known_row(owner: ContainerDirectory, row: ContainerFile) -> ContainerFile:
    """Return the row that is kept for the same, so that there is one of each in memory.

    One whose place has been given up counts as new: it has to be placed again.
    """
    file = owner.files.get(row.id)
    if file is None or file.remote != row or file.shown_at is None:
        return row
    return file.remote


def _is_same_version(file: File, row: ContainerFile) -> bool:
    """Tell whether a row still stands for the bytes that ``file`` was made for.

    Some servers keep an id over an overwrite: that is another version, and another inode.
    """
    known = file.remote
    return (
        known is not None
        and known.created_at_s == row.created_at_s
        and known.path == row.path
        and (row.size_bytes is None or file.size_bytes in {None, row.size_bytes})
    )
