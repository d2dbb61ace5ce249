"""The hidden ``.ctrfs`` directory in the root: what the mount knows about itself, as text.

Looked up by name and never listed, so that no copy or search ever walks into it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import trio

from ctrfs.errors import NoSuchEntryError
from ctrfs.fs.attributes import Attributes, EntryKind
from ctrfs.fs.parts import Parts
from ctrfs.tree.nodes import InodeNumber
from ctrfs.units import NS_PER_S

CONTROL_INODE: Final = InodeNumber(2)
_FIRST_FILE_INODE: Final = 3


class ControlDirectory:
    """A read-only directory of generated files. Not async on purpose: it asks nobody."""

    def __init__(
        self,
        parts: Parts,
        *,
        source: str,
        version: str,
        spool_path: Path,
        progress: Callable[[], str],
    ) -> None:
        """Show ``source`` and ``version`` as they are, and where unsent bytes lie.

        ``progress`` gives the text of the file of that name.
        """
        self._parts = parts
        self._source = source
        self._version = version
        self._spool_path = spool_path
        self._files: Mapping[bytes, Callable[[], str]] = {
            b"errors": self._errors,
            b"pending": self._pending,
            b"progress": progress,
            b"status": self._status,
        }
        self._inodes = {
            name: InodeNumber(_FIRST_FILE_INODE + index)
            for index, name in enumerate(sorted(self._files))
        }

    @property
    def names(self) -> tuple[bytes, ...]:
        """The files in it."""
        return tuple(self._inodes)

    def owns(self, inode: InodeNumber) -> bool:
        """Tell whether ``inode`` is the directory or one of its files."""
        return inode == CONTROL_INODE or inode in self._inodes.values()

    def inode_of(self, name: bytes) -> InodeNumber:
        """Return the inode of a file in it.

        Raises:
            NoSuchEntryError: There is none of that name.
        """
        if name not in self._inodes:
            raise NoSuchEntryError("no such control file")
        return self._inodes[name]

    def attributes(self, inode: InodeNumber) -> Attributes:
        """Return what ``stat`` shows: files have no length, as in /proc."""
        is_directory = inode == CONTROL_INODE
        config = self._parts.config
        now_ns = self._parts.clock.wall_ns()
        return Attributes(
            inode=inode,
            kind=EntryKind.DIRECTORY if is_directory else EntryKind.FILE,
            permissions=0o500 if is_directory else 0o400,
            uid=config.uid,
            gid=config.gid,
            size_bytes=0,
            mtime_ns=now_ns,
            atime_ns=now_ns,
            ctime_ns=now_ns,
            link_count=2 if is_directory else 1,
            entry_timeout_s=60.0,
            attributes_timeout_s=0.0,
        )

    def text(self, inode: InodeNumber) -> bytes:
        """Return the text of a file as it is now."""
        for name, number in self._inodes.items():
            if number == inode:
                return self._files[name]().encode("utf-8", "backslashreplace")
        raise NoSuchEntryError("no such control file")

    def _errors(self) -> str:
        """Return the rows of listings that made no sense, one a line."""
        rows = self._parts.namespace.rejected()
        lines = [f"{len(rows)} rows of the service's listings could not be understood"]
        return "\n".join(lines + [f"{row.reason}: {row.excerpt}" for row in rows]) + "\n"

    def _pending(self) -> str:
        """Return what the service has not been told or given yet, one JSON object a line."""
        rows = [
            {
                "id": row.key,
                "container": row.container_name,
                "container_id": row.container_id,
                "path": row.path.decode("utf-8", "backslashreplace"),
                "bytes": row.size_bytes,
                "since": row.since_s,
                "error": row.error,
                "local": str(self._spool_path / row.spool_name),
            }
            for row in self._parts.journal.rows()
        ]
        deletes = [
            {"container_id": version.container_id, "delete": version.file_id}
            for version in self._parts.journal.deletes()
        ]
        moves = [
            {
                "container_id": move.container_id,
                "rename": move.old_path.decode("utf-8", "backslashreplace"),
                "to": move.new_path.decode("utf-8", "backslashreplace"),
            }
            for move in self._parts.journal.folder_moves()
        ]
        rmdirs = [
            {"container_id": container_id, "rmdir": True}
            for container_id in self._parts.journal.rmdirs()
        ]
        todo: list[object] = [*rows, *deletes, *moves, *rmdirs]
        return "".join(_json(row) + "\n" for row in todo)

    def _status(self) -> str:
        health = self._parts.api.health
        facts = {
            "version": self._version,
            "source": self._source,
            "service": {
                "is_answering": health.is_answering,
                "silent_since": None
                if health.silent_since_ns is None
                else health.silent_since_ns // NS_PER_S,
                "last_error": health.last_error,
                "requests_at_once": health.limit,
                "requests_under_way": health.under_way,
                "requests_waiting": health.waiting,
                "paused_s": round(health.paused_s, 1),
            },
            "tasks": trio.lowlevel.current_statistics().tasks_living,
            "open_handles": len(self._parts.handles),
            "inodes": len(self._parts.tree.inodes),
            "spool_bytes": self._parts.store.bytes_used,
            "unsent_files": len(self._parts.journal),
            "unsent_deletes": len(self._parts.journal.deletes()),
            "unfinished_renames": len(self._parts.journal.folder_moves()),
            "local_only_files": len(self._parts.local.all_files()),
            "rejected_rows": len(self._parts.namespace.rejected()),
        }
        return _json(facts, indent=2) + "\n"


def _json(tree: object, *, indent: int | None = None) -> str:
    """Return JSON that can be read on a terminal: with letters as they are, and no control."""
    text = json.dumps(tree, indent=indent, ensure_ascii=False)
    return "".join(
        letter if letter.isprintable() or letter == "\n" else json.dumps(letter)[1:-1]
        for letter in text
    )
