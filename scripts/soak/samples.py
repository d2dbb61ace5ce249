"""What the daemon uses, measured from outside and told by itself in ``.ctrfs/status``."""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Final

from tests.support.mounting import Mount, exit_code_of

STATUS_DEADLINE_S: Final = 20.0
MIB: Final = 1 << 20


class NoAnswerError(Exception):
    """The mount did not tell its status in time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """The figures of one moment."""

    elapsed_s: float
    figures: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """How much a figure may grow in the measured time: a number, and a share of its median."""

    figure: str
    growth_max: float
    share_max: float = 0.0

    def limit(self, values: Sequence[float]) -> float:
        """Return the growth allowed for a figure of these values."""
        return self.growth_max + self.share_max * statistics.median(values)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trend:
    """How a figure went after the warm-up."""

    figure: str
    median: float
    most: float
    growth: float
    limit: float

    @property
    def is_flat(self) -> bool:
        """Whether it grew no more than allowed; shrinking is fine."""
        return self.growth <= self.limit


def sample(mount: Mount, *, elapsed_s: float) -> Sample:
    """Return the daemon's figures now.

    Raises:
        NoAnswerError: ``.ctrfs/status`` could not be read in time.
        OSError: The daemon is gone.
    """
    process = Path(f"/proc/{mount.pid}")
    fields = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
    own: dict[str, float] = {
        "rss_mib": int(fields["VmRSS"].split()[0]) / 1024,
        "descriptors": sum(1 for _ in (process / "fd").iterdir()),
        "threads": int(fields["Threads"]),
    }
    told = _status(mount.point)
    return Sample(elapsed_s=elapsed_s, figures=own | told)


def _status(point: Path) -> dict[str, float]:
    # By another process: this one must not wait for a mount that hangs.
    with tempfile.TemporaryFile() as output:
        code = exit_code_of(
            "cat", point / ".ctrfs/status", timeout_s=STATUS_DEADLINE_S, output=output
        )
        output.seek(0)
        text = output.read()
    if code != 0:
        raise NoAnswerError(f"reading .ctrfs/status ended with {code}")
    facts: dict[str, object] = json.loads(text)
    numbers = {name: float(value) for name, value in facts.items() if isinstance(value, int)}
    numbers["spool_mib"] = numbers.pop("spool_bytes") / MIB
    return numbers


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Return the median of the slopes between all pairs of points (Theil and Sen).

    A few outliers, as a big file that just lay in the spool, do not move it.
    """
    slopes = [(y2 - y1) / (x2 - x1) for (x1, y1), (x2, y2) in combinations(points, 2) if x2 > x1]
    return statistics.median(slopes) if slopes else 0.0


def trend(samples: Sequence[Sample], bound: Bound) -> Trend:
    """Return how a figure went over ``samples``, which are those after the warm-up."""
    points = [(each.elapsed_s, each.figures[bound.figure]) for each in samples]
    values = [value for _, value in points]
    return Trend(
        figure=bound.figure,
        median=statistics.median(values),
        most=max(values),
        growth=slope(points) * (points[-1][0] - points[0][0]),
        limit=bound.limit(values),
    )


def per_minute(samples: Sequence[Sample]) -> list[Sample]:
    """Return the median of each minute's figures."""
    minutes: dict[int, list[Sample]] = {}
    for each in samples:
        minutes.setdefault(int(each.elapsed_s // 60), []).append(each)
    return [
        Sample(
            elapsed_s=60.0 * (minute + 1),
            figures={
                name: statistics.median(each.figures[name] for each in group)
                for name in group[0].figures
            },
        )
        for minute, group in sorted(minutes.items())
    ]
