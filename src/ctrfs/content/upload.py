"""Sends the bytes of one file, so that in the end they are on the service exactly once.

An upload whose answer got lost may have been carried out. Before sending again, the listing
is searched for a file that nobody has known before and that can only be this one; more than
once, since listings may lag behind uploads.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import PurePosixPath
from typing import Final, TypeAlias

import msgspec
import trio
from msgspec.structs import replace
from typing_extensions import override

from ctrfs import deadlines
from ctrfs.api.models import ContainerFile, ContainerId, FileId
from ctrfs.api.protocol import ContainersApi
from ctrfs.clock import SystemClock
from ctrfs.config import ContentConfig
from ctrfs.content.outgoing import Outgoing
from ctrfs.content.progress import UploadProgress
from ctrfs.errors import (
    RemoteError,
    RemoteGoneError,
    RemoteMiscountError,
    RemoteStalledError,
    RemoteUncertainError,
)
from ctrfs.running_digest import new_hasher

IsKnown: TypeAlias = Callable[[FileId], bool]

# With one answer in ten lost, six sends leave one close in a million to fail.
SENDS_MAX: Final = 6
# When to look for an upload whose answer got lost, as pauses before each look: only a look
# some seconds after the upload shows, on a service whose listings lag, that it is not there.
# The looks after ``LISTING_LAG_S`` are for where that one fails.
LOOK_PAUSES_S: Final = (0.0, 2.0, 5.0, 5.0, 10.0)
LISTING_LAG_S: Final = 7.0
# Uploads of open outcome that are remembered, unless more are under way; each is some hundred bytes.
DOUBTS_MAX: Final = 4096

# Source: docs/api-notes.md; every path seen so far lies there.
DATA_ROOT: Final = "/mnt/data/"

# Of a file that code inside the container has made, which no upload is.
# Source: docs/api-notes.md.
MADE_INSIDE: Final = "assistant"

log = logging.getLogger(__name__)


class UploadKey(msgspec.Struct, frozen=True):
    """What makes two uploads the same."""

    container_id: ContainerId
    stored_name: str
    """The name that is asked for, slashes included."""
    digest: str
    """blake2b of the bytes, 32 hex digits."""

    @override
    def __str__(self) -> str:
        """Return it in words for the log, in ASCII: a name could be anything."""
        return f"the upload of {self.stored_name!a} to {self.container_id}"


class Uploader:
    """Sends files.

    Attributes:
        progress: What is on its way, for who watches.

    Invariant: ``_doubts`` has each upload of this mount that may be on the service though
    nobody has been told so, with what was known before it began. Of more than ``DOUBTS_MAX`` the
    oldest are forgotten, but none that ``_under_way`` counts: it is still to be looked for.
    """

    def __init__(
        self,
        api: ContainersApi,
        config: ContentConfig | None = None,
        *,
        progress: UploadProgress | None = None,
    ) -> None:
        self._api = api
        self._config = config or ContentConfig()
        self.progress = progress or UploadProgress(SystemClock())
        self._doubts: dict[UploadKey, IsKnown] = {}
        self._under_way: Counter[UploadKey] = Counter()

    async def send(
        self,
        container_id: ContainerId,
        *,
        stored_name: str,
        outgoing: Outgoing,
        is_known: IsKnown,
        look_first_s: float | None = None,
    ) -> ContainerFile:
        """Store the bytes of ``outgoing`` as a new file, and return the service's facts of it.

        Takes at most ``config.transfer_timeout_s``, or until the deadline of the request that
        this is done for. Cancelling leaves open whether the file
        exists; the next send of the same bytes to the same name looks for it first.

        Args:
            container_id: Where to.
            stored_name: The name to ask for, slashes included.
            outgoing: The bytes.
            is_known: Whether an id is of a file that was there before: never taken for ours.
                Must go on to mean what was there when this was called.
            look_first_s: If the upload may have been made by an earlier mount: nothing is sent
                before the listing has been searched for it, for so many seconds.

        Raises:
            RemoteUncertainError: The file may exist; looking for it failed, or it was not
                found and sending again fared no better.
            RemoteMiscountError: The service says that it stored another number of bytes.
            RemoteError: The service refused, or what ``look_first_s`` asks for failed.
        """
        upload = UploadKey(container_id, stored_name, outgoing.digest)
        timeout_s = min(self._config.transfer_timeout_s, deadlines.remaining_s())
        with (
            trio.move_on_after(timeout_s),
            self.progress.upload(
                container_id, stored_name=stored_name, size_bytes=outgoing.size_bytes
            ) as shown,
            self._remembering(upload),
        ):
            counted = replace(outgoing, body=self.progress.counted(outgoing.body, shown))
            return await self._send(upload, counted, is_known, look_first_s=look_first_s)
        raise RemoteUncertainError(f"the upload did not get through within {timeout_s:g} s")

    async def find(
        self,
        upload: UploadKey,
        *,
        is_known: IsKnown,
        size_bytes: int | None = None,
        for_s: float = 0.0,
    ) -> ContainerFile | None:
        """Return what an upload has made whose outcome is open; None if it is not there.

        Args:
            upload: Which upload.
            is_known: As for ``send``.
            size_bytes: How long it is, if that is known.
            for_s: How long to go on looking: listings may lag behind uploads.

        Raises:
            RemoteError: The listing could not be had.
        """
        is_known = self._doubts.get(upload, is_known)
        return await self._look(upload, size_bytes, is_known, for_s=for_s)

    def forget(self, upload: UploadKey) -> None:
        """Say that the outcome of an upload is known; nothing of the same may be under way."""
        self._doubts.pop(upload, None)

    def is_open(self, upload: UploadKey) -> bool:
        """Tell whether an upload may be on the service though nobody has been told so."""
        return upload in self._doubts

    def may_have_made(self, upload: UploadKey, file_id: FileId) -> bool:
        """Tell whether a file that looks like an upload of open outcome may be what it made."""
        is_known = self._doubts.get(upload)
        return is_known is not None and not is_known(file_id)

    async def _send(
        self,
        upload: UploadKey,
        outgoing: Outgoing,
        is_known: IsKnown,
        *,
        look_first_s: float | None,
    ) -> ContainerFile:
        found: ContainerFile | None = None
        size = outgoing.size_bytes
        if upload in self._doubts:
            found = await self._look(upload, size, self._doubts[upload], for_s=LISTING_LAG_S)
        elif look_first_s is not None:
            found = await self._look(upload, size, is_known, for_s=look_first_s)
        sends = 0
        while found is None:
            try:
                return await self._send_once(upload, outgoing, is_known)
            except RemoteUncertainError as error:
                uncertain = error
            sends += 1
            is_known = self._doubts.get(upload, is_known)
            try:
                found = await self._look(upload, size, is_known, for_s=LISTING_LAG_S)
            except RemoteGoneError:
                raise  # with the container the upload is gone, too
            except RemoteError as error:
                log.info("cannot see whether %s has arrived: %s", upload, error)
                raise uncertain from error
            if found is None and sends == SENDS_MAX:
                raise uncertain
        log.info("%s had arrived as %s", upload, found.id)
        self._arrived(upload, found)
        return found

    async def _send_once(
        self, upload: UploadKey, outgoing: Outgoing, is_known: IsKnown
    ) -> ContainerFile:
        """Send, with the upload in ``_doubts`` for as long as its outcome is open."""
        was_in_doubt = upload in self._doubts
        self._doubt(upload, is_known)
        try:
            stored = await self._api.create_file(
                upload.container_id, name=upload.stored_name, body=outgoing.body
            )
        except RemoteUncertainError:
            raise
        except RemoteError:
            if not was_in_doubt:
                self._doubts.pop(upload, None)
            raise
        if stored.size_bytes not in {None, outgoing.size_bytes}:
            # In doubt for good: sent again, it would be stored once more each time.
            raise RemoteMiscountError(
                f"sent {outgoing.size_bytes} bytes, and the service says that {stored.id} "
                f"has {stored.size_bytes}"
            )
        self._arrived(upload, stored)
        return stored

    def _arrived(self, upload: UploadKey, stored: ContainerFile) -> None:
        """Take note of what an upload has made: another one that would look like it has not."""
        self._doubts.pop(upload, None)
        for other, is_known in self._doubts.items():
            if other.container_id == upload.container_id and looks_like(other, stored.path):
                self._doubts[other] = partial(_is_known_too, stored.id, is_known)

    def _doubt(self, upload: UploadKey, is_known: IsKnown) -> None:
        self._doubts.setdefault(upload, is_known)
        excess = max(0, len(self._doubts) - DOUBTS_MAX)
        ended = (other for other in self._doubts if other not in self._under_way)
        for other in list(islice(ended, excess)):
            del self._doubts[other]

    @contextmanager
    def _remembering(self, upload: UploadKey) -> Iterator[None]:
        """Let an upload stay in doubt inside the block, however many others are."""
        self._under_way[upload] += 1
        try:
            yield
        finally:
            self._under_way[upload] -= 1
            if not self._under_way[upload]:
                del self._under_way[upload]

    async def _look(
        self, upload: UploadKey, size_bytes: int | None, is_known: IsKnown, *, for_s: float
    ) -> ContainerFile | None:
        """Return the file that an upload has made; None if it is not listed ``for_s`` later.

        Raises:
            RemoteError: The last look failed, so that nothing can be said.
        """
        passed_s = 0.0
        failure: RemoteError | None = None
        for pause_s in LOOK_PAUSES_S:
            await trio.sleep(pause_s)
            passed_s += pause_s
            try:
                found = await self._listed(upload, size_bytes, is_known)
            except (RemoteGoneError, RemoteStalledError):
                raise  # a service that says nothing for so long will not in a moment either
            except RemoteError as error:
                failure = error
                continue
            failure = None
            if found is not None or passed_s >= for_s:
                return found
        assert failure is not None, "the pauses add up to more than any wait asked for"
        raise failure

    async def _listed(
        self, upload: UploadKey, size_bytes: int | None, is_known: IsKnown
    ) -> ContainerFile | None:
        listing = await self._api.list_files(upload.container_id)
        with_digest = paths_with_digest(upload.stored_name, upload.digest)
        without_digest = paths_without_digest(upload.stored_name)
        for file in reversed(listing.items):  # newest first
            if is_known(file.id) or file.source == MADE_INSIDE:
                continue
            if None not in {size_bytes, file.size_bytes} and file.size_bytes != size_bytes:
                continue
            if file.path in with_digest:
                return file
            if file.path in without_digest and await self._holds(file, upload.digest):
                return file
        return None

    async def _holds(self, file: ContainerFile, digest: str) -> bool:
        """Return whether the bytes of ``file`` have that digest: its name does not say so."""
        hasher = new_hasher()
        async with self._api.download(file.container_id, file.id) as stream:
            async for piece in stream.pieces():
                hasher.update(piece)
        return hasher.hexdigest() == digest


def looks_like(upload: UploadKey, stored_path: str) -> bool:
    """Tell whether a stored path may be that of an upload, whose name may begin with a digest."""
    # Cheap first: this is asked of many.
    last_part = upload.stored_name.rpartition("/")[2]
    return stored_path.endswith(last_part) and stored_path in lookalikes(
        upload.stored_name, upload.digest
    )


def lookalikes(stored_name: str, digest: str) -> frozenset[str]:
    """Return all stored paths that can only be those of an upload of that name and digest."""
    return paths_with_digest(stored_name, digest) | paths_without_digest(stored_name)


def paths_with_digest(stored_name: str, digest: str) -> frozenset[str]:
    """Return what servers make of an uploaded name when they put the hash before it.

    Before its last part, or before its first. What servers that cut folders off make of a name
    with folders is left out: it is the path of a file of the same bytes outside the folder,
    which may be somebody else's, and must be neither taken for ours nor cleared away.
    """
    name = PurePosixPath(stored_name)
    return frozenset(
        {
            f"{DATA_ROOT}{name.with_name(f'{digest}-{name.name}')}",
            f"{DATA_ROOT}{digest}-{stored_name}",
        }
    )


def paths_without_digest(stored_name: str) -> frozenset[str]:
    """Return what servers make of an uploaded name when they add no hash; see above."""
    return frozenset({f"{DATA_ROOT}{stored_name}"})


def _is_known_too(made: FileId, is_known: IsKnown, file_id: FileId) -> bool:
    return file_id == made or is_known(file_id)
