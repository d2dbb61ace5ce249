"""Mounts that go on from crash to crash, some of them at once.

A start of the program costs most of a run's time. So each lane is one mount point with one
state directory, on which one plan after another is carried out: the mount that cleaned up
after one crash is the one that dies in the next.
"""

from __future__ import annotations

import itertools
import os
from collections import Counter, deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.crash.cases import Case, plant_outside
from tests.crash.runs import Run, ViolationError
from tests.support.crashing import CrashingMount, Death, Disk, PowerCut
from tests.support.service import ServiceProcess
from tests.support.write_modes import options_of
from typing_extensions import override

from ctrfs.config import WriteMode

# A replay waits until listings cannot lag behind an upload any more: seconds without work.
LANES_AT_ONCE: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Where one case dies: first, and then again while the next mounts clean up."""

    case: Case
    deaths: tuple[Death, ...]
    cut: PowerCut | None = None

    @override
    def __str__(self) -> str:
        places = ", then ".join(f"{death.point} {death.nth}" for death in self.deaths)
        return f"{self.case.name} at {places}{f' with {self.cut}' if self.cut else ''}"


class Lane:
    """One mount; a context manager that ends it.

    Args:
        service: What it mounts.
        directory: Made for it alone.
        mode: How it sends.
        disk: Where the state lies, whose power is cut at each death; None: an ordinary one, and
            plans may have a ``cut``.
        on_start: Told of each daemon that has started.
    """

    def __init__(
        self,
        service: ServiceProcess,
        directory: Path,
        *,
        mode: WriteMode = WriteMode.THROUGH,
        disk: Disk | None = None,
        on_start: Callable[[CrashingMount], None] = lambda _mount: None,
    ) -> None:
        directory.mkdir()
        self.mount = CrashingMount(
            directory,
            service=service,
            options=options_of(mode),
            modes=["CRASHING_SHADOW" if disk is None else "CRASHING_SHUTDOWN"],
            state_home=None if disk is None else disk.path / "state",
        )
        self._service = service
        self._directory = directory
        self._disk = disk
        self._outside = plant_outside(directory / "outside")
        self._on_start = on_start
        self._start()

    def close(self) -> None:
        """End the mount as an administrator would.

        Raises:
            ViolationError: It did not end well, or its log shows a bug.
        """
        exit_code = self.mount.end()
        if exit_code != 0:
            raise ViolationError(f"the daemon ended with {exit_code}\n{self.mount.log_text()}")
        if "Traceback" in self.mount.log_text():
            raise ViolationError(f"there is a traceback in the log\n{self.mount.log_text()}")

    def passes_of(self, case: Case) -> Counter[str]:
        """Carry ``case`` out without a crash; return how often its steps passed each point."""
        run, case = self._new_run(case)
        run.work(case.setup)
        self.mount.await_nothing_pending()
        before = Counter(self.mount.passed())
        run.work(case.steps)
        self.mount.await_nothing_pending()
        assert not run.ledger.failed, f"{case.name}: {run.ledger.failed}\n{self.mount.log_text()}"
        passed = Counter(self.mount.passed()) - before
        run.check()
        run.clean_up()
        return passed

    def carry_out(self, plan: Plan) -> Counter[str]:
        """Carry out one plan; return how often the mount that cleaned up passed each point.

        Raises:
            ViolationError: A promise was broken.
        """
        run, case = self._new_run(plan.case)
        run.is_after_a_power_cut = plan.cut is not None or self._disk is not None
        run.work(case.setup)
        assert not run.ledger.failed, f"{run.ledger.failed}\n{self.mount.log_text()}"
        self.mount.await_nothing_pending()
        first, *others = plan.deaths
        self.mount.arm(first)
        run.work(case.steps)
        self.mount.await_death()
        for death in others:
            self._lose_power(plan.cut)
            self.mount.arm(death)
            self.mount.start_until_death()
        self.mount.disarm()
        self._lose_power(plan.cut)
        self.mount.drop_caches()
        before = Counter(self.mount.passed())
        self._start()
        run.check()
        run.clean_up()
        return Counter(self.mount.passed()) - before

    def _start(self) -> None:
        self.mount.start()
        self._on_start(self.mount)

    def _lose_power(self, cut: PowerCut | None) -> None:
        if cut is not None:
            self.mount.cut_power(cut)
        if self._disk is not None:
            self._disk.detach()
            self._disk.attach()

    def _new_run(self, case: Case) -> tuple[Run, Case]:
        tag = f"c{os.urandom(4).hex()}"
        run = Run(service=self._service, mount=self.mount, tag=tag, directory=self._directory)
        return run, case.tagged(tag, self._outside)


class Lanes:
    """Some lanes on one service; a lane in which something goes wrong is given up for a new one.

    Args:
        service: What all of them mount.
        directory: For them alone.
        mode: How all of them send.
        has_disks: Whether each has a disk of its own, whose power is cut at each death. Else
            plans may have a ``cut``.
        on_start: Told the process and the mount point of each daemon that has started.
    """

    def __init__(
        self,
        service: ServiceProcess,
        directory: Path,
        *,
        mode: WriteMode = WriteMode.THROUGH,
        has_disks: bool = False,
        on_start: Callable[[CrashingMount], None] = lambda _mount: None,
    ) -> None:
        self._service = service
        self._directory = directory
        self._mode = mode
        self._has_disks = has_disks
        self._on_start = on_start
        self._numbers = itertools.count(1)
        self._idle: list[Lane] = []
        self._stack = ExitStack()

    def close(self) -> None:
        """End all lanes.

        Raises:
            ViolationError: One did not end well.
        """
        with self._stack:
            while self._idle:
                self._idle.pop().close()

    def passes_of(self, case: Case) -> Counter[str]:
        """Carry ``case`` out without a crash; return how often its steps passed each point."""
        lane = self._lane()
        passed = lane.passes_of(case)
        self._idle.append(lane)
        return passed

    def carry_out(self, plans: Iterable[Plan]) -> dict[Plan, Counter[str]]:
        """Carry out plans, some at once; return what the mounts that cleaned up passed.

        Raises:
            AssertionError: With all that went wrong.
            OSError: No such disk as was asked for can be made here.
        """
        waiting = deque(plans)
        cleaning: dict[Plan, Counter[str]] = {}
        wrong: list[str] = []

        def work() -> None:
            while waiting:
                lane = self._lane()
                while plan := _next(waiting):
                    try:
                        cleaning[plan] = lane.carry_out(plan)
                    except Exception as error:  # noqa: BLE001  # told with all others
                        wrong.append(f"--- {plan}: {_told(error)}")
                        lane.mount.abandon()
                        break
                else:
                    self._idle.append(lane)

        with ThreadPoolExecutor(LANES_AT_ONCE) as pool:
            works = [pool.submit(work) for _ in range(LANES_AT_ONCE)]
        for each in works:
            each.result()
        assert not wrong, f"{len(wrong)} runs went wrong\n" + "\n".join(wrong)
        return cleaning

    def _lane(self) -> Lane:
        try:
            return self._idle.pop()
        except IndexError:
            return self._new_lane()

    def _new_lane(self) -> Lane:
        directory = self._directory / str(next(self._numbers))
        directory.mkdir(parents=True)
        disk = None
        if self._has_disks:
            disk = self._stack.enter_context(Disk.made(directory / "with disk"))
        lane = Lane(
            self._service,
            directory / "lane",
            mode=self._mode,
            disk=disk,
            on_start=self._on_start,
        )
        self._stack.callback(lane.mount.abandon)
        return lane


def _next(waiting: deque[Plan]) -> Plan | None:
    try:
        return waiting.popleft()
    except IndexError:
        return None


def _told(error: Exception) -> str:
    notes = "\n".join(getattr(error, "__notes__", []))
    return f"{type(error).__name__} {error}\n{notes}"
