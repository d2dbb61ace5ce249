"""Taking entries away: hidden at once, then deleted on the service, shown again if it refuses."""

from __future__ import annotations

from contextlib import suppress

from ctrfs.api.models import FileId
from ctrfs.errors import (
    ContainerExpiredError,
    CtrfsError,
    DirectoryNotEmptyError,
    RemoteError,
    RemoteNotFoundError,
    StaleHandleError,
)
from ctrfs.fs.parts import Parts, identity_of_remote
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

    def __init__(self, parts: Parts, saver: Saver) -> None:
        self._parts = parts
        self._saver = saver

    async def remove_file(self, file: File) -> None:
        """Take a file's name away and delete it on the service.

        Waits for a save under way, for the service, and for the bytes of a file that somebody
        has open: they must be readable after the name is gone.

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
        container_id = directory.container.id
        await self.check_empty(directory)
        with suppress(RemoteNotFoundError, ContainerExpiredError):  # somebody else was faster
            await self._parts.api.delete_container(container_id)
        self._parts.namespace.removed_container(directory)
        with self._parts.spared():
            self._parts.overlay.drop_container(container_id)
            self._parts.local.drop_container(container_id)

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
        self._parts.forget_unsent(file.inode)
        self._parts.store.discard(file.inode, identity_of_remote(file))

    async def remove_locked(self, file: File) -> None:
        """Do what ``remove_file`` does, for a caller that holds the file's lock."""
        parent = file.parent
        if parent is None:
            return
        owner, remote = file.owner, file.remote
        if file.is_local_only:
            self._parts.local.remove_file(owner.container.id, b"/".join(path_in_container(file)))
        ids = [*file.replaces, *([remote.id] if remote is not None else [])]
        for file_id in ids:
            self._parts.namespace.hide(owner, file_id)
        self._parts.tree.take_name(file)
        file.is_removed = True  # from here on, or a write would claim the name back
        with self._parts.spared():
            self._parts.tree.keep_folder(parent)
        try:
            if remote is not None:
                await self._delete(owner, remote.id)
        except RemoteError:
            for file_id in ids:
                self._parts.namespace.unhide(owner, file_id)
            self._take_back(file)
            with suppress(
                CtrfsError
            ):  # a close meanwhile had nothing to send; recorded if it fails
                await self._saver.save_locked(file)
            raise
        self.forget_bytes(file)
        if remote is not None:
            with self._parts.spared():
                self._parts.overlay.drop(owner.container.id, remote.id)
        self._parts.touch(parent)
        await self._saver.delete_all(owner, file.replaces)

    def _take_back(self, file: File) -> None:
        """Undo the removal of a name: the service has refused it."""
        file.is_removed = False
        self._parts.tree.give_name_back(file)
        self._parts.namespace.changed_by_us()
        open_file = self._parts.store.get(file.inode)
        file.is_claimed = open_file is not None and open_file.is_unsent

    async def _delete(self, owner: ContainerDirectory, file_id: FileId) -> None:
        with suppress(RemoteNotFoundError, ContainerExpiredError):  # somebody else was faster
            await self._parts.api.delete_file(owner.container.id, file_id)
        self._parts.namespace.deleted(owner, file_id)
