"""Copies made for a renaming that failed, and that the service may have stored all the same.

An answer can get lost, and a request can be given up before it comes. Nothing has been renamed
then, so nothing should be left at the new name. But nobody is told of what is deleted here, and
others may have come to count on it. So it goes only while what it was copied from is there.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from typing import Final

import msgspec
import trio
from msgspec.structs import replace

from ctrfs.api.models import ContainerFile, ContainerId, FileId
from ctrfs.content.upload import UploadKey, looks_like, paths_with_digest
from ctrfs.errors import (
    CtrfsError,
    RemoteGoneError,
)
from ctrfs.fs.deleting import RETRIED_AT_ONCE, Deleter
from ctrfs.fs.doubts import Doubts, is_an_upload, looking_s
from ctrfs.fs.parts import Parts, may_be_stored_at
from ctrfs.fs.recording import Recorder, is_same_version
from ctrfs.tree.nodes import ContainerDirectory, File
from ctrfs.units import NS_PER_S

# What is younger by more than this than the attempt is of somebody else. The clock that says so
# is the service's; where both are further apart a copy stays.
LATE_S: Final = 30

log = logging.getLogger(__name__)


class _Stray(msgspec.Struct, frozen=True, kw_only=True):
    """One upload that was given up.

    Attributes:
        source: What it was to be a copy of.
        size_bytes: How long that was.
        known: Ids of files that look like it, and were there before.
        since_s: When it was given up last, in seconds since 1970.
    """

    source: File
    size_bytes: int
    known: frozenset[FileId]
    since_s: int


class Strays:
    """Owner of the uploads that nobody wants any more and whose outcome is open.

    They are forgotten with the mount: what a later one found it could not tell from anybody's.
    """

    def __init__(
        self, parts: Parts, *, recorder: Recorder, deleter: Deleter, doubts: Doubts
    ) -> None:
        self._parts = parts
        self._doubts = doubts
        self._recorder = recorder
        self._deleter = deleter
        self._strays: dict[UploadKey, _Stray] = {}
        parts.namespace.wanted = self._wanted

    @property
    def is_any(self) -> bool:
        """Whether there is anything to look for."""
        return bool(self._strays)

    def note(
        self, upload: UploadKey, *, source: File, size_bytes: int, known: Collection[FileId]
    ) -> None:
        """Say that a copy was given up, and may have arrived; one step.

        Args:
            upload: Which upload.
            source: What it was to be a copy of.
            size_bytes: How long that was.
            known: Ids of files that look like it, and were there before it began.
        """
        before = self._strays.get(upload)
        if before is not None:
            # What the first attempt may have made is no less ours, as the second did not want it.
            known = {
                *before.known,
                *(row_id for row_id in known if not self._may_be(row_id, upload, before)),
            }
        stray = _Stray(
            source=source,
            size_bytes=size_bytes,
            known=frozenset(known),
            since_s=self._parts.clock.wall_ns() // NS_PER_S,
        )
        self._strays[upload] = stray
        self._hide_shown(upload, stray)
        self._recorder.on_failure(None)

    def arrived(self, upload: UploadKey, stored: ContainerFile) -> None:
        """Say that an upload was made, or made again: then what it had left was found, or is not.

        What it has stored may look like what another has left, but is none.
        """
        self._strays.pop(upload, None)
        for other, stray in self._strays.items():
            if other.container_id == upload.container_id and looks_like(other, stored.path):
                self._strays[other] = replace(stray, known=stray.known | {stored.id})

    async def clear(self) -> None:
        """Look for all of them, and delete what there is; what cannot be had stays for later."""
        limiter = trio.CapacityLimiter(RETRIED_AT_ONCE)
        async with trio.open_nursery() as nursery:
            for upload in list(self._strays):
                nursery.start_soon(self._clear_one, upload, limiter)

    async def _clear_one(self, upload: UploadKey, limiter: trio.CapacityLimiter) -> None:
        try:
            # Held to the end: under the same path, and id, something may be stored meanwhile.
            async with limiter, self._parts.stored_paths.hold(*may_be_stored_at(upload)):
                stray = self._strays.get(upload)
                if stray is not None:  # or it was wanted again
                    await self._clear_held(upload, stray)
        except CtrfsError as error:
            log.info("whether %s has arrived is not known yet: %s", upload, error)

    async def _clear_held(self, upload: UploadKey, stray: _Stray) -> None:
        found = await self._find(upload, stray)
        is_to_go = found is not None and await self._is_there(stray.source)
        self._parts.uploader.forget(upload)
        del self._strays[upload]
        owner = self._parts.tree.container(upload.container_id)
        if found is None or not is_to_go or not self._is_ours(found, stray):
            if owner is not None and found is not None:
                log.warning("%s stays, as it may be the only copy", found.path)
                self._parts.namespace.suspect(owner)  # it was not shown until now
            return
        self._recorder.settle(deletes=[found])
        self._deleter.hide(found)
        if owner is not None:
            self._parts.tree.forget_double(owner, found, stray.source)
            self._parts.namespace.changed_by_us()
        await self._deleter.delete_held(found)

    async def _find(self, upload: UploadKey, stray: _Stray) -> ContainerFile | None:
        """Return what an upload has made; None if it is not there.

        Raises:
            RemoteError: The service did not list the container.
        """
        owner = self._parts.tree.container(upload.container_id)

        def is_known(file_id: FileId) -> bool:
            is_hidden = owner is not None and self._parts.namespace.is_hidden(owner, file_id)
            return file_id in stray.known or is_hidden

        try:
            return await self._parts.uploader.find(
                upload,
                size_bytes=stray.size_bytes,
                is_known=is_known,
                for_s=looking_s(self._parts.clock, stray.since_s),
            )
        except RemoteGoneError:
            return None  # gone with its container

    async def _is_there(self, source: File) -> bool:
        """Tell whether a file is there for sure, on the service or in a change made here.

        Raises:
            RemoteError: The service did not say.
        """
        remote = source.remote
        if not _is_shown(source) or source.is_claimed or source.is_local_only or remote is None:
            return _is_shown(source)
        try:
            found = await self._parts.api.retrieve_file(remote.container_id, remote.id)
        except RemoteGoneError:
            return False
        return is_same_version(found, remote) and _is_shown(source)

    def _may_be(self, file_id: FileId, upload: UploadKey, stray: _Stray) -> bool:
        owner = self._parts.tree.container(upload.container_id)
        shown = None if owner is None else owner.files.get(file_id)
        return shown is None or shown.remote is None or self._is_ours(shown.remote, stray)

    def _is_ours(self, row: ContainerFile, stray: _Stray) -> bool:
        """Tell whether a file of the right name and digest is what an attempt of ours has made."""
        owner = self._parts.tree.container(row.container_id)
        original = stray.source.remote
        return (
            row.id not in stray.known
            and (original is None or row.id != original.id)
            and row.created_at_s <= stray.since_s + LATE_S
            and is_an_upload(row, owner)
        )

    def _hide_shown(self, upload: UploadKey, stray: _Stray) -> None:
        """Take away what a listing has shown while the renaming was under way."""
        owner = self._parts.tree.container(upload.container_id)
        paths = paths_with_digest(upload.stored_name, upload.digest)
        shown = [] if owner is None else [file.remote for file in owner.files.values()]
        for row in shown:
            is_stray = row is not None and row.path in paths and self._is_ours(row, stray)
            if owner is not None and row is not None and is_stray and _is_in(owner, stray.source):
                self._parts.tree.forget_double(owner, row, stray.source)
                self._parts.namespace.changed_by_us()
                self._parts.namespace.suspect(owner)  # a folder may have been made for it

    def _wanted(
        self, container_id: ContainerId, rows: Sequence[ContainerFile]
    ) -> Sequence[ContainerFile]:
        """Return what is to be shown of a listing: not what can only be a stray, or is in doubt.

        Where the server puts no hash before the names the bytes have to be looked at first.
        """
        owner = self._parts.tree.container(container_id)
        if owner is None:
            return rows
        rows = self._doubts.without_doubles(owner, rows)
        if not self._strays:
            return rows
        strays = {
            path: stray
            for upload, stray in self._strays.items()
            if upload.container_id == container_id
            for path in paths_with_digest(upload.stored_name, upload.digest)
        }
        listed = {row.id for row in rows} if strays else set()

        def is_stray(row: ContainerFile) -> bool:
            stray = strays.get(row.path)
            if stray is None or not self._is_ours(row, stray):
                return False
            # Nothing is hidden unless what it was copied from is shown beside it: a container
            # that looks empty may be deleted.
            source = stray.source
            is_listed = source.remote is not None and source.remote.id in listed
            return _is_in(owner, source) and (is_listed or source.is_claimed)

        return [row for row in rows if not is_stray(row)]


def _is_in(owner: ContainerDirectory, file: File) -> bool:
    return _is_shown(file) and file.owner is owner


def _is_shown(file: File) -> bool:
    return not file.is_removed and file.parent is not None and not file.owner.is_gone
