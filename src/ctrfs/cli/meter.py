"""How fast the sending of a mount goes, and how long it will take, from what its daemon says."""

from __future__ import annotations

from collections import deque
from typing import Final

import msgspec

from ctrfs.clock import SystemClock
from ctrfs.disk.progress import MountProgress
from ctrfs.units import NS_PER_S

# Long enough that files which take a second each give an even figure, short enough to follow.
WINDOW_S: Final = 20.0
# An answer takes a second or two; a standstill that is longer has a reason worth telling.
STILL_S: Final = 4.0
# Before, a figure would be made of one piece.
_LEAST_S: Final = 1.0


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """What can be shown at one moment. A batch is what is sent without a rest between."""

    done_files: int
    all_files: int
    done_bytes: int
    all_bytes: int
    bytes_per_s: float | None
    """None while it cannot be told."""
    left_s: float | None
    """None while it cannot be told, and while nothing moves."""
    still_s: float
    """For how long nothing has moved; 0 while nothing has to."""

    @property
    def is_done(self) -> bool:
        """Whether nothing is left."""
        return self.done_files >= self.all_files

    @property
    def share(self) -> float:
        """How much is done, from 0 to 1; files without bytes count as files.

        Not 1 while the service has still to answer.
        """
        if self.all_bytes:
            return 1.0 if self.is_done else min(0.99, self.done_bytes / self.all_bytes)
        return self.done_files / self.all_files if self.all_files else 1.0


class Meter:
    """Takes what a daemon says, again and again, and makes figures of it.

    Invariant: ``_points`` has one entry a second at most, none older than the window but one.
    """

    def __init__(self) -> None:
        self._pid: int | None = None
        self._first_files = 0
        self._first_bytes = 0
        self._was_idle = True
        self._points: deque[tuple[float, int, int]] = deque()

    def read(self, progress: MountProgress, *, now_s: float) -> Reading:
        """Return the figures; ``now_s`` is in seconds since 1970, as the daemon's times are."""
        left_files, left_bytes = progress.left_files, progress.left_bytes
        if progress.pid != self._pid or (self._was_idle and left_files):
            self._begin(progress)
        self._was_idle = not left_files
        done_files = progress.sent_files - self._first_files
        done_bytes = progress.sent_bytes + progress.sending_sent_bytes - self._first_bytes
        self._note(now_s, done_files, done_bytes)
        bytes_per_s = self._rate(1)
        files_per_s = self._rate(2)
        still_s = max(0.0, now_s - progress.moved_at_s) if left_files else 0.0
        is_still = still_s > STILL_S
        return Reading(
            done_files=done_files,
            all_files=done_files + left_files,
            done_bytes=done_bytes,
            all_bytes=done_bytes + left_bytes,
            bytes_per_s=0.0 if is_still else bytes_per_s,
            left_s=None if is_still else _left_s(left_bytes, bytes_per_s, left_files, files_per_s),
            still_s=still_s,
        )

    def _begin(self, progress: MountProgress) -> None:
        self._pid = progress.pid
        self._first_files, self._first_bytes = progress.sent_files, progress.sent_bytes
        self._points.clear()

    def _note(self, now_s: float, done_files: int, done_bytes: int) -> None:
        point = (now_s, done_bytes, done_files)
        if len(self._points) > 1 and self._points[-1][0] - self._points[-2][0] < _LEAST_S:
            self._points[-1] = point
        else:
            self._points.append(point)
        while len(self._points) > 2 and self._points[1][0] < now_s - WINDOW_S:
            self._points.popleft()

    def _rate(self, column: int) -> float | None:
        """Return how much a second; None where time stood still, or an attempt began again."""
        first, last = self._points[0], self._points[-1]
        passed_s = last[0] - first[0]
        moved = last[column] - first[column]
        return moved / passed_s if passed_s >= _LEAST_S and moved >= 0 else None


def wall_s() -> float:
    """Return seconds since 1970, by the clock whose times a daemon writes down."""
    return SystemClock().wall_ns() / NS_PER_S


def _left_s(
    left_bytes: int, bytes_per_s: float | None, left_files: int, files_per_s: float | None
) -> float | None:
    """Return the longer of two guesses: small files cost a second each, large ones their bytes."""
    guesses = [
        left / rate
        for left, rate in ((left_bytes, bytes_per_s), (left_files, files_per_s))
        if left and rate
    ]
    return max(guesses, default=None)
