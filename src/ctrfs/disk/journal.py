"""The journal: what has been promised to a user and the service has not confirmed yet.

Four kinds of rows, each written before the service is asked and taken away after it has
answered, so that whoever finds one knows that the work may have been done in part:

    unsent            the bytes of a file, to be stored under a path
    pending_delete    a stored file that is to go
    folder_move       a folder whose files are being stored under other paths
    pending_rmdir     an empty container that is to go

Beside ``unsent`` a fifth table, ``small_bytes``, has the bytes themselves where they are few and
were recorded in the same commit (``disk.small_bytes``).

docs/durability.md says what the next mount makes of each.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import msgspec

from ctrfs.disk.database import StateDatabase, blob_from_text, readable, text_from_blob
from ctrfs.disk.local_entries import moved_path
from ctrfs.errors import LocalDiskError


class StoredVersion(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a service file: an id alone may come to stand for another."""

    container_id: str
    file_id: str
    stored_path: str
    created_at_s: int
    size_bytes: int | None


class UnsentRow(msgspec.Struct, frozen=True, kw_only=True):
    """One file whose newest bytes the service has not confirmed."""

    key: str
    """Chosen by the caller, unique; a second put of it replaces the first."""
    container_id: str
    container_name: str
    """As the mount showed it, for people."""
    path: bytes
    """Slash-joined, relative to the container."""
    spool_name: str
    size_bytes: int
    digest: str
    """blake2b of the bytes, 32 hex digits; empty where it is not known."""
    replaces: tuple[StoredVersion, ...]
    """What may be deleted once these bytes are on the service."""
    mtime_ns: int
    mode: int | None
    error: str
    """Why the last attempt failed, in words; empty while the first is under way."""
    since_s: int
    """When the bytes were first kept, in seconds since 1970; a second put changes it not."""


class MovingFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file of a folder that is being renamed."""

    inner_path: bytes
    """Slash-joined, relative to the folder."""
    version: StoredVersion | None
    """None where this machine has the newest bytes, in a row of another table."""


class FolderMoveRow(msgspec.Struct, frozen=True, kw_only=True):
    """A folder that is being renamed inside its container."""

    container_id: str
    old_path: bytes
    new_path: bytes
    files: tuple[MovingFile, ...]


class Journal:
    """The journal of one state directory.

    Every change is on the disk when the call returns, whatever happens to the machine after:
    it waits for the disk, some milliseconds. The caller syncs the spool file before ``put``.
    What is not ``durable`` is on the disk after the next change that is, or the next ``sync``,
    and never before what was changed earlier.
    """

    def __init__(self, database: StateDatabase) -> None:
        self._database = database

    @contextmanager
    def together(self) -> Iterator[None]:
        """Make all changes of the database inside the block one step."""
        with self._database.transaction(durable=True):
            yield

    def sync(self) -> None:
        """Return when the disk has every change so far."""
        self._database.sync()

    # -- bytes -----------------------------------------------------------------------------

    def put(self, row: UnsentRow) -> None:
        """Remember a file, instead of what was remembered under its key."""
        with self._database.transaction(durable=True):
            self._database.execute(
                "INSERT INTO unsent (key, container_id, container_name, path, spool_name,"
                " size_bytes, digest, replaces, mtime_ns, mode, error, since_s)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
                " ON CONFLICT (key) DO UPDATE SET"
                " container_id = excluded.container_id,"
                " container_name = excluded.container_name, path = excluded.path,"
                " spool_name = excluded.spool_name, size_bytes = excluded.size_bytes,"
                " digest = excluded.digest, replaces = excluded.replaces,"
                " mtime_ns = excluded.mtime_ns, mode = excluded.mode, error = excluded.error",
                (
                    blob_from_text(row.key),
                    blob_from_text(row.container_id),
                    blob_from_text(row.container_name),
                    row.path,
                    row.spool_name,
                    row.size_bytes,
                    row.digest,
                    _text_from_versions(row.replaces),
                    str(row.mtime_ns),
                    row.mode,
                    blob_from_text(row.error),
                    row.since_s,
                ),
            )

    def put_bytes(self, key: str, content: bytes) -> None:
        """Keep all bytes of a small file with its record, instead of a sync of its spool file.

        To be called in one step with ``put``; they count as long as they have the digest there.
        """
        with self._database.transaction(durable=True):
            self._database.execute(
                "INSERT OR REPLACE INTO small_bytes (key, bytes) VALUES (?, ?)",
                (blob_from_text(key), content),
            )

    def bytes_of(self, key: str) -> bytes | None:
        """Return what ``put_bytes`` has kept with a record; None if that was nothing."""
        rows = self._database.rows(
            "SELECT bytes FROM small_bytes WHERE key = ?", (blob_from_text(key),)
        )
        content: object = rows[0]["bytes"] if rows else None
        return content if isinstance(content, bytes) else None

    def note_error(self, key: str, error: str) -> None:
        """Say why a file could not be sent; for people, so that the disk is not waited for."""
        self._database.execute(
            "UPDATE unsent SET error = ? WHERE key = ?",
            (blob_from_text(error), blob_from_text(key)),
        )

    def move_below(self, container_id: str, old: bytes, new: bytes) -> None:
        """Give every file below the folder ``old`` its path below ``new``."""
        with self._database.transaction(durable=True):
            for row in self.rows():
                moved = moved_path(row.path, old, new)
                if row.container_id == container_id and moved is not None:
                    self._database.execute(
                        "UPDATE unsent SET path = ? WHERE key = ?",
                        (moved, blob_from_text(row.key)),
                    )

    def settle(
        self, *keys: str, deletes: Iterable[StoredVersion] = (), durable: bool = True
    ) -> None:
        """Forget files, and remember what is to be deleted instead of them; one step.

        Args:
            keys: Of the files, sent or given up; harmless if they are not there.
            deletes: What is to go now.
            durable: Whether to wait for the disk; if not, ``sync`` is to follow.
        """
        with self._database.transaction(durable=durable):
            for key in keys:
                for table in ("unsent", "small_bytes"):
                    self._database.execute(
                        f"DELETE FROM {table} WHERE key = ?",  # noqa: S608  # nosec B608  # a constant
                        (blob_from_text(key),),
                    )
            for version in deletes:
                self._put_delete(version)

    def rows(self) -> list[UnsentRow]:
        """Return all unsent files, those kept longest first; rows that make no sense are left."""
        rows = self._database.rows("SELECT * FROM unsent ORDER BY since_s, key")
        return readable(rows, _unsent_from_row)

    def keys_and_containers(self) -> list[tuple[str, str]]:
        """Return key and container id of all unsent files, those kept longest first."""
        rows = self._database.rows("SELECT key, container_id FROM unsent ORDER BY since_s, key")
        return readable(
            rows, lambda row: (text_from_blob(row["key"]), text_from_blob(row["container_id"]))
        )

    def row(self, key: str) -> UnsentRow | None:
        """Return the unsent file of that key."""
        rows = self._database.rows("SELECT * FROM unsent WHERE key = ?", (blob_from_text(key),))
        return next(iter(readable(rows, _unsent_from_row)), None)

    def spool_names(self) -> set[str]:
        """Return the names of all bytes that rows speak of, also of rows that make no sense."""
        rows = self._database.rows("SELECT spool_name FROM unsent")
        return {name for row in rows if isinstance(name := row["spool_name"], str)}

    def __len__(self) -> int:
        """Return how many unsent files there are."""
        count: int = self._database.rows("SELECT count(*) FROM unsent")[0][0]
        return count

    # -- deletions -------------------------------------------------------------------------

    def remove_delete(self, version: StoredVersion) -> None:
        """Forget a deletion: it is done, or not wanted; harmless if it is not there."""
        with self._database.transaction(durable=True):
            self._database.execute(
                "DELETE FROM pending_delete WHERE container_id = ? AND file_id = ?"
                " AND created_at_s = ?",
                (
                    blob_from_text(version.container_id),
                    blob_from_text(version.file_id),
                    version.created_at_s,
                ),
            )

    def deletes(self) -> list[StoredVersion]:
        """Return all deletions still to do."""
        rows = self._database.rows(
            "SELECT * FROM pending_delete ORDER BY container_id, file_id, created_at_s"
        )
        return readable(rows, _version_from_row)

    def deletes_in(self, container_id: str) -> list[StoredVersion]:
        """Return the deletions still to do in one container."""
        rows = self._database.rows(
            "SELECT * FROM pending_delete WHERE container_id = ?", (blob_from_text(container_id),)
        )
        return readable(rows, _version_from_row)

    def put_rmdir(self, container_id: str) -> None:
        """Remember that an empty container is to be deleted."""
        with self._database.transaction(durable=True):
            self._database.execute(
                "INSERT OR IGNORE INTO pending_rmdir (container_id) VALUES (?)",
                (blob_from_text(container_id),),
            )

    def remove_rmdir(self, container_id: str) -> None:
        """Forget the deletion of a container; harmless if it is not there."""
        with self._database.transaction(durable=True):
            self._database.execute(
                "DELETE FROM pending_rmdir WHERE container_id = ?", (blob_from_text(container_id),)
            )

    def rmdirs(self) -> list[str]:
        """Return the ids of all containers still to delete, if they are empty."""
        rows = self._database.rows("SELECT container_id FROM pending_rmdir ORDER BY container_id")
        return readable(rows, lambda row: text_from_blob(row["container_id"]))

    # -- folders ---------------------------------------------------------------------------

    def put_folder_move(self, row: FolderMoveRow) -> None:
        """Remember that a folder is being renamed."""
        files = [
            [file.inner_path.hex(), *(_list_from_version(file.version) if file.version else ())]
            for file in row.files
        ]
        with self._database.transaction(durable=True):
            self._database.execute(
                "INSERT OR REPLACE INTO folder_move (container_id, new_path, old_path, files)"
                " VALUES (?, ?, ?, ?)",
                (
                    blob_from_text(row.container_id),
                    row.new_path,
                    row.old_path,
                    json.dumps(files),
                ),
            )

    def remove_folder_move(self, container_id: str, new_path: bytes) -> None:
        """Forget the renaming of a folder; harmless if it is not there."""
        with self._database.transaction(durable=True):
            self._database.execute(
                "DELETE FROM folder_move WHERE container_id = ? AND new_path = ?",
                (blob_from_text(container_id), new_path),
            )

    def folder_moves(self) -> list[FolderMoveRow]:
        """Return all folders whose renaming is not finished."""
        rows = self._database.rows("SELECT * FROM folder_move ORDER BY container_id, new_path")
        return readable(rows, _folder_move_from_row)

    # -- pieces ----------------------------------------------------------------------------

    def _put_delete(self, version: StoredVersion) -> None:
        self._database.execute(
            "INSERT OR REPLACE INTO pending_delete"
            " (container_id, file_id, stored_path, created_at_s, size_bytes)"
            " VALUES (?, ?, ?, ?, ?)",
            (
                blob_from_text(version.container_id),
                blob_from_text(version.file_id),
                blob_from_text(version.stored_path),
                version.created_at_s,
                version.size_bytes,
            ),
        )


def _version_from_row(row: sqlite3.Row) -> StoredVersion:
    return _version_from(
        [
            text_from_blob(row["container_id"]),
            text_from_blob(row["file_id"]),
            text_from_blob(row["stored_path"]),
            row["created_at_s"],
            row["size_bytes"],
        ]
    )


def _list_from_version(version: StoredVersion) -> list[str | int | None]:
    return [
        version.container_id,
        version.file_id,
        version.stored_path,
        version.created_at_s,
        version.size_bytes,
    ]


def _text_from_versions(versions: tuple[StoredVersion, ...]) -> str:
    return json.dumps([_list_from_version(version) for version in versions])


def _version_from(fields: object) -> StoredVersion:
    match fields:
        case [
            str(container_id),
            str(file_id),
            str(stored_path),
            int(created_at_s),
            int() | None as size_bytes,
        ]:
            return StoredVersion(
                container_id=container_id,
                file_id=file_id,
                stored_path=stored_path,
                created_at_s=created_at_s,
                size_bytes=size_bytes,
            )
        case _:
            raise LocalDiskError(f"the journal holds no version of a file: {fields!r}")


def _loaded_list(text: str) -> list[object]:
    try:
        loaded: object = json.loads(text)
    except (ValueError, TypeError, RecursionError) as error:
        raise LocalDiskError("the journal cannot be read: a list of versions is damaged") from error
    if not isinstance(loaded, list):
        raise LocalDiskError("the journal cannot be read: a list of versions is missing")
    return loaded


def _folder_move_from_row(row: sqlite3.Row) -> FolderMoveRow:
    files: list[MovingFile] = []
    for fields in _loaded_list(row["files"]):
        match fields:
            case [str(inner_path), *fields]:
                version = _version_from(fields) if fields else None
                files.append(MovingFile(inner_path=_bytes_from_hex(inner_path), version=version))
            case _:
                raise LocalDiskError(f"the journal holds no file of a folder: {fields!r}")
    return FolderMoveRow(
        container_id=text_from_blob(row["container_id"]),
        old_path=row["old_path"],
        new_path=row["new_path"],
        files=tuple(files),
    )


def _bytes_from_hex(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError as error:
        raise LocalDiskError("the journal cannot be read: a path is damaged") from error


def _unsent_from_row(row: sqlite3.Row) -> UnsentRow:
    path, spool_name = row["path"], row["spool_name"]
    size_bytes, since_s, mode = row["size_bytes"], row["since_s"], row["mode"]
    if not isinstance(path, bytes) or not isinstance(spool_name, str):
        raise LocalDiskError("a path or a name of bytes is damaged")
    if not isinstance(size_bytes, int) or not isinstance(since_s, int):
        raise LocalDiskError("a length or a time is damaged")
    return UnsentRow(
        key=text_from_blob(row["key"]),
        container_id=text_from_blob(row["container_id"]),
        container_name=text_from_blob(row["container_name"]),
        path=path,
        spool_name=spool_name,
        size_bytes=size_bytes,
        digest=str(row["digest"]),
        replaces=tuple(_version_from(fields) for fields in _loaded_list(row["replaces"])),
        mtime_ns=int(row["mtime_ns"]),
        mode=mode if isinstance(mode, int) else None,
        error=text_from_blob(row["error"]),
        since_s=since_s,
    )
