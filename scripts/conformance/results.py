"""What a suite's cases came to, and the table of them."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


class Outcome(enum.Enum):
    """How one case ended."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One thing that was tried.

    Attributes:
        name: What.
        outcome: How it ended.
        detail: Why it failed or was skipped.
    """

    name: str
    outcome: Outcome
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteResult:
    """What a suite showed.

    Attributes:
        name: The suite.
        cases: In the order in which they ran.
        pinned: How many must pass; None where no count is pinned for this way of writing.
        requests: How many the service got, by operation.
        seconds: How long all took.
    """

    name: str
    cases: Sequence[Case]
    pinned: int | None
    requests: Mapping[str, int] = field(default_factory=dict)
    seconds: float = 0.0

    def count(self, outcome: Outcome) -> int:
        """Return how many cases ended so."""
        return sum(case.outcome is outcome for case in self.cases)

    @property
    def complaint(self) -> str | None:
        """Why the suite is not what it was pinned to be, in a sentence; None if it is."""
        passed, failed = self.count(Outcome.PASSED), self.count(Outcome.FAILED)
        if failed:
            return f"{self.name}: {failed} failed"
        if self.pinned is not None and passed < self.pinned:
            return f"{self.name}: {passed} passed, of which there must be {self.pinned}"
        if self.pinned is not None and passed > self.pinned:
            return f"{self.name}: {passed} passed; raise the pinned count of {self.pinned}"
        return None


def passed(name: str) -> Case:
    """Return a case that ended as it should."""
    return Case(name=name, outcome=Outcome.PASSED)


def failed(name: str, detail: str) -> Case:
    """Return a case that did not."""
    return Case(name=name, outcome=Outcome.FAILED, detail=detail)


def skipped(name: str, reason: str) -> Case:
    """Return a case that was not tried, or that said itself that it cannot be."""
    return Case(name=name, outcome=Outcome.SKIPPED, detail=reason)


def table(results: Sequence[SuiteResult]) -> str:
    """Return all results for a person to read: counts, then skips, then failures."""
    rows = [["suite", "passed", "pinned", "failed", "skipped", "requests", "seconds"]]
    rows += [
        [
            each.name,
            str(each.count(Outcome.PASSED)),
            "-" if each.pinned is None else str(each.pinned),
            str(each.count(Outcome.FAILED)),
            str(each.count(Outcome.SKIPPED)),
            str(sum(each.requests.values())),
            f"{each.seconds:.0f}",
        ]
        for each in results
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        row[0].ljust(widths[0])
        + "".join(f"  {cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True))
        for row in rows
    ]
    return "\n".join(
        [
            *lines,
            *_details(results, Outcome.SKIPPED),
            *_details(results, Outcome.FAILED),
            "",
            *(each.complaint for each in results if each.complaint),
        ]
    )


def as_json(results: Sequence[SuiteResult]) -> list[dict[str, object]]:
    """Return all results as they go to the JSON file."""
    return [
        {
            "suite": each.name,
            "pinned": each.pinned,
            "requests": dict(each.requests),
            "seconds": round(each.seconds, 1),
            "cases": [
                {"name": case.name, "outcome": case.outcome.value, "detail": case.detail}
                for case in each.cases
            ],
        }
        for each in results
    ]


def _details(results: Sequence[SuiteResult], outcome: Outcome) -> list[str]:
    lines = [
        f"  {each.name} {case.name}: {case.detail}"
        for each in results
        for case in each.cases
        if case.outcome is outcome
    ]
    return ["", f"{outcome.value}:", *lines] if lines else []
