"""The small facts of one state directory, in one SQLite file with one owner.

The tables belong to the classes named beside them in ``SCHEMA``; each is the only one that
touches its table.

All calls are made inline from the trio thread. With a write-ahead log and
``synchronous=NORMAL`` a commit writes to the page cache and does not wait for the disk: a
put of an overlay takes 30 µs (measured on ext4, 2 cores), a third of a hop to a thread and
back. It survives ``kill -9``; a power cut may take the last commits, but never the
consistency of the file. Only what must not be lost in a power cut either asks for a
``durable`` transaction, which waits for the disk (0.3 ms on a virtual disk, 1 to 20 on others).
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeAlias, TypeVar

from ctrfs.disk.failures import error_from_os_error, error_from_sqlite_error
from ctrfs.errors import LocalDiskError
from ctrfs.failpoints import reached

log = logging.getLogger(__name__)

RowT = TypeVar("RowT")
SqlValue: TypeAlias = int | str | bytes | None

SCHEMA_VERSION: Final = 3

# Texts from outside are kept as blobs (see ``blob_from_text``), times as decimal text: SQLite's
# integers end in the year 2262, those of a file's mtime do not.
_JOURNAL: Final[tuple[str, ...]] = (
    # disk.journal.Journal
    """CREATE TABLE unsent (
        key BLOB PRIMARY KEY, container_id BLOB NOT NULL, container_name BLOB NOT NULL,
        path BLOB NOT NULL, spool_name TEXT NOT NULL, size_bytes INTEGER NOT NULL,
        digest TEXT NOT NULL, replaces TEXT NOT NULL, mtime_ns TEXT NOT NULL, mode INTEGER,
        error BLOB NOT NULL, since_s INTEGER NOT NULL) WITHOUT ROWID""",
    """CREATE TABLE pending_delete (
        container_id BLOB NOT NULL, file_id BLOB NOT NULL, stored_path BLOB NOT NULL,
        created_at_s INTEGER NOT NULL, size_bytes INTEGER,
        PRIMARY KEY (container_id, file_id, created_at_s)) WITHOUT ROWID""",
    """CREATE TABLE folder_move (
        container_id BLOB NOT NULL, new_path BLOB NOT NULL, old_path BLOB NOT NULL,
        files TEXT NOT NULL, PRIMARY KEY (container_id, new_path)) WITHOUT ROWID""",
    "CREATE TABLE pending_rmdir (container_id BLOB PRIMARY KEY) WITHOUT ROWID",
)
_SMALL_BYTES: Final = (
    # disk.journal.Journal, disk.small_bytes
    "CREATE TABLE small_bytes (key BLOB PRIMARY KEY, bytes BLOB NOT NULL) WITHOUT ROWID"
)
SCHEMA: Final[tuple[str, ...]] = (
    # disk.overlay.Overlay; ``sequence`` grows with each put, so that the oldest is the smallest
    """CREATE TABLE overlay (
        sequence INTEGER PRIMARY KEY, container_id BLOB NOT NULL, key BLOB NOT NULL,
        mtime_ns TEXT, mode INTEGER, UNIQUE (container_id, key))""",
    # disk.local_entries.LocalEntries
    """CREATE TABLE local_folder (
        container_id BLOB NOT NULL, path BLOB NOT NULL,
        PRIMARY KEY (container_id, path)) WITHOUT ROWID""",
    """CREATE TABLE local_file (
        container_id BLOB NOT NULL, path BLOB NOT NULL, spool_name TEXT NOT NULL,
        size_bytes INTEGER NOT NULL, mtime_ns TEXT NOT NULL, mode INTEGER,
        PRIMARY KEY (container_id, path)) WITHOUT ROWID""",
    *_JOURNAL,
    _SMALL_BYTES,
    # disk.facts.ServiceFacts
    "CREATE TABLE fact (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID",
)


# What version 1 had of the journal: bytes without the versions that they replace, and ids to
# delete without versions. The bytes are carried over; an id without a version is let be, as it
# may have come to stand for another file.
_FROM_1_TO_2: Final[tuple[str, ...]] = (
    "ALTER TABLE unsent RENAME TO unsent_1",
    "DROP TABLE pending_delete",
    *_JOURNAL,
    """INSERT INTO unsent SELECT key, container_id, container_name, path, spool_name, size_bytes,
        digest, '[]', mtime_ns, mode, error, since_s FROM unsent_1""",
    "DROP TABLE unsent_1",
)
_STEPS: Final = {0: SCHEMA, 1: (*_FROM_1_TO_2, _SMALL_BYTES), 2: (_SMALL_BYTES,)}


def blob_from_text(text: str) -> bytes:
    """Return ``text`` as SQLite can hold it, whatever surrogates the outside put into it."""
    return text.encode("utf-8", "surrogatepass")


def text_from_blob(blob: bytes) -> str:
    """Return what ``blob_from_text`` was given."""
    return blob.decode("utf-8", "surrogatepass")


def refuse_newer(path: Path, version: int) -> None:
    """Raise LocalDiskError if the schema of the database at ``path`` is of a later version."""
    if version > SCHEMA_VERSION:
        raise LocalDiskError(
            f"{path} was written by a newer version of this program "
            f"(schema {version}, this one knows {SCHEMA_VERSION})"
        )


def readable(rows: Iterable[sqlite3.Row], convert: Callable[[sqlite3.Row], RowT]) -> list[RowT]:
    """Return the rows that can be understood; one that cannot must not hide the others."""
    understood: list[RowT] = []
    for row in rows:
        try:
            understood.append(convert(row))
        # IndexError: damage has given a column another name.
        except (LocalDiskError, ValueError, TypeError, AttributeError, IndexError) as error:
            log.error(  # noqa: TRY400  # a damaged disk is no bug of ours
                "a row of the state cannot be read, and stays as it is: %s", error
            )
    return understood


class StateDatabase:
    """Owner of the one connection to the state file.

    Waits only for the local disk. Raises ``LocalDiskError``, and ``LocalDiskFullError`` where
    the disk is full; what a failed transaction had changed is undone.
    """

    def __init__(self, path: Path) -> None:
        """Open the file at ``path``, made with mode 0600 if there is none.

        Raises:
            LocalDiskError: It cannot be opened, is no database, or is of a newer version.
        """
        self._path = path
        _make_private_file(path)
        try:
            # Readers never block a writer here; a second is for a checkpoint by ``ctrfs status``.
            self._connection = sqlite3.connect(path, isolation_level=None, timeout=1.0)
        except sqlite3.Error as error:
            raise error_from_sqlite_error(error, f"open {path}") from error
        self._connection.row_factory = sqlite3.Row
        try:
            self._prepare()
        except BaseException:
            self._connection.close()
            raise

    def execute(self, statement: str, parameters: Sequence[SqlValue] = ()) -> None:
        """Carry out one statement; outside a transaction it commits at once."""
        try:
            self._connection.execute(statement, parameters)
        except sqlite3.Error as error:
            raise error_from_sqlite_error(error, f"write {self._path}") from error
        except UnicodeDecodeError as error:  # of SQLite's complaint, which quotes what is damaged
            raise LocalDiskError(f"cannot write {self._path}: it is damaged") from error

    def rows(self, statement: str, parameters: Sequence[SqlValue] = ()) -> list[sqlite3.Row]:
        """Return all rows that a query gives."""
        try:
            return self._connection.execute(statement, parameters).fetchall()
        except sqlite3.Error as error:
            raise error_from_sqlite_error(error, f"read {self._path}") from error
        except UnicodeDecodeError as error:
            raise LocalDiskError(f"cannot read {self._path}: it is damaged") from error

    @contextmanager
    def transaction(self, *, durable: bool = False) -> Iterator[None]:
        """Make the statements inside one step: all of them, or none if the block raises.

        Inside another block it is part of that one's step.

        Args:
            durable: Return only when the disk confirms; for what a power cut may not take.
        """
        if self._is_in_transaction():
            yield
            return
        if durable:
            self.execute("PRAGMA synchronous = FULL")
        try:
            self.execute("BEGIN IMMEDIATE")
            try:
                yield
                self.execute("COMMIT")
                if durable:
                    reached("database.committed", str(self._path))
            except BaseException:
                # SQLite has already rolled back on some failures, a full disk among them.
                if self._is_in_transaction():
                    self.execute("ROLLBACK")
                raise
        finally:
            if durable:
                self.execute("PRAGMA synchronous = NORMAL")

    def sync(self) -> None:
        """Return when the disk has all that was committed before, durable or not.

        Where ``transaction(durable=True)`` makes one task wait, this lets many share a wait.
        What has left the log is in the database, and was synced there by SQLite.
        """
        try:
            # SQLite has no lock on its log that closing this descriptor could drop.
            fd = os.open(f"{self._path}-wal", os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                os.fdatasync(fd)
            finally:
                os.close(fd)
        except FileNotFoundError:  # no log on this file system: SQLite syncs each commit
            return
        except OSError as error:
            raise error_from_os_error(error, f"sync {self._path}") from error
        reached("database.committed", str(self._path))

    def close(self) -> None:
        """Close the connection; harmless a second time."""
        self._connection.close()

    def _is_in_transaction(self) -> bool:
        return self._connection.in_transaction

    def _prepare(self) -> None:
        self.execute("PRAGMA journal_mode = WAL")
        self.execute("PRAGMA synchronous = NORMAL")
        version: int = self.rows("PRAGMA user_version")[0][0]
        refuse_newer(self._path, version)
        if version < SCHEMA_VERSION:
            with self.transaction(durable=True):
                for statement in _STEPS[version]:
                    self.execute(statement)
                self.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _make_private_file(path: Path) -> None:
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        os.close(os.open(path, flags, 0o600))
    except OSError as error:
        raise error_from_os_error(error, f"open {path}") from error
