"""What a state directory keeps for the service, read while a mount may be at work in it.

For ``ctrfs status``, ``umount`` and ``recover``: nothing is written, made or locked, and a
database of an older version is read as it is. ``disk.journal`` is what a mount works with.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import BinaryIO, Final, TypeVar
from urllib.parse import quote

import msgspec

from ctrfs.disk.database import refuse_newer, text_from_blob
from ctrfs.disk.facts import SOURCE_FACT
from ctrfs.disk.failures import error_from_os_error, error_from_sqlite_error
from ctrfs.disk.spool import is_spool_name
from ctrfs.errors import LocalDiskError

T = TypeVar("T")

# A mount holds a transaction for as long as the disk takes to sync.
_BUSY_TIMEOUT_S: Final = 5.0
# The first version of the journal had no versions of what is to be deleted, and no folders.
_VERSIONS_SINCE: Final = 2

_UNSENT: Final = """SELECT key, container_id, container_name, path, spool_name, size_bytes, digest,
    mtime_ns, mode, error, since_s FROM unsent ORDER BY since_s, container_name, path"""
_DELETES: Final = (
    "SELECT container_id, file_id, {} AS stored_path FROM pending_delete ORDER BY 1, 2"
)
_MOVES: Final = "SELECT container_id, old_path, new_path FROM folder_move ORDER BY 1, 3"
_SOURCE_FACT: Final = f"SELECT value FROM fact WHERE name = '{SOURCE_FACT}'"  # noqa: S608  # nosec B608  # a constant
_RMDIRS: Final = "SELECT container_id FROM pending_rmdir ORDER BY 1"
_LOCAL: Final = """SELECT container_id, path, spool_name, size_bytes, mtime_ns, mode
    FROM local_file ORDER BY 1, 2"""


class UnsentFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file whose newest bytes the service has not confirmed."""

    id: str
    """Names it for ``ctrfs recover --discard``: the key of its row."""
    container_id: str
    container_name: str
    path: bytes
    """Slash-joined, relative to the container."""
    spool_path: Path
    size_bytes: int
    digest: str
    """blake2b of the bytes, 32 hex digits; empty while they are being changed."""
    mtime_ns: int
    mode: int | None
    error: str
    """Why the last attempt failed, in words; empty while the first is under way."""
    since_s: int


class PendingDelete(msgspec.Struct, frozen=True, kw_only=True):
    """A file of the service that is to go."""

    container_id: str
    file_id: str
    stored_path: str
    """Empty where an older version has not written it down."""


class FolderMove(msgspec.Struct, frozen=True, kw_only=True):
    """A folder that is being renamed; its paths are slash-joined."""

    container_id: str
    old_path: bytes
    new_path: bytes


class LocalOnlyFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file that is never sent: a backup, a swap file."""

    container_id: str
    path: bytes
    spool_path: Path
    size_bytes: int


class SlotContents(msgspec.Struct, frozen=True, kw_only=True):
    """All that one slot keeps."""

    source: str | None
    """SOURCE as it was mounted; None where an older version has not written it down."""
    unsent: tuple[UnsentFile, ...] = ()
    deletes: tuple[PendingDelete, ...] = ()
    folder_moves: tuple[FolderMove, ...] = ()
    rmdirs: tuple[str, ...] = ()
    """Ids of empty containers that are to go."""
    local_only: tuple[LocalOnlyFile, ...] = ()
    damaged_rows: int = 0
    """Rows that make no sense; what they name stays in the spool."""

    @property
    def waits_for_the_service(self) -> bool:
        """Whether the service has not been given or told everything."""
        return bool(self.unsent or self.deletes or self.folder_moves or self.rmdirs)


def slots_below(base: Path) -> list[Path]:
    """Return all slots below a state directory, of every source, that were ever used."""
    return sorted(path.parent for path in base.glob("*/*/state.db") if path.parent.name.isdecimal())


def read_slot(path: Path) -> SlotContents:
    """Return what the slot at ``path`` keeps now.

    Raises:
        LocalDiskError: There is no such slot, it was written by a newer version, or the
                file is damaged.
    """
    database = path / "state.db"
    with _opened(database) as connection:
        version: int = connection.execute("PRAGMA user_version").fetchone()[0]
        refuse_newer(database, version)
        if version == 0:  # a mount is making it right now
            return SlotContents(source=None)
        return _Reader(connection, path / "spool").contents(has_versions=version >= _VERSIONS_SINCE)


def open_spool_file(path: Path) -> BinaryIO:
    """Open the bytes of a row for reading.

    Raises:
        FileNotFoundError: They are gone: sent meanwhile, if the row is gone too.
        LocalDiskError: They cannot be read, or the row names no file of the spool.
    """
    if not is_spool_name(path.name):
        raise LocalDiskError(f"not the name of a spool file: {path.name!r}")
    try:
        return os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb")
    except FileNotFoundError:
        raise
    except OSError as error:
        raise error_from_os_error(error, f"read {path}") from error


@contextmanager
def _opened(database: Path) -> Iterator[sqlite3.Connection]:
    # A database that nobody has open lacks its log. Read as usual, SQLite would make one, and
    # leave it behind; nothing changes such a file, so that it need not be locked either.
    is_closed = not database.with_name(f"{database.name}-wal").exists()
    mode = "mode=ro&immutable=1" if is_closed else "mode=ro"
    try:
        with closing(
            sqlite3.connect(
                f"file:{quote(os.fsencode(database))}?{mode}",
                uri=True,
                isolation_level=None,
                timeout=_BUSY_TIMEOUT_S,
            )
        ) as connection:
            connection.row_factory = sqlite3.Row
            connection.execute("BEGIN")  # all tables as they were at one moment
            yield connection
    except sqlite3.Error as error:
        raise error_from_sqlite_error(error, f"read {database}") from error
    except UnicodeDecodeError as error:  # of SQLite's complaint, which quotes what is damaged
        raise LocalDiskError(f"cannot read {database}: it is damaged") from error


class _Reader:
    """Turns the rows of one database into what they mean, and counts those that mean nothing."""

    def __init__(self, connection: sqlite3.Connection, spool: Path) -> None:
        self._connection = connection
        self._spool = spool
        self._damaged_rows = 0

    def contents(self, *, has_versions: bool) -> SlotContents:
        """Return everything; ``has_versions`` is False for a database of version 1."""
        sources = self._all(_SOURCE_FACT, lambda row: text_from_blob(row["value"]))
        deletes = _DELETES.format("stored_path" if has_versions else "x''")
        return SlotContents(
            source=sources[0] if sources else None,
            unsent=self._all(_UNSENT, lambda row: _unsent_from(row, self._spool)),
            deletes=self._all(deletes, _delete_from),
            folder_moves=self._all(_MOVES, _move_from) if has_versions else (),
            rmdirs=self._all(_RMDIRS, _container_id) if has_versions else (),
            local_only=self._all(_LOCAL, lambda row: _local_only_from(row, self._spool)),
            damaged_rows=self._damaged_rows,
        )

    def _all(self, statement: str, convert: Callable[[sqlite3.Row], T]) -> tuple[T, ...]:
        found: list[T] = []
        for row in self._connection.execute(statement):
            try:
                found.append(convert(row))
            except (ValueError, TypeError, AttributeError):  # SQLite holds any type in any column
                self._damaged_rows += 1
        return tuple(found)


def _delete_from(row: sqlite3.Row) -> PendingDelete:
    return PendingDelete(
        container_id=_container_id(row),
        file_id=text_from_blob(row["file_id"]),
        stored_path=text_from_blob(row["stored_path"]),
    )


def _move_from(row: sqlite3.Row) -> FolderMove:
    return FolderMove(
        container_id=_container_id(row),
        old_path=_blob(row["old_path"]),
        new_path=_blob(row["new_path"]),
    )


def _container_id(row: sqlite3.Row) -> str:
    return text_from_blob(row["container_id"])


def _local_only_from(row: sqlite3.Row, spool: Path) -> LocalOnlyFile:
    return LocalOnlyFile(
        container_id=_container_id(row),
        path=_blob(row["path"]),
        spool_path=spool / row["spool_name"],
        size_bytes=_number(row["size_bytes"]),
    )


def _blob(value: object) -> bytes:
    if not isinstance(value, bytes):
        raise TypeError("not bytes")
    return value


def _number(value: object) -> int:
    if not isinstance(value, int):
        raise TypeError("not a number")
    return value


def _unsent_from(row: sqlite3.Row, spool: Path) -> UnsentFile:
    return UnsentFile(
        id=text_from_blob(row["key"]),
        container_id=_container_id(row),
        container_name=text_from_blob(row["container_name"]),
        path=_blob(row["path"]),
        spool_path=spool / row["spool_name"],
        size_bytes=_number(row["size_bytes"]),
        digest=str(row["digest"]),
        mtime_ns=int(row["mtime_ns"]),
        mode=None if row["mode"] is None else _number(row["mode"]),
        error=text_from_blob(row["error"]),
        since_s=_number(row["since_s"]),
    )
