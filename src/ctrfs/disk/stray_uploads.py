"""Uploads that are not wanted any more, and that the service may have stored all the same."""

from __future__ import annotations

import json
import sqlite3

import msgspec

from ctrfs.disk.database import StateDatabase, blob_from_text, readable, text_from_blob
from ctrfs.errors import LocalDiskError


class StrayUploadRow(msgspec.Struct, frozen=True, kw_only=True):
    """One upload whose answer never came; what it has made is to be deleted."""

    container_id: str
    stored_name: str
    """The name that was asked for, slashes included."""
    digest: str
    """blake2b of the bytes, 32 hex digits."""
    known: tuple[str, ...]
    """Ids of files that could be mistaken for it, and were there before."""
    since_s: int
    """When it was given up, in seconds since 1970."""


class StrayUploads:
    """The stray uploads of one state directory.

    Every change is on the disk when the call returns, as those of ``disk.journal.Journal``.
    """

    def __init__(self, database: StateDatabase) -> None:
        self._database = database

    def put(self, row: StrayUploadRow) -> None:
        """Remember an upload, instead of what was remembered of the same."""
        with self._database.transaction(durable=True):
            self._database.execute(
                "INSERT OR REPLACE INTO stray_upload"
                " (container_id, stored_name, digest, known, since_s) VALUES (?, ?, ?, ?, ?)",
                (
                    blob_from_text(row.container_id),
                    blob_from_text(row.stored_name),
                    row.digest,
                    json.dumps(row.known),
                    row.since_s,
                ),
            )

    def remove(self, row: StrayUploadRow) -> None:
        """Forget an upload; harmless if it is not there."""
        with self._database.transaction(durable=True):
            self._database.execute(
                "DELETE FROM stray_upload"
                " WHERE container_id = ? AND stored_name = ? AND digest = ?",
                (blob_from_text(row.container_id), blob_from_text(row.stored_name), row.digest),
            )

    def rows(self) -> list[StrayUploadRow]:
        """Return all of them; rows that make no sense are left."""
        rows = self._database.rows("SELECT * FROM stray_upload ORDER BY since_s, stored_name")
        return readable(rows, _row_from)


def _row_from(row: sqlite3.Row) -> StrayUploadRow:
    known: object = json.loads(row["known"])
    if not isinstance(known, list) or not isinstance(row["since_s"], int):
        raise LocalDiskError("what is known of a stray upload is damaged")
    return StrayUploadRow(
        container_id=text_from_blob(row["container_id"]),
        stored_name=text_from_blob(row["stored_name"]),
        digest=str(row["digest"]),
        known=tuple(str(file_id) for file_id in known),
        since_s=row["since_s"],
    )
