"""``make soak MINUTES=N WRITE=through``: mixed load with failures on a real mount, and whether all stays flat.

Several processes work on a mount for N minutes while the service fails in all sorts of ways
for a part of the time. At the end the daemon's figures must be flat, everything must be on
the service as the ledgers say, nothing unsent, and the unmount clean. Exit code 1 if not.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from scripts.soak import checks
from scripts.soak.faults import Faults, kind_at
from scripts.soak.load import Report, Worker
from scripts.soak.samples import Bound, NoAnswerError, Sample, sample, trend
from scripts.soak.verdict import (
    BOUNDS,
    BOUNDS_LATER,
    Outcome,
    as_json,
    complaints_of_rest,
    complaints_of_trends,
    table,
)
from scripts.soak.workers import KINDS
from tests.support.mounting import Mount, MountFailedError, MountHungError, pause
from tests.support.service import TEST_KEY, ServiceError, ServiceProcess

SAMPLE_EVERY_S: Final = 5.0
STEP_S: Final = 0.5
# Within it caches fill; trends are drawn over the rest.
WARM_UP_SHARE: Final = 0.3
# Nothing fails at the end, so that what is unsent can be sent.
QUIET_SHARE: Final = 0.12
DRAIN_DEADLINE_S: Final = 120.0
# trio gives an idle thread back after ten seconds, httpx an idle connection sooner.
REST_S: Final = 14.0
# A small cache, so that it is full early; short waits, so that ten minutes hold many faults.
OPTIONS: Final = (
    *("cache_size=64M", "ttl=2", "max_stale=5"),
    *("timeout=8", "stall_timeout=4", "drain_timeout=60"),
)


def main() -> int:
    """Run, print the table, write the JSON; return the exit code."""
    parser = argparse.ArgumentParser(prog="soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--write", choices=["through", "back"], default="through")
    parser.add_argument("--json", type=Path, default=Path(".bench/soak.json"))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", nargs="*", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--no-faults", action="store_true")
    given = parser.parse_args()
    # As an interrupt does: what is mounted and what runs is ended on the way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ctrfs-soak-")))
        service = stack.enter_context(
            ServiceProcess(environment={"CTRFS_SERVER_API_KEY": TEST_KEY})
        )
        mount = Mount(directory, service=service, options=(*OPTIONS, f"write={given.write}"))
        stack.callback(mount.abandon)
        mount.start()
        bounds = BOUNDS if given.write == "through" else BOUNDS_LATER
        soak = Soak(service, mount, directory, kinds=given.only, bounds=bounds)
        outcome = soak.run(
            minutes=given.minutes,
            faults=None if given.no_faults else Faults(service, seed=given.seed),
        )
    given.json.parent.mkdir(parents=True, exist_ok=True)
    given.json.write_text(json.dumps(as_json(outcome), indent=1) + "\n")
    print(table(outcome))
    return 1 if outcome.complaints else 0


class Soak:
    """One run."""

    def __init__(
        self,
        service: ServiceProcess,
        mount: Mount,
        directory: Path,
        *,
        kinds: list[str],
        bounds: Sequence[Bound],
    ) -> None:
        self._service = service
        self._mount = mount
        self._directory = directory
        self._kinds = kinds
        self._bounds = bounds
        self._workers: list[Worker] = []

    def run(self, *, minutes: float, faults: Faults | None) -> Outcome:
        """Load the mount for ``minutes``, then look at what is left."""
        for kind in self._kinds:
            (self._mount.point / kind).mkdir()
        outcome = Outcome(
            minutes=minutes,
            before=sample(self._mount, elapsed_s=0.0),
            warm_up_s=60 * minutes * WARM_UP_SHARE,
        )
        load = self._directory / "load"
        load.mkdir()
        self._workers = [
            Worker(kind, self._mount.point / kind, load, service=self._service)
            for kind in self._kinds
        ]
        try:
            self._watch(outcome, faults)
            self._end_load(outcome)
            self._rest(outcome)
            self._unmount_and_check(outcome)
        except (NoAnswerError, OSError, MountFailedError, MountHungError) as error:
            outcome.complaints.append(f"{type(error).__name__}: {error}")
        finally:
            for worker in self._workers:
                worker.kill()
        if "Traceback" in self._mount.log_text():
            log = self._mount.log_text()
            place = log.index("Traceback")
            outcome.complaints.append(f"a traceback in the log: {log[place:][:3000]}")
        measured = [each for each in outcome.samples if each.elapsed_s >= outcome.warm_up_s]
        if measured:
            outcome.trends = [trend(measured, bound) for bound in self._bounds]
        outcome.complaints += complaints_of_trends(outcome.trends)
        return outcome

    def _watch(self, outcome: Outcome, faults: Faults | None) -> None:
        """Sample the daemon and switch failures until the time is over."""
        started_s = time.monotonic()
        total_s = 60 * outcome.minutes
        quiet_from_s = total_s * (1 - QUIET_SHARE)
        next_sample_s = SAMPLE_EVERY_S
        while (elapsed_s := time.monotonic() - started_s) < total_s:
            if faults is not None:
                faults.keep(kind_at(elapsed_s, quiet_from_s=quiet_from_s), now_s=elapsed_s)
            if elapsed_s >= next_sample_s:
                outcome.samples.append(sample(self._mount, elapsed_s=elapsed_s))
                next_sample_s = elapsed_s + SAMPLE_EVERY_S
            pause(STEP_S)
        self._service.clear_faults()
        outcome.faults_met = faults.met if faults is not None else []

    def _end_load(self, outcome: Outcome) -> None:
        for worker in self._workers:
            worker.ask_to_stop()
        for worker in self._workers:
            told = worker.report()
            if isinstance(told, Report):
                outcome.reports.append(told)
                outcome.complaints += [f"{told.kind}: {each}" for each in told.wrong]
            else:
                outcome.complaints.append(told)

    def _rest(self, outcome: Outcome) -> None:
        """Wait until nothing is unsent, and then until idle threads and connections are gone."""
        deadline_s = time.monotonic() + DRAIN_DEADLINE_S
        while time.monotonic() < deadline_s and self._has_unsent():
            pause(1.0)
        pause(REST_S)
        outcome.after = sample(self._mount, elapsed_s=60 * outcome.minutes)
        outcome.requests = self._service.counters()
        outcome.complaints += complaints_of_rest(outcome.before, outcome.after)

    def _has_unsent(self) -> bool:
        figures = self._now().figures
        return any(figures[name] for name in ("unsent_files", "unsent_deletes", "open_handles"))

    def _now(self) -> Sample:
        return sample(self._mount, elapsed_s=0.0)

    def _unmount_and_check(self, outcome: Outcome) -> None:
        """Unmount, compare the service with the ledgers, mount again and compare that too."""
        started_s = time.monotonic()
        self._mount.stop()
        outcome.unmount_s = time.monotonic() - started_s
        # Git's ledger is its own: git fsck, and every commit that it acknowledged.
        ledgers = [each for each in outcome.reports if each.kind != "git"]
        try:
            for report in ledgers:
                outcome.complaints += checks.check_service(
                    self._service, report.kind, report.ledger
                )
        except ServiceError as error:
            outcome.complaints.append(f"the service refuses to show what it has: {error}")
        self._mount.start()
        for report in outcome.reports:
            outcome.complaints += checks.check_shown(self._service, self._mount.point / report.kind)
        for report in ledgers:
            outcome.complaints += checks.check_mount(self._mount.point / report.kind, report.ledger)
        for worker in self._workers:
            if worker.kind == "git":
                outcome.complaints += checks.check_repository(
                    self._mount.point / "git", worker.commits, self._directory
                )
        self._mount.stop()


if __name__ == "__main__":
    sys.exit(main())
