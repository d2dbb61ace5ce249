"""What the blocks of a cached copy must sum to, and which have been compared with that.

A disk may give back other bytes than it was given, and a power cut may leave a file of the right
length with nothing in it. Comparing a block costs 0.3 ms a MiB, most of it the reading; so it is
done where a block is first read, not for the whole file when it is opened.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from xxhash import xxh3_64_intdigest

from ctrfs.disk.extents import Extents, Range
from ctrfs.disk.spool import SpoolFile
from ctrfs.errors import LocalDiskError
from ctrfs.units import MIB

# One kernel request with its read-ahead; the sums of 1 GiB take 12 KiB.
BLOCK_BYTES: Final = 1 * MIB


class BlockSums:
    """The sums of those blocks of one file of which anything is there; holes count as zeros.

    Attributes:
        sums: By number of the block, as they were recorded or computed.
        extents: Which bytes were there then.
    """

    def __init__(self, sums: Mapping[int, int], extents: Extents, *, are_verified: bool) -> None:
        self.sums: dict[int, int] = dict(sums)
        self.extents = extents.copy()
        self._unverified: set[int] = set() if are_verified else set(self.sums)

    @property
    def is_verified(self) -> bool:
        """Whether no block is left to be compared."""
        return not self._unverified

    def verify(self, spool_file: SpoolFile, start: int, end: int) -> list[Range]:
        """Compare the blocks from ``start`` to ``end`` that were not yet; return damaged ranges.

        The bytes must be those that the sums were recorded for: nothing was written since.
        """
        expected = self.unverified(start, end) if self._unverified else {}
        return self.settle(expected, damaged_blocks(spool_file, expected)) if expected else []

    def unverified(self, start: int, end: int) -> dict[int, int]:
        """Return the sums of the blocks from ``start`` to ``end`` that were not compared yet."""
        first, behind = start // BLOCK_BYTES, -(-end // BLOCK_BYTES)
        blocks: Iterable[int] = range(first, behind)
        if behind - first > len(self._unverified):
            blocks = sorted(block for block in self._unverified if first <= block < behind)
        return {block: self.sums[block] for block in blocks if block in self._unverified}

    def settle(self, compared: Iterable[int], damaged: Iterable[int]) -> list[Range]:
        """Note blocks as compared, forget the damaged ones, and return their ranges."""
        self._unverified.difference_update(compared)
        ranges: list[Range] = []
        for block in damaged:
            self.sums.pop(block, None)
            ranges.append((block * BLOCK_BYTES, (block + 1) * BLOCK_BYTES))
            self.extents.remove(*ranges[-1])
        return ranges

    def tells_all(self) -> bool:
        """Whether each block that is there has a sum, and no other."""
        return self.sums.keys() == set(_blocks_of(self.extents))

    def verify_ragged(self, spool_file: SpoolFile) -> list[Range]:
        """Compare the blocks of a partial copy that are not whole, as ``verify`` does.

        What is added to such a block changes its sum, and must not vouch for the rest of it.
        """
        damaged: list[Range] = []
        for block in list(self.sums):
            start, end = block * BLOCK_BYTES, (block + 1) * BLOCK_BYTES
            if not self.extents.covers(start, end):
                damaged += self.verify(spool_file, start, end)
        return damaged


def damaged_blocks(spool_file: SpoolFile, expected: Mapping[int, int]) -> list[int]:
    """Return the blocks whose bytes do not have the sum in ``expected``; may run in a thread.

    What the disk does not give at all is damaged, too.
    """
    damaged: list[int] = []
    for block, known in expected.items():
        try:
            found = _sum_of(spool_file, block)
        except LocalDiskError:
            found = None
        if found != known:
            damaged.append(block)
    return damaged


def sums_now(spool_file: SpoolFile, extents: Extents, known: BlockSums | None) -> BlockSums:
    """Return the sums for what is there now, computing those that ``known`` does not tell.

    A block that holds the same ranges as when ``known`` was made keeps its sum, compared or not:
    summing up what may be damaged would make the damage right. May run in a thread.

    Raises:
        LocalDiskError: The disk does not give the bytes.
    """
    if known is not None and known.extents == extents:
        return known
    sums: dict[int, int] = {}
    for block in _blocks_of(extents):
        kept = None if known is None else known.sums.get(block)
        if known is None or kept is None or _part(known.extents, block) != _part(extents, block):
            kept = _sum_of(spool_file, block)
        sums[block] = kept
    return BlockSums(sums, extents, are_verified=known is None or known.is_verified)


def fresh_bytes(extents: Extents, known: BlockSums | None) -> int:
    """Return how many bytes ``sums_now`` would have to read, roughly."""
    if known is None:
        return extents.total_bytes
    if known.extents == extents:
        return 0
    return max(BLOCK_BYTES, extents.total_bytes - known.extents.total_bytes)


def _blocks_of(extents: Extents) -> Iterator[int]:
    last = -1
    for start, end in extents:
        for block in range(max(last + 1, start // BLOCK_BYTES), -(-end // BLOCK_BYTES)):
            yield block
            last = block


def _part(extents: Extents, block: int) -> Extents:
    return extents.within(block * BLOCK_BYTES, (block + 1) * BLOCK_BYTES)


def _sum_of(spool_file: SpoolFile, block: int) -> int:
    start = block * BLOCK_BYTES
    # No more than there is: Python makes room for as much as is asked for.
    size = min(BLOCK_BYTES, max(0, spool_file.size_bytes - start))
    return xxh3_64_intdigest(spool_file.pread(start, size))
