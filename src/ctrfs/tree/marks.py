"""Where the pages of the list of containers begin, for the first listing of the next mount.

Expired containers stay listed for months, so that an account may have many pages of them, and
a page takes more than a second. With these ids the pages are asked for at once.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence

from ctrfs.api.models import Container
from ctrfs.api.paging import marks_among
from ctrfs.disk.facts import ServiceFacts
from ctrfs.errors import LocalDiskError

log = logging.getLogger(__name__)

_MARKS = "container_marks"


class ContainerMarks:
    """The marks, as a fact about the service. Not async on purpose: all of it is atomic."""

    def __init__(self, facts: ServiceFacts) -> None:
        self._facts = facts
        self._marks = _marks_from(facts.get(_MARKS))

    def known(self) -> list[str]:
        """Return what to give ``list_containers`` as ``marks``."""
        return self._marks

    def learn(self, rows: Sequence[Container]) -> None:
        """Take the marks from a listing, oldest first."""
        marks = marks_among([row.id for row in rows])
        if marks == self._marks:
            return
        self._marks = marks
        try:
            self._facts.set(_MARKS, json.dumps(marks))
        except LocalDiskError as error:
            log.warning("where pages of containers begin cannot be kept: %s", error)


def _marks_from(text: str | None) -> list[str]:
    """Read what an earlier mount has kept; they are hints, so what makes no sense is left."""
    try:
        kept: object = json.loads(text or "[]")
    except ValueError:
        return []
    return [mark for mark in kept if isinstance(mark, str)] if isinstance(kept, list) else []
