"""Rename, on a service that has none: stored again under the new name, then deleted.

In every case the new name is on the service before the old one goes, and what stood at the
new name goes last. A file that is being written only changes its name here: its flush will
store it there. With write=back that is so of every file that stays in its container. One whose
new name never leaves this machine is kept here, then deleted there.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial

import trio

from ctrfs.api.models import ContainerFile, ContainerId, ContainerRequest
from ctrfs.config import WriteMode
from ctrfs.content.open_file import OpenFile
from ctrfs.content.outgoing import Outgoing
from ctrfs.errors import (
    CrossContainerError,
    CtrfsError,
    EntryExistsError,
    IsADirectoryEntryError,
    LocalDiskError,
    NotPermittedError,
    RemoteError,
    RemoteGoneError,
)
from ctrfs.failpoints import reached
from ctrfs.fs.deleting import Deleter
from ctrfs.fs.describing import described
from ctrfs.fs.holding import Holder
from ctrfs.fs.parts import Parts, Place
from ctrfs.fs.recording import Recorder, replaced_by
from ctrfs.fs.removing import Remover
from ctrfs.fs.saving import Saver, identity_of
from ctrfs.tree.names import container_name_from_entry
from ctrfs.tree.nodes import (
    ContainerDirectory,
    Directory,
    EntryPath,
    File,
    Folder,
    Parent,
    Root,
    owner_of,
    path_in_container,
)

log = logging.getLogger(__name__)


class Mover:
    """Rename; the caller holds the locks of both directories."""

    def __init__(
        self,
        parts: Parts,
        *,
        saver: Saver,
        remover: Remover,
        holder: Holder,
        recorder: Recorder,
        deleter: Deleter,
    ) -> None:
        self._parts = parts
        self._saver = saver
        self._remover = remover
        self._holder = holder
        self._recorder = recorder
        self._deleter = deleter

    async def move_file(
        self, file: File, parent: Folder, name: bytes, *, target: File | Directory | None
    ) -> None:
        """Give ``file`` the name ``name`` in ``parent``, in the place of ``target``.

        Raises:
            IsADirectoryEntryError: ``target`` is a folder.
            NoSuchEntryError: ``parent`` went meanwhile; nothing has changed.
            RemoteError: The service did not take the file again; nothing has changed.
        """
        if isinstance(target, Directory):
            raise IsADirectoryEntryError("a folder has that name")
        inodes = [file.inode] + ([target.inode] if target is not None else [])
        async with self._parts.file_locks.hold(*inodes):
            if target is not None:
                await self._remover.keep_for_openers(target)
                await self._saver.doubts.settle(target)
            _owner, path = self._parts.place_in(parent, name)
            is_local = self._parts.local_only.match(path)
            with self._parts.failures.noting(file.inode):
                if is_local:
                    await self._saver.doubts.settle(file)
                    await self._move_to_local(file, parent, name, target)
                elif self._can_wait(file, parent):
                    self._rename_only(file, parent, name, target)
                elif not await self._kept_to_send(file, parent, name, target):
                    await self._store_again(file, parent, name, target)

    async def move_container(
        self, directory: ContainerDirectory, name: bytes, *, target: ContainerDirectory | None
    ) -> None:
        """Create an empty container again under another name; the caller holds its lock.

        Raises:
            CrossContainerError: It is not empty; programs then copy and delete.
            NotPermittedError: Its network policy cannot be given to another container: the
                service tells that there is a list of domains, and not their secrets.
            DirectoryNotEmptyError: The container of that name is not empty.
            RemoteError: The service refused.
        """
        policy = directory.container.network_policy
        if policy not in {None, "disabled"}:
            raise NotPermittedError(f"a container of network policy {policy} keeps its name")
        await self._parts.namespace.refetch(directory)
        if directory.children:
            raise CrossContainerError("a container with files is copied, not renamed")
        if target is not None:
            await self._remover.check_empty(target)
        old = directory.container
        new = await self._parts.api.create_container(
            ContainerRequest(
                name=container_name_from_entry(name),
                expires_after_minutes=old.expires_after_minutes,
                memory_limit=old.memory_limit,
                network_disabled=policy == "disabled",
            )
        )
        reached("container.created")
        if directory.children or (target is not None and target.children):
            # A listing has brought them since; whoever moves by copying will see them.
            await self._delete_container(new.id)
            raise CrossContainerError("a container with files is copied, not renamed")
        gone = [old.id, *([target.container.id] if target is not None else [])]
        with self._parts.spared(), self._parts.journal.together():
            for container_id in gone:
                self._parts.journal.put_rmdir(container_id)
        if target is not None:
            self._parts.namespace.removed_container(target)
        self._parts.namespace.replaced_container(directory, new, name)
        reached("container.replaced")
        try:
            for container_id in gone:
                await self._delete_container(container_id)
        except trio.Cancelled:
            for container_id in gone:
                self._recorder.container_not_deleted(container_id)
            raise

    async def _delete_container(self, container_id: ContainerId) -> None:
        """Delete an empty container that has been replaced; it may be gone already."""
        try:
            await self._parts.api.delete_container(container_id)
        except RemoteGoneError:
            log.debug("container %s was gone already", container_id)
        except RemoteError as error:
            log.warning("replaced container %s could not be deleted yet: %s", container_id, error)
            self._recorder.container_not_deleted(container_id)
            return
        self._recorder.container_deleted(container_id)

    async def _move_to_local(
        self, file: File, parent: Folder, name: bytes, target: File | None
    ) -> None:
        """The new name never leaves this machine: keep the bytes here, delete them there."""
        place = partial(self._parts.place_in, parent, name)
        async with self._holder.held(file) as open_file:
            was_resident = open_file.is_resident
            gone = [*replaced_by(file), *_replaced_with(target)]
            try:
                await self._holder.complete(file, open_file)
                await self._saver.keep_local(file, open_file, place=place, deletes=gone)
            except (CtrfsError, trio.Cancelled):
                open_file.is_resident = was_resident
                raise
            # In one step from here: what was synced is where it is recorded to be.
            self._step_over(target)
            self._parts.tree.unbind(file)
            self._place(file, parent, name)
            file.is_local_only = True
            file.replaces = ()
            if target is not None:
                self._remover.forget_bytes(target)  # its record has just become ours
            await self._deleter.delete_all(gone)

    def _can_wait(self, file: File, parent: Folder) -> bool:
        """Tell whether a flush is sure to come that will store the file under its new name."""
        return (
            self._parts.is_changed_here(file)
            and not file.is_local_only
            and file.owner is owner_of(parent)
            and self._parts.handles.is_being_written(file.inode)
        )

    def _rename_only(self, file: File, parent: Folder, name: bytes, target: File | None) -> None:
        """Change the name here; the flush stores the bytes there and deletes what was."""
        replaced = self._step_over(target)
        for row in replaced:
            self._deleter.hide(row)
        self._place(file, parent, name)
        file.replaces = (*file.replaces, *replaced)
        self._recorder.renamed(file, over=target)
        if target is not None:
            self._forget_target(target)

    async def _kept_to_send(
        self, file: File, parent: Folder, name: bytes, target: File | None
    ) -> bool:
        """With write=back, record and show the new name, and send the bytes to it later.

        Returns False, with nothing changed, where that cannot be done.
        """
        if self._parts.config.write_mode is WriteMode.THROUGH or file.owner is not owner_of(parent):
            return False
        old_path = path_in_container(file)
        was_local_only = file.is_local_only

        def take_away() -> None:
            if was_local_only:
                self._parts.local.remove_file(file.owner.container.id, b"/".join(old_path))
            if target is not None and target.journal_key is not None:
                self._parts.journal.settle(target.journal_key)

        async with self._holder.held(file) as open_file:
            await self._holder.complete(file, open_file)
            await self._saver.doubts.settle(file)
            try:
                await self._recorder.keep(
                    file,
                    open_file,
                    place=partial(self._parts.place_in, parent, name),
                    replaces=[*replaced_by(file), *_replaced_with(target)],
                    instead=take_away,
                )
            except LocalDiskError as error:
                log.warning("%s is stored at once: %s", described(file), error)
                return False
            # In one step from here: what is recorded is what is shown.
            open_file.mark_unsent()
            open_file.is_resident = False
            file.is_local_only = False
            file.is_claimed = True
            replaced = self._step_over(target)
            for row in replaced:
                self._deleter.hide(row)
            self._place(file, parent, name)
            file.replaces = (*file.replaces, *replaced)
            if target is not None:
                self._forget_target(target)
            self._parts.namespace.changed_by_us()
        self._recorder.on_kept(file.inode)
        reached("rename.kept")
        return True

    async def _store_again(
        self, file: File, parent: Folder, name: bytes, target: File | None
    ) -> None:
        """Store the bytes under the new name, then delete the old and the replaced."""
        old_owner, old = file.owner, file.remote
        local_path = path_in_container(file) if file.is_local_only else None
        place = partial(self._parts.place_in, parent, name)
        async with self._holder.held(file) as open_file:
            await self._holder.complete(file, open_file)
            async with open_file.sending() as outgoing:
                await self._saver.doubts.settle(file)
                async with self._intended(file, open_file, outgoing, place, target):
                    stored = await self._saver.storer.upload_to(
                        place, outgoing, file=file, copy_of=file
                    )
                reached("rename.stored")
                outgoing.settle(identity_of(stored, outgoing))
                open_file.is_resident = False
                replaced = self._step_over(target)
                elsewhere: list[ContainerFile] = []
                if old_owner is not owner_of(parent):
                    elsewhere = self._deleter.still_those(replaced_by(file))
                    file.replaces = ()
                    self._parts.tree.unbind(file)
                self._parts.tree.forget_double(owner_of(parent), stored, file)
                self._place(file, parent, name)
                file.is_local_only = False
                file.replaces = (*file.replaces, *replaced)
                gone = [*elsewhere, *self._saver.bind(file, stored, outgoing)]
                self._recorder.settle(file, deletes=gone)
                self._forget_local(old_owner, local_path)
                reached("rename.bound")
        self._parts.namespace.changed_by_us()
        if target is not None:
            self._forget_target(target)
        if old is not None and old_owner is not file.owner:
            with self._parts.spared():
                self._parts.overlay.drop(old_owner.container.id, old.id)
        await self._deleter.delete_all(gone)
        reached("rename.settled")

    @asynccontextmanager
    async def _intended(
        self,
        file: File,
        open_file: OpenFile,
        outgoing: Outgoing,
        place: Place,
        target: File | None,
    ) -> AsyncIterator[None]:
        """Record inside the block that the bytes are on their way to another name.

        From the first moment the next mount would finish the renaming; if the block fails it
        has not taken place, and what was recorded of the file before is put back.
        """
        journal, local = self._parts.journal, self._parts.local
        container_id, path = file.owner.container.id, b"/".join(path_in_container(file))
        before = [
            (row, journal.bytes_of(row.key))
            for entry in (file, target)
            if entry is not None and entry.journal_key is not None
            and (row := journal.row(entry.journal_key)) is not None
        ]  # fmt: skip
        local_row = local.file(container_id, path) if file.is_local_only else None

        def take_away() -> None:
            if local_row is not None:
                local.remove_file(container_id, path)
            if target is not None and target.journal_key is not None:
                journal.settle(target.journal_key)

        replaces = [*replaced_by(file), *_replaced_with(target)]
        await self._recorder.intend(
            file,
            open_file,
            digest=outgoing.digest,
            place=place,
            replaces=replaces,
            instead=take_away,
        )
        reached("rename.intended")
        try:
            yield
        except BaseException:  # also if the time of the request is over
            with self._parts.spared(), journal.together():
                if local_row is not None:
                    local.put_file(local_row)
                self._recorder.put_back(file, open_file, before)
            raise

    def _forget_local(self, owner: ContainerDirectory, path: EntryPath | None) -> None:
        if path is not None:
            with self._parts.spared():
                self._parts.local.remove_file(owner.container.id, b"/".join(path))

    def _place(self, file: File, parent: Folder, name: bytes) -> None:
        old_parent = file.parent
        self._parts.tree.place(file, parent, name)
        if old_parent is not None:
            with self._parts.spared():
                self._parts.tree.keep_folder(old_parent)
            self._parts.touch(old_parent)
        self._parts.touch(parent)

    def _step_over(self, target: File | None) -> Sequence[ContainerFile]:
        """Take the name of what is replaced; return what the user overwrote with it."""
        if target is not None:
            self._parts.tree.take_name(target)
        return _replaced_with(target)

    def _forget_target(self, target: File) -> None:
        if target.is_local_only:
            self._forget_local(target.owner, target.former_path)
        self._remover.forget_bytes(target)


def _replaced_with(target: File | None) -> list[ContainerFile]:
    """Return what is overwritten with a file, if there is one."""
    return [] if target is None else replaced_by(target)


def check_rename(
    source: ContainerDirectory | Directory | File,
    parent: Parent,
    target: ContainerDirectory | Directory | File | None,
    *,
    no_replace: bool,
) -> None:
    """Refuse what no rename can be.

    Raises:
        EntryExistsError: The name is taken and must not be replaced.
        NotPermittedError: A file would come to stand beside the containers.
        CrossContainerError: A folder would become a container, or the reverse.
    """
    if target is not None and no_replace:
        raise EntryExistsError("the name is taken")
    if isinstance(parent, Root) and isinstance(source, File):
        raise NotPermittedError("only containers stand in the root")
    if isinstance(parent, Root) != isinstance(source, ContainerDirectory):
        raise CrossContainerError("a folder becomes a container, or the reverse, by copying")
