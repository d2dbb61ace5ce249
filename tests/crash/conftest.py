"""How long the crash tests take: some seconds each, or as long as it needs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from tests.crash.lanes import Lanes
from tests.support.crashing import CrashingMount
from tests.support.mounting import Kept
from tests.support.service import ServiceProcess

from ctrfs.config import WriteMode


@pytest.fixture(scope="session")
def is_thorough() -> bool:
    """Whether every pass of every point is tried, as in ``make crash``."""
    return "CRASH_KILLS" in os.environ


@pytest.fixture(scope="session")
def kills() -> int:
    """How many random kills are made."""
    return int(os.environ.get("CRASH_KILLS", "6"))


@pytest.fixture(scope="session")
def lanes_of(
    tmp_path_factory: pytest.TempPathFactory, kept: Kept
) -> Iterator[Callable[[WriteMode], Lanes]]:
    """Mounts that outlive a test, for each way to send: most of a run's time is starting one."""
    made: dict[WriteMode, Lanes] = {}

    def keep(mount: CrashingMount) -> None:
        kept.pids.add(mount.pid)
        kept.points.add(mount.point)

    with ServiceProcess() as service, ExitStack() as stack:
        kept.pids.add(service.pid)

        def lanes_of(mode: WriteMode) -> Lanes:
            if mode not in made:
                directory = tmp_path_factory.mktemp("lanes")
                made[mode] = Lanes(service, directory, mode=mode, on_start=keep)
                stack.callback(made[mode].close)
            return made[mode]

        yield lanes_of


@pytest.fixture
def lanes(lanes_of: Callable[[WriteMode], Lanes], write_mode: WriteMode) -> Lanes:
    """The mounts of all tests of one way to send."""
    return lanes_of(write_mode)
