from __future__ import annotations

import math
import statistics
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest
import trio
import trio.testing
from tests.unit.api.fake_transport import VirtualClock

from ctrfs import errors
from ctrfs.api.failures import AttemptFailedError
from ctrfs.api.pacing import ANSWER_S, LIMIT_AT_START, PAUSE_S_MAX, Pacing, Slot

OK = 200


def pacing_of(limit_max: int = 16, *, rps: float | None = None) -> Pacing:
    return Pacing(limit_max=limit_max, rps=rps, clock=VirtualClock())


class Load:
    """Requests that take a second each, or as long as told, and end with a status.

    Attributes:
        began_s: When each began, in the order in which they did, with its name.
        most: How many were under way at once.
    """

    def __init__(self, pacing: Pacing, *, seconds: float = 1.0) -> None:
        self.pacing = pacing
        self.seconds = seconds
        self.began_s: list[tuple[str, float]] = []
        self.most = 0

    async def request(
        self, name: str = "", status: int = OK, *, is_transfer: bool = False, asked_s: float = -1.0
    ) -> None:
        async with self.pacing.slot(is_transfer=is_transfer, deadline_s=math.inf) as slot:
            self.began_s.append((name, trio.current_time()))
            self.most = max(self.most, self.pacing.under_way)
            await trio.sleep(self.seconds)
            slot.answered(status, asked_s=asked_s if asked_s > 0 else None)

    async def round(self, count: int, status: int = OK) -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(count):
                nursery.start_soon(self.request, "", status)

    def names(self) -> list[str]:
        return [name for name, _ in self.began_s]


async def hold(pacing: Pacing, *, is_transfer: bool = False) -> None:
    async with pacing.slot(is_transfer=is_transfer, deadline_s=math.inf):
        await trio.sleep_forever()


async def in_turn(nursery: trio.Nursery, *tasks: Callable[[], Awaitable[None]]) -> None:
    for task in tasks:
        nursery.start_soon(task)
        await trio.testing.wait_all_tasks_blocked()


async def test_a_fresh_mount_has_sixteen_requests_under_way_at_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    load = Load(pacing_of(64))

    with trio.move_on_after(0.5):
        await load.round(100)

    assert load.most == LIMIT_AT_START == 16


async def test_the_limit_doubles_in_each_round_trip_that_uses_all_of_it_up_to_the_most(
    autojump_clock: trio.testing.MockClock,
) -> None:
    pacing = pacing_of(100)
    load = Load(pacing)
    limits = []

    for _ in range(4):
        await load.round(pacing.limit)
        limits.append(pacing.limit)

    assert limits == [32, 64, 100, 100]


async def test_requests_that_do_not_use_the_limit_do_not_raise_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    pacing = pacing_of(100)

    for _ in range(10):
        await Load(pacing).round(15)

    assert pacing.limit == 16


@pytest.mark.parametrize("status", [429, 503])
async def test_a_round_trip_of_refusals_halves_the_limit_once(
    status: int,
    autojump_clock: trio.testing.MockClock,
) -> None:
    pacing = pacing_of()
    load = Load(pacing)

    await load.round(16, status)
    assert pacing.limit == 8

    await load.round(8, status)
    assert pacing.limit == 4


async def test_silence_counts_as_a_refusal(
    autojump_clock: trio.testing.MockClock,
) -> None:
    pacing = pacing_of()

    async with pacing.slot(is_transfer=False, deadline_s=math.inf) as slot:
        slot.timed_out()

    assert pacing.limit == 8


@pytest.mark.parametrize("status", [400, 401, 404, 500, 502])
async def test_other_failures_do_not_lower_the_limit(
    status: int,
    autojump_clock: trio.testing.MockClock,
) -> None:
    pacing = pacing_of()

    await Load(pacing).round(100, status)

    assert pacing.limit == 16


async def test_the_limit_never_falls_below_one_of_each_kind(
    autojump_clock: trio.testing.MockClock,
) -> None:
    pacing = pacing_of()

    for _ in range(10):
        await Load(pacing).round(1, 503)

    assert pacing.limit == 2


async def test_after_a_refusal_the_limit_grows_by_about_one_a_round_trip(
    autojump_clock: trio.testing.MockClock,
) -> None:
    pacing = pacing_of()
    load = Load(pacing)
    await load.round(16, 503)
    limits = []

    for _ in range(4):
        await load.round(pacing.limit)
        limits.append(pacing.limit)

    assert limits == [8, 9, 10, 11]


async def test_one_refusal_in_ten_leaves_at_least_half_of_the_limit(
    autojump_clock: trio.testing.MockClock,
) -> None:
    pacing = pacing_of()
    load = Load(pacing)
    limits = []

    async with trio.open_nursery() as nursery:
        for number in range(1000):
            nursery.start_soon(load.request, "", 503 if number % 10 == 0 else OK)
        for _ in range(60):
            await trio.sleep(1.0)
            limits.append(pacing.limit)

    assert 8 <= statistics.mean(limits) < 16


async def test_who_came_first_is_served_first(
    autojump_clock: trio.testing.MockClock,
) -> None:
    load = Load(pacing_of(1))

    async with trio.open_nursery() as nursery:
        names = [str(number) for number in range(20)]
        for name in names:
            nursery.start_soon(load.request, name)
            await trio.testing.wait_all_tasks_blocked()

    assert load.names() == names


async def test_listings_find_two_places_while_transfers_wait(
    nursery: trio.Nursery,
    autojump_clock: trio.testing.MockClock,
) -> None:
    pacing = pacing_of(16)
    for _ in range(30):
        nursery.start_soon(lambda: hold(pacing, is_transfer=True))
    await trio.testing.wait_all_tasks_blocked()
    load = Load(pacing)

    await load.round(4)

    assert [at_s for _, at_s in load.began_s] == [0.0, 0.0, 1.0, 1.0]
    nursery.cancel_scope.cancel()


async def test_listings_still_find_places_when_the_limit_falls_below_the_transfers_under_way(
    nursery: trio.Nursery,
    autojump_clock: trio.testing.MockClock,
) -> None:
    pacing = pacing_of(16)
    for _ in range(14):
        nursery.start_soon(lambda: hold(pacing, is_transfer=True))
    await trio.testing.wait_all_tasks_blocked()
    load = Load(pacing)
    await load.round(1, 503)
    await load.round(1, 503)

    await load.round(2)

    assert pacing.limit < 14
    assert load.most == 16
    assert [at_s for _, at_s in load.began_s[2:]] == [2.0, 2.0]
    nursery.cancel_scope.cancel()


async def test_a_stream_of_listings_does_not_starve_a_transfer(
    autojump_clock: trio.testing.MockClock,
) -> None:
    pacing = pacing_of(2)
    load = Load(pacing)

    async with trio.open_nursery() as nursery:
        for number in range(4):
            nursery.start_soon(load.request, f"listing {number}")
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(lambda: load.request("upload", is_transfer=True))
        await trio.testing.wait_all_tasks_blocked()
        for number in range(100):
            nursery.start_soon(load.request, f"later {number}")

    assert dict(load.began_s)["upload"] == 2.0


async def test_a_single_connection_serves_transfers_and_listings_in_turn(
    autojump_clock: trio.testing.MockClock,
) -> None:
    load = Load(pacing_of(1))

    async with trio.open_nursery() as nursery:
        await in_turn(
            nursery,
            lambda: load.request("upload", is_transfer=True),
            lambda: load.request("listing"),
            lambda: load.request("download", is_transfer=True),
        )

    assert load.names() == ["upload", "listing", "download"]
    assert load.most == 1


async def test_whoever_gives_up_waiting_leaves_the_queue_and_the_place_to_others(
    autojump_clock: trio.testing.MockClock,
) -> None:
    pacing = pacing_of(1)
    load = Load(pacing)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(load.request, "first")
        await trio.testing.wait_all_tasks_blocked()
        with trio.move_on_after(0.5):
            await load.request("gives up")
        assert pacing.waiting == 0
        nursery.start_soon(load.request, "next")

    assert load.names() == ["first", "next"]
    assert pacing.under_way == 0


async def test_a_place_given_to_one_who_is_just_giving_up_goes_to_the_next(
    autojump_clock: trio.testing.MockClock,
) -> None:
    pacing = pacing_of(1)
    load = Load(pacing)
    scope = trio.CancelScope()

    async def first() -> None:
        async with pacing.slot(is_transfer=False, deadline_s=math.inf):
            await trio.sleep(1.0)
            scope.cancel()

    async def gives_up() -> None:
        with scope:
            await hold(pacing)

    async with trio.open_nursery() as nursery:
        await in_turn(nursery, first, gives_up, lambda: load.request("next"))

    assert load.began_s == [("next", 1.0)]
    assert pacing.under_way == 0


async def test_nobody_begins_while_the_service_wants_a_pause(
    autojump_clock: trio.testing.MockClock,
) -> None:
    load = Load(pacing_of())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(load.request, "goes on")
        await trio.sleep(0.5)
        load.pacing.pause(3.0)
        nursery.start_soon(load.request, "waits")
        nursery.start_soon(lambda: load.request("waits too", is_transfer=True))

    assert sorted(load.began_s) == [("goes on", 0.0), ("waits", 3.5), ("waits too", 3.5)]


@pytest.mark.parametrize("status", [429, 503])
async def test_an_answer_that_names_a_time_pauses_everyone(
    status: int,
    autojump_clock: trio.testing.MockClock,
) -> None:
    load = Load(pacing_of())

    await load.request("refused", status, asked_s=4.0)
    await load.request("next")

    assert load.began_s == [("refused", 0.0), ("next", 5.0)]


async def test_a_pause_asked_for_during_a_pause_makes_it_longer_and_never_shorter(
    autojump_clock: trio.testing.MockClock,
) -> None:
    load = Load(pacing_of())
    load.pacing.pause(10.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(load.request, "waits")
        await trio.sleep(1.0)
        load.pacing.pause(2.0)
        await trio.sleep(1.0)
        load.pacing.pause(18.0)

    assert load.began_s == [("waits", 20.0)]


async def test_no_pause_lasts_longer_than_two_minutes(
    autojump_clock: trio.testing.MockClock,
) -> None:
    load = Load(pacing_of())
    load.pacing.pause(math.inf)

    await load.request("waits")

    assert load.began_s == [("waits", PAUSE_S_MAX)]


async def test_who_cannot_wait_for_the_end_of_the_pause_is_told_at_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    pacing = pacing_of()
    pacing.pause(60.0)

    with pytest.raises(AttemptFailedError, match="another 60 s") as caught:
        async with pacing.slot(is_transfer=False, deadline_s=30.0):
            raise AssertionError

    assert isinstance(caught.value.failure.error, errors.RemoteBusyError)
    assert caught.value.failure.is_final
    assert not caught.value.failure.may_be_done
    assert pacing.under_way == 0


@pytest.mark.parametrize(
    ("rps", "count", "began_s"),
    [
        (2.0, 6, [0.0, 0.0, 0.5, 1.0, 1.5, 2.0]),
        (0.5, 3, [0.0, 2.0, 4.0]),
        (None, 3, [0.0, 0.0, 0.0]),
    ],
)
async def test_a_rate_lets_the_requests_of_a_second_begin_and_then_one_at_a_time(
    rps: float | None,
    count: int,
    began_s: list[float],
    autojump_clock: trio.testing.MockClock,
) -> None:
    load = Load(pacing_of(rps=rps), seconds=0.1)

    await load.round(count)

    assert [at_s for _, at_s in load.began_s] == pytest.approx(began_s)


async def test_a_rate_that_was_not_used_is_saved_for_one_second_only(
    autojump_clock: trio.testing.MockClock,
) -> None:
    load = Load(pacing_of(rps=2.0), seconds=0.0)
    await trio.sleep(100.0)

    await load.round(4)

    assert [at_s - 100.0 for _, at_s in load.began_s] == pytest.approx([0.0, 0.0, 0.5, 1.0])


async def test_who_gives_up_waiting_for_the_rate_leaves_the_place_to_the_next(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    load = Load(pacing_of(rps=0.5))
    await load.request("first")
    for _ in range(3):
        with trio.move_on_after(0.1):
            await load.request("gives up")

    await load.request("next")

    assert load.began_s == [("first", 0.0), ("next", pytest.approx(2.0))]


async def test_who_stays_moves_up_when_those_before_give_up_and_no_two_begin_at_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    load = Load(pacing_of(rps=1.0), seconds=0.0)

    async def give_up_after(seconds: float) -> None:
        with trio.move_on_after(seconds):
            await load.request("gives up")

    async with trio.open_nursery() as nursery:
        await in_turn(
            nursery,
            lambda: load.request("first"),
            lambda: give_up_after(0.5),
            lambda: give_up_after(0.5),
            lambda: load.request("stays"),
        )
        await trio.sleep(0.7)
        await in_turn(nursery, lambda: load.request("new"), lambda: load.request("newer"))

    assert load.began_s == [
        ("first", 0.0),
        ("stays", pytest.approx(1.0)),
        ("new", pytest.approx(2.0)),
        ("newer", pytest.approx(3.0)),
    ]


async def test_who_would_get_no_answer_in_time_is_told_and_leaves_the_rate_to_others(
    autojump_clock: trio.testing.MockClock,
) -> None:
    pacing = pacing_of(rps=0.1)
    await Load(pacing).request()

    with pytest.raises(AttemptFailedError) as caught:
        async with pacing.slot(is_transfer=False, deadline_s=10.0 + ANSWER_S / 2):
            raise AssertionError
    async with pacing.slot(is_transfer=False, deadline_s=10.0 + ANSWER_S):
        began_s = trio.current_time()

    assert isinstance(caught.value.failure.error, errors.RemoteStalledError)
    assert caught.value.failure.is_final
    assert not caught.value.failure.may_be_done
    assert began_s == pytest.approx(10.0)


async def test_who_has_little_time_from_the_start_still_waits_for_the_rate(
    autojump_clock: trio.testing.MockClock,
) -> None:
    pacing = pacing_of(rps=1.0)
    await Load(pacing, seconds=0.0).request()

    async with pacing.slot(is_transfer=False, deadline_s=ANSWER_S):
        began_s = trio.current_time()

    assert began_s == pytest.approx(1.0)


async def test_more_programs_than_the_rate_can_serve_still_get_all_the_answers_that_it_allows(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A hundred programs ask for one thing after another, with half a minute for each."""
    rps, patience_s, duration_s = 2, 30.0, 600.0
    pacing = pacing_of(rps=rps)
    answers = 0

    async def ask() -> None:
        nonlocal answers
        deadline_s = trio.current_time() + patience_s
        with trio.move_on_after(patience_s), suppress(AttemptFailedError):
            async with pacing.slot(is_transfer=False, deadline_s=deadline_s):
                await trio.sleep(1.0)
                answers += 1

    async def program(number: int) -> None:
        await trio.sleep(patience_s * number / 100)
        while True:
            await ask()

    with trio.move_on_after(duration_s):
        async with trio.open_nursery() as programs:
            for number in range(100):
                programs.start_soon(program, number)

    assert answers >= 0.95 * rps * duration_s


async def test_a_thousand_callers_at_once_are_all_served_within_the_limit(
    autojump_clock: trio.testing.MockClock,
) -> None:
    load = Load(pacing_of())

    await load.round(1000)

    assert len(load.began_s) == 1000
    assert load.most == 16
    assert trio.current_time() == pytest.approx(63.0)


def test_a_slot_says_which_kind_it_is() -> None:
    assert Slot(pacing_of(), is_transfer=True).is_transfer
