"""How long the crash tests take: some seconds each, or as long as it needs."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from tests.crash.lanes import Lanes
from tests.support.crashing import CrashingMount
from tests.support.mounting import Kept
from tests.support.service import ServiceProcess


@pytest.fixture(scope="session")
def is_thorough() -> bool:
    """Whether every pass of every point is tried, as in ``make crash``."""
    return "CRASH_KILLS" in os.environ


@pytest.fixture(scope="session")
def kills() -> int:
    """How many random kills are made."""
    return int(os.environ.get("CRASH_KILLS", "6"))


@pytest.fixture(scope="session")
def lanes(tmp_path_factory: pytest.TempPathFactory, kept: Kept) -> Iterator[Lanes]:
    """Mounts that outlive a test: most of a run's time is that of starting one."""

    def keep(mount: CrashingMount) -> None:
        kept.pids.add(mount.pid)
        kept.points.add(mount.point)

    with ServiceProcess() as service:
        kept.pids.add(service.pid)
        lanes = Lanes(service, tmp_path_factory.mktemp("lanes"), on_start=keep)
        yield lanes
        lanes.close()
