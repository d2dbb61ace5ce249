"""What one mount of a service should show: plain dictionaries, and promises 3 and 7 to 12a.

The rows are those that the service really has; who they belong to, what the mount shows of them
and which may go is worked out here, by rules written a second time. Names of files and of
folders are never the same here, so a folder never stands where a file wants to be.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from tests.support.service import ServiceControl

DATA: Final = "/mnt/data/"
PREFIX_CHARACTERS: Final = 33
ID_START_CHARACTERS: Final = 13


@dataclass(frozen=True, slots=True)
class Row:
    """A file of the service."""

    id: str
    path: str
    source: str
    content: bytes

    @property
    def full(self) -> str:
        """Where it shows if another has its name."""
        return self.path.removeprefix(DATA)

    @property
    def wish(self) -> str:
        """Where it would like to show."""
        folder, slash, name = self.full.rpartition("/")
        return folder + slash + (name[PREFIX_CHARACTERS:] if self.source == "user" else name)


@dataclass(eq=False, slots=True)
class ModelFile:
    """A file of the mount, by whatever name, as long as anybody can reach it."""

    content: bytes
    row: Row | None = None
    is_dirty: bool = False
    is_local: bool = False
    is_removed: bool = False
    shown_at: str | None = None
    """Where ``row`` shows by itself; elsewhere means renamed here and not yet sent."""
    replaces: tuple[str, ...] = ()

    @property
    def is_ours(self) -> bool:
        """Whether no listing may take its name away."""
        return self.is_dirty or self.is_local

    def is_stored_at(self, path: str) -> bool:
        """Tell whether the service has exactly this under exactly that name."""
        return (
            self.row is not None
            and self.row.source == "user"
            and self.row.content == self.content
            and self.shown_at == path
            and not self.replaces
        )


@dataclass(slots=True)
class ModelContainer:
    """One container: what the service has, and what the mount shows."""

    id: str
    name: str
    rows: dict[str, Row] = field(default_factory=dict)
    """Oldest first."""
    view: dict[str, ModelFile] = field(default_factory=dict)
    kept: set[str] = field(default_factory=set)
    """Folders that stay without files."""
    hidden: set[str] = field(default_factory=set)
    """Ids that the user has overwritten by a rename, and that go when the file is sent."""
    seen_folders: set[str] = field(default_factory=set)

    def folders(self) -> set[str]:
        """Return the folders that the mount shows."""
        return {above for path in self.view for above in folders_above(path)} | {
            folder for kept in self.kept for folder in [*folders_above(kept), kept]
        }

    def refresh(self, opened: Iterable[ModelFile]) -> None:
        """Show what the service has now; files that are held keep being the same."""
        by_id = {
            file.row.id: file for file in [*opened, *self.view.values()] if file.row is not None
        }
        ours = {path: file for path, file in self.view.items() if file.is_ours}
        claimed = {file.row.id for file in ours.values() if file.row is not None}
        rows = [row for row in self.rows.values() if row.id not in claimed | self.hidden]
        self.view = dict(ours)
        for path, row in shown(rows, taken=set(ours)).items():
            file = by_id.get(row.id)
            if file is None or file.is_removed:
                file = ModelFile(row.content, row)
            file.shown_at = path
            self.view[path] = file


def shown(rows: Iterable[Row], *, taken: set[str]) -> dict[str, Row]:
    """Return where rows show, by promise 3."""
    places: dict[str, Row] = {}
    losers: list[Row] = []
    newest_first = list(rows)[::-1]
    for row in newest_first:
        if row.wish in taken:
            losers.append(row)
        else:
            places[row.wish] = row
            taken.add(row.wish)
    for row in losers:
        winner = places.get(row.wish)
        names = [f"{row.wish}~{row.id[:ID_START_CHARACTERS]}", f"{row.wish}~{row.id}"]
        if row.full != row.wish and (winner is None or winner.path != row.path):
            names.insert(0, row.full)
        free = next(name for name in names if name not in taken)
        taken.add(free)
        places[free] = row
    return places


def folders_above(path: str) -> list[str]:
    """Return the folders that lead to ``path``, outermost first."""
    parts = path.split("/")[:-1]
    return ["/".join(parts[:depth]) for depth in range(1, len(parts) + 1)]


def stored_name(path: str, content: bytes) -> str:
    """Return what the service calls an upload for ``path``."""
    folder, slash, name = path.rpartition("/")
    digest = hashlib.blake2b(content, digest_size=16).hexdigest()
    return f"{DATA}{folder}{slash}{digest}-{name}"


def rows_of(service: ServiceControl, container_id: str) -> dict[str, Row]:
    """Return what the service has now, oldest first."""
    return {
        str(row["id"]): Row(
            str(row["id"]),
            str(row["path"]),
            str(row["source"]),
            service.content(container_id, str(row["id"])),
        )
        for row in reversed(service.files(container_id))
    }
