"""Errands: requests that nobody waits for yet come behind all others."""

from __future__ import annotations

import math
from functools import partial

import pytest
import trio
import trio.testing
from tests.unit.api.fake_transport import VirtualClock
from tests.unit.api.test_pacing import Load, hold, in_turn

from ctrfs import errands, errors
from ctrfs.api.failures import AttemptFailedError, Failure
from ctrfs.api.pacing import FORGOTTEN_AFTER_S, Pacing
from ctrfs.api.retry import Attempts, Plan, Repeat, Retrier
from ctrfs.errands import Errand


def pacing_of(limit_max: int = 16, *, rps: float | None = None) -> Pacing:
    return Pacing(limit_max=limit_max, rps=rps, clock=VirtualClock())


async def on_errand(load: Load, name: str = "", errand: Errand | None = None) -> None:
    with errands.on(errand or Errand()):
        await load.request(name, is_transfer=True)


async def test_errands_leave_a_place_for_bytes_and_two_for_listings(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    pacing = pacing_of()
    load = Load(pacing, seconds=math.inf)
    for _ in range(100):
        nursery.start_soon(on_errand, load)
    await trio.testing.wait_all_tasks_blocked()
    assert pacing.under_way == 13

    began = Load(pacing, seconds=math.inf)
    nursery.start_soon(partial(began.request, "bytes", is_transfer=True))
    await trio.testing.wait_all_tasks_blocked()
    nursery.start_soon(began.request, "listing")
    nursery.start_soon(began.request, "listing")
    await trio.testing.wait_all_tasks_blocked()

    assert sorted(began.names()) == ["bytes", "listing", "listing"]
    assert pacing.waiting == 0
    nursery.cancel_scope.cancel()


async def test_whoever_waits_for_an_answer_passes_all_errands_that_wait(
    autojump_clock: trio.testing.MockClock,
) -> None:
    load = Load(pacing_of(4))

    async with trio.open_nursery() as nursery:
        await in_turn(
            nursery,
            lambda: on_errand(load, "first errand"),
            lambda: on_errand(load, "second errand"),
            lambda: load.request("user 1", is_transfer=True),
            lambda: load.request("user 2", is_transfer=True),
            lambda: load.request("user 3", is_transfer=True),
        )

    assert load.names()[0] == "first errand"
    assert load.names()[-1] == "second errand"


async def test_an_errand_that_somebody_waits_for_takes_its_place_at_the_end_of_the_queue(
    autojump_clock: trio.testing.MockClock,
) -> None:
    load = Load(pacing_of(4))
    wanted = Errand()

    async with trio.open_nursery() as nursery:
        await in_turn(
            nursery,
            lambda: load.request("user 1", is_transfer=True),
            lambda: load.request("user 2", is_transfer=True),
            lambda: load.request("user 3", is_transfer=True),
            lambda: on_errand(load, "other errand"),
            lambda: on_errand(load, "wanted errand", wanted),
        )
        wanted.want()
        await in_turn(nursery, lambda: load.request("user 4", is_transfer=True))

    # Two transfers fit at once, and one errand if there is nobody else.
    rounds = {name: began_s // 1 for name, began_s in load.began_s}
    assert rounds == {
        "user 1": 0,
        "user 2": 0,
        "user 3": 1,
        "wanted errand": 1,
        "user 4": 2,
        "other errand": 3,
    }


async def test_all_requests_of_an_errand_that_somebody_waits_for_are_hurried(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    pacing = pacing_of(4)
    load = Load(pacing)
    wanted = Errand()
    await in_turn(
        nursery,
        lambda: hold(pacing),
        lambda: on_errand(load, "other errand"),
        lambda: on_errand(load, "page 1", wanted),
        lambda: on_errand(load, "page 2", wanted),
    )

    wanted.want()
    await trio.testing.wait_all_tasks_blocked()

    assert sorted(load.names()) == ["page 1", "page 2"]
    nursery.cancel_scope.cancel()


async def test_an_errand_is_given_up_where_it_waits_and_leaves_no_trace(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    pacing = pacing_of(4)
    errand = Errand()
    nursery.start_soon(hold, pacing)
    await trio.testing.wait_all_tasks_blocked()
    with trio.move_on_after(1):
        await on_errand(Load(pacing), "", errand)

    errand.want()

    assert pacing.under_way == 1
    assert pacing.waiting == 0
    nursery.cancel_scope.cancel()


async def test_a_service_that_has_too_much_to_do_gets_no_errands_until_that_is_forgotten(
    autojump_clock: trio.testing.MockClock,
) -> None:
    pacing = pacing_of()
    load = Load(pacing)
    for _ in range(5):
        await load.round(1, 503)
    assert pacing.limit <= 3

    with pytest.raises(AttemptFailedError):
        await on_errand(load)
    await load.round(1)
    with pytest.raises(AttemptFailedError):
        await on_errand(load)

    await trio.sleep(FORGOTTEN_AFTER_S)
    await load.round(1)
    await on_errand(load)
    assert pacing.limit == 16


async def test_no_errand_begins_while_the_service_asks_for_a_pause(
    autojump_clock: trio.testing.MockClock,
) -> None:
    pacing = pacing_of()
    pacing.pause(10)

    with pytest.raises(AttemptFailedError):
        await on_errand(Load(pacing))


async def test_errands_leave_half_of_the_rate_to_others(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    pacing = pacing_of(rps=6)
    load = Load(pacing, seconds=100)

    for _ in range(6):
        nursery.start_soon(on_errand, load)
    await trio.testing.wait_all_tasks_blocked()
    assert len(load.began_s) == 3

    for _ in range(3):
        nursery.start_soon(load.request, "user")
    await trio.testing.wait_all_tasks_blocked()
    assert [began_s for name, began_s in load.began_s if name == "user"] == [
        trio.current_time()
    ] * 3
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize(("is_wanted", "attempts"), [(False, 1), (True, 3)])
async def test_what_fails_on_an_errand_is_not_tried_again_unless_it_is_wanted(
    *, is_wanted: bool, attempts: int, autojump_clock: trio.testing.MockClock
) -> None:
    made = 0
    errand = Errand()

    async def attempt(_attempts: Attempts) -> None:
        nonlocal made
        made += 1
        if is_wanted:
            errand.want()
        error = errors.RemoteBusyError("too much to do")
        raise AttemptFailedError(Failure(error=error, status=503, may_be_done=False))

    plan = Plan(repeat=Repeat.FREELY, retries_max=2, deadline_s=100)
    with errands.on(errand), pytest.raises(errors.RemoteBusyError):
        await Retrier(clock=VirtualClock(), random=lambda: 0.0).run(attempt, plan=plan)

    assert made == attempts
