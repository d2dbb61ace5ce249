"""Whether to try again, and when: a pure decision, and the loop that obeys it.

The rules are those of the official clients, with one more: what creates something is never
sent a second time where the service may already have done it, as no request carries a key by
which the service could tell the copy.
Source: the official Python client, 2026-08.
"""

from __future__ import annotations

import email.utils
import enum
import math
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, TypeVar

import msgspec
import trio
from msgspec.structs import replace

from ctrfs import deadlines, errands, errors
from ctrfs.api.failures import AttemptFailedError, Failure
from ctrfs.clock import Clock
from ctrfs.units import NS_PER_S

FIRST_WAIT_S: Final = 0.5
LONGEST_WAIT_S: Final = 8.0
JITTER: Final = 0.25
# A success that cannot be read was damaged on the way, or comes from a gateway that wants
# something of a person: the first is over at once, the second is not worth half a minute.
UNREADABLE_RETRIES_MAX: Final = 2
# Whoever asks for more than that does not mean this request.
RETRY_AFTER_S_MAX: Final = 120.0

ResultT = TypeVar("ResultT")


class Repeat(enum.Enum):
    """Which requests may be sent again."""

    FREELY = "freely"
    """Reads and deletes: doing it twice is doing it once."""
    IF_SURELY_NOT_DONE = "if surely not done"
    """Creations."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """How one call may be repeated.

    Attributes:
        repeat: Which attempts may be followed by another.
        retries_max: How many attempts may follow the first.
        deadline_s: When the call must have ended, on the monotonic clock.
    """

    repeat: Repeat
    retries_max: int
    deadline_s: float


class Attempts:
    """What one call has been through; filled by ``run``, read by its attempts.

    Attributes:
        was_sent: Whether a byte of the present attempt may have left this machine. The attempt
            sets it; ``run`` clears it before each.
        may_be_done: Whether an earlier attempt may have been carried out unseen.
        deadline_s: When the call must have ended, on the monotonic clock.
    """

    def __init__(self, *, deadline_s: float = math.inf) -> None:
        self.was_sent = False
        self.may_be_done = False
        self.deadline_s = deadline_s


def wait_before_retry(
    failure: Failure,
    *,
    plan: Plan,
    retries: int,
    now_s: float,
    wall_s: float,
    random: float,
) -> float | None:
    """Return how many seconds to wait before the next attempt, or None for no more attempts.

    Args:
        failure: How the last attempt ended.
        plan: What the call allows.
        retries: How many retries there have been; 0 after the first attempt.
        now_s: The monotonic reading.
        wall_s: The wall reading in unix seconds, for a date in ``retry-after``.
        random: From [0, 1), for the jitter.
    """
    is_unreadable = failure.status is not None and 200 <= failure.status < 300
    retries_max = min(plan.retries_max, UNREADABLE_RETRIES_MAX if is_unreadable else math.inf)
    if retries >= retries_max or not _may_repeat(failure, plan.repeat):
        return None
    asked_s = retry_after_s(failure.headers, wall_s=wall_s)
    if asked_s is not None and asked_s > RETRY_AFTER_S_MAX:
        return None
    wait_s = asked_s if asked_s is not None else backoff_s(retries, random=random)
    return wait_s if now_s + wait_s < plan.deadline_s else None


def backoff_s(
    retries: int,
    *,
    random: float,
    first_s: float = FIRST_WAIT_S,
    longest_s: float = LONGEST_WAIT_S,
) -> float:
    """Return the wait where the service names none: ``first_s`` doubled each time, to a limit.

    Up to a quarter is taken off at random, so that many clients do not return together.
    """
    wait_s = min(first_s * 2.0 ** min(retries, 10), longest_s)
    return wait_s * (1.0 - JITTER * random)


def retry_after_s(headers: Mapping[str, str], *, wall_s: float) -> float | None:
    """Return the wait that the service asks for in seconds; None if it names none above 0."""
    wait_s = _number(headers.get("retry-after-ms"))
    if wait_s is not None:
        wait_s /= 1000.0
    else:
        wait_s = _number(headers.get("retry-after"))
    if wait_s is None:
        wait_s = _until_date_s(headers.get("retry-after"), wall_s=wall_s)
    return wait_s if wait_s is not None and wait_s > 0 else None


def _may_repeat(failure: Failure, repeat: Repeat) -> bool:
    if failure.is_final or isinstance(failure.error, errors.RemoteQuotaError):
        return False
    if repeat is Repeat.IF_SURELY_NOT_DONE and failure.may_be_done:
        return False
    should_retry = failure.headers.get("x-should-retry", "").strip().lower()
    if should_retry in {"true", "false"}:
        return should_retry == "true"
    if failure.status is None:
        # A protocol error without an answer is our own request that cannot be written.
        return not isinstance(failure.error, errors.RemoteProtocolError)
    if failure.status == 429:
        # Source: docs/api-notes.md, Errors: without a time to come back, a person must act.
        return "retry-after" in failure.headers or "retry-after-ms" in failure.headers
    return failure.status in {408, 409} or failure.status >= 500 or failure.status < 300


def _number(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        number = float(text)
    except ValueError:
        return None
    return None if math.isnan(number) else number


def _until_date_s(text: str | None, *, wall_s: float) -> float | None:
    parsed = email.utils.parsedate_tz(text) if text else None
    if parsed is None:
        return None
    try:
        return email.utils.mktime_tz(parsed) - wall_s
    except (ValueError, OverflowError):
        return None


class Retrier:
    """Runs attempts until one succeeds, none is left, or the deadline has passed."""

    def __init__(self, *, clock: Clock, random: Callable[[], float]) -> None:
        self._clock = clock
        self._random = random

    async def run(
        self, attempt: Callable[[Attempts], Awaitable[ResultT]], *, plan: Plan
    ) -> ResultT:
        """Return what ``attempt`` returns, calling it again as ``plan`` allows.

        Ends by ``plan.deadline_s`` at the latest, or earlier where the request that this is
        done for must (``ctrfs.deadlines``), cancelling an attempt under way.

        Args:
            attempt: One exchange; raises ``AttemptFailedError`` where it fails.
            plan: What may be repeated, how often, and until when.

        Raises:
            RemoteError: That of the last attempt.
            RemoteUncertainError: A creation that the service may have carried out.
            RemoteStalledError: The deadline passed while an attempt was under way.
        """
        # The plan's deadline is a reading of the injected clock; trio has its own.
        now_s = self._clock.monotonic_s()
        timeout_s = min(max(0.0, plan.deadline_s - now_s), deadlines.remaining_s())
        plan = replace(plan, deadline_s=now_s + timeout_s)
        attempts = Attempts(deadline_s=plan.deadline_s)
        with trio.move_on_after(timeout_s):
            return await self._run(attempt, attempts, plan)
        message = f"no answer within {timeout_s:.0f} s"
        if plan.repeat is Repeat.IF_SURELY_NOT_DONE and attempts.was_sent:
            raise errors.RemoteUncertainError(message)
        raise errors.RemoteStalledError(message)

    async def _run(
        self, attempt: Callable[[Attempts], Awaitable[ResultT]], attempts: Attempts, plan: Plan
    ) -> ResultT:
        retries = 0
        while True:
            attempts.was_sent = False
            try:
                return await attempt(attempts)
            except AttemptFailedError as error:
                failure = error.failure
            attempts.was_sent = False
            attempts.may_be_done = attempts.may_be_done or failure.may_be_done
            wait_s = wait_before_retry(
                failure,
                plan=plan,
                retries=retries,
                now_s=self._clock.monotonic_s(),
                wall_s=self._clock.wall_ns() / NS_PER_S,
                random=self._random(),
            )
            # Not async on purpose, up to the end of a shared fetch: nobody joins one that fails
            # because it was an errand, but where that has other requests under way, and for
            # those see ``SingleFlight.get``.
            if wait_s is None or errands.unwanted() is not None:
                raise _final_error(failure, plan.repeat) from failure.cause
            await trio.sleep(wait_s)
            retries += 1


def _final_error(failure: Failure, repeat: Repeat) -> errors.RemoteError:
    if repeat is Repeat.IF_SURELY_NOT_DONE and failure.may_be_done:
        return errors.RemoteUncertainError(
            str(failure.error),
            request_id=failure.error.request_id,
            code=failure.error.code,
        )
    return failure.error
