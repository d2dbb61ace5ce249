"""Uploads of local files straight to a container, many at once."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import trio

from ctrfs.api.models import ContainerId
from ctrfs.api.protocol import ContainersApi, UploadBody
from ctrfs.config import SlashMode
from ctrfs.disk.database import StateDatabase
from ctrfs.disk.facts import ServiceFacts
from ctrfs.errors import CtrfsError, RemoteUncertainError
from ctrfs.running_digest import new_hasher
from ctrfs.tree.naming import Landing, NamingRules
from ctrfs.tree.nodes import EntryPath

_PIECE_BYTES: Final = 1024 * 1024


async def upload_all(
    api: ContainersApi,
    container_id: ContainerId,
    files: Sequence[tuple[Path, str]],
    *,
    advance: Callable[[int], None],
    at_once_max: int,
) -> None:
    """Upload each file under its name, folders included; the first failure ends it.

    Args:
        api: The service.
        container_id: Where to.
        files: What, each with the path it is to have inside the container.
        advance: Told how many bytes have gone out since the last call.
        at_once_max: How many uploads run at once.

    Raises:
        RemoteError: The service did not take a file.
        CtrfsError: A file could not be read, or its fate is unknown.
    """
    with tempfile.TemporaryDirectory(prefix="ctrfs-") as directory:
        database = StateDatabase(Path(directory) / "facts.db")
        try:
            naming = NamingRules(ServiceFacts(database), slash_mode=SlashMode.UNKNOWN)
            sender = _Sender(api, container_id, naming, advance)
            # One with a folder goes first, alone: its answer shows what becomes of slashes.
            ordered = sorted(files, key=lambda item: "/" not in item[1])
            for file, name in ordered[:1]:
                await sender.send(file, name)
            limiter = trio.CapacityLimiter(at_once_max)
            async with trio.open_nursery() as nursery:
                for file, name in ordered[1:]:
                    nursery.start_soon(sender.send_within, limiter, file, name)
        finally:
            database.close()


class _Sender:
    def __init__(
        self,
        api: ContainersApi,
        container_id: ContainerId,
        naming: NamingRules,
        advance: Callable[[int], None],
    ) -> None:
        self._api = api
        self._container_id = container_id
        self._naming = naming
        self._advance = advance

    async def send_within(self, limiter: trio.CapacityLimiter, file: Path, name: str) -> None:
        async with limiter:
            await self.send(file, name)

    async def send(self, file: Path, name: str) -> None:
        path = tuple(part.encode("utf-8", "surrogateescape") for part in name.split("/"))
        size_bytes, digest = await trio.to_thread.run_sync(size_and_digest, file)
        body = UploadBody(size_bytes=size_bytes, open=lambda: self._sent(file, size_bytes))
        if await self._send_once(file, path, digest, body) is Landing.MISPLACED:
            await self._send_once(file, path, digest, body)

    async def _send_once(
        self, file: Path, path: EntryPath, digest: str, body: UploadBody
    ) -> Landing:
        name = self._naming.stored_name(path)
        try:
            stored = await self._api.create_file(self._container_id, name=name, body=body)
        except RemoteUncertainError as error:
            raise CtrfsError(
                f"no answer came for {file}: look with ctrfs ls whether it arrived ({error})"
            ) from error
        landing = self._naming.learn(path, name=name, digest=digest, answer=stored)
        if landing is Landing.MISPLACED:
            await self._api.delete_file(self._container_id, stored.id)
        return landing

    def _sent(self, file: Path, size_bytes: int) -> Iterator[bytes]:
        for piece in pieces_of(file, size_bytes):
            yield piece
            self._advance(len(piece))


def size_and_digest(file: Path) -> tuple[int, str]:
    """Return how many bytes ``file`` has now, and their digest; waits for the disk."""
    # What is there now is what is sent, though the file, a log perhaps, grows meanwhile.
    size_bytes = file.stat().st_size
    hasher = new_hasher()
    for piece in pieces_of(file, size_bytes):
        hasher.update(piece)
    return size_bytes, hasher.hexdigest()


def pieces_of(file: Path, size_bytes: int) -> Iterator[bytes]:
    """Read the first ``size_bytes`` of ``file``.

    Raises:
        CtrfsError: It has fewer: it was changed.
    """
    left_bytes = size_bytes
    with file.open("rb") as reader:
        while left_bytes:
            piece = reader.read(min(_PIECE_BYTES, left_bytes))
            if not piece:
                raise CtrfsError(f"{file} changed while it was read")
            left_bytes -= len(piece)
            yield piece
