"""What earlier mounts have left undone, taken up again.

Unsent bytes come back as files of their names, readable at once, and are then sent like any
other (``fs.retrying``). What they replace is hidden, as it was when the user replaced it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from msgspec.structs import replace

from ctrfs.api.models import ContainerFile, ContainerId, FileId
from ctrfs.disk.journal import FolderMoveRow, MovingFile, UnsentRow
from ctrfs.errors import (
    CtrfsError,
    LocalDiskError,
    RemoteGoneError,
)
from ctrfs.failpoints import reached
from ctrfs.fs.deleting import Deleter
from ctrfs.fs.holding import Holder
from ctrfs.fs.moving import Mover
from ctrfs.fs.parts import Parts
from ctrfs.fs.recording import Recorder, remote_of, version_of
from ctrfs.fs.removing import Remover
from ctrfs.tree.nodes import (
    ContainerDirectory,
    Directory,
    Doubt,
    EntryPath,
    File,
    Folder,
    Root,
)
from ctrfs.units import MIB, NS_PER_S

log = logging.getLogger(__name__)

# How many bytes of two files are compared at once.
_COMPARED_BYTES: Final = 1 * MIB


class Restorer:
    """Brings the journal of earlier mounts back into the tree.

    Owner of the keys of the journal rows that this mount has found and not yet taken up.
    """

    def __init__(self, parts: Parts, *, on_restored: Callable[[], None]) -> None:
        """Read the journal; ``on_restored`` is told whenever there is something to send."""
        self._parts = parts
        self._on_restored = on_restored
        self._waiting: dict[str, list[str]] = {}
        # What the files that are back take the place of in containers that are not known yet.
        self._replaced: list[ContainerFile] = []
        if not parts.config.read_only:
            for key, container_id in parts.journal.keys_and_containers():
                self._waiting.setdefault(container_id, []).append(key)
            count = sum(len(keys) for keys in self._waiting.values())
            if count:
                log.info("%d file(s) that an earlier mount has left unsent are to be sent", count)

    def restore(self, directory: ContainerDirectory) -> None:
        """Put the unsent files of a container that has come into the tree where they were."""
        container_id = directory.container.id
        for version in self._parts.journal.deletes_in(container_id):
            self._parts.namespace.hide(directory, remote_of(version))
        for replaced in self._replaced:
            if replaced.container_id == container_id:
                self._parts.namespace.hide(directory, replaced)
        if directory.container.is_expired:
            return
        for key in self._waiting.pop(container_id, []):
            # A row may have been settled or discarded since the start.
            row = self._parts.journal.row(key)
            if row is not None:
                self._restore_file(directory, row)
        self._on_restored()

    def _restore_file(self, directory: ContainerDirectory, row: UnsentRow) -> None:
        names = tuple(row.path.split(b"/"))
        if not all(names):
            log.error("the journal has unsent bytes for no path: %s", row.key)
            return
        tree = self._parts.tree
        parent = tree.folder_at(directory, names[:-1])
        tree.make_room(parent, names[-1])
        file = tree.new_file(parent, names[-1])
        try:
            open_file = self._parts.store.adopt_unsent(
                file.inode, row.spool_name, digest=row.digest or None
            )
        except LocalDiskError as error:
            tree.take_name(file)
            with self._parts.spared():
                self._parts.journal.note_error(row.key, f"the local bytes are lost: {error}")
            log.error(  # noqa: TRY400  # a damaged disk is no bug of ours
                "unsent bytes of %r in %s are lost: %s", row.path, directory.container.id, error
            )
            return
        file.size_bytes = open_file.size_bytes
        file.mtime_ns, file.mode = row.mtime_ns, row.mode
        file.replaces = tuple(remote_of(version) for version in row.replaces)
        file.journal_key = row.key
        file.is_restored = True
        if row.digest:
            # How long before its end the earlier mount has sent them nobody knows: listings may
            # lack them for some seconds from now.
            now_s = self._parts.clock.wall_ns() // NS_PER_S
            file.doubt = Doubt(names, row.digest, now_s)
        for replaced in file.replaces:
            # A file that was on its way from another container is replaced there.
            owner = tree.container(replaced.container_id)
            if owner is not None:
                self._parts.namespace.hide(owner, replaced)
            else:
                self._replaced.append(replaced)
        reached("replay.restored", row.path.decode("utf-8", "replace"))


class Finisher:
    """Finishes the renaming of folders, and the deletion of containers, of earlier mounts."""

    def __init__(
        self,
        parts: Parts,
        *,
        recorder: Recorder,
        deleter: Deleter,
        mover: Mover,
        remover: Remover,
        holder: Holder,
    ) -> None:
        self._parts = parts
        self._recorder = recorder
        self._deleter = deleter
        self._mover = mover
        self._remover = remover
        self._holder = holder
        moves = [] if parts.config.read_only else parts.journal.folder_moves()
        self._moves = [_with_the_rest_moved(parts, move) for move in moves]

    @property
    def is_needed(self) -> bool:
        """Whether there is anything to finish."""
        return bool(self._moves or self._recorder.overdue_rmdirs)

    async def finish(self) -> None:
        """Do what can be done now."""
        for move in list(self._moves):
            try:
                await self._finish_move(move)
            except CtrfsError as error:
                log.info("the renaming of %r is not finished yet: %s", move.old_path, error)
                continue
            self._moves.remove(move)
            with self._parts.spared():
                self._parts.journal.remove_folder_move(move.container_id, move.new_path)
        for container_id in list(self._recorder.overdue_rmdirs):
            try:
                await self._finish_rmdir(ContainerId(container_id))
            except CtrfsError as error:
                log.info("container %s is not deleted yet: %s", container_id, error)

    async def _finish_rmdir(self, container_id: ContainerId) -> None:
        """Delete a container that was to go, unless something is in it by now."""
        shown = self._parts.tree.container(container_id)
        # Nobody may create a file in it meanwhile.
        inodes = [] if shown is None else [shown.inode]
        async with self._parts.directory_locks.hold(self._parts.tree.root.inode, *inodes):
            with suppress(RemoteGoneError):
                listing = await self._parts.api.list_files(container_id)
                is_used = shown is not None and bool(shown.children)
                if not (listing.items or listing.rejected or is_used):
                    await self._parts.api.delete_container(container_id)
                    if shown is not None:
                        self._parts.namespace.removed_container(shown, is_expected=False)
        self._recorder.container_deleted(container_id)

    async def _finish_move(self, move: FolderMoveRow) -> None:
        """Store again what is still at its old place."""
        owner = await self._deleter.listed(ContainerId(move.container_id))
        if owner is None:
            return
        for moving in move.files:
            await self._finish_file(owner, move, moving)
        old = self._folder(owner, move.old_path)
        if old is not None and not any(self._parts.tree.files_below(old)):
            await self._remove_folders(old)

    async def _finish_file(
        self, owner: ContainerDirectory, move: FolderMoveRow, moving: MovingFile
    ) -> None:
        *folders, name = (move.new_path + b"/" + moving.inner_path).split(b"/")
        file = owner.files.get(FileId(moving.version.file_id)) if moving.version else None
        if file is None or not _is_as_it_was(file, moving):
            return  # moved already, or no more what was to be moved
        parent, old_parent = self._kept_folder(owner, tuple(folders)), file.parent or owner
        async with self._parts.directory_locks.hold(parent.inode, old_parent.inode):
            if file.parent is not old_parent or not _is_as_it_was(file, moving):
                return  # a user was faster
            there = parent.children.get(name)
            if there is None:
                await self._mover.move_file(file, parent, name, target=None)
            elif isinstance(there, File) and await self._are_same(file, there):
                await self._remove_moved(file, moving)
            else:
                log.info("%r stays: something else has its new name", moving.inner_path)

    async def _remove_moved(self, file: File, moving: MovingFile) -> None:
        """Remove a file that is at its new place, too, unless somebody is changing it."""
        async with self._parts.file_locks.hold(file.inode):
            await self._remover.keep_for_openers(file)
            if _is_as_it_was(file, moving):
                await self._remover.remove_locked(file)

    def _kept_folder(self, owner: ContainerDirectory, path: EntryPath) -> Folder:
        """Return the folder at ``path``; no listing takes it away before a file is in it."""
        folder = self._parts.tree.folder_at(owner, path)
        step: Folder | Root | None = folder
        while isinstance(step, Directory):
            with self._parts.spared():
                self._parts.tree.keep_folder(step)
            step = step.parent
        return folder

    async def _are_same(self, one: File, other: File) -> bool:
        """Tell whether two files have the same bytes; waits for them where names do not tell."""
        if one.digest is not None and other.digest is not None:
            return one.digest == other.digest
        async with self._holder.held(one) as left, self._holder.held(other) as right:
            await self._holder.complete(one, left)
            await self._holder.complete(other, right)
            offset, size = 0, left.size_bytes or 0
            if size != right.size_bytes:
                return False
            while offset < size:
                if await left.read(offset, _COMPARED_BYTES) != await right.read(
                    offset, _COMPARED_BYTES
                ):
                    return False
                offset += _COMPARED_BYTES
            return True

    async def _remove_folders(self, folder: Directory) -> None:
        """Remove a folder and all in it that have no files, the innermost first."""
        for step in reversed([folder, *self._parts.tree.folders_below(folder)]):
            if not step.children:
                await self._remover.remove_folder(step)

    def _folder(self, owner: ContainerDirectory, path: bytes) -> Directory | None:
        step: ContainerDirectory | Directory = owner
        for name in path.split(b"/"):
            inner = step.children.get(name)
            if not isinstance(inner, Directory):
                return None
            step = inner
        return step if isinstance(step, Directory) else None


def _with_the_rest_moved(parts: Parts, move: FolderMoveRow) -> FolderMoveRow:
    """Give what is on this machine alone its new path; return what the service is to hear of.

    Once for all: what a user puts into the old folder from now on stays there.
    """
    left = replace(move, files=tuple(file for file in move.files if file.version is not None))
    paths = {
        move.old_path + b"/" + file.inner_path: move.new_path + b"/" + file.inner_path
        for file in move.files
        if file.version is None
    }
    if not paths:
        return move
    with parts.spared(), parts.journal.together():
        for row in parts.journal.rows():
            if row.container_id == move.container_id and row.path in paths:
                parts.journal.put(replace(row, path=paths[row.path]))
        for local in parts.local.files(move.container_id):
            if local.path in paths:
                parts.local.remove_file(move.container_id, local.path)
                parts.local.put_file(replace(local, path=paths[local.path]))
        parts.journal.put_folder_move(left)
    return left


def _is_as_it_was(file: File, moving: MovingFile) -> bool:
    """Tell whether a file is the version that was to be moved, and nobody is changing it."""
    return (
        file.remote is not None
        and version_of(file.remote) == moving.version
        and not file.is_claimed
        and file.parent is not None
    )
