"""What this mount did to a listing, for as long as the service's answers may lag behind it.

Rows that we created stay although an answer lacks them, or has an older version under their id,
and rows that we deleted stay away although an answer still has them, until an answer that was
asked for later settles it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final, Generic, TypeVar

import msgspec

from ctrfs.api.models import Container, ContainerFile

Row = TypeVar("Row", Container, ContainerFile)

# A deleted row has been seen listed for minutes. So long after the service has confirmed a
# deletion we believe its listings again: the deletion may have been the no-op once seen.
REMOVED_KEPT_S: Final = 300.0


class _Added(msgspec.Struct, Generic[Row], frozen=True):
    row: Row
    at_s: float


class _Removed(msgspec.Struct, Generic[Row], frozen=True):
    at_s: float
    deleted_s: float | None
    """When the service confirmed; None while it has not, and then the row stays hidden."""
    added: _Added[Row] | None
    """That the row was ours and not yet listed, for when the service refuses."""
    row: Row | None
    """The version that is to go, where it is known: an id may be born again with another."""


class OwnWrites(Generic[Row]):
    """Rows added and removed here, folded into each listing.

    Invariant: no id is both added and removed. Not async on purpose: all of it is atomic.
    """

    def __init__(self) -> None:
        self._added: dict[str, _Added[Row]] = {}
        self._removed: dict[str, _Removed[Row]] = {}

    def add(self, row: Row, *, now_s: float) -> None:
        """Remember a row that the service has confirmed to us; its id may be an old one reborn."""
        self._removed.pop(row.id, None)
        self._added[row.id] = _Added(row, now_s)

    def remove(self, row_id: str, *, row: Row | None = None, now_s: float) -> None:
        """Hide a row that we are going to delete, until the deletion is confirmed or refused."""
        if row_id not in self._removed:
            added = self._added.pop(row_id, None)
            known = row if added is None else added.row
            self._removed[row_id] = _Removed(now_s, None, added, known)

    def confirm_removed(self, row_id: str, *, now_s: float) -> None:
        """Say that the service has deleted a hidden row; its listings may still have it."""
        removed = self._removed.get(row_id)
        if removed is not None:
            self._removed[row_id] = _Removed(removed.at_s, now_s, None, removed.row)

    def unremove(self, row_id: str) -> None:
        """Show a row again: the service refused to delete it."""
        removed = self._removed.pop(row_id, None)
        if removed is not None and removed.added is not None:
            self._added[row_id] = removed.added

    def is_removed(self, row_id: str) -> bool:
        """Tell whether a row is hidden."""
        return row_id in self._removed

    def doubtful(self, rows: Sequence[Row], *, started_s: float) -> list[Row]:
        """Return rows of ours that an answer asked for after their creation lacks."""
        listed = {row.id for row in rows}
        return [
            added.row
            for row_id, added in self._added.items()
            if row_id not in listed and added.at_s < started_s
        ]

    def fold(
        self, rows: Sequence[Row], *, started_s: float, now_s: float, gone: Collection[str]
    ) -> list[Row]:
        """Return ``rows`` as they are once our own writes count, ours last.

        Args:
            rows: The service's answer, oldest first.
            started_s: When it was asked for.
            now_s: The present.
            gone: Ids of ours that the service, asked for each, does not know any more.
        """
        listed = {row.id for row in rows}
        # Some servers keep an id over an overwrite. What an answer says of one that we have stored
        # since it was asked for is about the version before.
        newer = {row_id for row_id, added in self._added.items() if added.at_s >= started_s}
        for row_id in self._added.keys() - newer:
            if row_id in listed or row_id in gone:
                del self._added[row_id]
        for row_id, removed in list(self._removed.items()):
            if removed.deleted_s is None:
                continue
            settled = removed.deleted_s < started_s and row_id not in listed
            if settled or now_s - removed.deleted_s > REMOVED_KEPT_S:
                del self._removed[row_id]
        for row in rows:
            removed_here = self._removed.get(row.id)
            if removed_here is not None and _is_reborn(removed_here.row, row):
                del self._removed[row.id]
        shown = [row for row in rows if row.id not in self._removed and row.id not in newer]
        return shown + [added.row for added in self._added.values()]


def _is_reborn(removed: Row | None, listed: Row) -> bool:
    """Tell whether an id that is to go has come to stand for something newer."""
    return removed is not None and removed.created_at_s != listed.created_at_s
