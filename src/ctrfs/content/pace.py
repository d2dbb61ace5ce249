"""How fast bytes come, to tell a slow transfer from one that only pretends to go on."""

from __future__ import annotations

import math
from collections import deque
from typing import Final

from ctrfs.units import KIB

# A modem of 1995 was faster. A server that sends less wants to hold us, or is broken.
BYTES_PER_S_MIN: Final = 1 * KIB
# Pieces that come within this time count as one: a fast transfer brings thousands a second.
_GRAIN_S: Final = 1.0


class Pace:
    """What arrived lately; as old as it must be to answer ``lasts_until_s``, and no older.

    Times are readings of one clock, in seconds. Not async on purpose: all of it is atomic.
    """

    def __init__(self, window_s: float) -> None:
        """Count over ``window_s``: how long silence is borne."""
        self._window_s = window_s
        self._bytes_min = max(1, int(BYTES_PER_S_MIN * window_s))
        self._arrivals: deque[_Arrival] = deque()
        self._bytes = 0

    def note(self, size_bytes: int, *, now_s: float) -> None:
        """Count ``size_bytes`` that have just arrived."""
        self._bytes += size_bytes
        newest = self._arrivals[-1] if self._arrivals else None
        if newest is not None and now_s - newest.first_s < _GRAIN_S:
            newest.last_s = now_s
            newest.size_bytes += size_bytes
        else:
            self._arrivals.append(_Arrival(now_s, size_bytes))
        while self._is_needless(self._arrivals[0], now_s):
            self._bytes -= self._arrivals.popleft().size_bytes

    def lasts_until_s(self) -> float:
        """Return until when enough has come within the last ``window_s``; -inf: it has not."""
        if self._bytes < self._bytes_min:
            return -math.inf
        return self._arrivals[0].last_s + self._window_s

    def _is_needless(self, oldest: _Arrival, now_s: float) -> bool:
        is_over = oldest.last_s + self._window_s <= now_s
        return is_over or self._bytes - oldest.size_bytes >= self._bytes_min


class _Arrival:
    def __init__(self, now_s: float, size_bytes: int) -> None:
        self.first_s = self.last_s = now_s
        self.size_bytes = size_bytes
