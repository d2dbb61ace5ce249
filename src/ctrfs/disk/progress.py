"""How the sending of a mount goes on, as a small file in its slot.

The daemon replaces the file while bytes are on their way. ``ctrfs umount`` and ``ctrfs status``
read it there and not in the mount: that is gone while the last bytes are sent, and a daemon
that hangs does not answer. The file is for people only, may be lost, and is never synced.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from ctrfs.disk.database import StateDatabase, text_from_blob

FILE_NAME: Final = "progress.json"
# Whoever can write into the slot is the user; but a damaged file must not fill the memory.
_BYTES_MAX: Final = 256 * 1024
# One look at the table for all numbers; ten thousand rows take some milliseconds.
_COUNTS: Final = """SELECT count(*) AS files, total(size_bytes) AS bytes,
    count(nullif(error, x'')) AS failed FROM unsent"""
_FIRST_ERROR: Final = "SELECT error FROM unsent WHERE error != x'' ORDER BY since_s LIMIT 1"
_CHANGES: Final = """SELECT (SELECT count(*) FROM pending_delete)
    + (SELECT count(*) FROM pending_rmdir) + (SELECT count(*) FROM folder_move) AS changes"""


class Sending(msgspec.Struct, frozen=True, kw_only=True):
    """One file on its way."""

    container_id: str
    name: str
    """As the service is told it."""
    size_bytes: int
    sent_bytes: int
    """In the present attempt."""
    since_s: float
    """When the first attempt began, in seconds since 1970."""


class MountProgress(msgspec.Struct, frozen=True, kw_only=True):
    """What a mount has sent since its start, and what it has still to send."""

    pid: int
    """Of the daemon: a file of another one is old."""
    sent_files: int = 0
    sent_bytes: int = 0
    pending_files: int = 0
    """Recorded and not confirmed, those on their way among them."""
    pending_bytes: int = 0
    failed_files: int = 0
    """Of the pending ones, those whose last attempt failed."""
    error: str = ""
    """Why the one failed that has been waiting longest."""
    pending_changes: int = 0
    """Deletions and renames that the service has not been told yet, or has not confirmed."""
    sending_files: int = 0
    sending_bytes: int = 0
    """The sizes of all files on their way."""
    sending_sent_bytes: int = 0
    """How much of that has left."""
    sending: tuple[Sending, ...] = ()
    """The oldest of them."""
    moved_at_s: float = 0.0
    """When bytes have last left, or an upload has ended well, in seconds since 1970."""
    silent_since_s: int = 0
    """Since when the service has answered nothing, in seconds since 1970; 0 if it answers."""
    service_error: str = ""
    """How the last request without an answer ended."""

    @property
    def left_files(self) -> int:
        """How many files are still to be sent; copies for a rename have no record."""
        return max(self.pending_files, self.sending_files)

    @property
    def left_bytes(self) -> int:
        """How many bytes have still to leave."""
        return max(0, max(self.pending_bytes, self.sending_bytes) - self.sending_sent_bytes)


class PendingCounts(msgspec.Struct, frozen=True, kw_only=True):
    """What the journal holds, in numbers."""

    files: int = 0
    size_bytes: int = 0
    failed_files: int = 0
    error: str = ""
    changes: int = 0


def pending_counts(database: StateDatabase) -> PendingCounts:
    """Count what the journal holds.

    Raises:
        LocalDiskError: It cannot be read.
    """
    row = database.rows(_COUNTS)[0]
    errors = database.rows(_FIRST_ERROR) if row["failed"] else []
    return PendingCounts(
        files=int(row["files"]),
        size_bytes=int(row["bytes"]),
        failed_files=int(row["failed"]),
        error=text_from_blob(errors[0]["error"]) if errors else "",
        changes=int(database.rows(_CHANGES)[0]["changes"]),
    )


def text_from_progress(progress: MountProgress) -> str:
    """Return ``progress`` as one line of JSON."""
    return msgspec.json.encode(progress).decode() + "\n"


class ProgressFile:
    """The file of the mount that holds a slot; never fails, as nothing depends on it."""

    def __init__(self, slot: Path) -> None:
        """Write below ``slot``, which belongs to this process."""
        self._path = slot / FILE_NAME
        self._draft = slot / f"{FILE_NAME}.new"

    def write(self, progress: MountProgress) -> None:
        """Put ``progress`` in the place of what was there, in one step."""
        with suppress(OSError):
            self._draft.unlink(missing_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            with os.fdopen(os.open(self._draft, flags, 0o600), "w", encoding="utf-8") as file:
                file.write(text_from_progress(progress))
            self._draft.replace(self._path)

    def remove(self) -> None:
        """Take the file away."""
        with suppress(OSError):
            self._draft.unlink(missing_ok=True)
            self._path.unlink(missing_ok=True)


def read_progress(slot: Path, *, pid: int) -> MountProgress | None:
    """Return what the daemon ``pid`` has last written into ``slot``; None if it has not."""
    try:
        fd = os.open(slot / FILE_NAME, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(fd, "rb") as file:
            found = msgspec.json.decode(file.read(_BYTES_MAX), type=MountProgress)
    except (OSError, ValueError, RecursionError):
        return None
    return found if found.pid == pid else None
