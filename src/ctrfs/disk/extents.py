"""Which bytes of a sparse file are there: sorted, disjoint, half-open ranges."""

from __future__ import annotations

import itertools
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from typing import TypeAlias

from typing_extensions import override

Range: TypeAlias = tuple[int, int]


class Extents:
    """A set of byte offsets, held as ranges ``[start, end)``; lookups take O(log n).

    Invariant: ``_starts`` and ``_ends`` grow strictly, and between two ranges there is a gap
    of at least one byte: what touches is one range.
    """

    __slots__ = ("_ends", "_starts", "_total_bytes")

    def __init__(self, ranges: Iterable[Range] = ()) -> None:
        """Begin with the union of ``ranges``, in any order."""
        self._starts: list[int] = []
        self._ends: list[int] = []
        self._total_bytes = 0
        for start, end in ranges:
            self.add(start, end)

    @property
    def total_bytes(self) -> int:
        """How many bytes are there."""
        return self._total_bytes

    def __iter__(self) -> Iterator[Range]:
        """Yield the ranges in order; add and remove nothing meanwhile."""
        return zip(self._starts, self._ends, strict=True)

    def __len__(self) -> int:
        """Return how many ranges there are."""
        return len(self._starts)

    @override
    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Extents):
            return NotImplemented
        return self._starts == other._starts and self._ends == other._ends

    __hash__ = None  # type: ignore[assignment]  # it changes

    @override
    def __repr__(self) -> str:
        return f"Extents({list(self)})"

    def copy(self) -> Extents:
        """Return the same ranges, to be changed apart from these."""
        twin = Extents()
        twin._starts, twin._ends = self._starts.copy(), self._ends.copy()
        twin._total_bytes = self._total_bytes
        return twin

    def add(self, start: int, end: int) -> None:
        """Add the bytes from ``start`` to before ``end``; those that are there stay."""
        assert 0 <= start <= end, f"no range: {start} to {end}"
        if start == end:
            return
        first = bisect_left(self._ends, start)  # of those that overlap or touch
        behind = bisect_right(self._starts, end)
        if first < behind:
            start = min(start, self._starts[first])
            end = max(end, self._ends[behind - 1])
        self._replace(first, behind, [(start, end)])

    def remove(self, start: int, end: int) -> None:
        """Remove the bytes from ``start`` to before ``end``, as far as they are there."""
        assert 0 <= start <= end, f"no range: {start} to {end}"
        first = bisect_right(self._ends, start)  # of those that overlap
        behind = bisect_left(self._starts, end)
        if start == end or first >= behind:
            return
        left = (self._starts[first], min(start, self._ends[first]))
        right = (max(end, self._starts[behind - 1]), self._ends[behind - 1])
        self._replace(first, behind, [(a, b) for a, b in (left, right) if a < b])

    def covers(self, start: int, end: int) -> bool:
        """Tell whether all bytes from ``start`` to before ``end`` are there."""
        return self.first_gap(start, end) is None

    def first_gap(self, start: int, end: int) -> Range | None:
        """Return the first range of missing bytes between ``start`` and ``end``; None without.

        It ends where the next byte is that is there, at the latest at ``end``.
        """
        gap_start = self.present_end(start)
        if gap_start >= end:
            return None
        following = bisect_right(self._starts, gap_start)
        if following == len(self._starts):
            return gap_start, end
        return gap_start, min(end, self._starts[following])

    def present_end(self, start: int) -> int:
        """Return up to where all bytes from ``start`` on are there; ``start`` if it is missing."""
        index = bisect_right(self._starts, start) - 1
        return max(start, self._ends[index]) if index >= 0 else start

    def within(self, start: int, end: int) -> Extents:
        """Return the part of these ranges between ``start`` and ``end``."""
        first = bisect_right(self._ends, start)
        behind = bisect_left(self._starts, end)
        pairs = zip(self._starts[first:behind], self._ends[first:behind], strict=True)
        return Extents((max(a, start), min(b, end)) for a, b in pairs)

    def check_invariants(self) -> None:
        """Raise AssertionError if the ranges are not in order, or touch."""
        bounds = [bound for pair in self for bound in pair]
        assert all(a < b for a, b in itertools.pairwise(bounds))
        assert self._total_bytes == sum(end - start for start, end in self)

    def _replace(self, first: int, behind: int, ranges: list[Range]) -> None:
        gone = sum(self._ends[first:behind]) - sum(self._starts[first:behind])
        self._starts[first:behind] = [start for start, _ in ranges]
        self._ends[first:behind] = [end for _, end in ranges]
        self._total_bytes += sum(end - start for start, end in ranges) - gone
