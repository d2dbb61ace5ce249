"""The line to the service: the leave to make an attempt, and what each attempt teaches."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ctrfs.api.breaker import Admission, Breaker
from ctrfs.api.health import ServiceHealth
from ctrfs.api.pacing import Pacing, Slot
from ctrfs.clock import Clock
from ctrfs.config import ApiConfig


class Trial:
    """One attempt under way.

    Attributes:
        started_s: When it could begin, on the monotonic clock.
        probe_s: How many seconds it may wait for its answer beside all other limits.
    """

    def __init__(self, slot: Slot, admission: Admission, breaker: Breaker) -> None:
        self.started_s = slot.started_s
        self.probe_s = admission.probe_s
        self._slot = slot
        self._admission = admission
        self._breaker = breaker
        self._is_told = False

    def answered(self, status: int, *, asked_s: float | None) -> None:
        """Learn from the head of an answer; ``asked_s`` is the pause that it asks for."""
        self._is_told = True
        self._breaker.answered()
        self._slot.answered(status, asked_s=asked_s)

    def unanswered(self, words: str, *, is_timeout: bool, is_connected: bool) -> bool:
        """Learn that no answer came; return whether it makes sense to go on trying.

        Ignored after ``answered``.

        Args:
            words: Why there was none.
            is_timeout: Whether time ran out.
            is_connected: Whether something could be sent.
        """
        if self._is_told:
            return True
        self._is_told = True
        self._breaker.failed(self._admission, words, is_connected=is_connected)
        if is_timeout:
            self._slot.timed_out()
        # A line that breaks now and then may hold the next time, also for a probe; nobody at
        # home for so long is nobody at home.
        return is_connected or not self._breaker.is_open

    def ended(self) -> None:
        """Learn that the attempt is over; without a word before, nobody wanted its answer."""
        if not self._is_told:
            self._breaker.abandoned(self._admission)


class Line:
    """Pacing and breaker of one service, asked before each attempt."""

    def __init__(self, config: ApiConfig, *, silence_s: float, clock: Clock) -> None:
        self._breaker = Breaker(silence_s=silence_s, clock=clock)
        self._pacing = Pacing(
            limit_max=config.connections_max, rps=config.requests_per_s_max, clock=clock
        )

    @asynccontextmanager
    async def attempt(self, *, is_transfer: bool, deadline_s: float) -> AsyncIterator[Trial]:
        """Have the leave to make one attempt inside the block; waits for its turn.

        Raises:
            AttemptFailedError: Nobody answers, or the service wants no requests until
                ``deadline_s``.
        """
        # Asked twice: a call neither waits for its turn in vain, nor goes on after having
        # waited while others have found out.
        await self._breaker.hear_of_probe()
        self._breaker.check()
        async with self._pacing.slot(is_transfer=is_transfer, deadline_s=deadline_s) as slot:
            await self._breaker.hear_of_probe()
            trial = Trial(slot, self._breaker.admit(), self._breaker)
            try:
                yield trial
            finally:
                trial.ended()

    def ask_again(self) -> None:
        """Let the next attempt be made though nobody has answered for long."""
        self._breaker.ask_again()

    @property
    def health(self) -> ServiceHealth:
        """How the service does."""
        return ServiceHealth(
            is_answering=not self._breaker.is_open,
            silent_since_ns=self._breaker.silent_since_ns,
            last_error=self._breaker.last_error,
            limit=self._pacing.limit,
            under_way=self._pacing.under_way,
            waiting=self._pacing.waiting,
            paused_s=self._pacing.paused_s,
        )
