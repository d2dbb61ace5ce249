"""A clock for tests that do not care what time it is."""

from __future__ import annotations

from typing_extensions import override

from ctrfs.clock import Clock


class StoppedClock(Clock):
    @override
    def monotonic_s(self) -> float:
        return 0.0

    @override
    def wall_ns(self) -> int:
        return 1_700_000_000_000_000_000
