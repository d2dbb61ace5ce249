"""A second mount of one source dies, and the first dies again while it takes the bytes over.

The dead one's slot of the state directory is not that which the next mount gets.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.crash.cases import CASES, POINTS_OF_A_START, plant_outside
from tests.crash.runs import Run
from tests.support.crashing import CrashingMount, Death
from tests.support.service import ServiceProcess
from tests.support.write_modes import options_of

from ctrfs.config import WriteMode

pytestmark = [pytest.mark.mounted, pytest.mark.slow]

OVERWRITE = next(case for case in CASES if case.name == "overwrite")


@pytest.mark.both_write_modes
@pytest.mark.parametrize("point", POINTS_OF_A_START)
def test_a_crash_while_the_bytes_of_another_mount_are_taken_over_loses_nothing(
    service: ServiceProcess, tmp_path: Path, point: str, write_mode: WriteMode
) -> None:
    """Promises 13 and 14."""
    options = options_of(write_mode)
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    first = CrashingMount(tmp_path / "first", service=service, options=options)
    second = CrashingMount(
        tmp_path / "second", service=service, options=options, state_home=first.state_home
    )
    run = Run(service=service, mount=second, tag="c", directory=tmp_path)
    case = OVERWRITE.tagged(run.tag, plant_outside(tmp_path / "outside"))
    try:
        first.start()
        second.start()
        run.work(case.setup)
        second.await_nothing_pending()
        second.arm(Death(point="save.stored"))
        run.work(case.steps)
        second.await_death()
        assert first.end() == 0

        first.arm(Death(point=point))
        first.start_until_death()
        first.disarm()
        first.start()

        run.mount = first
        run.check()
        assert first.end() == 0
    finally:
        first.abandon()
        second.abandon()
