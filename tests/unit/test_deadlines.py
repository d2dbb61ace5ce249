from __future__ import annotations

import math

import pytest
import trio
import trio.testing

from ctrfs import deadlines


async def test_without_a_deadline_there_is_time_without_end() -> None:
    assert deadlines.remaining_s() == math.inf


async def test_a_deadline_comes_nearer_and_ends_with_its_block(
    autojump_clock: trio.testing.MockClock,
) -> None:
    with deadlines.within(30.0):
        await trio.sleep(10.0)
        assert deadlines.remaining_s() == pytest.approx(20.0)
        await trio.sleep(100.0)
        assert deadlines.remaining_s() == 0.0

    assert deadlines.remaining_s() == math.inf


async def test_an_inner_deadline_shortens_the_outer_one_and_never_lengthens_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    with deadlines.within(30.0):
        with deadlines.within(100.0):
            assert deadlines.remaining_s() == pytest.approx(30.0)
        with deadlines.within(5.0):
            assert deadlines.remaining_s() == pytest.approx(5.0)

        assert deadlines.remaining_s() == pytest.approx(30.0)


async def test_a_task_inherits_the_deadline_unless_it_is_started_without_one(
    autojump_clock: trio.testing.MockClock,
) -> None:
    left: dict[str, float] = {}

    async def note(name: str) -> None:
        left[name] = deadlines.remaining_s()

    with deadlines.within(30.0):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(note, "own")
            with deadlines.none():
                nursery.start_soon(note, "shared")

    assert left == {"own": pytest.approx(30.0), "shared": math.inf}


async def test_two_requests_do_not_see_each_other_s_deadline(
    autojump_clock: trio.testing.MockClock,
) -> None:
    left: dict[float, float] = {}

    async def request(seconds: float) -> None:
        with deadlines.within(seconds):
            await trio.sleep(1.0)
            left[seconds] = deadlines.remaining_s()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(request, 10.0)
        nursery.start_soon(request, 20.0)

    assert left == {10.0: pytest.approx(9.0), 20.0: pytest.approx(19.0)}
