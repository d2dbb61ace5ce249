"""Which failures the service is told to make, and when.

A part of the time nothing fails, and a part of each minute one kind of failure strikes about
one request in eight. The last part of a run is quiet, so that what failed can be made good.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from tests.support.service import ServiceControl

# How long one kind strikes, out of how long.
WINDOW_S: Final = 12.0
PERIOD_S: Final = 25.0
# The service's rules count requests; a set of them lasts so many, and is renewed this often.
REQUESTS_PER_RENEWAL: Final = 240
STRIKES_PER_RENEWAL: Final = 30
RENEWAL_S: Final = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of failure."""

    name: str
    action: str
    route: str = "*"
    fields: Mapping[str, object] = field(default_factory=dict)
    strikes_all: bool = False
    """Whether every request fails for as long as it lasts, as in an outage."""


KINDS: Final = (
    Kind(name="500 at one request in eight", action="status", fields={"status": 500}),
    Kind(name="reset before the request was carried out", action="reset"),
    Kind(name="reset after it", action="reset", fields={"when": "after"}),
    Kind(
        name="429 with a time to come back",
        action="status",
        fields={"status": 429, "headers": {"retry-after-ms": "300"}},
    ),
    Kind(name="silence before the answer", action="stall", fields={"when": "after"}),
    Kind(
        name="silence within a download",
        action="stall",
        route="file_content",
        fields={"bytes": 1000},
    ),
    Kind(name="download cut", action="cut", route="file_content", fields={"bytes": 500}),
    Kind(name="503 after it", action="status", fields={"status": 503, "when": "after"}),
    Kind(name="outage: 503 for all", action="status", fields={"status": 503}, strikes_all=True),
    Kind(
        name="wrong length of a download",
        action="wrong-length",
        route="file_content",
        fields={"delta": -3},
    ),
)


def kind_at(elapsed_s: float, *, quiet_from_s: float) -> Kind | None:
    """Return what strikes at a moment of the run, or None in quiet times."""
    period, within_s = divmod(elapsed_s, PERIOD_S)
    if elapsed_s >= quiet_from_s or within_s < PERIOD_S - WINDOW_S:
        return None
    return KINDS[int(period) % len(KINDS)]


class Faults:
    """Keeps the service's fault rules as the moment wants them."""

    def __init__(self, service: ServiceControl, *, seed: int) -> None:
        self._service = service
        self._chance = random.Random(seed)  # noqa: S311  # repeatable on purpose
        self._kind: Kind | None = None
        self._renewed_s = 0.0
        self.met: list[str] = []

    def keep(self, kind: Kind | None, *, now_s: float) -> None:
        """Let ``kind`` strike from now on; called again and again."""
        if kind is self._kind and (kind is None or now_s - self._renewed_s < RENEWAL_S):
            return
        if kind is not self._kind or self._kind is not None:
            self._service.clear_faults()
        if kind is not None:
            self._set(kind)
            if kind.name not in self.met:
                self.met.append(kind.name)
        self._kind, self._renewed_s = kind, now_s

    def _set(self, kind: Kind) -> None:
        if kind.strikes_all:
            self._service.add_fault(kind.route, kind.action, **kind.fields)
            return
        positions = range(1, REQUESTS_PER_RENEWAL + 1)
        for nth in self._chance.sample(positions, STRIKES_PER_RENEWAL):
            self._service.add_fault(kind.route, kind.action, nth=nth, **kind.fields)
