"""What the service knows, kept across restarts: SQLite for facts, blobs for bytes.

Reads and changes are plain ``def`` and so atomic; a change is safe against a kill of the
process when its method returns, and against a power cut once ``flush`` has returned after
it. Callers acknowledge nothing before that. No HTTP here.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

import trio

from ctrfs.errors import ConfigError
from ctrfs.server.blobs import Blob, BlobStore
from ctrfs.server.data_directory import DATABASE, check_places, locked, private_file
from ctrfs.server.records import (
    DELETED,
    EXPIRED,
    ContainerRecord,
    FileRecord,
    NetworkPolicy,
    StoredFileRecord,
)
from ctrfs.units import NS_PER_S

FORMAT_VERSION: Final = 1
# Texts of users stand as bytes: SQLite takes no lone surrogates, and JSON bodies do.
_SCHEMA: Final = """
CREATE TABLE containers (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, name BLOB NOT NULL,
    created_at_ns INTEGER NOT NULL, ready_at_ns INTEGER NOT NULL, status TEXT NOT NULL,
    minutes INTEGER NOT NULL, last_active_at_ns INTEGER NOT NULL, memory_limit TEXT NOT NULL,
    network_policy TEXT NOT NULL, listed_until_ns INTEGER);
CREATE TABLE files (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL, container_id TEXT NOT NULL,
    path BLOB NOT NULL, size_bytes INTEGER NOT NULL, source TEXT NOT NULL,
    created_at_s INTEGER NOT NULL, listed_from_ns INTEGER NOT NULL, blob TEXT NOT NULL,
    digest TEXT NOT NULL, is_removed INTEGER NOT NULL DEFAULT 0, UNIQUE (container_id, id));
CREATE INDEX files_in_order ON files (container_id, created_at_s, sequence);
CREATE TABLE stored_files (
    id TEXT PRIMARY KEY, name BLOB NOT NULL, purpose TEXT NOT NULL, size_bytes INTEGER NOT NULL,
    created_at_s INTEGER NOT NULL, blob TEXT NOT NULL, digest TEXT NOT NULL);
"""
_FILES: Final = (
    "SELECT sequence, id, container_id, path, size_bytes, source, created_at_s, listed_from_ns,"
    " blob, digest FROM files WHERE NOT is_removed"
)
# Every table whose rows name a blob: how to see them, how to drop one.
_BLOB_TABLES: Final = (
    ("SELECT id, blob FROM files", "DELETE FROM files WHERE id = ?"),
    ("SELECT id, blob FROM stored_files", "DELETE FROM stored_files WHERE id = ?"),
)
# How far ``last_active_at`` on disk may lag: a kill then ends a container this much too early.
_ACTIVITY_LAG_NS: Final = 5 * NS_PER_S
# A deleted row stays as a place in the order, so that a walk whose last row it was goes on.
_WALK_NS: Final = 3600 * NS_PER_S

_ContainerRow = tuple[int, str, bytes, int, int, str, int, int, str, str, int | None]
_FileRow = tuple[int, str, str, bytes, int, str, int, int, str, str]


class ServiceState:
    """All containers and files of one data directory; one process at a time.

    Invariant: every row has its blob, and ``_containers`` equals the table but for
    ``last_active_at_ns``, which may be ahead.
    """

    def __init__(self, directory: Path, *, is_durable: bool = True) -> None:
        """Open or make the data directory.

        Raises:
            ConfigError: Another process has it, it is of a newer format, or cannot be used.
        """
        try:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            check_places(directory)
            with ExitStack() as opened:
                self._open(directory, opened, is_durable=is_durable)
                self._opened = opened.pop_all()
        except (OSError, sqlite3.Error) as error:
            raise ConfigError(f"cannot use the data directory {directory}: {error}") from error
        self._replaced_blobs: set[str] = set()
        # Sequences of removed rows; further back those with the time of the call that saw them.
        self._removed: list[int] = []
        self._removed_before: deque[tuple[int, list[int]]] = deque()
        self._containers = {each.id: each for each in self._load_containers()}
        self._written_activity = {
            each.id: each.last_active_at_ns for each in self._containers.values()
        }

    def _open(self, directory: Path, opened: ExitStack, *, is_durable: bool) -> None:
        opened.callback(os.close, locked(directory))
        self.blobs = BlobStore(directory / "blobs", is_durable=is_durable)
        database = directory / DATABASE
        # Made here, for SQLite would let others read it; what it puts beside has the same mode.
        os.close(private_file(database))
        # Autocommit: every statement here is a whole change, or stands in an explicit BEGIN.
        self._database = sqlite3.connect(database, isolation_level=None, check_same_thread=False)
        opened.callback(self._database.close)
        self._database.execute("PRAGMA journal_mode=WAL")
        # A commit is then not flushed; ``flush`` does that, once for all who wait.
        self._database.execute("PRAGMA synchronous=NORMAL")
        self._prepare()
        self._flusher = _Flusher([database.with_name(database.name + "-wal"), self.blobs.directory])
        opened.callback(self._flusher.close)
        self._sweep()

    def close(self) -> None:
        """Write what is only in memory and let the directory go."""
        with self._opened:
            # Without it a container ends a little early; the lock must go all the same.
            with suppress(sqlite3.Error):
                for container in self._containers.values():
                    self._write_activity(container)

    async def flush(self) -> None:
        """Wait until every change made so far survives a power cut."""
        replaced = set(self._replaced_blobs)
        if self.blobs.is_durable:
            await self._flusher.flush()
        for blob in replaced:
            self.blobs.remove(blob)
        self._replaced_blobs -= replaced

    # Containers

    def containers(self) -> list[ContainerRecord]:
        """Return all containers, oldest first, those of ``deleted`` status too."""
        return sorted(self._containers.values(), key=lambda each: each.position)

    def container(self, container_id: str) -> ContainerRecord | None:
        """Return the container, in whatever status, or None."""
        return self._containers.get(container_id)

    def add_container(self, container: ContainerRecord) -> None:
        """Add a container; its ``sequence`` is set here."""
        policy = container.network_policy
        row = (
            container.id,
            _bytes(container.name),
            container.created_at_ns,
            container.ready_at_ns,
            container.status,
            container.minutes,
            container.last_active_at_ns,
            container.memory_limit,
            json.dumps([policy.type, *policy.allowed_domains]),
        )
        cursor = self._database.execute(
            "INSERT INTO containers (id, name, created_at_ns, ready_at_ns, status, minutes,"
            " last_active_at_ns, memory_limit, network_policy) VALUES (?,?,?,?,?,?,?,?,?)",
            row,
        )
        container.sequence = cursor.lastrowid or 0
        self._containers[container.id] = container
        self._written_activity[container.id] = container.last_active_at_ns

    def touch(self, container: ContainerRecord, now_ns: int) -> None:
        """Note that the container was used."""
        container.last_active_at_ns = max(container.last_active_at_ns, now_ns)
        lag_ns = container.last_active_at_ns - self._written_activity[container.id]
        if lag_ns >= _ACTIVITY_LAG_NS:
            self._write_activity(container)

    def expire(self, container: ContainerRecord) -> None:
        """Drop the container's data; its row stays."""
        self._end(container, EXPIRED, listed_until_ns=None)

    def delete_container(self, container: ContainerRecord, *, listed_until_ns: int) -> None:
        """Drop the container's data; its row stays listed for a while, and answers nothing."""
        self._end(container, DELETED, listed_until_ns=listed_until_ns)

    def forget_deleted(self, now_ns: int) -> None:
        """Drop the rows of containers deleted so long ago that no walk can stand at them."""
        gone = [
            each.id
            for each in self._containers.values()
            if each.listed_until_ns is not None and each.listed_until_ns + _WALK_NS <= now_ns
        ]
        for container_id in gone:
            self._database.execute("DELETE FROM containers WHERE id = ?", (container_id,))
            del self._containers[container_id], self._written_activity[container_id]

    # Files

    def file(self, container_id: str, file_id: str) -> FileRecord | None:
        """Return the file, or None."""
        row = self._database.execute(
            f"{_FILES} AND container_id = ? AND id = ?",
            (container_id, file_id),
        ).fetchone()
        return None if row is None else _file_from_row(row)

    def same_file(self, container_id: str, *, path: str, digest: str) -> FileRecord | None:
        """Return the oldest file of that path and those bytes, or None."""
        row = self._database.execute(
            f"{_FILES} AND container_id = ? AND path = ? AND digest = ? ORDER BY sequence LIMIT 1",
            (container_id, _bytes(path), digest),
        ).fetchone()
        return None if row is None else _file_from_row(row)

    def page_of_files(
        self, container_id: str, *, after: str | None, limit: int, newest_first: bool, now_ns: int
    ) -> Sequence[FileRecord] | None:
        """Return up to ``limit`` listed files after the file ``after``; None if it never was."""
        order, comparison = ("DESC", "<") if newest_first else ("ASC", ">")
        values: list[str | int] = [container_id, now_ns]
        condition = ""
        if after is not None:
            position = self._database.execute(
                "SELECT created_at_s, sequence FROM files WHERE container_id = ? AND id = ?",
                (container_id, after),
            ).fetchone()
            if position is None:
                return None
            condition = f" AND (created_at_s, sequence) {comparison} (?, ?)"
            values += position
        rows = self._database.execute(
            f"{_FILES} AND container_id = ? AND listed_from_ns <= ?{condition}"
            f" ORDER BY created_at_s {order}, sequence {order} LIMIT ?",
            [*values, limit],
        ).fetchall()
        return [_file_from_row(row) for row in rows]

    def add_file(self, record: FileRecord) -> FileRecord:
        """Add a file whose blob is committed, in place of one with the same id.

        The bytes of that one go with the next ``flush``: before, a power cut can bring it back.
        """
        replaced = self.file(record.container_id, record.id)
        self._database.execute(
            "INSERT OR REPLACE INTO files (id, container_id, path, size_bytes, source,"
            " created_at_s, listed_from_ns, blob, digest) VALUES (?,?,?,?,?,?,?,?,?)",
            (
                record.id,
                record.container_id,
                _bytes(record.path),
                record.size_bytes,
                record.source,
                record.created_at_s,
                record.listed_from_ns,
                record.blob,
                record.digest,
            ),
        )
        if replaced is not None:
            self._replaced_blobs.add(replaced.blob)
        return record

    def remove_file(self, record: FileRecord) -> None:
        """Remove a file and its bytes.

        Its row stays as a place in the order, so that a walk whose last row was removed goes
        on; it goes with the container, with ``forget_removed``, or at the next start.
        """
        self._database.execute(
            "UPDATE files SET is_removed = 1 WHERE container_id = ? AND id = ?",
            (record.container_id, record.id),
        )
        self._removed.append(record.sequence)
        self.blobs.remove(record.blob)

    def forget_removed(self, now_ns: int) -> None:
        """Drop the rows of files removed so long ago that no walk can stand at them.

        Their number slows down listings. To be called now and then: a row's time begins with
        the first call after its removal.
        """
        if self._removed:
            self._removed_before.append((now_ns, self._removed))
            self._removed = []
        while self._removed_before and self._removed_before[0][0] + _WALK_NS <= now_ns:
            with self._transaction():
                self._database.executemany(
                    "DELETE FROM files WHERE sequence = ? AND is_removed",
                    [(sequence,) for sequence in self._removed_before[0][1]],
                )
            self._removed_before.popleft()

    # The account's file store

    def add_stored_file(self, record: StoredFileRecord) -> None:
        """Add a file to the store, its blob being committed."""
        self._database.execute(
            "INSERT INTO stored_files VALUES (?,?,?,?,?,?,?)",
            (
                record.id,
                _bytes(record.name),
                record.purpose,
                record.size_bytes,
                record.created_at_s,
                record.blob,
                record.digest,
            ),
        )

    def stored_file(self, file_id: str) -> StoredFileRecord | None:
        """Return a file of the store, or None."""
        row: tuple[str, bytes, str, int, int, str, str] | None = self._database.execute(
            "SELECT * FROM stored_files WHERE id = ?", (file_id,)
        ).fetchone()
        if row is None:
            return None
        return StoredFileRecord(
            id=row[0],
            name=_text(row[1]),
            purpose=row[2],
            size_bytes=row[3],
            created_at_s=row[4],
            blob=row[5],
            digest=row[6],
        )

    # Inside

    def _prepare(self) -> None:
        (version,) = self._database.execute("PRAGMA user_version").fetchone()
        if version == 0:
            self._database.executescript(
                f"BEGIN;{_SCHEMA}PRAGMA user_version = {FORMAT_VERSION};COMMIT;"
            )
        elif version != FORMAT_VERSION:
            raise ConfigError(f"the data directory has format {version}, not {FORMAT_VERSION}")

    def _sweep(self) -> None:
        """Remove what a crash left: temporaries, blobs without a row, rows without a blob."""
        present = self.blobs.names()
        wanted: set[str] = set()
        self._database.execute("BEGIN")
        self._database.execute("DELETE FROM files WHERE is_removed")
        for select, delete in _BLOB_TABLES:
            rows = self._database.execute(select).fetchall()
            for row_id, blob in rows:
                if blob in present:
                    wanted.add(blob)
                else:
                    self._database.execute(delete, (row_id,))
        self._database.execute("COMMIT")
        self.blobs.sweep(wanted)

    def _load_containers(self) -> list[ContainerRecord]:
        rows: list[_ContainerRow] = self._database.execute("SELECT * FROM containers").fetchall()
        return [_container_from_row(row) for row in rows]

    def _end(self, container: ContainerRecord, status: str, *, listed_until_ns: int | None) -> None:
        blobs = self._database.execute(
            "SELECT blob FROM files WHERE container_id = ? AND NOT is_removed", (container.id,)
        ).fetchall()
        with self._transaction():
            self._database.execute("DELETE FROM files WHERE container_id = ?", (container.id,))
            self._database.execute(
                "UPDATE containers SET status = ?, listed_until_ns = ? WHERE id = ?",
                (status, listed_until_ns, container.id),
            )
        container.status = status
        container.listed_until_ns = listed_until_ns
        for (blob,) in blobs:
            self.blobs.remove(blob)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Make what the block does one change, or none if it fails: a disk may be full."""
        self._database.execute("BEGIN")
        try:
            yield
            self._database.execute("COMMIT")
        except BaseException:
            # SQLite has ended it already after some failures.
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            raise

    def _write_activity(self, container: ContainerRecord) -> None:
        if self._written_activity[container.id] == container.last_active_at_ns:
            return
        self._database.execute(
            "UPDATE containers SET last_active_at_ns = ? WHERE id = ?",
            (container.last_active_at_ns, container.id),
        )
        self._written_activity[container.id] = container.last_active_at_ns


class _Flusher:
    """Flushes some paths to disk, one flush for all who asked before it began."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._fds = [os.open(path, os.O_RDONLY) for path in paths]
        self._lock = trio.Lock()
        self._asked = 0
        self._done = 0

    def close(self) -> None:
        for fd in self._fds:
            os.close(fd)

    async def flush(self) -> None:
        self._asked += 1
        ticket = self._asked
        async with self._lock:
            if self._done >= ticket:
                return
            covered = self._asked
            await trio.to_thread.run_sync(self._flush_all)
            self._done = covered

    def _flush_all(self) -> None:
        for fd in self._fds:
            os.fsync(fd)


def blob_of(record: FileRecord | StoredFileRecord) -> Blob:
    """Return the bytes of a file or of a stored file."""
    return Blob(name=record.blob, size_bytes=record.size_bytes, digest=record.digest)


def _container_from_row(row: _ContainerRow) -> ContainerRecord:
    policy_type, *domains = json.loads(row[9])
    return ContainerRecord(
        sequence=row[0],
        id=row[1],
        name=_text(row[2]),
        created_at_ns=row[3],
        ready_at_ns=row[4],
        status=row[5],
        minutes=row[6],
        last_active_at_ns=row[7],
        memory_limit=row[8],
        network_policy=NetworkPolicy(type=policy_type, allowed_domains=tuple(domains)),
        listed_until_ns=row[10],
    )


def _file_from_row(row: _FileRow) -> FileRecord:
    return FileRecord(
        sequence=row[0],
        id=row[1],
        container_id=row[2],
        path=_text(row[3]),
        size_bytes=row[4],
        source=row[5],
        created_at_s=row[6],
        listed_from_ns=row[7],
        blob=row[8],
        digest=row[9],
    )


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _text(stored: bytes) -> str:
    return stored.decode("utf-8", "surrogatepass")
