"""One part of a file on its way, and which part that should be."""

from __future__ import annotations

import math
from typing import Final

import trio

from ctrfs import errands
from ctrfs.api.protocol import ContentStream
from ctrfs.config import ContentConfig
from ctrfs.content.arrivals import Arrivals
from ctrfs.content.habits import Habits
from ctrfs.content.pace import Pace
from ctrfs.disk.extents import Extents
from ctrfs.errors import CtrfsError, ShuttingDownError
from ctrfs.units import MIB

# Whoever reads on behind a part that was fetched for it gets a larger one each time.
GROWTH: Final = 4
# What is left of a lane must be worth two requests, and take so much longer than one.
SPLIT_BYTES_MIN: Final = 16 * MIB
SPLIT_LATENCIES: Final = 8
SPLIT_S_MIN: Final = 0.5


class Lane:
    """A task that fetches the bytes from ``position`` to ``end``, one after another.

    Attributes:
        start: Where it began.
        position: The next byte that comes.
        end: Where it stops; None for the end of the file. May come nearer while it runs.
        is_over: Whether the task has ended.
        error: Why it ended without its bytes, once ``is_over``; None if it has all that it was to
            bring, or if other lanes bring them instead.
        waits_for_turn: Whether its first request is still behind others.
        turn_came_s: When that was sent, by trio's clock.
        pace: How its bytes come.
        errand: What it was begun on, if not for a reader.
    """

    def __init__(self, start: int, end: int | None, *, stall_timeout_s: float) -> None:
        self.start = self.position = start
        self.end = end
        self.scope = trio.CancelScope()
        self.is_over = False
        self.error: CtrfsError | None = ShuttingDownError("the download was cancelled")
        self.waits_for_turn = True
        self.turn_came_s = -math.inf
        self.pace = Pace(stall_timeout_s)
        self.errand = errands.unwanted()
        self._flow_began_s = math.inf
        self._flow_start = start

    def will_bring(self, byte: int) -> bool:
        """Tell whether ``byte`` is still to come here."""
        return not self.is_over and byte >= self.position and (self.end is None or byte < self.end)

    def has_enough(self, stream: ContentStream) -> bool:
        """Tell whether ``stream`` has more bytes than this is to bring."""
        if self.end is None or self.position < self.end:
            return False
        return stream.length_bytes is None or stream.offset + stream.length_bytes > self.end

    def flows(self, now_s: float) -> None:
        """Take note that bytes are about to come."""
        self._flow_began_s, self._flow_start = now_s, self.position

    def bytes_per_s(self, now_s: float) -> float:
        """Return how fast they have come since then."""
        seconds = now_s - self._flow_began_s
        return (self.position - self._flow_start) / seconds if seconds > 0 else 0.0

    def restart(self) -> None:
        """Begin again, with the first byte of the file, and bring all of it."""
        self.start = self.position = 0
        self.end = None

    def drop(self) -> None:
        """End it, as others bring the bytes; who waits for it looks for them."""
        self.error = None
        self.scope.cancel()


def part_around(
    byte: int,
    *,
    arrivals: Arrivals,
    habits: Habits,
    config: ContentConfig,
    follows_bytes: int,
    is_rest_coming: bool,
) -> tuple[int, int | None]:
    """Return where a new lane that brings ``byte`` should start and end.

    Args:
        byte: Missing, and not about to come; the length of the file if none is missing.
        arrivals: What is here, and how long the file is.
        habits: How large a block is worth its request.
        config: How small one may be, and what comes whole.
        follows_bytes: The length of the part that ended at ``byte``; 0 if none did.
        is_rest_coming: Whether all of it is on its way: a part would only hold that up.
    """
    arrived, length_bytes = arrivals.arrived, arrivals.length_bytes
    if byte == arrived.present_end(0):
        return byte, _next_large(arrived, byte, max(config.near_bytes, habits.reach_bytes))
    if length_bytes is None or length_bytes <= config.near_bytes:
        return 0, None
    if follows_bytes:
        start, size = byte, follows_bytes * GROWTH
    else:
        wanted_bytes = 0 if is_rest_coming else arrived.total_bytes
        size = habits.block_bytes(wanted_bytes, size_min=config.block_bytes_min)
        start = byte - byte % size
    gap = arrived.first_gap(byte, min(start + size, length_bytes))
    assert gap is not None, "the byte is missing"
    return _gap_start(arrived, start, byte), gap[1]


def split_point(
    lane: Lane, *, length_bytes: int | None, now_s: float, latency_s: float
) -> int | None:
    """Return from where on another lane should bring the rest; None if that is not worth it."""
    end = length_bytes if lane.end is None else lane.end
    rate = lane.bytes_per_s(now_s)
    if end is None or rate == 0 or end - lane.position < SPLIT_BYTES_MIN:
        return None
    if (end - lane.position) / rate < max(SPLIT_S_MIN, SPLIT_LATENCIES * latency_s):
        return None
    middle = (lane.position + end) // 2
    return middle - middle % MIB


def _next_large(arrived: Extents, byte: int, size_min: int) -> int | None:
    """Return where bytes begin behind ``byte`` that are too many to be fetched again."""
    for start, end in arrived:
        if start > byte and end - start >= size_min:
            return start
    return None


def _gap_start(arrived: Extents, start: int, byte: int) -> int:
    """Return the first byte from ``start`` on from which all up to ``byte`` are missing."""
    while (gap := arrived.first_gap(start, byte)) is not None and gap[1] < byte:
        start = gap[1]
    return byte if gap is None else gap[0]
