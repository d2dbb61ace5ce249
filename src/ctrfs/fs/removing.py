"""Taking entries away: hidden at once, then deleted on the service, shown again if it refuses."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import trio

from ctrfs.api.models import ContainerFile
from ctrfs.errors import (
    CtrfsError,
    DirectoryNotEmptyError,
    RemoteError,
    RemoteGoneError,
    StaleHandleError,
)
from ctrfs.failpoints import reached
from ctrfs.fs.deleting import Deleter
from ctrfs.fs.doubts import Doubts
from ctrfs.fs.parts import Parts, identity_of_remote, stored_at
from ctrfs.fs.postponing import PostponedDeletes
from ctrfs.fs.recording import Recorder, replaced_by
from ctrfs.fs.saving import Saver
from ctrfs.tree.making import folder_key
from ctrfs.tree.nodes import (
    ContainerDirectory,
    Directory,
    File,
    path_in_container,
)


class Remover:
    """Unlink and rmdir; the caller holds the lock of the directory."""

    def __init__(
        self,
        parts: Parts,
        *,
        saver: Saver,
        recorder: Recorder,
        deleter: Deleter,
        doubts: Doubts,
        postponed: PostponedDeletes,
    ) -> None:
        self._parts = parts
        self._saver = saver
        self._recorder = recorder
        self._deleter = deleter
        self._doubts = doubts
        self._postponed = postponed

    async def remove_file(self, file: File) -> None:
        """Take a file's name away and delete it on the service.

        Waits for a save under way, for the service (not with write=back), and for the bytes of a
        file that somebody has open: they must be readable after the name is gone.

        Raises:
            RemoteError: The service did not delete it; the name is back.
        """
        async with self._parts.file_locks.hold(file.inode):
            with self._parts.failures.noting(file.inode):
                await self.keep_for_openers(file)
                await self.remove_locked(file)

    async def remove_folder(self, folder: Directory) -> None:
        """Take an empty folder away; the service never knew of it.

        Raises:
            DirectoryNotEmptyError: It has entries.
        """
        if folder.children:
            raise DirectoryNotEmptyError(f"{len(folder.children)} entries are in it")
        assert folder.parent is not None
        parent = folder.parent
        key = folder_key(path_in_container(folder))
        self._parts.tree.remove_folder(folder)
        with self._parts.spared():
            self._parts.tree.keep_folder(parent)
            self._parts.overlay.drop(folder.owner.container.id, key)
        self._parts.touch(parent)

    async def remove_container(self, directory: ContainerDirectory) -> None:
        """Delete a container that a listing fetched just now shows to be empty.

        Raises:
            DirectoryNotEmptyError: It has entries, on the service or on this machine.
            RemoteError: The service did not list it, or did not delete it.
        """
        with self._postponed.swallowed(directory):
            await self.check_empty(directory)
            await self._delete_container(directory)
        with self._parts.spared():
            self._parts.overlay.drop_container(directory.container.id)
            self._parts.local.drop_container(directory.container.id)
        self._recorder.container_deleted(directory.container.id)
        reached("rmdir.settled")

    async def _delete_container(self, directory: ContainerDirectory) -> None:
        container_id = directory.container.id
        with self._parts.spared():
            self._parts.journal.put_rmdir(container_id)
        reached("rmdir.intended")
        try:
            with suppress(RemoteGoneError):  # somebody else was faster
                await self._parts.api.delete_container(container_id)
        except RemoteError:
            self._recorder.container_deleted(container_id)
            raise
        except trio.Cancelled:
            self._recorder.container_not_deleted(container_id)
            raise
        reached("rmdir.deleted")
        self._parts.namespace.removed_container(directory)

    async def check_empty(self, directory: ContainerDirectory) -> None:
        """Return if a listing fetched just now shows nothing in a container.

        Raises:
            DirectoryNotEmptyError: It has entries, on the service or on this machine.
            RemoteError: The service did not list it.
        """
        if not directory.container.is_expired:
            await self._parts.namespace.refetch(directory)
        if directory.children:
            raise DirectoryNotEmptyError(f"{len(directory.children)} entries are in it")

    async def keep_for_openers(self, file: File) -> None:
        """Have all bytes of a file here if somebody has it open: its service copy will go.

        Bytes that the service has lost already cannot be kept, and that stops no removal.

        Raises:
            RemoteError: They could not be had.
        """
        open_file = self._parts.store.get(file.inode)
        if open_file is not None and self._parts.handles.is_open(file.inode):
            with suppress(StaleHandleError):
                await open_file.complete()

    def forget_bytes(self, file: File) -> None:
        """Say that nobody will ever send the bytes of a file that was unlinked here."""
        file.is_removed = True
        file.is_claimed = False
        self._recorder.settle(file)
        self._parts.store.discard(file.inode, identity_of_remote(file))

    async def remove_locked(self, file: File) -> None:
        """Do what ``remove_file`` does, for a caller that holds the file's lock."""
        parent = file.parent
        if parent is None:
            return
        owner, remote = file.owner, file.remote
        if file.is_local_only:
            self._parts.local.remove_file(owner.container.id, b"/".join(path_in_container(file)))
        with suppress(StaleHandleError):
            await self._doubts.settle(file)
        rows = self._deleter.still_those(replaced_by(file))
        for row in rows:
            self._deleter.hide(row)
        self._recorder.settle(file, deletes=rows)
        reached("unlink.intended")
        self._parts.tree.take_name(file)
        file.is_removed = True  # from here on, or a write would claim the name back
        with self._parts.spared():
            self._parts.tree.keep_folder(parent)
        left: Sequence[ContainerFile] = rows
        if remote is not None and self._deleter.put_off is None:
            await self._delete_or_take_back(file, remote, rows)
            left = file.replaces
        self.forget_bytes(file)
        if remote is not None:
            with self._parts.spared():
                self._parts.overlay.drop(owner.container.id, remote.id)
        self._parts.touch(parent)
        await self._deleter.delete_all(left)
        reached("unlink.settled")

    async def _delete_or_take_back(
        self, file: File, remote: ContainerFile, rows: Sequence[ContainerFile]
    ) -> None:
        """Delete a file that has lost its name; if the service refuses, the name is back.

        Args:
            file: Which file.
            remote: What the service has of it.
            rows: All deletions that were recorded for it.
        """
        try:
            await self._delete(file.owner, remote)
        except RemoteError as error:
            file.may_be_gone = True
            self._parts.namespace.unhide(file.owner, remote.id)
            for row in rows:
                self._recorder.deleted(row)
            self._take_back(file)
            open_file = self._parts.store.get(file.inode)
            if file.is_claimed and open_file is not None:
                await self._recorder.failed(file, open_file, error)
            with suppress(CtrfsError):  # a close meanwhile had nothing to send
                await self._saver.save_locked(file)
            raise
        except trio.Cancelled:
            self.forget_bytes(file)
            for row in rows:
                self._recorder.not_deleted(row)
            raise

    def _take_back(self, file: File) -> None:
        """Undo the removal of a name: the service has refused it."""
        file.is_removed = False
        self._parts.tree.give_name_back(file)
        self._parts.namespace.changed_by_us()
        open_file = self._parts.store.get(file.inode)
        file.is_claimed = open_file is not None and open_file.is_unsent

    async def _delete(self, owner: ContainerDirectory, row: ContainerFile) -> None:
        with suppress(RemoteGoneError):  # somebody else was faster
            async with self._parts.stored_paths.hold(stored_at(row)):
                await self._parts.api.delete_file(owner.container.id, row.id)
        reached("unlink.deleted")
        self._parts.namespace.deleted(owner, row.id)
        self._recorder.deleted(row)
