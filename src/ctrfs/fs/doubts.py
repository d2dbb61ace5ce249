"""Uploads whose outcome is open: what the service has made of them, learnt before going on.

An answer can get lost, and a mount can end before it comes. Sending the same bytes again looks
for them anyway (``content.upload``); this is for when something else is to happen to the file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from ctrfs.api.models import ContainerFile, FileId
from ctrfs.clock import Clock
from ctrfs.content.upload import LISTING_LAG_S, MADE_INSIDE, UploadKey, paths_with_digest
from ctrfs.errors import NoSuchEntryError, StaleHandleError
from ctrfs.fs.deleting import Deleter
from ctrfs.fs.parts import Parts
from ctrfs.tree.nodes import ContainerDirectory, Doubt, EntryPath, File, path_in_container
from ctrfs.units import NS_PER_S


class Doubts:
    """Settles what is open about files, each in its own ``doubt`` and ``is_restored``.

    Invariant: ``_noted`` has the file of each doubt that was noted here and is not settled, and
    others that are forgotten when next it is looked through; ``_under_way`` the saves that wait
    for their answer.
    """

    def __init__(self, parts: Parts, deleter: Deleter) -> None:
        self._parts = parts
        self._deleter = deleter
        self._noted: dict[UploadKey, File] = {}
        self._under_way: Counter[UploadKey] = Counter()

    async def settle(self, file: File, *, digest: str | None = None) -> None:
        """Learn what the service has made of earlier attempts, before anything new is done.

        A file that an upload of other bytes, or to another name, has left is added to what
        this file replaces. What this file replaces and has changed since is taken away from it.

        Args:
            file: Which file; costs nothing unless there is something to learn.
            digest: Of the bytes that are going to be sent to its present name, which will be
                looked for anyway.

        Raises:
            RemoteError: The service did not list the container.
            StaleHandleError: The container is gone.
        """
        if file.is_restored:
            await self._drop_reborn(file)
        doubt = file.doubt
        if doubt is None or (doubt.path, doubt.digest) == (path_in_container(file), digest):
            return
        owner = file.owner
        found = await self._parts.uploader.find(
            self._upload_of(file, doubt),
            is_known=lambda file_id: (
                self.is_of_another(file, file_id)
                or (file.remote is not None and file_id == file.remote.id)
            ),
            for_s=looking_s(self._parts.clock, doubt.since_s),
        )
        file.doubt = None
        if found is not None:
            self._parts.tree.forget_double(owner, found, file)
            self._parts.namespace.hide(owner, found)
            file.replaces = (*file.replaces, found)

    async def _drop_reborn(self, file: File) -> None:
        """Let go of what has come to stand for something else since an earlier mount saw it."""
        try:
            await self._parts.namespace.children(file.owner)
        except NoSuchEntryError as error:
            raise StaleHandleError(str(error)) from error
        for container_id in {row.container_id for row in file.replaces}:
            with suppress(NoSuchEntryError):  # not shown here, nor can it be told what is in it
                await self._deleter.listed(container_id)
        file.replaces = tuple(self._deleter.still_those(file.replaces))

    def is_of_another(self, file: File, file_id: FileId) -> bool:
        """Tell whether a stored file is to go, or is what another changed file was made from."""
        shown = file.owner.files.get(file_id)
        return self._parts.namespace.is_hidden(file.owner, file_id) or (
            shown is not None and shown is not file and shown.is_claimed
        )

    def note(self, file: File, *, path: EntryPath, digest: str) -> None:
        """Say that bytes of that digest may be on the service now, to show at ``path``.

        None if the digest is empty.
        """
        if digest:
            if file.remote is not None and (file.digest or "") not in file.remote.path:
                # Where names do not tell the bytes these may be in the place of the old by now.
                file.digest = None
            now_s = self._parts.clock.wall_ns() // NS_PER_S
            file.doubt = Doubt(path, digest, now_s)
            self._noted[self._upload_of(file, file.doubt)] = file
            self._hide_shown(file.owner)

    @contextmanager
    def saving(self, upload: UploadKey) -> Iterator[None]:
        """Let what an upload makes not be shown inside the block, beside the file that is saved."""
        self._under_way[upload] += 1
        try:
            yield
        finally:
            self._under_way[upload] -= 1
            if not self._under_way[upload]:
                del self._under_way[upload]

    def without_doubles(
        self, owner: ContainerDirectory, rows: Sequence[ContainerFile]
    ) -> Sequence[ContainerFile]:
        """Return what is to be shown of a listing: not what a save has made, under way or in doubt.

        Its bytes, or newer ones, are in the file that was being saved.
        """
        for upload, file in list(self._noted.items()):
            doubt = file.doubt
            if doubt is None or file.parent is None or self._upload_of(file, doubt) != upload:
                del self._noted[upload]
        uploads = {
            path: upload
            for upload in (*self._noted, *self._under_way)
            if upload.container_id == owner.container.id
            for path in paths_with_digest(upload.stored_name, upload.digest)
        }

        def is_double(row: ContainerFile) -> bool:
            upload = uploads.get(row.path)
            return (
                upload is not None
                and is_an_upload(row, owner)
                and self._parts.uploader.may_have_made(upload, row.id)
            )

        return [row for row in rows if not is_double(row)] if uploads else rows

    def _hide_shown(self, owner: ContainerDirectory) -> None:
        """Take away what a listing has shown while the upload was under way."""
        shown = [file.remote for file in owner.files.values() if file.remote is not None]
        left = {row.id for row in self.without_doubles(owner, shown)}
        for double in [owner.files[row.id] for row in shown if row.id not in left]:
            self._parts.tree.take_name(double)
            self._parts.namespace.changed_by_us()
            self._parts.namespace.suspect(owner)

    def _upload_of(self, file: File, doubt: Doubt) -> UploadKey:
        stored_name = self._parts.naming.stored_name(doubt.path)
        return UploadKey(file.owner.container.id, stored_name, doubt.digest)


def is_an_upload(row: ContainerFile, owner: ContainerDirectory | None) -> bool:
    """Tell whether a stored file may be an upload that nobody has made something else of here.

    Who is changing it needs its bytes for that.
    """
    shown = None if owner is None else owner.files.get(row.id)
    return row.source != MADE_INSIDE and not (shown is not None and shown.is_claimed)


def looking_s(clock: Clock, since_s: int) -> float:
    """Return how long a listing may still lack what an upload of that time has made.

    Args:
        clock: The present.
        since_s: When the upload ended at the latest, in seconds since 1970.
    """
    age_s = clock.wall_ns() // NS_PER_S - since_s
    return LISTING_LAG_S if 0 <= age_s < LISTING_LAG_S else 0.0
