"""Cursors of listings, and the pages and rows that a badly behaved server adds. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Final

import msgspec

from ctrfs.server import bodies
from ctrfs.server.behaviour import Behaviour
from ctrfs.server.records import FileRecord

# Marks the cursor of an empty page; what follows is the cursor that led there.
_EMPTY_PAGE: Final = "page_"


class Cursor(msgspec.Struct, frozen=True, kw_only=True):
    """Where a page begins: after an object, and perhaps behind an empty page first."""

    after: str | None
    is_empty_page: bool

    def empty_page(self) -> str:
        """Return the JSON of the empty page that leads to the page after ``after``."""
        return bodies.list_body(
            [], first_id=None, has_more=True, last_id=_EMPTY_PAGE + (self.after or "")
        )


def cursor(behaviour: Behaviour, after: str | None) -> Cursor:
    """Return the page that the query's ``after`` stands for."""
    if after is not None and after.startswith(_EMPTY_PAGE):
        return Cursor(after=after.removeprefix(_EMPTY_PAGE) or None, is_empty_page=False)
    return Cursor(after=after, is_empty_page=behaviour.empty_pages)


def page_of_files(
    behaviour: Behaviour, records: Sequence[FileRecord], *, limit: int, rubbish: Sequence[str] = ()
) -> str:
    """Return the JSON of a page of files.

    Args:
        behaviour: Decides how rows look.
        records: One more than ``limit`` if there are more pages.
        limit: How many records the page shows.
        rubbish: Rows that stand for nothing, put behind the first record.
    """
    shown = records[:limit]
    rows = [bodies.file_body(each, hides_size=behaviour.null_bytes) for each in shown]
    return bodies.list_body(
        [*rows[:1], *rubbish, *rows[1:]],
        first_id=shown[0].id if shown else None,
        has_more=len(records) > limit,
        last_id=shown[-1].id if shown else None,
    )


def rubbish_rows(container_id: str) -> list[str]:
    """Return rows as real listings have held them; their ids answer 404.

    Source: the open issues of the official clients; docs/api-notes.md.
    """
    ghost = hashlib.blake2b(container_id.encode("utf-8"), digest_size=15).hexdigest()
    names = ("report.csv", "summary.txt", "chart.png")
    run_together = "/mnt/data/" + "\n/mnt/data/".join(names)
    rows = [
        _row(f"cfile_{ghost}00", container_id, size_bytes=None, path=run_together),
        _row(f"cfile_{ghost}01", container_id, size_bytes=17, path="/mnt/data/ghost.txt"),
        _row(f"cfile_{ghost}02", container_id, size_bytes=None, path=None),
        _row(None, container_id, size_bytes=None, path=None),
    ]
    return [json.dumps(row, indent=2) for row in rows]


def _row(
    file_id: str | None, container_id: str, *, size_bytes: int | None, path: str | None
) -> dict[str, str | int | None]:
    return {
        "id": file_id,
        "object": "container.file",
        "created_at": None if file_id is None else 0,
        "bytes": size_bytes,
        "container_id": container_id,
        "path": path,
        "source": None if path is None else "assistant",
    }
