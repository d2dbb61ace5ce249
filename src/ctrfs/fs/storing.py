"""Storing bytes as new files of a service that chooses names itself, and whose answers get lost."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from contextlib import nullcontext
from functools import partial

from ctrfs.api.models import ContainerFile, FileId
from ctrfs.content.outgoing import Outgoing, ended_after
from ctrfs.content.upload import UploadKey, lookalikes
from ctrfs.errors import (
    NoSuchEntryError,
    RemoteGoneError,
    StaleHandleError,
)
from ctrfs.fs.deleting import Deleter
from ctrfs.fs.doubts import Doubts, looking_s
from ctrfs.fs.failure_log import text_of
from ctrfs.fs.parts import Parts, Place, may_be_stored_at
from ctrfs.fs.strays import Strays
from ctrfs.tree.naming import Landing
from ctrfs.tree.nodes import ContainerDirectory, EntryPath, File


class Storer:
    """Makes new files on the service; what they are to stand for is the callers' business."""

    def __init__(self, parts: Parts, *, deleter: Deleter, doubts: Doubts, strays: Strays) -> None:
        self._parts = parts
        self._deleter = deleter
        self._doubts = doubts
        self._strays = strays

    async def upload(
        self,
        owner: ContainerDirectory,
        path: EntryPath,
        outgoing: Outgoing,
        *,
        file: File | None = None,
        copy_of: File | None = None,
    ) -> ContainerFile:
        """Store ``outgoing`` as a new file that shows at ``path``; return what was stored.

        Args:
            owner: In which container.
            path: Where in it.
            outgoing: The bytes.
            file: Whose they are, if an earlier upload of them may have arrived.
            copy_of: What this is a copy of, for a renaming: nothing is to be there if this raises,
                and what the service has stored all the same is deleted then, later if need be.

        Raises:
            RemoteError: The service did not take it.
            StaleHandleError: The container is gone.
        """
        naming = self._parts.naming
        name = naming.stored_name(path)
        known = set(owner.files)
        upload_as = partial(self._upload_as, owner, outgoing=outgoing, file=file, copy_of=copy_of)
        stored = await upload_as(name)
        landing = naming.learn(path, name=name, digest=outgoing.digest, answer=stored)
        if landing is Landing.IN_PLACE:
            return stored
        placed: ContainerFile | None = None
        try:
            placed = await upload_as(naming.stored_name(path))
        finally:
            # An id that was known before is a file of the user's that has the same bytes.
            if stored.id not in known and (placed is None or placed.id != stored.id):
                await self._deleter.take_away(stored)
        return placed

    async def upload_to(
        self,
        place: Place,
        outgoing: Outgoing,
        *,
        file: File | None = None,
        beside: Callable[[], Awaitable[None]] | None = None,
        copy_of: File | None = None,
    ) -> ContainerFile:
        """Store ``outgoing`` where ``place`` says, again if that has changed meanwhile.

        A folder above may be renamed during the upload. Nothing can happen between the last look
        and the caller's next wait. Raises as ``upload``, and as ``place``: what was stored where
        there is no place any more is deleted then.

        Args:
            place: Where it is to be.
            outgoing: The bytes.
            file: Whose they are, if an earlier upload of them may have arrived.
            beside: Done during the upload; the service is given the end only after it.
            copy_of: See ``upload``.
        """
        while True:
            owner, path = place()
            known = set(owner.files)
            upload = partial(self.upload, owner, path, file=file, copy_of=copy_of)
            stored = await (
                upload(outgoing) if beside is None else ended_after(beside, upload, outgoing)
            )
            try:
                if place() == (owner, path):
                    return stored
            except NoSuchEntryError:
                await self._take_away_new(stored, known)
                raise
            await self._take_away_new(stored, known)

    async def _take_away_new(self, stored: ContainerFile, known: Collection[FileId]) -> None:
        """Delete what landed where it should not; an id known before is a file of the user's."""
        if stored.id not in known:
            await self._deleter.take_away(stored)

    async def _upload_as(
        self,
        owner: ContainerDirectory,
        name: str,
        *,
        outgoing: Outgoing,
        file: File | None,
        copy_of: File | None,
    ) -> ContainerFile:
        container_id = owner.container.id
        doubt = None if file is None else file.doubt
        paths = lookalikes(name, outgoing.digest)
        shown: frozenset[FileId] = frozenset()

        def is_known(file_id: FileId) -> bool:
            if file is not None and doubt is not None:
                # An earlier upload may have arrived, and a listing may have brought it already.
                return self._doubts.is_of_another(file, file_id)
            return file_id in shown or self._parts.namespace.is_hidden(owner, file_id)

        upload = UploadKey(container_id, name, outgoing.digest)

        async def send() -> ContainerFile:
            return await self._parts.uploader.send(
                container_id,
                stored_name=name,
                outgoing=outgoing,
                is_known=is_known,
                look_first_s=(
                    None if doubt is None else looking_s(self._parts.clock, doubt.since_s)
                ),
            )

        try:
            async with self._parts.stored_paths.hold(*may_be_stored_at(upload)):
                # As of now: a listing that comes during the upload may have what it stores, and
                # that must be taken for ours. Of all ids only those count that could be mistaken
                # for it.
                shown = frozenset(
                    file_id
                    for file_id, other in owner.files.items()
                    if other.remote is not None and other.remote.path in paths
                )
                with self._doubts.saving(upload) if copy_of is None else nullcontext():
                    stored = await self._parts.namespace.when_ready(container_id, send)
                self._strays.arrived(upload, stored)
                self._deleter.call_off(owner, stored)
                return stored
        except RemoteGoneError as error:
            raise StaleHandleError(f"container {container_id} is gone: {text_of(error)}") from error
        except BaseException:  # also if nobody waits for the answer any more
            if copy_of is not None and self._parts.uploader.is_open(upload):
                self._strays.note(
                    upload, source=copy_of, size_bytes=outgoing.size_bytes, known=shown
                )
            raise
