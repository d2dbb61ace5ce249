"""``ctrfs recover --send``: unsent files to a container of the user's choice.

The slot is held meanwhile, so that no mount sends the same bytes. A row is settled when the
service has confirmed its bytes, and not before: whatever ends the command, the next one or
the next mount goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec
import trio

from ctrfs.api.models import Container, ContainerFile, FileId
from ctrfs.api.protocol import ContainersApi, UploadBody
from ctrfs.cli.uploading import pieces_of, size_and_digest
from ctrfs.clock import Clock
from ctrfs.config import SlashMode
from ctrfs.content.outgoing import Outgoing
from ctrfs.content.upload import Uploader
from ctrfs.disk.facts import ServiceFacts
from ctrfs.disk.journal import Journal, UnsentRow
from ctrfs.disk.overlay import Overlay, OverlayRow
from ctrfs.disk.state_dir import StateDirectory
from ctrfs.errors import CtrfsError, LocalDiskError
from ctrfs.mount.leftovers import shown_path
from ctrfs.mount.problems import line_for
from ctrfs.tree.naming import Landing, NamingRules
from ctrfs.tree.nodes import EntryPath

_UPLOADS_MAX: Final = 8


class Sent(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one unsent file."""

    name: str
    """Container and path where it was saved, for people."""
    problem: str | None = None
    """Why it is still unsent; None: it is on the service."""


async def send_all(
    api: ContainersApi,
    container: Container,
    slots: Sequence[Path],
    *,
    clock: Clock,
    tell: Callable[[Sent], None],
) -> None:
    """Send all unsent files of some slots to ``container``, under the paths that they had.

    Args:
        api: The service that the slots belong to.
        container: Where to.
        slots: Of one source.
        clock: For the lock of a slot.
        tell: Told of each file when it is done, or has failed.

    Raises:
        MountError: A mount holds one of the slots.
        LocalDiskError: One of them cannot be read.
    """
    for slot in slots:
        with StateDirectory.open_slot(slot, clock=clock) as state:
            sender = _Sender(api, container, state)
            # One with a folder goes first, alone: its answer shows what becomes of slashes.
            rows = sorted(Journal(state.database).rows(), key=lambda row: b"/" not in row.path)
            for row in rows[:1]:
                tell(await sender.send(row))
            limiter = trio.CapacityLimiter(_UPLOADS_MAX)
            async with trio.open_nursery() as nursery:
                for row in rows[1:]:
                    nursery.start_soon(_send_within, limiter, sender, row, tell)


async def _send_within(
    limiter: trio.CapacityLimiter,
    sender: _Sender,
    row: UnsentRow,
    tell: Callable[[Sent], None],
) -> None:
    async with limiter:
        tell(await sender.send(row))


class _Sender:
    def __init__(self, api: ContainersApi, container: Container, state: StateDirectory) -> None:
        self._api = api
        self._container = container
        self._spool_path = state.spool_path
        self._uploader = Uploader(api)
        self._journal = Journal(state.database)
        self._overlay = Overlay(state.database)
        self._naming = NamingRules(ServiceFacts(state.database), slash_mode=SlashMode.UNKNOWN)

    async def send(self, row: UnsentRow) -> Sent:
        """Send one file and settle its row."""
        name = f"{row.container_name}/{shown_path(row.path)}"
        try:
            stored = await self._upload(row)
            self._settle(row, stored)
        except (CtrfsError, OSError) as error:
            return Sent(name=name, problem=line_for(error))
        return Sent(name=name)

    async def _upload(self, row: UnsentRow) -> ContainerFile:
        path = tuple(row.path.split(b"/"))
        spool_file = self._spool_path / row.spool_name
        size_bytes, digest = await trio.to_thread.run_sync(size_and_digest, spool_file)
        if row.digest and (size_bytes, digest) != (row.size_bytes, row.digest):
            raise LocalDiskError(
                "its bytes are not those that were saved; ctrfs recover --to copies them"
            )
        outgoing = Outgoing(
            size_bytes=size_bytes,
            digest=digest,
            body=UploadBody(size_bytes=size_bytes, open=lambda: pieces_of(spool_file, size_bytes)),
            settle=lambda _identity: None,
        )
        stored, landing = await self._upload_once(path, outgoing, row)
        if landing is Landing.MISPLACED:
            await self._api.delete_file(self._container.id, stored.id)
            stored, _ = await self._upload_once(path, outgoing, row)
        return stored

    async def _upload_once(
        self, path: EntryPath, outgoing: Outgoing, row: UnsentRow
    ) -> tuple[ContainerFile, Landing]:
        replaced = {version.file_id for version in row.replaces}

        def is_replaced(file_id: FileId) -> bool:
            return file_id in replaced

        name = self._naming.stored_name(path)
        # An earlier attempt may have arrived, though nobody was told.
        stored = await self._uploader.send(
            self._container.id,
            stored_name=name,
            outgoing=outgoing,
            is_known=is_replaced,
            look_first_s=0.0,
        )
        digest = outgoing.digest
        return stored, self._naming.learn(path, name=name, digest=digest, answer=stored)

    def _settle(self, row: UnsentRow, stored: ContainerFile) -> None:
        self._overlay.put(
            self._container.id, stored.id, OverlayRow(mtime_ns=row.mtime_ns, mode=row.mode)
        )
        # In its own container it is an overwrite: the next mount deletes what it replaces, after
        # a look. An id or a path that the answer bears may be the same file.
        deletes = [
            version
            for version in row.replaces
            if version.container_id == stored.container_id
            and version.file_id != stored.id
            and version.stored_path != stored.path
        ]
        self._journal.settle(row.key, deletes=deletes)
        with suppress(OSError):  # the next mount removes what no row names
            (self._spool_path / row.spool_name).unlink(missing_ok=True)
