"""Counts the uploads of a mount as their bytes leave, for whoever watches.

Fed by ``content.upload`` alone; ``fs.progress`` reads it. Nothing depends on these numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import msgspec
import trio
from msgspec.structs import replace

from ctrfs.api.models import ContainerId
from ctrfs.api.protocol import UploadBody
from ctrfs.clock import Clock
from ctrfs.units import KIB, MIB, NS_PER_S

# How much is handed to the connection at once: on a fast line what the disk gives, as every
# hand-over costs time; on a slow one so little that something is seen to move.
STEP_BYTES_MIN: Final = 64 * KIB
STEP_BYTES_MAX: Final = MIB
_QUICK_NS: Final = NS_PER_S // 4


class Upload(msgspec.Struct, kw_only=True):
    """One file on its way, from the first attempt to the last."""

    container_id: ContainerId
    stored_name: str
    size_bytes: int
    since_ns: int
    """On the wall clock."""
    sent_bytes: int = 0
    """Handed to the connection in the present attempt."""


class UploadProgress:
    """Owner of the counts. Not async on purpose: an upload never waits for who watches it.

    Attributes:
        under_way: Files on their way, the oldest first.
        sent_files: Files that the service has taken since the start.
        sent_bytes: Their bytes.
        moved_at_ns: When bytes have last left, or an upload has begun or ended well, on the
            wall clock.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.under_way: list[Upload] = []
        self.sent_files = 0
        self.sent_bytes = 0
        self.moved_at_ns = clock.wall_ns()
        self._changed = trio.Event()

    @contextmanager
    def upload(
        self, container_id: ContainerId, *, stored_name: str, size_bytes: int
    ) -> Iterator[Upload]:
        """Count a file as on its way inside the block, and as sent if the block ends well."""
        if not self.under_way:
            self.moved_at_ns = self._clock.wall_ns()
        upload = Upload(
            container_id=container_id,
            stored_name=stored_name,
            size_bytes=size_bytes,
            since_ns=self._clock.wall_ns(),
        )
        self.under_way.append(upload)
        self.note_change()
        try:
            yield upload
            self.sent_files += 1
            self.sent_bytes += size_bytes
            self.moved_at_ns = self._clock.wall_ns()
        finally:
            # By identity: two uploads may be equal.
            self.under_way = [each for each in self.under_way if each is not upload]
            self.note_change()

    def counted(self, body: UploadBody, upload: Upload) -> UploadBody:
        """Return ``body`` such that each pass over it counts for ``upload``, from zero on.

        Pieces that a slow line takes long for are cut, so that something is seen to move.
        """

        def pieces() -> Iterator[bytes]:
            upload.sent_bytes = 0
            step_bytes = STEP_BYTES_MIN
            for piece in body.open():
                offset = 0
                while offset < len(piece):
                    step = piece[offset : offset + step_bytes]  # no copy where that is all of it
                    began_ns = self._clock.wall_ns()
                    yield step
                    # Asked for the next one: the connection has taken this one.
                    offset += len(step)
                    upload.sent_bytes += len(step)
                    self.moved_at_ns = self._clock.wall_ns()
                    is_quick = self.moved_at_ns - began_ns < _QUICK_NS
                    step_bytes = (
                        min(STEP_BYTES_MAX, step_bytes * 2)
                        if is_quick
                        else max(STEP_BYTES_MIN, step_bytes // 2)
                    )

        return replace(body, open=pieces)

    def note_change(self) -> None:
        """Wake who watches: there is something new to show."""
        self._changed.set()

    async def change(self) -> None:
        """Return when something has changed since the last call returned."""
        await self._changed.wait()
        self._changed = trio.Event()
