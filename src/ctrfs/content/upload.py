"""Sends the bytes of one file, so that in the end they are on the service exactly once.

An upload whose answer got lost may have been carried out. Before sending again, the listing
is searched for a file that nobody has known before and that can only be this one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Final

import trio

from ctrfs.api.models import ContainerFile, ContainerId, FileId
from ctrfs.api.protocol import ContainersApi
from ctrfs.content.identity import new_hasher
from ctrfs.content.open_file import Outgoing
from ctrfs.errors import RemoteError, RemoteProtocolError, RemoteUncertainError

# An uncertain answer comes after the deadlines of ``api`` have passed: minutes, at worst.
SENDS_AGAIN_MAX: Final = 2
BACKOFF_S: Final = 0.5

# Source: docs/api-notes.md; every path seen so far lies there.
DATA_ROOT: Final = "/mnt/data/"

log = logging.getLogger(__name__)


class Uploader:
    """Sends files; owns no state."""

    def __init__(self, api: ContainersApi) -> None:
        self._api = api

    async def send(
        self,
        container_id: ContainerId,
        *,
        stored_name: str,
        outgoing: Outgoing,
        is_known: Callable[[FileId], bool],
    ) -> ContainerFile:
        """Store the bytes of ``outgoing`` as a new file, and return the service's facts of it.

        Cancelling leaves open whether the file exists.

        Args:
            container_id: Where to.
            stored_name: The name to ask for, slashes included.
            outgoing: The bytes.
            is_known: Whether an id is of a file that was there before: never taken for ours.

        Raises:
            RemoteUncertainError: The file may exist; looking for it failed, or it was not
                found and sending again fared no better.
            RemoteProtocolError: The service says that it stored another number of bytes.
            RemoteError: The service refused.
        """
        for again in range(SENDS_AGAIN_MAX + 1):
            try:
                stored = await self._api.create_file(
                    container_id, name=stored_name, body=outgoing.body
                )
            except RemoteUncertainError as error:
                found = await self._look_for(container_id, stored_name, outgoing, is_known, error)
                if found is not None:
                    log.info("upload of %s had arrived as %s", stored_name, found.id)
                    return found
                if again == SENDS_AGAIN_MAX:
                    raise
                await trio.sleep(BACKOFF_S * 2**again)
            else:
                return _checked(stored, outgoing)
        raise AssertionError("the loop returns or raises")

    async def _look_for(
        self,
        container_id: ContainerId,
        stored_name: str,
        outgoing: Outgoing,
        is_known: Callable[[FileId], bool],
        uncertain: RemoteUncertainError,
    ) -> ContainerFile | None:
        """Return the file that the lost answer was about; None if it is not there."""
        try:
            listing = await self._api.list_files(container_id)
            for file in reversed(listing.items):  # newest first
                if is_known(file.id) or file.size_bytes != outgoing.size_bytes:
                    continue
                if file.path in paths_with_digest(stored_name, outgoing.digest):
                    return file
                if file.path in paths_without_digest(stored_name) and await self._holds(
                    file, outgoing.digest
                ):
                    return file
        except RemoteError as error:
            log.info("cannot see whether the upload of %s arrived: %s", stored_name, error)
            raise uncertain from error
        return None

    async def _holds(self, file: ContainerFile, digest: str) -> bool:
        """Return whether the bytes of ``file`` have that digest: its name does not say so."""
        hasher = new_hasher()
        async with self._api.download(file.container_id, file.id) as stream:
            async for piece in stream.pieces():
                hasher.update(piece)
        return hasher.hexdigest() == digest


def paths_with_digest(stored_name: str, digest: str) -> frozenset[str]:
    """Return what servers make of an uploaded name when they put the hash before it.

    Before its last part, before its first part, or before all that they leave of it.
    """
    name = PurePosixPath(stored_name)
    return frozenset(
        {
            f"{DATA_ROOT}{name.with_name(f'{digest}-{name.name}')}",
            f"{DATA_ROOT}{digest}-{stored_name}",
            f"{DATA_ROOT}{digest}-{name.name}",
        }
    )


def paths_without_digest(stored_name: str) -> frozenset[str]:
    """Return what servers make of an uploaded name when they add no hash."""
    return frozenset({f"{DATA_ROOT}{stored_name}", f"{DATA_ROOT}{PurePosixPath(stored_name).name}"})


def _checked(stored: ContainerFile, outgoing: Outgoing) -> ContainerFile:
    if stored.size_bytes not in {None, outgoing.size_bytes}:
        raise RemoteProtocolError(
            f"sent {outgoing.size_bytes} bytes, and the service says that {stored.id} "
            f"has {stored.size_bytes}"
        )
    return stored
