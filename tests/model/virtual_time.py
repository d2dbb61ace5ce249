"""Time that passes only when nothing else can happen, threads included.

trio's own ``autojump_clock`` jumps while a thread works (a sync of the spool), which would let
time pass by chance. Here the clock is moved by hand, from one deadline to the next.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import trio
import trio.testing

T = TypeVar("T")

# No operation may take longer, whatever the service does: uploads have 600 s, and there may be
# a few requests after one.
OPERATION_MAX_S: Final = 3600.0
# How long to let a thread work before looking again; real seconds.
_THREAD_PAUSE_S: Final = 0.0002


class HungError(AssertionError):
    """Nothing runs, nothing will, and the operation has not ended."""


class VirtualTime:
    """Moves a ``MockClock`` that stands still otherwise. For one task at a time."""

    def __init__(self, clock: trio.testing.MockClock) -> None:
        self._clock = clock

    @property
    def now_s(self) -> float:
        """The present reading."""
        return trio.current_time()

    async def run(self, work: Callable[[], Awaitable[T]]) -> T:
        """Return what ``work`` returns, letting as much time pass as it waits for.

        Raises:
            HungError: It waits for what will never come, or for longer than any deadline.
        """
        ends: list[T] = []
        errors: list[BaseException] = []
        done = False

        async def carry_out() -> None:
            nonlocal done
            try:
                ends.append(await work())
            except Exception as error:  # noqa: BLE001  # handed to the caller below
                errors.append(error)
            finally:
                done = True

        started_s = self.now_s
        async with trio.open_nursery() as nursery:
            nursery.start_soon(carry_out)
            await self.quiet()
            while not done:
                wait_s = trio.lowlevel.current_statistics().seconds_to_next_deadline
                if self.now_s + wait_s - started_s > OPERATION_MAX_S:
                    raise HungError(f"not done, and nothing happens for {wait_s} s")
                self._clock.jump(max(0.0, wait_s))
                await self.quiet()
        if errors:
            raise errors[0]
        return ends[0]

    async def pass_(self, seconds: float) -> None:
        """Let time pass, deadline by deadline, so that whatever is due happens in its turn."""
        end_s = self.now_s + seconds
        while True:
            await self.quiet()
            wait_s = trio.lowlevel.current_statistics().seconds_to_next_deadline
            left_s = end_s - self.now_s
            if left_s <= 0:
                return
            self._clock.jump(max(0.0, min(wait_s, left_s) if math.isfinite(wait_s) else left_s))

    async def quiet(self) -> None:
        """Return once every task waits for time to pass, and no thread works."""
        limiter = trio.to_thread.current_default_thread_limiter()
        while True:
            await trio.testing.wait_all_tasks_blocked()
            if limiter.borrowed_tokens == 0:
                return
            await trio.testing.wait_all_tasks_blocked(_THREAD_PAUSE_S)
