"""What the service really has, and has had: every row that was ever there, and when.

Looked up behind the service's back: no request, no fault, and no container kept alive by it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

from tests.model.reference import DATA, Row
from tests.support.service import InProcessService

from ctrfs.server.records import RUNNING


@dataclass(slots=True, eq=False)
class Life:
    """One row from its first to its last day; times are those of the looks around each."""

    row: Row
    container_id: str
    is_ours: bool
    """Stored by a mount, not by the client."""
    born_s: tuple[float, float]
    died_s: tuple[float, float] | None = None
    is_uncertain: bool = False
    """Stored while requests failed: whoever stored it may not have been told."""
    acknowledged_by: set[int] = field(default_factory=set)
    """Mounts where a close, an fsync or a rename has said that these bytes are safe."""

    @property
    def inner(self) -> str:
        """Where in its container it would like to show."""
        return self.row.wish

    def was_possible(self, from_s: float, to_s: float) -> bool:
        """Tell whether it may have been there at some moment of a time."""
        return self.born_s[0] <= to_s and (self.died_s is None or self.died_s[1] >= from_s)

    def was_certain(self, from_s: float, to_s: float) -> bool:
        """Tell whether it surely was there all the time."""
        return self.born_s[1] <= from_s and (self.died_s is None or self.died_s[0] >= to_s)


class Records(Protocol):
    """What a service has, read without asking it."""

    def containers(self) -> dict[str, str]:
        """Return the names of the containers that are alive, by id, oldest first."""

    def rows(self, container_id: str) -> list[Row]:
        """Return the files of a container, oldest first."""


class InProcessRecords:
    """Reads the state of a service in this process."""

    def __init__(self, service: InProcessService) -> None:
        self._service = service.service

    def containers(self) -> dict[str, str]:
        """See ``Records``."""
        now_ns = self._service.clock.wall_ns()
        return {
            each.id: each.name
            for each in self._service.state.containers()
            if each.status == RUNNING and not each.is_due(now_ns)
        }

    def rows(self, container_id: str) -> list[Row]:
        """See ``Records``."""
        state = self._service.state
        page = state.page_of_files(
            container_id,
            after=None,
            limit=10_000,
            newest_first=False,
            now_ns=self._service.clock.wall_ns(),
        )
        return [
            Row(each.id, each.path, each.source, state.blobs.path(each.blob).read_bytes())
            for each in page or ()
        ]


@dataclass(slots=True)
class Changes:
    """What a look has found to be different."""

    born: list[Life] = field(default_factory=list)
    died: list[Life] = field(default_factory=list)


class Truth:
    """All rows that ever were.

    Invariant: ``lives`` has the rows in the order in which the service shows them, oldest first.
    """

    def __init__(self, records: Records) -> None:
        self._records = records
        self._looked_s = 0.0
        self.lives: dict[str, Life] = {}
        self.containers: dict[str, str] = {}
        """Those alive: id to name."""

    def look(self, now_s: float, *, is_by_mounts: bool) -> Changes:
        """Take in what has changed since the last look."""
        changes = Changes()
        span = (self._looked_s, now_s)
        self.containers = self._records.containers()
        present: set[str] = set()
        for container_id in self.containers:
            for row in self._records.rows(container_id):
                present.add(row.id)
                known = self.lives.get(row.id)
                if known is None:
                    life = Life(row, container_id, is_by_mounts, span)
                    self.lives[row.id] = life
                    changes.born.append(life)
                else:
                    assert known.row == row, "the service has changed a row"
        for life in self.lives.values():
            if life.died_s is None and life.row.id not in present:
                life.died_s = span
                changes.died.append(life)
        self._looked_s = now_s
        return changes

    def is_alive(self, container_id: str) -> bool:
        """Tell whether a container can still be used."""
        return container_id in self.containers

    def id_of(self, name: str) -> str | None:
        """Return the id of the container of that name; there is never more than one."""
        found = [each for each, of in self.containers.items() if of == name]
        assert len(found) <= 1
        return found[0] if found else None

    def now(self, container_id: str) -> list[Life]:
        """Return the rows of a container, oldest first."""
        return [
            life
            for life in self.lives.values()
            if life.container_id == container_id and life.died_s is None
        ]

    def stored_at(self, container_id: str, path: str, content: bytes) -> list[Life]:
        """Return all rows that were ever stored at a path with these bytes."""
        return [
            life
            for life in self.lives.values()
            if life.container_id == container_id
            and life.row.path == path
            and life.row.content == content
        ]


def rows(lives: Iterable[Life]) -> list[Row]:
    """Return the rows themselves."""
    return [life.row for life in lives]


def data_path(inner: str) -> str:
    """Return where a planted file of that path lies."""
    return DATA + inner
