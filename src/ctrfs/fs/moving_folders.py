"""Rename of a folder: all its files stored again, then one step, then the old ones deleted.

The service knows folders only by the paths of files. Files that are being written while the
folder moves are left out: their own save finds them at their new path.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
import trio

from ctrfs.api.models import ContainerFile
from ctrfs.disk.journal import FolderMoveRow, MovingFile
from ctrfs.errors import (
    CrossContainerError,
    CtrfsError,
    DirectoryNotEmptyError,
    NamespaceError,
    NotADirectoryEntryError,
    UnsupportedRenameError,
)
from ctrfs.failpoints import reached
from ctrfs.fs.deleting import Deleter
from ctrfs.fs.holding import Holder
from ctrfs.fs.parts import Parts
from ctrfs.fs.recording import Recorder, version_of
from ctrfs.fs.saving import Saver, identity_of
from ctrfs.tree.making import folder_key
from ctrfs.tree.nodes import (
    Directory,
    EntryPath,
    File,
    Folder,
    Parent,
    owner_of,
    path_in_container,
)

# Files of a folder that are sent again at once: the service takes a second for each.
FILES_AT_ONCE: Final = 8
# How often a folder is looked over again for files that changed while it was moved.
ROUNDS_MAX: Final = 5


class _Copy(msgspec.Struct, frozen=True):
    """A file of a moving folder, stored again where it will be."""

    file: File
    old: ContainerFile
    new: ContainerFile
    digest: str
    size_bytes: int


class FolderMover:
    """Rename of folders; the caller holds the locks of both directories."""

    def __init__(
        self,
        parts: Parts,
        *,
        saver: Saver,
        holder: Holder,
        recorder: Recorder,
        deleter: Deleter,
    ) -> None:
        self._recorder = recorder
        self._deleter = deleter
        self._parts = parts
        self._saver = saver
        self._holder = holder

    async def move_folder(
        self, folder: Directory, parent: Folder, name: bytes, *, target: File | Directory | None
    ) -> None:
        """Give ``folder`` and all in it another place in the same container.

        All files are stored at their new paths first; then the folder moves in one step; then
        the old files are deleted. If a file cannot be stored, the new ones are deleted again.

        Raises:
            CrossContainerError: Another container, or more files than ``rename_dir_limit``.
            UnsupportedRenameError: Into itself.
            NotADirectoryEntryError: ``target`` is a file.
            DirectoryNotEmptyError: ``target`` has entries.
            NoSuchEntryError: ``folder`` or ``parent`` went meanwhile; nothing has changed.
            RemoteError: The service did not take a file again; nothing has changed.
        """
        if isinstance(target, File):
            raise NotADirectoryEntryError("a file has that name")
        if owner_of(parent) is not folder.owner:
            raise CrossContainerError("a folder is copied to another container, not moved")
        step: Parent | None = parent
        while step is not None:
            if step is folder:
                raise UnsupportedRenameError("a folder cannot go into itself")
            step = step.parent
        self._check_places(folder, parent, target)
        new_path = (*path_in_container(parent), name)
        self._intend(folder, new_path)
        reached("folder.intended")
        copies, useless = await self._copy_all(folder, new_path)
        # Some servers give a second copy the id of the first.
        kept = {copy.new.id for copy in copies}
        useless = [row for row in useless if row.id not in kept]
        try:
            self._check_places(folder, parent, target)  # as they are by now
        except NamespaceError:
            await self._take_back(folder, new_path, [*useless, *(copy.new for copy in copies)])
            raise
        gone = [*useless, *(copy.old for copy in copies if copy.old.id not in kept)]
        self._settle(folder, new_path, gone, moved_from=path_in_container(folder))
        for copy in copies:
            self._parts.tree.forget_double(folder.owner, copy.new, copy.file)
        self._move_folder_here(folder, parent, name, target)
        self._parts.namespace.changed_by_us()
        for copy in copies:
            self._parts.namespace.hide(folder.owner, copy.old)
            self._parts.namespace.stored(copy.file, copy.new, digest=copy.digest)
            copy.file.size_bytes = copy.size_bytes
            with self._parts.spared():
                self._parts.overlay.drop(folder.owner.container.id, copy.old.id)
                self._parts.keep_facts(copy.file)
        reached("folder.moved")
        await self._deleter.delete_all(gone)
        reached("folder.settled")

    def _check_places(self, folder: Directory, parent: Folder, target: Directory | None) -> None:
        """Refuse if a folder is gone, or something is where the one that moves is to be."""
        self._parts.check_attached(folder, parent)
        if target is not None and target.children:
            raise DirectoryNotEmptyError("the folder of that name has entries")

    def _intend(self, folder: Directory, new_path: EntryPath) -> None:
        """Record that the folder is being renamed: the next mount would finish it."""
        old_path = path_in_container(folder)
        files = tuple(
            MovingFile(
                inner_path=b"/".join(path_in_container(file)[len(old_path) :]),
                version=None if remote is None or file.journal_key else version_of(remote),
            )
            for file in self._parts.tree.files_below(folder)
            for remote in [file.remote]
            if remote is not None or file.journal_key or file.is_local_only
        )
        with self._parts.spared():
            self._parts.journal.put_folder_move(
                FolderMoveRow(
                    container_id=folder.owner.container.id,
                    old_path=b"/".join(old_path),
                    new_path=b"/".join(new_path),
                    files=files,
                )
            )

    def _settle(
        self,
        folder: Directory,
        new_path: EntryPath,
        gone: Sequence[ContainerFile],
        *,
        moved_from: EntryPath | None,
    ) -> None:
        """Record in one step that the renaming is decided, and what is to be deleted for it.

        Args:
            folder: Which folder.
            new_path: Where it was to be.
            gone: What is to be deleted: the old files, or those that were stored in vain.
            moved_from: Where it was; None if it stays there.
        """
        container_id, target = folder.owner.container.id, b"/".join(new_path)
        with self._parts.spared(), self._parts.journal.together():
            self._parts.journal.remove_folder_move(container_id, target)
            if moved_from is not None:
                # From here on nobody would finish the renaming: what is only here goes along now.
                old = b"/".join(moved_from)
                self._parts.journal.move_below(container_id, old, target)
                self._parts.local.rename_folder(container_id, old, target)
            self._recorder.settle(deletes=gone)

    async def _copy_all(
        self, folder: Directory, new_path: EntryPath
    ) -> tuple[list[_Copy], list[ContainerFile]]:
        """Store every file of ``folder`` again, until none has changed meanwhile.

        Returns the copies that count, and what was stored for those that do not any more. Files that
        are being written are left out: their own save will find them at the new path.
        """
        done: dict[File, _Copy] = {}
        useless: list[ContainerFile] = []
        failures: list[CtrfsError] = []
        try:
            return await self._copy_in_rounds(folder, new_path, done, useless, failures)
        except CtrfsError:
            raise  # told after it was settled
        except BaseException:  # given up: a nursery raises a group of that
            gone = [*useless, *(copy.new for copy in done.values())]
            self._settle(folder, new_path, gone, moved_from=None)
            for row in gone:
                self._recorder.not_deleted(row)
            raise

    async def _copy_in_rounds(
        self,
        folder: Directory,
        new_path: EntryPath,
        done: dict[File, _Copy],
        useless: list[ContainerFile],
        failures: list[CtrfsError],
    ) -> tuple[list[_Copy], list[ContainerFile]]:
        for _round in range(ROUNDS_MAX):
            todo = [
                file
                for file in self._parts.tree.files_below(folder)
                if file.remote is not None and not self._parts.is_changed_here(file)
                and (file not in done or done[file].old != file.remote)
            ]  # fmt: skip
            if len(todo) > self._parts.config.rename_dir_limit:
                failures.append(
                    CrossContainerError(f"{len(todo)} files are in it: copied, not moved")
                )
                break
            if not todo:
                there = set(self._parts.tree.files_below(folder))
                counting = [
                    copy
                    for file, copy in done.items()
                    if file in there
                    and not self._parts.is_changed_here(file)
                    and file.remote == copy.old
                ]
                useless += [copy.new for copy in done.values() if copy not in counting]
                return counting, useless
            useless += [done.pop(file).new for file in todo if file in done]
            limiter = trio.CapacityLimiter(FILES_AT_ONCE)
            async with trio.open_nursery() as nursery:
                for file in todo:
                    nursery.start_soon(
                        self._copy_one, file, folder, new_path, (done, failures, limiter)
                    )
            if failures:
                break
        await self._take_back(folder, new_path, [*useless, *(copy.new for copy in done.values())])
        raise failures[0] if failures else CrossContainerError("files in it keep changing")

    async def _take_back(
        self, folder: Directory, new_path: EntryPath, copies: Sequence[ContainerFile]
    ) -> None:
        """Give the renaming up, and delete what was stored for it."""
        self._settle(folder, new_path, copies, moved_from=None)
        await self._deleter.delete_all(copies)

    async def _copy_one(
        self,
        file: File,
        folder: Directory,
        new_path: EntryPath,
        shared: tuple[dict[File, _Copy], list[CtrfsError], trio.CapacityLimiter],
    ) -> None:
        done, failures, limiter = shared
        async with limiter, self._parts.file_locks.hold(file.inode):
            old = file.remote
            if failures or old is None or file.parent is None:
                return
            if self._parts.is_changed_here(file):
                return
            inner = path_in_container(file)[len(path_in_container(folder)) :]
            try:
                async with self._holder.held(file) as open_file:
                    await self._holder.complete(file, open_file)
                    async with open_file.sending() as outgoing:
                        new = await self._saver.storer.upload(
                            folder.owner, (*new_path, *inner), outgoing, copy_of=file
                        )
                        outgoing.settle(identity_of(new, outgoing))
                        self._parts.namespace.hide(folder.owner, new)
                        reached("folder.copied")
                        done[file] = _Copy(file, old, new, outgoing.digest, outgoing.size_bytes)
            except CtrfsError as error:
                failures.append(error)

    def _move_folder_here(
        self, folder: Directory, parent: Folder, name: bytes, target: Directory | None
    ) -> None:
        """Move the node, and its times and modes; one step. ``_settle`` has moved the rest."""
        container_id = folder.owner.container.id
        old_parent = folder.parent
        assert old_parent is not None
        old_path = path_in_container(folder)
        inner = [()] + [
            path_in_container(below)[len(old_path) :]
            for below in self._parts.tree.folders_below(folder)
        ]
        if target is not None and target.parent is not None:
            self._parts.tree.replace_folder(target)
        self._parts.tree.place(folder, parent, name)
        new_path = path_in_container(folder)
        with self._parts.spared():
            self._parts.tree.keep_folder(old_parent)
            self._parts.tree.keep_folder(folder)
            for path in inner:
                self._parts.overlay.move(
                    container_id, folder_key((*old_path, *path)), folder_key((*new_path, *path))
                )
        self._parts.touch(old_parent, parent)
