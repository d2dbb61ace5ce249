"""Whether it makes sense to ask the service at all: fails fast while nothing comes back.

After some attempts in a row without any answer, calls are refused at once instead of waiting
for a service that is not there. Now and then one of them is let through as a probe; the first
answer, to whomever, lets everyone through again. Nothing is sent for the sake of probing, as
every request is billed.

Only silence counts: connections that fail or break before an answer, and time that runs out.
An answer of any status shows that somebody is there.
"""

from __future__ import annotations

import datetime as dt
import math
from typing import Final

import msgspec
import trio

from ctrfs import errors
from ctrfs.api.failures import AttemptFailedError, Failure
from ctrfs.clock import Clock
from ctrfs.units import NS_PER_S

# Of a service that fails to answer one request in ten, five in a row are one in 100,000; and
# under load some other answer comes within three seconds.
FAILURES_TO_OPEN: Final = 5
FAILURES_SPAN_S: Final = 3.0
# Silence is seen late: two calls that waited in vain suffice.
SILENT_FAILURES_TO_OPEN: Final = 2
# A wrong address is found out before a user loses patience with ``ctrfs mount``: of what has
# never answered, connections that cannot be made are enough, however fast they fail.
NEVER_CONNECTED_TO_OPEN: Final = 3
# What failed longer ago says nothing about now.
MEMORY_S: Final = 60.0
FIRST_PAUSE_S: Final = 3.0
LONGEST_PAUSE_S: Final = 30.0
# A probe must not make a user wait as long as a call may. Each that ran out of time makes the
# next one more patient, or a slow service would never be found again.
FIRST_PROBE_S: Final = 10.0
# An answer takes a second or two. Whoever comes while a probe is out waits for so long to hear
# that all is well, or of two programs that come together after a pause one would fail.
PATIENCE_S: Final = 3.0


class Admission(msgspec.Struct, frozen=True, kw_only=True):
    """The leave to make one attempt.

    Attributes:
        began_s: When, on the monotonic clock.
        probe_s: How many seconds the attempt may wait for its answer; infinity for one that
            is no probe.
    """

    began_s: float
    probe_s: float = math.inf

    @property
    def is_probe(self) -> bool:
        """Whether others wait for the outcome."""
        return self.probe_s < math.inf


class Breaker:
    """Counts attempts without an answer, and refuses more while there are too many."""

    def __init__(self, *, silence_s: float, clock: Clock) -> None:
        """Begin with the belief that the service answers.

        Args:
            silence_s: From how many seconds on an attempt without an answer was silence.
            clock: For pauses, and for the words.
        """
        self._silence_s = silence_s
        self._clock = clock
        self._failures = 0
        self._silent_failures = 0
        self._has_connected = False
        self._first_failure_s = 0.0
        self._last_failure_s = -math.inf
        self._since_ns: int | None = None
        self._last_error = ""
        self._is_open = False
        self._pause_s = FIRST_PAUSE_S
        self._probe_s = FIRST_PROBE_S
        self._next_probe_s = 0.0
        self._probe_ended = trio.Event()
        self._probe_ended.set()

    @property
    def is_open(self) -> bool:
        """Whether calls are refused."""
        return self._is_open

    @property
    def silent_since_ns(self) -> int | None:
        """Since when no attempt has been answered, on the wall clock; None if the last was."""
        return self._since_ns

    @property
    def last_error(self) -> str:
        """How the last attempt without an answer ended."""
        return self._last_error

    def ask_again(self) -> None:
        """Let the next attempt through as a probe, however short the pause has been."""
        if self._probe_ended.is_set():
            self._next_probe_s = self._clock.monotonic_s()

    async def hear_of_probe(self) -> None:
        """Wait a moment for the outcome of a probe that is under way."""
        if self._is_open and not self._probe_ended.is_set():
            with trio.move_on_after(PATIENCE_S):
                await self._probe_ended.wait()

    def check(self) -> None:
        """Make sure that an attempt may be made, before waiting for a turn.

        Raises:
            AttemptFailedError: It may not.
        """
        if self._is_open and self._clock.monotonic_s() < self._next_probe_s:
            raise AttemptFailedError(
                Failure(
                    error=errors.RemoteUnavailableError(self._words()),
                    may_be_done=False,
                    is_final=True,
                )
            )

    def admit(self) -> Admission:
        """Let one attempt through; while refusing, as a probe that keeps the others waiting.

        Raises:
            AttemptFailedError: It may not be made.
        """
        self.check()
        now_s = self._clock.monotonic_s()
        if not self._is_open:
            return Admission(began_s=now_s)
        # An upload may take longer than that to be answered; then another may probe too.
        self._next_probe_s = now_s + self._probe_s
        self._probe_ended = trio.Event()
        return Admission(began_s=now_s, probe_s=self._probe_s)

    def answered(self) -> None:
        """Learn that the service has answered, whatever it said."""
        self._has_connected = True
        self._failures = self._silent_failures = 0
        self._since_ns = None
        self._last_error = ""
        self._is_open = False
        self._pause_s = FIRST_PAUSE_S
        self._probe_s = FIRST_PROBE_S
        self._probe_ended.set()

    def failed(self, admission: Admission, words: str, *, is_connected: bool = True) -> None:
        """Learn that an attempt ended without an answer.

        Args:
            admission: Of the attempt.
            words: Why, for users.
            is_connected: Whether the attempt got as far as sending something.
        """
        now_s = self._clock.monotonic_s()
        self._last_error = words
        self._has_connected = self._has_connected or is_connected
        if self._is_open:
            if admission.is_probe:
                self._pause_s = min(self._pause_s * 2, LONGEST_PAUSE_S)
                if now_s - admission.began_s >= admission.probe_s:
                    self._probe_s *= 2
                self._next_probe_s = now_s + self._pause_s
                self._probe_ended.set()
            return
        took_s = now_s - admission.began_s
        if self._failures == 0 or admission.began_s - self._last_failure_s > MEMORY_S:
            self._failures = self._silent_failures = 0
            self._first_failure_s = admission.began_s
            self._since_ns = self._clock.wall_ns() - int(took_s * NS_PER_S)
        self._failures += 1
        self._silent_failures += took_s >= self._silence_s
        self._last_failure_s = now_s
        never_connected = not self._has_connected and self._failures >= NEVER_CONNECTED_TO_OPEN
        is_silent = self._silent_failures >= SILENT_FAILURES_TO_OPEN
        if (never_connected or is_silent) or (
            self._failures >= FAILURES_TO_OPEN and now_s - self._first_failure_s >= FAILURES_SPAN_S
        ):
            self._is_open = True
            self._next_probe_s = now_s + self._pause_s

    def abandoned(self, admission: Admission) -> None:
        """Learn that an attempt was given up before its answer, by whoever wanted it."""
        if self._is_open and admission.is_probe:
            self._next_probe_s = self._clock.monotonic_s()
            self._probe_ended.set()

    def _words(self) -> str:
        since_ns = self._since_ns or 0
        since = dt.datetime.fromtimestamp(since_ns // NS_PER_S, tz=dt.UTC)
        return (
            f"the service has not answered since {since:%Y-%m-%d %H:%M:%S} UTC ({self._last_error})"
        )
