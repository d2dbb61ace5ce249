"""What a suite is, and which there are with what they need."""

from __future__ import annotations

import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from scripts.conformance import benchmarks, fio, git, model, programs, stress
from scripts.conformance.arena import PATH, Arena, last_words
from scripts.conformance.results import Case, SuiteResult, failed, skipped
from tests.support.mounting import MountFailedError, MountHungError


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """One outside suite.

    Attributes:
        name: Also that of the container in which it works.
        package: Debian's package.
        program: What of it must be there.
        play: Works in an arena and yields its cases as they end.
        pinned: How many cases pass, by way of writing; the two of every unmount included.
        is_optional: Whether a missing program is a skip; else it is a failure.
    """

    name: str
    package: str
    program: str
    play: Callable[[Arena], Iterator[Case]]
    pinned: Mapping[str, int] = field(default_factory=dict)
    is_optional: bool = False


SUITES = (
    Suite(name="fio", package="fio", program="fio", play=fio.play, pinned={"through": 20}),
    Suite(
        name="stress-ng",
        package="stress-ng",
        program="stress-ng",
        play=stress.play,
        pinned={"through": 37},
    ),
    Suite(
        name="dbench",
        package="dbench",
        program="dbench",
        play=benchmarks.dbench,
        pinned={"through": 4},
    ),
    Suite(
        name="bonnie++",
        package="bonnie++",
        program="bonnie++",
        play=benchmarks.bonnie,
        pinned={"through": 6},
    ),
    Suite(
        name="postmark",
        package="postmark",
        program="postmark",
        play=benchmarks.postmark,
        pinned={"through": 4},
    ),
    Suite(
        name="fs_mark",
        package="fsmark",
        program="fs_mark",
        play=benchmarks.fs_mark,
        pinned={"through": 9},
    ),
    Suite(
        name="differential",
        package="python3",
        program="python3",
        play=model.play,
        pinned={"through": 10},
    ),
    Suite(name="git", package="git", program="git", play=git.play, pinned={"through": 50}),
    Suite(
        name="sqlite3",
        package="sqlite3",
        program="sqlite3",
        play=programs.sqlite,
        pinned={"through": 16},
    ),
    Suite(
        name="rsync and tar",
        package="rsync",
        program="rsync",
        play=programs.copies,
        pinned={"through": 17},
    ),
    Suite(
        name="LibreOffice",
        package="libreoffice-writer-nogui",
        program="soffice",
        play=programs.office,
        pinned={"through": 7},
        is_optional=True,
    ),
)


def run(suite: Suite, *, write: str) -> SuiteResult:
    """Run one suite on a mount of its own and return what it showed."""
    started_s = time.monotonic()
    if shutil.which(suite.program, path=PATH) is None:
        reason = f"{suite.program} is not installed (Debian: {suite.package})"
        missing = skipped("all", reason) if suite.is_optional else failed("all", reason)
        # What cannot run has no count to keep.
        return SuiteResult(name=suite.name, cases=[missing], pinned=None)
    cases: list[Case] = []
    requests: dict[str, int] = {}
    try:
        with Arena(suite.name, options=[f"write={write}"]) as arena:
            for case in _played(suite, arena):
                cases.append(case)
                print(
                    f"  {suite.name}: {case.name}: {case.outcome.value} {case.detail}", flush=True
                )
            cases += arena.last_cases()
            requests = arena.service.counters()
    except (MountFailedError, MountHungError) as error:
        cases.append(failed("the mount", str(error)[:2000]))
    return SuiteResult(
        name=suite.name,
        cases=cases,
        pinned=suite.pinned.get(write),
        requests=requests,
        seconds=time.monotonic() - started_s,
    )


def _played(suite: Suite, arena: Arena) -> Iterator[Case]:
    """Yield a suite's cases, and a failed one if its own steps meet a failure."""
    try:
        yield from suite.play(arena)
    except (OSError, AssertionError, sqlite3.Error) as error:
        log = last_words(arena.mount.log_text())
        yield failed("the suite's own steps", f"{type(error).__name__}: {error}; log: {log}")
