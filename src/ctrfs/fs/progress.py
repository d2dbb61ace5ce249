"""How the sending goes on, for ``.ctrfs/progress`` and for the file in the slot."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Final

import trio

from ctrfs.api.protocol import ContainersApi
from ctrfs.content.progress import UploadProgress
from ctrfs.disk.database import StateDatabase
from ctrfs.disk.progress import (
    MountProgress,
    PendingCounts,
    ProgressFile,
    Sending,
    pending_counts,
)
from ctrfs.errors import LocalDiskError
from ctrfs.units import NS_PER_S

# Twice a second looks smooth, and costs half a millisecond each time.
INTERVAL_S: Final = 0.5
# More are under way at once hardly ever, and fit on no screen.
_SHOWN_MAX: Final = 32


class ProgressReporter:
    """Keeps the file in the slot up to date while something is on its way; idle, it sleeps."""

    def __init__(
        self,
        api: ContainersApi,
        *,
        uploads: UploadProgress,
        database: StateDatabase,
        file: ProgressFile,
    ) -> None:
        self._api = api
        self._uploads = uploads
        self._database = database
        self._file = file
        self._pending = PendingCounts()
        self._written: MountProgress | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Write the file whenever there is something new, until cancelled; then take it away."""
        task_status.started()
        try:
            while True:
                self._write()
                await trio.sleep(INTERVAL_S)
                if not self._uploads.under_way:
                    self._write()  # what an upload's end changes in the journal comes behind it
                    await self._uploads.change()
        finally:
            self._file.remove()

    def _write(self) -> None:
        progress = self.now()
        if progress != self._written:
            self._file.write(progress)
            self._written = progress

    def now(self) -> MountProgress:
        """Return how it stands."""
        uploads, health = self._uploads, self._api.health
        under_way = uploads.under_way
        with suppress(LocalDiskError):  # what was known before is nearer the truth than nothing
            self._pending = pending_counts(self._database)
        pending = self._pending
        silent_since_ns = health.silent_since_ns
        return MountProgress(
            pid=os.getpid(),
            sent_files=uploads.sent_files,
            sent_bytes=uploads.sent_bytes,
            pending_files=pending.files,
            pending_bytes=pending.size_bytes,
            failed_files=pending.failed_files,
            error=_whole(pending.error),
            pending_changes=pending.changes,
            sending_files=len(under_way),
            sending_bytes=sum(each.size_bytes for each in under_way),
            sending_sent_bytes=sum(each.sent_bytes for each in under_way),
            sending=tuple(
                Sending(
                    container_id=each.container_id,
                    name=_whole(each.stored_name),
                    size_bytes=each.size_bytes,
                    sent_bytes=each.sent_bytes,
                    since_s=each.since_ns / NS_PER_S,
                )
                for each in under_way[:_SHOWN_MAX]
            ),
            moved_at_s=uploads.moved_at_ns / NS_PER_S,
            silent_since_s=0 if silent_since_ns is None else silent_since_ns // NS_PER_S,
            service_error="" if silent_since_ns is None else _whole(health.last_error),
        )


def _whole(text: str) -> str:
    """Return ``text`` such that JSON takes it: names may hold halves of surrogate pairs."""
    return text.encode("utf-8", "backslashreplace").decode()
