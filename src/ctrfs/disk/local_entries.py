"""Folders and files that live on this machine only, until they are renamed or sent."""

from __future__ import annotations

import sqlite3

import msgspec

from ctrfs.disk.database import StateDatabase, blob_from_text, readable, text_from_blob


class LocalFileRow(msgspec.Struct, frozen=True, kw_only=True):
    """A file whose bytes are in the spool and nowhere else."""

    container_id: str
    path: bytes
    """Slash-joined, relative to the container."""
    spool_name: str
    size_bytes: int
    mtime_ns: int
    mode: int | None


class LocalEntries:
    """The local folders and files of one state directory.

    Not async on purpose: the disk is not waited for (``disk.database``). Paths are bytes,
    slash-joined, relative to the container.
    """

    def __init__(self, database: StateDatabase) -> None:
        self._database = database

    def folders(self, container_id: str) -> list[bytes]:
        """Return the paths of all local folders of a container, parents before children."""
        rows = self._database.rows(
            "SELECT path FROM local_folder WHERE container_id = ? ORDER BY path",
            (blob_from_text(container_id),),
        )
        return [row["path"] for row in rows]

    def add_folder(self, container_id: str, path: bytes) -> None:
        """Remember a folder; harmless if it is there."""
        self._database.execute(
            "INSERT OR REPLACE INTO local_folder (container_id, path) VALUES (?, ?)",
            (blob_from_text(container_id), path),
        )

    def remove_folder(self, container_id: str, path: bytes) -> None:
        """Forget one folder, nothing below it; harmless if it is not there."""
        self._database.execute(
            "DELETE FROM local_folder WHERE container_id = ? AND path = ?",
            (blob_from_text(container_id), path),
        )

    def rename_folder(self, container_id: str, old: bytes, new: bytes) -> None:
        """Move the folder ``old`` and every local folder and file below it to ``new``."""
        with self._database.transaction():
            for path in self.folders(container_id):
                moved = moved_path(path, old, new)
                if moved is not None:
                    self.remove_folder(container_id, path)
                    self.add_folder(container_id, moved)
            for row in self.files(container_id):
                moved = moved_path(row.path, old, new)
                if moved is not None:
                    self._database.execute(
                        "UPDATE OR REPLACE local_file SET path = ?"
                        " WHERE container_id = ? AND path = ?",
                        (moved, blob_from_text(container_id), row.path),
                    )

    def files(self, container_id: str) -> list[LocalFileRow]:
        """Return the local files of a container, by path."""
        rows = self._database.rows(
            "SELECT * FROM local_file WHERE container_id = ? ORDER BY path",
            (blob_from_text(container_id),),
        )
        return readable(rows, _file_from_row)

    def file(self, container_id: str, path: bytes) -> LocalFileRow | None:
        """Return the local file at ``path``."""
        rows = self._database.rows(
            "SELECT * FROM local_file WHERE container_id = ? AND path = ?",
            (blob_from_text(container_id), path),
        )
        return next(iter(readable(rows, _file_from_row)), None)

    def all_files(self) -> list[LocalFileRow]:
        """Return the local files of all containers."""
        rows = self._database.rows("SELECT * FROM local_file ORDER BY container_id, path")
        return readable(rows, _file_from_row)

    def spool_names(self) -> set[str]:
        """Return where bytes lie that must be kept, those of rows too that cannot be read."""
        rows = self._database.rows("SELECT spool_name FROM local_file")
        return {name for row in rows if isinstance(name := row["spool_name"], str)}

    def put_file(self, row: LocalFileRow) -> None:
        """Remember a file, instead of what was remembered under its path."""
        self._database.execute(
            "INSERT OR REPLACE INTO local_file"
            " (container_id, path, spool_name, size_bytes, mtime_ns, mode)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (
                blob_from_text(row.container_id),
                row.path,
                row.spool_name,
                row.size_bytes,
                str(row.mtime_ns),
                row.mode,
            ),
        )

    def remove_file(self, container_id: str, path: bytes) -> None:
        """Forget a file; its spool file is the caller's business."""
        self._database.execute(
            "DELETE FROM local_file WHERE container_id = ? AND path = ?",
            (blob_from_text(container_id), path),
        )

    def drop_container(self, container_id: str) -> None:
        """Forget all folders and files of a container; spool files are the caller's business."""
        with self._database.transaction():
            for statement in (
                "DELETE FROM local_folder WHERE container_id = ?",
                "DELETE FROM local_file WHERE container_id = ?",
            ):
                self._database.execute(statement, (blob_from_text(container_id),))


def moved_path(path: bytes, old: bytes, new: bytes) -> bytes | None:
    """Return where ``path`` lies once ``old`` is called ``new``; None if it is not below it."""
    if path == old:
        return new
    return new + path[len(old) :] if path.startswith(old + b"/") else None


def _file_from_row(row: sqlite3.Row) -> LocalFileRow:
    if not (isinstance(row["path"], bytes) and isinstance(row["spool_name"], str)):
        raise TypeError("a local file without path or bytes")
    return LocalFileRow(
        container_id=text_from_blob(row["container_id"]),
        path=row["path"],
        spool_name=row["spool_name"],
        size_bytes=row["size_bytes"],
        mtime_ns=int(row["mtime_ns"]),
        mode=row["mode"],
    )
