"""What time it is, as an argument instead of a global.

Ages and deadlines use the monotonic reading, which follows trio's clock and is
therefore virtual under ``trio.testing.MockClock``. Times shown to users use the
wall reading.
"""

from __future__ import annotations

import time
from typing import Protocol

import trio
from typing_extensions import override


class Clock(Protocol):
    """Where a class gets the time from."""

    def monotonic_s(self) -> float:
        """Return seconds since an arbitrary start; never goes back."""

    def wall_ns(self) -> int:
        """Return nanoseconds since 1970; may jump in either direction."""


class SystemClock(Clock):
    """The clock of this machine; must be read inside ``trio.run``."""

    @override
    def monotonic_s(self) -> float:
        return trio.current_time()

    @override
    def wall_ns(self) -> int:
        return time.time_ns()
