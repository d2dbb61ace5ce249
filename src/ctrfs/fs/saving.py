"""Bringing a file's bytes to the service, and keeping them where that fails.

The service cannot overwrite. So a changed file is stored as a new one, its inode is bound to
the new id in one step, and only then is the old id deleted: at every instant the service has
the old bytes or the new ones.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

import trio

from ctrfs.api.models import ContainerFile, ContainerId, FileId
from ctrfs.content.identity import ContentIdentity
from ctrfs.content.open_file import FileState, OpenFile, Outgoing
from ctrfs.content.upload import lookalikes
from ctrfs.disk.local_entries import LocalFileRow
from ctrfs.disk.unsent import UnsentRow
from ctrfs.errors import (
    ContainerExpiredError,
    CtrfsError,
    LocalDiskError,
    RemoteError,
    RemoteNotFoundError,
    ShuttingDownError,
    StaleHandleError,
)
from ctrfs.fs.failure_log import text_of
from ctrfs.fs.parts import Parts
from ctrfs.tree.naming import Landing
from ctrfs.tree.nodes import ContainerDirectory, EntryPath, File, path_in_container
from ctrfs.units import NS_PER_S

log = logging.getLogger(__name__)


class Saver:
    """Sends what the service lacks."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        # What this mount could not delete; ``unsent`` has what earlier ones left, too.
        self._undeleted: set[tuple[ContainerId, FileId]] = set()

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
        owner: ContainerDirectory | None = None,
        path: EntryPath | None = None,
    ) -> None:
        """Record a local-only file so that it outlives this mount.

        Args:
            file: Whose bytes they are.
            open_file: The bytes.
            owner: In which container it is going to be, if not where it is.
            path: Where in it, likewise.

        Raises:
            LocalDiskError: This machine's disk did not take it.
        """
        open_file.is_resident = True
        file.is_claimed = False  # a write during the sync claims it again, for the next save
        try:
            await open_file.sync_to_disk()
            self._parts.local.put_file(
                LocalFileRow(
                    container_id=file.owner.container.id if owner is None else owner.container.id,
                    path=b"/".join(path or path_in_container(file)),
                    spool_name=open_file.spool_name,
                    size_bytes=open_file.size_bytes or 0,
                    mtime_ns=file.mtime_ns,
                    mode=file.mode,
                )
            )
        except LocalDiskError:
            file.is_claimed = True
            raise

    async def record_unsent(self, file: File) -> None:
        """Record bytes that nobody will try to send any more in this mount."""
        open_file = self._parts.store.get(file.inode)
        if open_file is not None and file.is_claimed and not file.is_removed:
            ended = ShuttingDownError("the mount ended before the file was sent")
            error = open_file.last_error or ended
            await self._keep_unsent(file, open_file, digest="", error=error)

    async def record_again(self, file: File) -> None:
        """Bring the record of bytes that could not be sent up to date: the file has moved."""
        open_file = self._parts.store.get(file.inode)
        if open_file is not None and open_file.state is FileState.FAILED:
            await self.record_unsent(file)

    async def upload(
        self, owner: ContainerDirectory, path: EntryPath, outgoing: Outgoing
    ) -> ContainerFile:
        """Store ``outgoing`` as a new file that shows at ``path``; return what was stored.

        Raises:
            RemoteError: The service did not take it.
            StaleHandleError: The container is gone.
        """
        naming = self._parts.naming
        name = naming.stored_name(path)
        known = set(owner.files)
        stored = await self._upload_as(owner, name, outgoing)
        landing = naming.learn(path, name=name, digest=outgoing.digest, answer=stored)
        if landing is Landing.IN_PLACE:
            return stored
        placed: ContainerFile | None = None
        try:
            placed = await self._upload_as(owner, naming.stored_name(path), outgoing)
        finally:
            # An id that was known before is a file of the user's that has the same bytes.
            if stored.id not in known and (placed is None or placed.id != stored.id):
                await self.delete_all(owner, [stored.id])
        return placed

    async def delete_all(self, owner: ContainerDirectory, file_ids: Iterable[FileId]) -> None:
        """Delete files that others have replaced; hidden at once, recorded where it fails.

        Never raises for the service's sake: the new bytes are safe, which is what was asked.
        """
        ids = list(file_ids)
        for file_id in ids:
            self._parts.namespace.hide(owner, file_id)
        async with trio.open_nursery() as nursery:
            for file_id in ids:
                nursery.start_soon(self._delete, owner, file_id)

    async def retry_deletes(self) -> None:
        """Try once more to delete what this mount has replaced and could not delete.

        An id that is shown again has been born again, with a version that nobody replaced.
        """
        for container_id, file_id in list(self._undeleted):
            owner = self._parts.tree.container(container_id)
            if owner is None:
                continue
            is_hidden = self._parts.namespace.is_hidden(owner, file_id)
            if not is_hidden or await self._delete(owner, file_id):
                self._forget_delete(container_id, file_id)

    async def _delete(self, owner: ContainerDirectory, file_id: FileId) -> bool:
        """Delete one replaced file; tell whether it is gone, and record it if it is not."""
        container_id = owner.container.id
        try:
            await self._parts.api.delete_file(container_id, file_id)
        except (RemoteNotFoundError, ContainerExpiredError):
            log.debug("replaced file %s was gone already", file_id)
        except RemoteError as error:
            log.warning("replaced file %s could not be deleted: %s", file_id, error)
            self._undeleted.add((container_id, file_id))
            with self._parts.spared():
                self._parts.unsent.put_delete(container_id, file_id)
            return False
        self._parts.namespace.deleted(owner, file_id)
        return True

    def _forget_delete(self, container_id: ContainerId, file_id: FileId) -> None:
        if (container_id, file_id) in self._undeleted:
            self._undeleted.discard((container_id, file_id))
            with self._parts.spared():
                self._parts.unsent.remove_delete(container_id, file_id)

    async def _send(self, file: File, open_file: OpenFile) -> None:
        digest = ""
        try:
            async with open_file.sending() as outgoing:
                digest = outgoing.digest
                remote = file.remote
                if remote is not None and _is_stored_already(file, outgoing):
                    outgoing.settle(identity_of(remote, outgoing))
                    file.is_claimed = False
                    with self._parts.spared():
                        self._parts.keep_facts(file)
                    self._parts.forget_unsent(file.inode)
                    return
                stored = await self.upload_to(
                    lambda: (file.owner, path_in_container(file)), outgoing
                )
                outgoing.settle(identity_of(stored, outgoing))
                replaced = self.bind(file, stored, outgoing)
        except CtrfsError as error:
            await self._keep_unsent(file, open_file, digest=digest, error=error)
            raise
        self._parts.forget_unsent(file.inode)
        await self.delete_all(file.owner, replaced)

    async def upload_to(
        self, place: Callable[[], tuple[ContainerDirectory, EntryPath]], outgoing: Outgoing
    ) -> ContainerFile:
        """Store ``outgoing`` where ``place`` says, again if that has changed meanwhile.

        A folder above may be renamed during the upload. Raises as ``upload``.
        """
        while True:
            owner, path = place()
            known = set(owner.files)
            stored = await self.upload(owner, path, outgoing)
            if place() == (owner, path):
                return stored
            if stored.id not in known:
                await self.delete_all(owner, [stored.id])

    def stored(self, file: File, stored: ContainerFile, *, digest: str) -> None:
        """Let ``file`` be what was stored; an id that was to be deleted is alive again."""
        self._forget_delete(stored.container_id, stored.id)
        self._parts.namespace.stored(file, stored, digest=digest)

    def bind(self, file: File, stored: ContainerFile, outgoing: Outgoing) -> list[FileId]:
        """Let ``file`` be what was stored; return the ids that it replaces.

        An id is not replaced if the answer bears it, or its stored path: on some servers it
        is the same file.
        """
        replaced = [file_id for file_id in file.replaces if file_id != stored.id]
        old = file.remote
        if old is not None and old.id != stored.id and old.path != stored.path:
            replaced.append(old.id)
        for file_id in replaced:
            self._parts.namespace.hide(file.owner, file_id)
        if old is not None:
            with self._parts.spared():
                self._parts.overlay.drop(file.owner.container.id, old.id)
        self.stored(file, stored, digest=outgoing.digest)
        file.size_bytes = outgoing.size_bytes
        with self._parts.spared():
            self._parts.keep_facts(file)
        return replaced

    async def _upload_as(
        self, owner: ContainerDirectory, name: str, outgoing: Outgoing
    ) -> ContainerFile:
        container_id = owner.container.id
        # As of now: a listing that comes during the upload may have what it stores, and that
        # must be taken for ours. Of all ids only those count that could be mistaken for it.
        paths = lookalikes(name, outgoing.digest)
        shown = frozenset(
            file_id
            for file_id, node in owner.files.items()
            if node.remote is not None and node.remote.path in paths
        )

        def is_known(file_id: FileId) -> bool:
            return file_id in shown or self._parts.namespace.is_hidden(owner, file_id)

        async def send() -> ContainerFile:
            return await self._parts.uploader.send(
                container_id,
                stored_name=name,
                outgoing=outgoing,
                is_known=is_known,
            )

        try:
            return await self._parts.namespace.when_ready(container_id, send)
        except (RemoteNotFoundError, ContainerExpiredError) as error:
            raise StaleHandleError(f"container {container_id} is gone: {text_of(error)}") from error

    async def _keep_unsent(
        self, file: File, open_file: OpenFile, *, digest: str, error: CtrfsError
    ) -> None:
        """Record all that is needed to send the bytes later."""
        path = path_in_container(file)
        replaces = (*file.replaces, *((file.remote.id,) if file.remote is not None else ()))
        try:
            await open_file.sync_to_disk()
            self._parts.unsent.put(
                UnsentRow(
                    key=self._parts.unsent_key(file.inode),
                    container_id=file.owner.container.id,
                    container_name=file.owner.container.name,
                    path=b"/".join(path),
                    stored_name=b"/".join(path).decode("utf-8", "surrogateescape"),
                    spool_name=open_file.spool_name,
                    size_bytes=open_file.size_bytes or 0,
                    digest=digest,
                    replaces=replaces,
                    mtime_ns=file.mtime_ns,
                    mode=file.mode,
                    error=text_of(error),
                    since_s=self._parts.clock.wall_ns() // NS_PER_S,
                )
            )
        except LocalDiskError as failure:
            log.error(  # noqa: TRY400  # a full disk is no bug of ours: a line, not a traceback
                "unsent bytes of inode %d cannot be kept past this mount: %s", file.inode, failure
            )


def identity_of(stored: ContainerFile, outgoing: Outgoing) -> ContentIdentity:
    """Return the content identity of bytes that the service has just taken."""
    return ContentIdentity(
        container_id=stored.container_id,
        file_id=stored.id,
        size_bytes=outgoing.size_bytes,
        created_at_s=stored.created_at_s,
        digest=outgoing.digest,
    )


def _is_stored_already(file: File, outgoing: Outgoing) -> bool:
    """Tell whether the service has exactly these bytes under exactly this name already."""
    return (
        file.digest == outgoing.digest
        and not file.replaces
        and file.shown_at == path_in_container(file)
    )
