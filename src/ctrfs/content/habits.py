"""What downloads have shown about the service and the way to it, for all files together."""

from __future__ import annotations

from typing import Final

from ctrfs.units import KIB, MIB

# A reader of one page must not wait long for the rest.
BLOCK_BYTES_MAX: Final = 4 * MIB
# How much the newest figure counts.
_GAIN: Final = 0.25
# Below this a rate says more about buffers than about the line.
_RATE_BYTES_MIN: Final = 256 * KIB
# Who has waited for parts a third as long as the whole would take is likely to go on.
_PATIENCE: Final = 1 / 3


class Habits:
    """Whether parts can be asked for, how soon answers come, and how fast bytes come then.

    Not async on purpose: all of it is atomic.

    Attributes:
        has_ranges: Whether the server sends the part that was asked for; None until it has shown.
        latency_s: From request to the first byte, smoothed; 0 before the first answer.
        bytes_per_s: Of one transfer, smoothed; 0 before the first.
    """

    def __init__(self) -> None:
        self.has_ranges: bool | None = None
        self.latency_s = 0.0
        self.bytes_per_s = 0.0
        self._measured_bytes = 0

    @property
    def reach_bytes(self) -> int:
        """How many bytes a transfer brings while a new request waits for its answer."""
        return int(self.bytes_per_s * self.latency_s)

    def answered(self, latency_s: float) -> None:
        """Take in how long an answer took."""
        self.latency_s = _smoothed(self.latency_s, latency_s)

    def brought(self, size_bytes: int, seconds: float) -> None:
        """Take in how long the bytes of one transfer took after its answer had begun."""
        if size_bytes < _RATE_BYTES_MIN or seconds <= 0:
            return
        # What a transfer costs beside its bytes makes a short one look slow.
        is_better = min(size_bytes, BLOCK_BYTES_MAX) >= 2 * self._measured_bytes
        before = 0.0 if is_better else self.bytes_per_s
        self.bytes_per_s = _smoothed(before, size_bytes / seconds)
        self._measured_bytes = max(self._measured_bytes, min(size_bytes, BLOCK_BYTES_MAX))

    def block_bytes(self, present_bytes: int, *, size_min: int) -> int:
        """Return how many bytes to ask for around one that is missing: a power of two.

        As many as come in the time of a request, so that a reader waits twice as long at most; but
        few as long as little of the file was wanted, so that one look at it stays cheap; not
        less than ``size_min``. As long as nobody knows how fast bytes come, soon enough to tell.
        """
        if self.bytes_per_s == 0:
            wanted = min(present_bytes, _RATE_BYTES_MIN)
        else:
            wanted = min(self.reach_bytes, present_bytes, BLOCK_BYTES_MAX)
        return max(size_min, 1 << max(0, wanted.bit_length() - 1))

    def is_sooner_whole(self, missing_bytes: int, *, waited_s: float) -> bool:
        """Tell whether ``missing_bytes`` had better come at once than part by part.

        Nobody knows how many parts will still be wanted. Who rents as long as that costs less
        than the price, and then buys, never pays more than twice what was necessary; here sooner,
        as bytes that were not wanted keep nobody waiting.

        Args:
            missing_bytes: Of the file.
            waited_s: What its readers have waited for parts so far, all together.
        """
        return self.bytes_per_s > 0 and waited_s > _PATIENCE * missing_bytes / self.bytes_per_s


def _smoothed(before: float, now: float) -> float:
    return now if before == 0 else before + (now - before) * _GAIN
