"""Bringing a file's bytes to the service, and keeping them where that fails.

The service cannot overwrite. So a changed file is stored as a new one, its inode is bound to
the new id in one step, and only then is the old id deleted: at every instant the service has
the old bytes or the new ones.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from typing import Final

import trio

from ctrfs.api.models import ContainerFile
from ctrfs.config import WriteMode
from ctrfs.content.file_state import FileState
from ctrfs.content.identity import ContentIdentity
from ctrfs.content.open_file import OpenFile
from ctrfs.content.outgoing import Outgoing
from ctrfs.disk.local_entries import LocalFileRow
from ctrfs.errors import (
    CtrfsError,
    LocalDiskError,
    RemoteMiscountError,
    RemoteNotFoundError,
    RemoteUncertainError,
    ShuttingDownError,
)
from ctrfs.failpoints import reached
from ctrfs.fs.deleting import Deleter
from ctrfs.fs.describing import described
from ctrfs.fs.doubts import Doubts
from ctrfs.fs.parts import Parts, Place
from ctrfs.fs.recording import Recorder, is_same_version, replaced_by
from ctrfs.fs.storing import Storer
from ctrfs.tree.nodes import (
    ContainerDirectory,
    EntryPath,
    File,
    path_in_container,
)
from ctrfs.units import MIB

# With write=back, how many files may wait to be sent before a close waits, too: a restart has to
# read them all, and each costs a KiB of memory.
WAITING_FILES_MAX: Final = 10_000

# Up to here a wait for the disk is short, and bytes are in one packet with the end of the request.
_RECORDED_FIRST_MAX: Final = 1 * MIB

log = logging.getLogger(__name__)


class Saver:
    """Sends what the service lacks.

    Attributes:
        doubts: Settles what is open about earlier attempts.
        storer: Makes the new files.
    """

    def __init__(
        self,
        parts: Parts,
        *,
        recorder: Recorder,
        deleter: Deleter,
        doubts: Doubts,
        storer: Storer,
    ) -> None:
        self._parts = parts
        self._recorder = recorder
        self._deleter = deleter
        self.doubts = doubts
        self.storer = storer

    async def acknowledge(self, file: File) -> None:
        """Return once a close of ``file`` may succeed: with write=through what ``save`` does.

        With write=back once the journal has the bytes; they are sent a moment later. Where the
        disk refuses that, or too much is waiting already, the service gets them now.

        Raises as ``save``.
        """
        if self._must_send(file):
            await self.save(file)
            return
        if not file.is_claimed or file.is_removed or self._recorder.is_recorded(file):
            return
        async with self._parts.file_locks.hold(file.inode):
            await self._keep_locked(file)

    async def _keep_locked(self, file: File) -> None:
        """Record a file that is going to be sent; send it where the disk refuses."""
        open_file = self._parts.store.get(file.inode)
        if open_file is None or not file.is_claimed or file.is_removed:
            return
        if open_file.state is FileState.CLEAN:
            file.is_claimed = False
            return
        try:
            await self._recorder.keep(file, open_file)
        except LocalDiskError as error:
            log.warning("%s is sent at once: %s", described(file), error)
            await self.save_locked(file)
        else:
            self._recorder.on_kept(file.inode)

    def _must_send(self, file: File) -> bool:
        """Tell whether a close has to wait for more than the journal."""
        return (
            self._parts.config.write_mode is WriteMode.THROUGH
            or file.is_local_only
            or file.owner.is_gone
            or file.owner.container.is_expired
            or self._parts.store.is_crowded
            or self._recorder.recorded_count >= WAITING_FILES_MAX
        )

    async def save(self, file: File) -> None:
        """Return once the service (or, for local-only names, this disk) has the bytes.

        Idempotent: a file without unsent bytes costs nothing. Waits for a save of the same
        file under way. Cancelled, the bytes stay as unsent as they were.

        Raises:
            RemoteError: The service did not take them; they are kept and recorded.
            StaleHandleError: The container is gone; they are kept and recorded.
            LocalDiskError: This machine's disk failed.
        """
        if not file.is_claimed or file.is_removed:
            return
        async with self._parts.file_locks.hold(file.inode):
            await self.save_locked(file)

    async def save_locked(self, file: File) -> None:
        """Do what ``save`` does, for a caller that holds the file's lock."""
        open_file = self._parts.store.get(file.inode)
        if open_file is None or not file.is_claimed or file.is_removed:
            return
        if open_file.state is FileState.CLEAN:
            file.is_claimed = False
        elif file.is_local_only:
            await self.keep_local(file, open_file)
        else:
            with self._parts.failures.noting(file.inode):
                await self._send(file, open_file)
            self._parts.failures.clear(file.inode)

    async def keep_local(
        self,
        file: File,
        open_file: OpenFile,
        *,
        place: Place | None = None,
        deletes: Sequence[ContainerFile] = (),
    ) -> None:
        """Record a local-only file so that it outlives this mount.

        Args:
            file: Whose bytes they are.
            open_file: The bytes.
            place: Where it is going to be, if not where it is: its record moves there in one step.
            deletes: What the service has under the name that it leaves, to be deleted then.

        Raises:
            LocalDiskError: This machine's disk did not take it.
            NoSuchEntryError: There is no such ``place`` any more; nothing was recorded.
        """
        was_claimed = file.is_claimed
        open_file.is_resident = True
        file.is_claimed = False  # a write during the sync claims it again, for the next save
        try:
            await open_file.sync_to_disk()
            reached("local.synced")
            here = (file.owner, path_in_container(file))
            owner, path = place() if place else here
            with self._recorder.journal.together():
                if place and file.is_local_only:
                    # Of two records of the same bytes the next mount would believe only one, and
                    # that may be the old one: the name that was renamed over would be lost.
                    self._parts.local.remove_file(here[0].container.id, b"/".join(here[1]))
                self._parts.local.put_file(
                    LocalFileRow(
                        container_id=owner.container.id,
                        path=b"/".join(path),
                        spool_name=open_file.spool_name,
                        size_bytes=open_file.size_bytes or 0,
                        mtime_ns=file.mtime_ns,
                        mode=file.mode,
                    )
                )
                self._recorder.take_away(file, deletes=self._deleter.still_those(deletes))
        except (CtrfsError, trio.Cancelled):
            file.is_claimed = was_claimed or open_file.is_unsent
            raise
        self._recorder.taken_away(file)
        reached("local.kept")

    async def record_unsent(self, file: File) -> None:
        """Record bytes that nobody will try to send any more in this mount."""
        open_file = self._parts.store.get(file.inode)
        if open_file is not None and file.is_claimed and not file.is_removed:
            silence = self._parts.api.health.last_error
            reason = f"; the service has not answered: {silence}" if silence else ""
            ended = ShuttingDownError(f"the mount ended before the file was sent{reason}")
            await self._recorder.failed(file, open_file, open_file.last_error or ended)

    async def _send(self, file: File, open_file: OpenFile) -> None:
        is_recorded = False
        try:
            async with open_file.sending() as outgoing:
                try:
                    replaced = await self._send_held(file, open_file, outgoing)
                except CtrfsError as error:
                    is_recorded = True
                    await self._recorder.failed(file, open_file, error, held=outgoing)
                    raise
        except CtrfsError as error:
            if is_recorded:
                self._recorder.on_failure(file.inode)  # only now the file is known to have failed
            else:
                await self._recorder.failed(file, open_file, error)
            raise
        except trio.Cancelled:
            self._recorder.on_failure(file.inode)
            raise
        await self._deleter.delete_all(replaced)
        reached("save.settled")

    async def _send_held(
        self, file: File, open_file: OpenFile, outgoing: Outgoing
    ) -> Sequence[ContainerFile]:
        """Store bytes that hold still; return what they have replaced, which is recorded to go."""
        remote = await self._stored_already(file, outgoing)
        if remote is not None:
            return self._keep_stored(file, remote, outgoing)
        await self.doubts.settle(file, digest=outgoing.digest)
        path = path_in_container(file)

        def place() -> tuple[ContainerDirectory, EntryPath]:
            nonlocal path
            path = path_in_container(file)
            return file.owner, path

        intend = partial(self._intend, file, open_file, outgoing)
        is_large = outgoing.size_bytes > _RECORDED_FIRST_MAX
        if not is_large:
            await intend()
        try:
            stored = await self.storer.upload_to(
                place, outgoing, file=file, beside=intend if is_large else None
            )
        except (RemoteUncertainError, RemoteMiscountError, trio.Cancelled):
            self.doubts.note(file, path=path, digest=outgoing.digest)
            raise
        reached("save.stored")
        outgoing.settle(identity_of(stored, outgoing))
        replaced = self.bind(file, stored, outgoing)
        # In one step with the binding: a change from here on is another version.
        self._recorder.settle(file, deletes=replaced, durable=False)
        # Before the bytes may be changed or leave the spool, before anything is deleted, and
        # before anybody is told: then a power cut finds the record or needs it not.
        await self._recorder.synced()
        reached("save.bound")
        return replaced

    async def _stored_already(self, file: File, outgoing: Outgoing) -> ContainerFile | None:
        """Return what the service has, if that is exactly these bytes under exactly this name.

        Where something else is to be deleted for it, or it may have been deleted itself, the service
        is asked whether it still has it.

        Raises:
            RemoteError: The service did not say what there is.
        """
        if _seems_stored(file, outgoing):
            await self.doubts.settle(file)  # what was there between may have arrived
        remote = file.remote
        if remote is None or not _seems_stored(file, outgoing):
            return None
        if file.replaces or file.may_be_gone:
            try:
                found = await self._parts.api.retrieve_file(remote.container_id, remote.id)
            except RemoteNotFoundError:
                return None
            is_same = is_same_version(found, remote) and file.remote is remote
            return remote if is_same and _seems_stored(file, outgoing) else None
        return remote

    def _keep_stored(
        self, file: File, remote: ContainerFile, outgoing: Outgoing
    ) -> Sequence[ContainerFile]:
        """Leave on the service what it has of ``file``; return what is to go beside that.

        One step. Stored again under the same path it might be a second file, or the same one.
        """
        outgoing.settle(identity_of(remote, outgoing))
        replaced = self._deleter.still_those(file.replaces)
        file.replaces = ()
        file.is_claimed = False
        with self._parts.spared():
            self._parts.keep_facts(file)
        self._recorder.settle(file, deletes=replaced)
        return replaced

    async def _intend(self, file: File, open_file: OpenFile, outgoing: Outgoing) -> None:
        """Record what is about to be sent, if the journal does not have exactly that already."""
        with self._parts.spared():
            if not self._recorder.is_intended(file, digest=outgoing.digest):
                await self._recorder.intend(file, open_file, digest=outgoing.digest)
        reached("save.intended")

    def bind(self, file: File, stored: ContainerFile, outgoing: Outgoing) -> list[ContainerFile]:
        """Let ``file`` be what was stored; return what it replaces, for the journal.

        A version is not replaced if the answer bears its id, or its stored path: on some
        servers it is the same file.
        """
        old = file.remote

        def may_be_it(row: ContainerFile) -> bool:
            # What an earlier mount has left does not tell versions from overwritten files. But a
            # version of the same bytes under the same name would not have been sent: where the
            # path tells the bytes, it is that of a file that was overwritten with its like.
            is_told = outgoing.digest in row.path
            return row is old or (file.is_restored and not is_told)

        replaced = [
            row
            for row in self._deleter.still_those(replaced_by(file))
            if row.container_id != stored.container_id
            or (row.id != stored.id and not (row.path == stored.path and may_be_it(row)))
        ]
        for row in replaced:
            self._deleter.hide(row)
        if old is not None:
            with self._parts.spared():
                self._parts.overlay.drop(file.owner.container.id, old.id)
        self._parts.namespace.stored(file, stored, digest=outgoing.digest)
        file.size_bytes = outgoing.size_bytes
        with self._parts.spared():
            self._parts.keep_facts(file)
        return replaced


def identity_of(stored: ContainerFile, outgoing: Outgoing) -> ContentIdentity:
    """Return the content identity of bytes that the service has just taken."""
    return ContentIdentity(
        container_id=stored.container_id,
        file_id=stored.id,
        size_bytes=outgoing.size_bytes,
        created_at_s=stored.created_at_s,
        digest=outgoing.digest,
    )


def _seems_stored(file: File, outgoing: Outgoing) -> bool:
    """Tell whether the service has exactly these bytes under exactly this name already."""
    return file.digest == outgoing.digest and file.shown_at == path_in_container(file)
