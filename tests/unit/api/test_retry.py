from __future__ import annotations

import email.utils

import pytest
import trio
import trio.testing
from tests.unit.api.fake_transport import VirtualClock

from ctrfs import deadlines, errors
from ctrfs.api.failures import AttemptFailedError, Failure
from ctrfs.api.retry import (
    RETRY_AFTER_S_MAX,
    Attempts,
    Plan,
    Repeat,
    Retrier,
    backoff_s,
    retry_after_s,
    wait_before_retry,
)

WALL_S = 1_700_000_000.0
RETRIED_STATUSES = [408, 409, 500, 502, 503, 504, 529]
FINAL_STATUSES = [307, 400, 401, 403, 404, 405, 413, 416, 422]


def failure(
    status: int | None = None,
    *,
    error: errors.RemoteError | None = None,
    may_be_done: bool = False,
    **headers: str,
) -> Failure:
    return Failure(
        error=error or errors.RemoteUnavailableError("no"),
        status=status,
        headers={name.replace("_", "-"): value for name, value in headers.items()},
        may_be_done=may_be_done,
    )


def plan(
    repeat: Repeat = Repeat.FREELY, *, retries_max: int = 2, deadline_s: float = 1000.0
) -> Plan:
    return Plan(repeat=repeat, retries_max=retries_max, deadline_s=deadline_s)


def wait_after(
    ended: Failure, allowed: Plan | None = None, *, retries: int = 0, now_s: float = 0.0
) -> float | None:
    return wait_before_retry(
        ended, plan=allowed or plan(), retries=retries, now_s=now_s, wall_s=WALL_S, random=0.0
    )


@pytest.mark.parametrize("status", RETRIED_STATUSES)
def test_what_may_pass_is_tried_again_after_half_a_second(status: int) -> None:
    assert wait_after(failure(status)) == 0.5


@pytest.mark.parametrize("status", FINAL_STATUSES)
def test_what_will_not_pass_is_not_tried_again(status: int) -> None:
    assert wait_after(failure(status)) is None


def test_a_broken_connection_is_tried_again() -> None:
    assert wait_after(failure()) == 0.5


def test_a_request_that_cannot_be_written_is_not_tried_again() -> None:
    assert wait_after(failure(error=errors.RemoteProtocolError("illegal"))) is None


@pytest.mark.parametrize(
    ("status", "header", "is_retried"),
    [(404, "true", True), (404, "false", False), (503, "true", True), (503, "false", False),
       (404, "perhaps", False), (503, "perhaps", True), (503, " FALSE ", False)],
)  # fmt: skip
def test_the_service_decides_where_it_says_so(status: int, header: str, is_retried: bool) -> None:
    assert (wait_after(failure(status, x_should_retry=header)) is not None) is is_retried


def test_a_used_up_quota_is_never_tried_again() -> None:
    ended = failure(429, error=errors.RemoteQuotaError("pay"), x_should_retry="true")

    assert wait_after(ended) is None


@pytest.mark.parametrize(
    "limited", [failure(429, retry_after="3"), failure(429, retry_after_ms="3000")]
)
def test_a_limit_of_requests_that_names_a_time_is_waited_for(limited: Failure) -> None:
    assert wait_after(limited) == 3.0
    assert wait_after(limited, plan(Repeat.IF_SURELY_NOT_DONE)) == 3.0


def test_a_limit_of_requests_without_a_time_needs_a_person() -> None:
    assert wait_after(failure(429)) is None


@pytest.mark.parametrize("retries", [0, 1, 2, 3, 7])
@pytest.mark.parametrize("retries_max", [0, 1, 2, 5])
def test_there_are_as_many_retries_as_allowed(retries: int, retries_max: int) -> None:
    wait_s = wait_after(failure(503), plan(retries_max=retries_max), retries=retries)

    assert (wait_s is not None) is (retries < retries_max)


@pytest.mark.parametrize("status", [None, 409])
def test_a_creation_that_surely_was_not_done_is_tried_again(status: int | None) -> None:
    assert wait_after(failure(status), plan(Repeat.IF_SURELY_NOT_DONE)) == 0.5


@pytest.mark.parametrize("status", [None, 200, 408, 500, 503])
@pytest.mark.parametrize("header", ["", "true"])
def test_a_creation_that_may_be_done_is_not_tried_again(status: int | None, header: str) -> None:
    ended = failure(status, may_be_done=True, x_should_retry=header)

    assert wait_after(ended, plan(Repeat.IF_SURELY_NOT_DONE)) is None


@pytest.mark.parametrize(
    ("retries", "longest_s"), [(0, 0.5), (1, 1.0), (2, 2.0), (3, 4.0), (4, 8.0), (5, 8.0), (10**9, 8.0)]
)  # fmt: skip
def test_the_wait_doubles_up_to_eight_seconds_less_a_quarter(
    retries: int, longest_s: float
) -> None:
    assert backoff_s(retries, random=0.0) == longest_s
    assert backoff_s(retries, random=0.5) == longest_s * 0.875
    assert backoff_s(retries, random=1.0) == longest_s * 0.75


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after": "  3 "}, 3.0),
        ({"retry-after": "0"}, None),
        ({"retry-after": "-4"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "inf"}, float("inf")),
        ({"retry-after": email.utils.formatdate(WALL_S + 30, usegmt=True)}, 30.0),
        ({"retry-after": email.utils.formatdate(WALL_S - 30, usegmt=True)}, None),
        ({"retry-after": "Fri, 99 Nov 99999 25:61:61 GMT"}, None),
        ({"retry-after-ms": "250"}, 0.25),
        ({"retry-after-ms": "250", "retry-after": "7"}, 0.25),
        ({"retry-after-ms": "soon", "retry-after": "7"}, 7.0),
        ({"retry-after-ms": "0"}, None),
    ],
)
def test_the_wait_that_the_service_asks_for_is_understood(
    headers: dict[str, str], wait_s: float | None
) -> None:
    assert retry_after_s(headers, wall_s=WALL_S) == wait_s


def test_a_wait_of_two_minutes_is_granted_and_none_longer() -> None:
    assert wait_after(failure(429, retry_after="120")) == RETRY_AFTER_S_MAX
    assert wait_after(failure(429, retry_after="121")) is None
    assert wait_after(failure(429, retry_after="1e999")) is None


def test_no_wait_reaches_past_the_deadline() -> None:
    assert wait_after(failure(503), plan(deadline_s=10.0), now_s=9.4) == 0.5
    assert wait_after(failure(503), plan(deadline_s=10.0), now_s=9.5) is None
    assert wait_after(failure(429, retry_after="20"), plan(deadline_s=10.0)) is None


class Script:
    """Attempts that end as told: an error, a number of seconds to take, or a result."""

    def __init__(self, *steps: Failure | float | str) -> None:
        self._steps = list(steps)
        self.began_s: list[float] = []

    async def __call__(self, attempts: Attempts) -> str:
        self.began_s.append(trio.current_time())
        step = self._steps.pop(0)
        attempts.was_sent = True
        if isinstance(step, float):
            await trio.sleep(step)
            return "late"
        if isinstance(step, Failure):
            raise AttemptFailedError(step)
        return step


async def run(script: Script, allowed: Plan) -> str:
    return await Retrier(clock=VirtualClock(), random=lambda: 0.0).run(script, plan=allowed)


async def test_attempts_follow_each_other_after_growing_waits(
    autojump_clock: trio.testing.MockClock,
) -> None:
    script = Script(failure(503), failure(503), "done")

    result = await run(script, plan())

    assert result == "done"
    assert script.began_s == pytest.approx([0.0, 0.5, 1.5])


async def test_the_last_failure_is_the_one_that_is_raised(
    autojump_clock: trio.testing.MockClock,
) -> None:
    last = errors.RemoteBusyError("the third")
    script = Script(failure(503), failure(503), failure(429, error=last))

    with pytest.raises(errors.RemoteBusyError) as caught:
        await run(script, plan())

    assert caught.value is last


async def test_an_attempt_without_end_is_cut_at_the_deadline(
    autojump_clock: trio.testing.MockClock,
) -> None:
    with pytest.raises(errors.RemoteStalledError, match="30 s"):
        await run(Script(1e6), plan(deadline_s=30.0))

    assert trio.current_time() == pytest.approx(30.0)


async def test_a_creation_cut_at_the_deadline_is_uncertain(
    autojump_clock: trio.testing.MockClock,
) -> None:
    with pytest.raises(errors.RemoteUncertainError):
        await run(Script(1e6), plan(Repeat.IF_SURELY_NOT_DONE, deadline_s=30.0))


async def test_a_creation_that_may_be_done_is_uncertain_and_tells_what_was_answered(
    autojump_clock: trio.testing.MockClock,
) -> None:
    answered = errors.RemoteUnavailableError("boom", request_id="r1", code="c1")
    script = Script(failure(500, error=answered, may_be_done=True))

    with pytest.raises(errors.RemoteUncertainError, match="boom") as caught:
        await run(script, plan(Repeat.IF_SURELY_NOT_DONE))

    assert (caught.value.request_id, caught.value.code) == ("r1", "c1")


async def test_a_creation_cut_while_waiting_for_a_connection_is_not_uncertain(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def waits_for_a_connection(_attempts: Attempts) -> str:
        await trio.sleep_forever()
        raise AssertionError

    retrier = Retrier(clock=VirtualClock(), random=lambda: 0.0)
    with pytest.raises(errors.RemoteStalledError):
        await retrier.run(
            waits_for_a_connection, plan=plan(Repeat.IF_SURELY_NOT_DONE, deadline_s=30.0)
        )


async def test_the_deadline_of_the_request_that_it_is_done_for_ends_a_call_earlier(
    autojump_clock: trio.testing.MockClock,
) -> None:
    with deadlines.within(4.0), pytest.raises(errors.RemoteStalledError, match="4 s"):
        await run(Script(1e6), plan(deadline_s=30.0))

    assert trio.current_time() == pytest.approx(4.0)


async def test_the_deadline_of_the_request_leaves_the_earlier_one_of_the_call_alone(
    autojump_clock: trio.testing.MockClock,
) -> None:
    with deadlines.within(100.0), pytest.raises(errors.RemoteStalledError):
        await run(Script(1e6), plan(deadline_s=30.0))

    assert trio.current_time() == pytest.approx(30.0)


async def test_a_creation_cut_by_the_deadline_of_the_request_is_uncertain(
    autojump_clock: trio.testing.MockClock,
) -> None:
    with deadlines.within(4.0), pytest.raises(errors.RemoteUncertainError):
        await run(Script(1e6), plan(Repeat.IF_SURELY_NOT_DONE, deadline_s=30.0))


async def test_no_wait_begins_that_the_deadline_of_the_request_would_cut(
    autojump_clock: trio.testing.MockClock,
) -> None:
    script = Script(failure(429, error=errors.RemoteBusyError("later"), retry_after="20"), "done")

    with deadlines.within(10.0), pytest.raises(errors.RemoteBusyError):
        await run(script, plan())

    assert trio.current_time() == 0.0
