"""The bounds, and the table and the JSON that say how a run went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Final

from scripts.soak.load import Report
from scripts.soak.samples import Bound, Sample, Trend, per_minute

# What may be left of a warm-up: caches fill, the allocator keeps pages. A figure whose trend,
# drawn over the whole measured time, exceeds this is not flat.
BOUNDS: Final = (
    Bound(figure="rss_mib", growth_max=12, share_max=0.05),
    Bound(figure="descriptors", growth_max=12),
    Bound(figure="threads", growth_max=8),
    Bound(figure="tasks", growth_max=16),
    Bound(figure="inodes", growth_max=40, share_max=0.1),
    Bound(figure="open_handles", growth_max=8),
    Bound(figure="spool_mib", growth_max=24, share_max=0.1),
    Bound(figure="unsent_files", growth_max=6),
    Bound(figure="unsent_deletes", growth_max=6),
)
# With write=back what was closed or removed waits for a second or more, some dozens of them at
# any time; the medians of the minutes lie far apart, and only their growing would tell something.
# Deletions lie between 44 and 129 and deviate by 19 to 26 without a trend: one drawn over ten
# minutes of that grows by 28 by chance, and by 41 in one run of twelve. Three times 28 is none.
# What stays for good is found at rest, where none may be left.
_GROWTH_LATER: Final[Mapping[str, float]] = {"unsent_files": 40, "unsent_deletes": 84}
BOUNDS_LATER: Final = tuple(
    replace(bound, growth_max=_GROWTH_LATER.get(bound.figure, bound.growth_max)) for bound in BOUNDS
)
# How far above the value before the load each may stay when the load has ended. Sixteen
# connections to the service may be kept open, and as many idle threads.
AT_REST: Final[Mapping[str, float]] = {
    "open_handles": 0,
    "unsent_files": 0,
    "unsent_deletes": 0,
    "tasks": 8,
    "descriptors": 24,
}
SHOWN: Final = tuple(bound.figure for bound in BOUNDS)


@dataclass(slots=True, kw_only=True)
class Outcome:
    """All that a run showed."""

    minutes: float
    before: Sample
    samples: list[Sample] = field(default_factory=list)
    warm_up_s: float = 0.0
    after: Sample | None = None
    reports: list[Report] = field(default_factory=list)
    trends: list[Trend] = field(default_factory=list)
    faults_met: list[str] = field(default_factory=list)
    requests: dict[str, int] = field(default_factory=dict)
    unmount_s: float = 0.0
    complaints: list[str] = field(default_factory=list)


def complaints_of_rest(before: Sample, after: Sample) -> list[str]:
    """Return what has not come back to where it was before the load."""
    return [
        f"at rest: {figure} is {after.figures[figure]:g}, was {before.figures[figure]:g}"
        f" before the load (at most {more:g} more)"
        for figure, more in AT_REST.items()
        if after.figures[figure] > before.figures[figure] + more
    ]


def complaints_of_trends(trends: Sequence[Trend]) -> list[str]:
    """Return which figures are not flat."""
    return [
        f"not flat: {each.figure} grows by {each.growth:.1f} in the measured time"
        f" (at most {each.limit:.1f})"
        for each in trends
        if not each.is_flat
    ]


def as_json(outcome: Outcome) -> dict[str, object]:
    """Return the outcome as it goes to the JSON file; ledgers stay behind."""
    return {
        "minutes": outcome.minutes,
        "warm_up_s": outcome.warm_up_s,
        "passed": not outcome.complaints,
        "complaints": outcome.complaints,
        "trends": [asdict(each) | {"is_flat": each.is_flat} for each in outcome.trends],
        "before": asdict(outcome.before),
        "after": asdict(outcome.after) if outcome.after else None,
        "samples": [asdict(each) for each in outcome.samples],
        "faults": outcome.faults_met,
        "requests": outcome.requests,
        "unmount_s": outcome.unmount_s,
        "load": [
            {"kind": each.kind, "done": each.done, "failed": each.failed, "wrong": each.wrong}
            for each in outcome.reports
        ],
    }


def table(outcome: Outcome) -> str:
    """Return the outcome for a person to read."""
    rows = [["minute", *SHOWN], _row("before", outcome.before)]
    rows += [_row(f"{each.elapsed_s / 60:g}", each) for each in per_minute(outcome.samples)]
    if outcome.after:
        rows.append(_row("at rest", outcome.after))
    rows.append(["growth", *(f"{each.growth:+.1f}" for each in outcome.trends)])
    rows.append(["allowed", *(f"{each.limit:.1f}" for each in outcome.trends)])
    load = [["load", "succeeded", "failed", "slowest round", "wrong"]]
    load += [_load_row(report) for report in outcome.reports]
    last = [
        f"{sum(outcome.requests.values())} requests; unmounted in {outcome.unmount_s:.1f} s",
        f"failures made: {', '.join(outcome.faults_met) or 'none'}",
        *outcome.complaints,
        "FAILED" if outcome.complaints else "passed",
    ]
    return "\n".join([_aligned(rows), "", _aligned(load), "", *last])


def _row(name: str, sample: Sample) -> list[str]:
    return [name, *(f"{sample.figures[figure]:.4g}" for figure in SHOWN)]


def _load_row(report: Report) -> list[str]:
    done = dict(report.done)
    slowest = done.pop("longest round, s", 0)
    done.pop("rounds", 0)
    failed = sum(report.failed.values())
    return [
        report.kind,
        str(sum(done.values())),
        str(failed),
        f"{slowest} s",
        str(len(report.wrong)),
    ]


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = (
        [max(len(row[column]) for row in rows) for column in range(len(rows[0]))] if rows else []
    )
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=False))
        for row in rows
    )
