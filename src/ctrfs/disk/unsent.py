"""Bytes that an upload left behind, with all that is needed to send them later."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from ctrfs.disk.database import StateDatabase, blob_from_text, text_from_blob


@dataclass(frozen=True, slots=True, kw_only=True)
class UnsentRow:
    """One file that the service does not have yet."""

    key: str
    """Chosen by the caller, unique; a second put of it replaces the first."""
    container_id: str
    container_name: str
    """As the mount showed it, for people."""
    path: bytes
    """Slash-joined, relative to the container."""
    stored_name: str
    """The name that the upload asks the service for."""
    spool_name: str
    size_bytes: int
    digest: str
    replaces: tuple[str, ...]
    """Ids of service files that may be deleted once these bytes are on the service."""
    mtime_ns: int
    mode: int | None
    error: str
    """Why the last attempt failed, in words."""
    since_s: int
    """When the bytes were first kept, in seconds since 1970."""


class UnsentFiles:
    """The unsent files and deletions of one state directory.

    Every change is on the disk when the call returns, whatever happens to the machine after:
    it waits for the disk, some milliseconds. The caller syncs the spool file before ``put``.
    """

    def __init__(self, database: StateDatabase) -> None:
        self._database = database

    def put(self, row: UnsentRow) -> None:
        """Remember a file, instead of what was remembered under its key."""
        with self._database.transaction(durable=True):
            self._database.execute(
                "INSERT OR REPLACE INTO unsent (key, container_id, container_name, path,"
                " stored_name, spool_name, size_bytes, digest, replaces, mtime_ns, mode, error,"
                " since_s) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    blob_from_text(row.key),
                    blob_from_text(row.container_id),
                    blob_from_text(row.container_name),
                    row.path,
                    blob_from_text(row.stored_name),
                    row.spool_name,
                    row.size_bytes,
                    row.digest,
                    _blob_from_ids(row.replaces),
                    str(row.mtime_ns),
                    row.mode,
                    blob_from_text(row.error),
                    row.since_s,
                ),
            )

    def remove(self, key: str) -> None:
        """Forget a file, once it is sent or given up; harmless if it is not there."""
        with self._database.transaction(durable=True):
            self._database.execute("DELETE FROM unsent WHERE key = ?", (blob_from_text(key),))

    def rows(self) -> list[UnsentRow]:
        """Return all unsent files, those kept longest first."""
        rows = self._database.rows("SELECT * FROM unsent ORDER BY since_s, key")
        return [_unsent_from_row(row) for row in rows]

    def put_delete(self, container_id: str, file_id: str) -> None:
        """Remember that a service file is to be deleted: one that was replaced."""
        with self._database.transaction(durable=True):
            self._database.execute(
                "INSERT OR REPLACE INTO pending_delete (container_id, file_id) VALUES (?, ?)",
                (blob_from_text(container_id), blob_from_text(file_id)),
            )

    def remove_delete(self, container_id: str, file_id: str) -> None:
        """Forget a deletion, once it is done; harmless if it is not there."""
        with self._database.transaction(durable=True):
            self._database.execute(
                "DELETE FROM pending_delete WHERE container_id = ? AND file_id = ?",
                (blob_from_text(container_id), blob_from_text(file_id)),
            )

    def deletes(self) -> list[tuple[str, str]]:
        """Return container id and file id of all deletions still to do."""
        rows = self._database.rows(
            "SELECT container_id, file_id FROM pending_delete ORDER BY container_id, file_id"
        )
        return [
            (text_from_blob(row["container_id"]), text_from_blob(row["file_id"])) for row in rows
        ]


def _blob_from_ids(ids: tuple[str, ...]) -> bytes:
    # Ids are opaque, so no character may separate them: each is preceded by its length.
    blobs = [blob_from_text(text) for text in ids]
    return b"".join(len(blob).to_bytes(4, "big") + blob for blob in blobs)


def _ids_from_blob(blob: bytes) -> tuple[str, ...]:
    ids: list[str] = []
    position = 0
    while position < len(blob):
        start = position + 4
        position = start + int.from_bytes(blob[position:start], "big")
        ids.append(text_from_blob(blob[start:position]))
    return tuple(ids)


def _unsent_from_row(row: sqlite3.Row) -> UnsentRow:
    return UnsentRow(
        key=text_from_blob(row["key"]),
        container_id=text_from_blob(row["container_id"]),
        container_name=text_from_blob(row["container_name"]),
        path=row["path"],
        stored_name=text_from_blob(row["stored_name"]),
        spool_name=row["spool_name"],
        size_bytes=row["size_bytes"],
        digest=row["digest"],
        replaces=_ids_from_blob(row["replaces"]),
        mtime_ns=int(row["mtime_ns"]),
        mode=row["mode"],
        error=text_from_blob(row["error"]),
        since_s=row["since_s"],
    )
