"""What the service cannot hold about an entry: mtime and permission bits set here."""

from __future__ import annotations

import sqlite3
from typing import Final

import msgspec

from ctrfs.disk.database import StateDatabase, blob_from_text, readable, text_from_blob

# A row takes some 100 bytes: 20 MB in all. Files deleted elsewhere leave rows behind that no
# one takes away, so without a cap the table would grow for ever.
ROWS_MAX: Final = 200_000

# Counting the rows walks the index (milliseconds at the cap), so not at each put.
TRIM_EVERY: Final = 1024


class OverlayRow(msgspec.Struct, frozen=True, kw_only=True):
    """What was set here; None where nothing was."""

    mtime_ns: int | None = None
    mode: int | None = None


class Overlay:
    """The rows of one state directory, by container and key.

    A key is a file id, or for a folder ``/`` and its path as text. Not async on purpose: the
    disk is not waited for (``disk.database``).

    Invariant: at most ``rows_max`` + ``TRIM_EVERY`` rows; those put longest ago go first.
    """

    def __init__(self, database: StateDatabase, *, rows_max: int = ROWS_MAX) -> None:
        self._database = database
        self._rows_max = rows_max
        self._trim_every = min(TRIM_EVERY, rows_max)
        self._puts = 0
        self._trim()

    def load(self, container_id: str) -> dict[str, OverlayRow]:
        """Return all rows of a container by key."""
        rows = self._database.rows(
            "SELECT key, mtime_ns, mode FROM overlay WHERE container_id = ?",
            (blob_from_text(container_id),),
        )
        return dict(readable(rows, lambda row: (text_from_blob(row["key"]), _row_from(row))))

    def get(self, container_id: str, key: str) -> OverlayRow | None:
        """Return the row of one key."""
        rows = self._database.rows(
            "SELECT key, mtime_ns, mode FROM overlay WHERE container_id = ? AND key = ?",
            (blob_from_text(container_id), blob_from_text(key)),
        )
        return next(iter(readable(rows, _row_from)), None)

    def put(self, container_id: str, key: str, row: OverlayRow) -> None:
        """Set the row of a key, whole."""
        self._database.execute(
            "INSERT OR REPLACE INTO overlay (container_id, key, mtime_ns, mode)"
            " VALUES (?, ?, ?, ?)",
            (
                blob_from_text(container_id),
                blob_from_text(key),
                None if row.mtime_ns is None else str(row.mtime_ns),
                row.mode,
            ),
        )
        self._puts += 1
        if self._puts % self._trim_every == 0:
            self._trim()

    def drop(self, container_id: str, key: str) -> None:
        """Forget the row of a key, if there is one."""
        self._database.execute(
            "DELETE FROM overlay WHERE container_id = ? AND key = ?",
            (blob_from_text(container_id), blob_from_text(key)),
        )

    def move(self, container_id: str, old_key: str, new_key: str) -> None:
        """Give the row of ``old_key`` to ``new_key``; without one, ``new_key`` has none after."""
        if old_key == new_key:
            return
        with self._database.transaction():
            self.drop(container_id, new_key)
            self._database.execute(
                "UPDATE overlay SET key = ? WHERE container_id = ? AND key = ?",
                (blob_from_text(new_key), blob_from_text(container_id), blob_from_text(old_key)),
            )

    def drop_container(self, container_id: str) -> None:
        """Forget all rows of a container."""
        self._database.execute(
            "DELETE FROM overlay WHERE container_id = ?", (blob_from_text(container_id),)
        )

    def _trim(self) -> None:
        self._database.execute(
            "DELETE FROM overlay WHERE sequence <= (SELECT sequence FROM overlay"
            " ORDER BY sequence DESC LIMIT 1 OFFSET ?)",
            (self._rows_max,),
        )


def _row_from(row: sqlite3.Row) -> OverlayRow:
    return OverlayRow(
        mtime_ns=None if row["mtime_ns"] is None else int(row["mtime_ns"]), mode=row["mode"]
    )
