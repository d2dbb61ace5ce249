"""Taking over what mounts of the same source have left in other slots.

Two mounts at once live in two slots. When the second has ended, however it did, what it has
left belongs to the next mount that comes, whichever slot that one gets.

Every step may be the last: bytes are linked into our spool first, then our database has the
rows, then the other one loses them, then its links go. Whoever starts again repeats the rest.
"""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from ctrfs.clock import Clock
from ctrfs.disk.database import SqlValue, StateDatabase
from ctrfs.disk.failures import error_from_os_error
from ctrfs.disk.state_dir import StateDirectory
from ctrfs.disk.syncing import sync_directory
from ctrfs.errors import LocalDiskError, MountError
from ctrfs.failpoints import reached

log = logging.getLogger(__name__)

# What moves as it is: where both slots have a row of one key, ours stays. Times and modes of
# stored files stay where they are: nobody misses a file for want of them.
_TABLES: Final = (
    "unsent",
    "pending_delete",
    "folder_move",
    "pending_rmdir",
    "local_folder",
    "local_file",
    "fact",
)
_WITH_BYTES: Final = ("unsent", "local_file")


def take_over_free_slots(state: StateDirectory, *, clock: Clock) -> int:
    """Bring into ``state`` what free slots of the same source hold; return how many rows.

    A slot that cannot be read stays as it is, with a line in the log; so does one that another
    mount holds, without.
    """
    taken = 0
    for path in sorted(state.path.parent.iterdir()):
        if path == state.path or not (path / "state.db").exists():
            continue
        try:
            with StateDirectory.open_slot(path, clock=clock) as other:
                taken += _take_over(state, path, other.database)
        except (LocalDiskError, MountError) as error:
            log.info("what lies in %s stays there: %s", path, error)
    return taken


def _take_over(state: StateDirectory, path: Path, database: StateDatabase) -> int:
    rows = {
        table: [tuple(row) for row in database.rows(f"SELECT * FROM {table}")]  # noqa: S608  # nosec B608  # a constant
        for table in _TABLES
    }
    count = sum(len(rows[table]) for table in _TABLES if table != "fact")
    if count == 0:
        return 0
    names = [
        row["spool_name"]
        for table in _WITH_BYTES
        for row in database.rows(f"SELECT spool_name FROM {table}")  # noqa: S608  # nosec B608  # a constant
    ]
    try:
        linked = [name for name in names if _link(path / "spool", state.spool_path, name)]
        sync_directory(state.spool_path)
    except OSError as error:
        raise error_from_os_error(error, f"take over {path}") from error
    reached("takeover.linked")
    with state.database.transaction(durable=True):
        for table, values in rows.items():
            for row in values:
                _insert(state.database, table, row)
    reached("takeover.recorded")
    with database.transaction(durable=True):
        for table in _TABLES:
            if table != "fact":
                database.execute(f"DELETE FROM {table}")  # noqa: S608  # nosec B608  # a constant
    reached("takeover.released")
    for name in linked:
        with suppress(OSError):
            (path / "spool" / name).unlink()
    log.info("took over %d rows that an earlier mount has left in %s", count, path)
    return count


def _insert(database: StateDatabase, table: str, row: tuple[SqlValue, ...]) -> None:
    if table == "local_file":
        container_id, path, *rest = row
        if database.rows("SELECT 1 FROM local_file WHERE spool_name = ?", (rest[0],)):
            return  # an earlier attempt has got this far
        taken = "SELECT 1 FROM local_file WHERE container_id = ? AND path = ?"
        while isinstance(path, bytes) and database.rows(taken, (container_id, path)):
            path += b"~"  # still a name of this machine only
        row = (container_id, path, *rest)
    marks = ", ".join("?" * len(row))
    database.execute(f"INSERT OR IGNORE INTO {table} VALUES ({marks})", row)  # noqa: S608  # nosec B608  # a constant


def _link(source: Path, target: Path, name: object) -> bool:
    """Give the bytes ``name`` a second place; tell whether they are there."""
    if not isinstance(name, str) or "/" in name or "\0" in name:
        return False
    with suppress(FileExistsError):
        try:
            os.link(source / name, target / name, follow_symlinks=False)
        except FileNotFoundError:
            return False
    return True
