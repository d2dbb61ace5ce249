"""From samples to tables: medians, spread, the ratio to the best peer, and the goals."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from scripts.bench.tasks import FIGURES

# docs/performance.md: how many times better than the best mode of the peers, by profile: the round
# trip in milliseconds. ``through`` is that of write=through where it differs from that of write=back.
GOALS: Final[Mapping[str, Mapping[str, float]]] = {
    "mount + first ls": {"20": 1.0, "0": 0.5},
    "ls -lR 1000 files": {"20": 4.0, "0": 1.0},
    "grep -r cold": {"20": 10.0, "0": 0.6},
    "first 4 KiB of a big file": {"20": 1.0, "0": 1.0},
    "read 256 MiB cold": {"20": 1.6, "0": 1.2},
    "read 256 MiB again": {"20": 4.0, "0": 5.0},
    "read 256 MiB after a remount": {"20": 4.0, "0": 5.0},
    "random 4 KiB": {"20": 1.2, "0": 1.0},
    "cp -r in, durable": {"20": 3.0, "0": 1.0},
    "write 256 MiB, durable": {"20": 1.5, "0": 1.0},
}
BACK_GOALS: Final[Mapping[str, Mapping[str, float]]] = {
    **GOALS,
    "cp -r in, durable": {"20": 10.0, "0": 1.0},
    "rm -r of 200": {"20": 20.0, "0": 5.0},
}


# The profile in which each call takes as long as on the real service.
REAL: Final = "real"


@dataclass
class Results:
    """All samples of a run: by profile, figure and mode.

    Attributes:
        requests: How many requests the service counted, by profile, task and mode.
        failures: What went wrong, in words.
    """

    samples: dict[tuple[str, str, str], list[float]] = field(default_factory=dict)
    requests: dict[str, dict[str, int]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def add(self, profile: str, figure: str, mode: str, value: float) -> None:
        """Keep one sample."""
        self.samples.setdefault((profile, figure, mode), []).append(value)

    def median(self, profile: str, figure: str, mode: str) -> float | None:
        """Return the median of the samples; None without any."""
        values = self.samples.get((profile, figure, mode))
        return statistics.median(values) if values else None


def ratio(figure: str, ours: float, theirs: float) -> float:
    """Return how many times better ours is; 1 is the same.

    >>> ratio("read 256 MiB cold", 500.0, 250.0)
    2.0
    >>> ratio("sed -i", 500.0, 250.0)
    0.5
    """
    return ours / theirs if FIGURES[figure].is_rate else theirs / ours


def best(figure: str, values: Iterable[float]) -> float:
    """Return the best of some values."""
    return max(values) if FIGURES[figure].is_rate else min(values)


def table(results: Results, modes: Sequence[str], ours: frozenset[str]) -> list[str]:
    """Return one Markdown table a profile."""
    lines: list[str] = []
    for profile in sorted({key[0] for key in results.samples}):
        shown = [m for m in modes if any(k[0] == profile and k[2] == m for k in results.samples)]
        lines += [title(profile), ""]
        heads = ["task", *shown, "ratio", "goal"]
        lines += ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
        lines += [
            _line(results, profile, figure, shown, ours)
            for figure in FIGURES
            if any(key[:2] == (profile, figure) for key in results.samples)
        ]
        lines.append("")
    return lines


def requests_table(results: Results) -> list[str]:
    """Return what the service has counted for each task of ours, as a Markdown table."""
    rows = [
        f"| {key} | {', '.join(f'{count} {name}' for name, count in sorted(counts.items()))} |"
        for key, counts in results.requests.items()
        if counts
    ]
    return ["| task | requests |", "|---|---|", *rows, ""] if rows else []


def _line(
    results: Results, profile: str, figure: str, shown: Sequence[str], ours: frozenset[str]
) -> str:
    cells, peers = [], []
    for mode in shown:
        middle = results.median(profile, figure, mode)
        cells.append("" if middle is None else number(middle))
        if middle is not None and mode not in ours and mode != "curl":
            peers.append(middle)
    ratios, goals = [], []
    for mode in shown:
        middle = results.median(profile, figure, mode)
        if mode not in ours or middle is None or not peers:
            continue
        is_back = mode.endswith("-back")
        goal = (BACK_GOALS if is_back else GOALS).get(figure, {}).get(profile)
        reached = ratio(figure, middle, best(figure, peers))
        ratios.append(f"{reached:.1f}" + (" (back)" if is_back else ""))
        if goal is not None:
            goals.append(f"{goal:g} {'met' if reached >= goal else 'missed'}")
    name = f"{figure}, {FIGURES[figure].unit}"
    return "| " + " | ".join([name, *cells, ", ".join(ratios), ", ".join(goals)]) + " |"


def title(profile: str) -> str:
    """Return the heading of a profile's table."""
    if profile == REAL:
        return "### The times of the real service"
    return f"### {profile} ms round trip"


def number(value: float) -> str:
    """Return a figure with three digits that count.

    >>> number(0.01234), number(12.34), number(1234.5)
    ('0.0123', '12.3', '1234')
    """
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.3g}"
