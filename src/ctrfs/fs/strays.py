"""Copies made for a renaming that failed, and that the service may have stored all the same.

An answer can get lost, and a request can be given up before it comes. Nothing has been renamed
then, so nothing may be left at the new name: what has arrived is not shown, and is deleted.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence

import trio

from ctrfs.api.models import ContainerFile, ContainerId, FileId
from ctrfs.content.upload import MADE_INSIDE, UploadKey, lookalikes, paths_with_digest
from ctrfs.disk.stray_uploads import StrayUploadRow
from ctrfs.errors import ContainerExpiredError, CtrfsError, RemoteNotFoundError
from ctrfs.fs.deleting import RETRIED_AT_ONCE, Deleter
from ctrfs.fs.doubts import looking_s
from ctrfs.fs.parts import Parts
from ctrfs.fs.recording import Recorder
from ctrfs.tree.nodes import ContainerDirectory
from ctrfs.units import NS_PER_S

log = logging.getLogger(__name__)


class Strays:
    """Owner of the uploads that nobody wants any more and whose outcome is open.

    Invariant: ``_rows`` has what the table of the state directory has, and what the disk has
    not taken.
    """

    def __init__(self, parts: Parts, *, recorder: Recorder, deleter: Deleter) -> None:
        """Take up what earlier mounts have left, unless this one may not change anything."""
        self._parts = parts
        self._recorder = recorder
        self._deleter = deleter
        rows = [] if parts.config.read_only else parts.strays.rows()
        self._rows: dict[UploadKey, StrayUploadRow] = {_key_of(row): row for row in rows}
        parts.namespace.wanted = self._wanted

    @property
    def is_any(self) -> bool:
        """Whether there is anything to look for."""
        return bool(self._rows)

    def note(self, upload: UploadKey, *, known: Collection[FileId]) -> None:
        """Say that an upload was given up, and may have arrived; one step.

        Args:
            upload: Which upload.
            known: Ids of files that look like it, and were there before it began.
        """
        row = StrayUploadRow(
            container_id=upload.container_id,
            stored_name=upload.stored_name,
            digest=upload.digest,
            known=tuple(sorted(known)),
            since_s=self._parts.clock.wall_ns() // NS_PER_S,
        )
        # What was there before the first attempt was there before the second.
        row = self._rows.setdefault(upload, row)
        with self._parts.spared():
            self._parts.strays.put(row)
        self._recorder.on_failure(None)

    def look_first_s(self, upload: UploadKey) -> float | None:
        """Return how long to look for an upload before it is made again; None if it is no stray."""
        row = self._rows.get(upload)
        return None if row is None else looking_s(self._parts.clock, row.since_s)

    def wanted_again(self, upload: UploadKey) -> None:
        """Say that an upload was made again, and what it had left was found or is not there."""
        if upload in self._rows:
            self._forget(upload)

    async def clear(self) -> None:
        """Look for all of them, and delete what there is; what cannot be had stays for later."""
        limiter = trio.CapacityLimiter(RETRIED_AT_ONCE)
        async with trio.open_nursery() as nursery:
            for upload in list(self._rows):
                nursery.start_soon(self._clear_one, upload, limiter)

    async def _clear_one(self, upload: UploadKey, limiter: trio.CapacityLimiter) -> None:
        paths = lookalikes(upload.stored_name, upload.digest)
        keys = [f"{upload.container_id} {path}" for path in paths]
        try:
            async with limiter, self._parts.stored_paths.hold(*keys):
                row = self._rows.get(upload)  # None if it was wanted again meanwhile
                found = None if row is None else await self._find(upload, row)
        except CtrfsError as error:
            log.info("whether %s was stored is not known yet: %s", upload, error)
            return
        if found is not None:
            await self._deleter.delete_all([found])

    async def _find(self, upload: UploadKey, row: StrayUploadRow) -> ContainerFile | None:
        """Return what is to be deleted, hidden and recorded; None if there is nothing."""
        owner = self._parts.tree.container(upload.container_id)
        try:
            found = await self._parts.uploader.find(
                upload,
                is_known=lambda file_id: (
                    file_id in row.known
                    or (owner is not None and self._parts.namespace.is_hidden(owner, file_id))
                ),
                for_s=looking_s(self._parts.clock, row.since_s),
            )
        except (RemoteNotFoundError, ContainerExpiredError):
            found = None  # gone with its container
        if found is None or _is_changed_here(owner, found.id):
            self._forget(upload)
            return None
        with self._parts.spared(), self._parts.journal.together():
            self._recorder.settle(deletes=[found])
            self._forget(upload)
        if owner is not None:
            self._parts.namespace.hide(owner, found)
            if found.id in owner.files:
                self._parts.tree.take_name(owner.files[found.id])
                self._parts.namespace.changed_by_us()
        return found

    def _forget(self, upload: UploadKey) -> None:
        row = self._rows.pop(upload)
        with self._parts.spared():
            self._parts.strays.remove(row)

    def _wanted(
        self, container_id: ContainerId, rows: Sequence[ContainerFile]
    ) -> Sequence[ContainerFile]:
        """Return what is to be shown of a listing: not what can only be a stray.

        Where the server puts no hash before the names the bytes have to be looked at first.
        """
        strays = [row for row in self._rows.values() if row.container_id == container_id]
        if not strays:
            return rows
        owner = self._parts.tree.container(container_id)
        known = {
            path: frozenset(row.known)
            for row in strays
            for path in paths_with_digest(row.stored_name, row.digest)
        }
        return [
            row
            for row in rows
            if row.path not in known
            or row.id in known[row.path]
            or row.source == MADE_INSIDE
            or _is_changed_here(owner, row.id)
        ]


def _key_of(row: StrayUploadRow) -> UploadKey:
    return UploadKey(ContainerId(row.container_id), row.stored_name, row.digest)


def _is_changed_here(owner: ContainerDirectory | None, file_id: FileId) -> bool:
    """Tell whether a user has made something else of a stored file; that file's save needs it."""
    shown = None if owner is None else owner.files.get(file_id)
    return shown is not None and shown.is_claimed
