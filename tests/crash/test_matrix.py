"""The daemon dies at each named point of each operation, and nothing acknowledged is lost.

The table of cases is in ``cases.py``, what is compared in
``runs.py``.
"""

from __future__ import annotations

import os
from collections import Counter
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest
from tests.crash.cases import (
    CASES,
    DIES_FIRST_AT,
    POINTS_OF_A_START,
    Case,
    cases_killed_twice,
)
from tests.crash.lanes import Lanes, Plan
from tests.support.crashing import Death, Disk, PowerCut
from tests.support.service import ServiceProcess

from ctrfs.config import WriteMode
from ctrfs.failpoints import FAILPOINTS

pytestmark = [
    pytest.mark.mounted,
    pytest.mark.slow,
    pytest.mark.timeout(3600 if "CRASH_KILLS" in os.environ else 300),
]

# What the disk kept beside what it was asked to keep.
CUTS: Final = (
    PowerCut(),
    PowerCut(keeps_deletes=True),
    PowerCut(keeps_commits=True),
    PowerCut(keeps_commits=True, keeps_deletes=True),
)
# Where the disk has just been written: the power is cut here in the short run, as nothing that
# is on the disk changes at other points. A process that dies here dies as at the next point.
OF_THE_DISK: Final = {"spool.synced", "database.committed"}
# Later passes of one point are those of a loop, and like the second.
PASSES_MAX: Final = 2

# A replay takes seconds of waiting for listings that may lag: many at once cost no more.
GROUPS: Final = 3
GROUPED = pytest.mark.parametrize(
    "cases", [CASES[start::GROUPS] for start in range(GROUPS)], ids=["first", "second", "third"]
)


def deaths_at(passed: Counter[str], *, passes_max: int = PASSES_MAX) -> list[Death]:
    return [
        Death(point=point, nth=nth)
        for point, count in sorted(passed.items())
        for nth in range(1, min(count, passes_max) + 1)
    ]


def plans_of(case: Case, passed: Counter[str]) -> list[Plan]:
    return [
        Plan(case=case, deaths=(death,), cut=CUTS[number % len(CUTS)] if is_cut else None)
        for number, death in enumerate(deaths_at(passed))
        for is_cut in [death.point in OF_THE_DISK]
    ]


def all_plans_of(case: Case, passed: Counter[str]) -> list[Plan]:
    return [
        Plan(case=case, deaths=(death,), cut=cut)
        for death in deaths_at(passed, passes_max=9)
        for cut in (None, *CUTS)
    ]


@pytest.mark.both_write_modes
@GROUPED
def test_a_crash_or_power_cut_at_any_point_of_an_operation_loses_nothing(
    cases: tuple[Case, ...], lanes: Lanes, write_mode: WriteMode, is_thorough: bool
) -> None:
    """Promises 13 and 14."""
    plans_for = all_plans_of if is_thorough else plans_of
    passed = {case: lanes.passes_of(case) for case in cases}

    lanes.carry_out([plan for case in cases for plan in plans_for(case, passed[case])])

    # cases.py says where each case passes.
    assert {case.name: set(passed[case]) for case in cases} == {
        case.name: set(case.points_in(write_mode)) for case in cases
    }


@pytest.mark.both_write_modes
def test_a_second_crash_while_the_first_is_repaired_loses_nothing(
    lanes: Lanes, write_mode: WriteMode, is_thorough: bool
) -> None:
    """Promises 13 and 14."""
    cases, first_points = cases_killed_twice(write_mode), DIES_FIRST_AT[write_mode]
    firsts = [
        Plan(case=case, deaths=(Death(point=point),))
        for case in cases
        for point in (case.points_in(write_mode) if is_thorough else [first_points[case.name]])
    ]
    cleaning = lanes.carry_out(firsts)
    plans = [
        replace(plan, deaths=(*plan.deaths, second))
        for plan, passed in cleaning.items()
        for second in deaths_at(passed, passes_max=9 if is_thorough else 1)
    ]

    lanes.carry_out(plans)

    assert {plan.case for plan in plans} == set(cases), "some left the next mount nothing to repair"


@pytest.mark.both_write_modes
def test_a_power_cut_of_a_real_disk_loses_nothing(
    service: ServiceProcess, tmp_path: Path, write_mode: WriteMode, is_thorough: bool
) -> None:
    """Promises 13 and 14."""
    try:
        with Disk.made(tmp_path / "trial"):
            pass
    except OSError as error:
        pytest.skip(f"no disk can be made here whose power can be cut: {error}")
    plans = [
        Plan(case=case, deaths=(Death(point=point),))
        for case in (CASES if is_thorough else cases_killed_twice(write_mode))
        for point in case.points_in(write_mode)
        if is_thorough or point in OF_THE_DISK
    ]

    with closing(Lanes(service, tmp_path / "lanes", mode=write_mode, has_disks=True)) as lanes:
        lanes.carry_out(plans)


def test_each_failpoint_has_a_case_that_dies_there() -> None:
    tried = {point for case in CASES for mode in WriteMode for point in case.points_in(mode)} | set(
        POINTS_OF_A_START
    )

    assert tried == set(FAILPOINTS)
