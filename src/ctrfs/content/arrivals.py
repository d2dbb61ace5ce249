"""Which bytes of a file have come, which of them readers may have, and whether the whole is right.

What has come is shown, but for the last chunk to come, wherever it lies: that stays back until
length and hash of the whole are checked, so that nobody gets all bytes of a file with wrong
content. A whole that turns out wrong is brought again, and must then agree with everything that
was shown.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

import trio

from ctrfs.content.identity import ContentIdentity
from ctrfs.content.whole_file import damage_in
from ctrfs.disk.content_cache import CachedCopy
from ctrfs.disk.extents import Extents, Range
from ctrfs.disk.spool import SpoolFile
from ctrfs.errors import HashMismatchError, TruncatedContentError
from ctrfs.running_digest import RunningDigest, StartSoon

log = logging.getLogger(__name__)


class Arrivals:
    """The bytes of one version of a file on their way into a spool file.

    Everything but ``check`` is a plain ``def``. Nobody else may write to the spool file.

    Attributes:
        identity: Which bytes.
        shown: Those that can be read from the spool file now.
        arrived: Those of the present pass.
        length_bytes: How long the file is; None until the service has said so.
        is_complete: All bytes are there and checked.
        digest: The blake2b of the whole, once that is complete.

    Invariant: ``_written`` are the bytes that a transfer must agree with: what has arrived, and
    what was shown. ``_digest`` has seen a part of ``arrived`` from its start.
    """

    def __init__(
        self,
        identity: ContentIdentity,
        spool_file: SpoolFile,
        *,
        copy: CachedCopy | None,
        chunk_bytes: int,
        start_soon: StartSoon,
    ) -> None:
        """Begin with what ``copy``, which lies in ``spool_file``, has of the bytes.

        The last ``chunk_bytes`` to come stay back. Many bytes are hashed in tasks that
        ``start_soon`` starts.
        """
        self._spool_file = spool_file
        self._chunk_bytes = chunk_bytes
        self._start_soon = start_soon
        self._running = RunningDigest(spool_file, start_soon=start_soon)
        # Bytes of a copy may turn out to be damaged: hashed is only what a transfer has brought, or
        # has compared, until all of them were compared with their sums.
        self._has_old_bytes = copy is not None
        self._sums = None if copy is None else copy.sums
        self._is_doubtful = False
        self.identity = identity
        self.shown = Extents() if copy is None else copy.extents.copy()
        self._written = self.shown.copy()
        # Without a hash nothing else tells whether an old copy and the rest are of one version.
        self.arrived = Extents() if identity.digest is None else self.shown.copy()
        self.length_bytes = identity.size_bytes
        self.is_complete = False
        self.digest = ""

    @property
    def is_empty(self) -> bool:
        """Whether nothing has come yet, nor was there before."""
        return self._written.total_bytes == 0

    @property
    def room_bytes(self) -> int:
        """How many bytes may come yet before the local disk or its quota is full."""
        return self._spool_file.room_bytes

    @property
    def first_missing(self) -> int:
        """The first byte that has not come; the length, if only the check is left."""
        return self.arrived.present_end(0)

    @property
    def is_all_here(self) -> bool:
        """Whether nothing but the check is left, or not even that."""
        return self.length_bytes is not None and self.first_missing >= self.length_bytes

    def has(self, start: int, end: int) -> bool:
        """Tell whether the bytes from ``start`` to before ``end`` can be read now."""
        if not self.shown.covers(start, end):
            return False
        damaged = [] if self._sums is None else self._sums.verify(self._spool_file, start, end)
        self._forget(damaged)
        return not damaged

    def needed_for(self, start: int, end: int) -> int | None:
        """Return which byte has to come before a read of this range; None if all can be read."""
        behind = end if self.length_bytes is None else min(end, self.length_bytes)
        gap = None if self.is_complete else self.shown.first_gap(start, behind)
        if gap is None:
            return None
        # What is here and not shown waits for all the rest.
        is_here = self.arrived.present_end(gap[0]) > gap[0]
        return self.first_missing if is_here else gap[0]

    def learn_length(self, announced: int) -> None:
        """Take in what an answer says.

        Raises:
            TruncatedContentError: It was said otherwise before.
        """
        if self.length_bytes is None:
            self.length_bytes = announced
        elif announced != self.length_bytes:
            raise TruncatedContentError(received_bytes=announced, expected_bytes=self.length_bytes)

    def accept(self, start: int, piece: bytes) -> None:
        """Take bytes that belong at ``start``: compare what is there already, write the rest.

        What is there of an earlier copy, and damaged, is no longer there: it is written, too.

        Raises:
            TruncatedContentError: They go beyond the end.
            HashMismatchError: They are not those that came before.
            LocalDiskFullError: The spool has no room.
        """
        end = start + len(piece)
        if self.length_bytes is not None and end > self.length_bytes:
            raise TruncatedContentError(received_bytes=end, expected_bytes=self.length_bytes)
        if self._sums is not None:
            # Else damage on this machine's disk would be taken for another version of the file.
            self._forget(self._sums.verify(self._spool_file, start, end))
        view = memoryview(piece)
        position = start
        while (gap := self._written.first_gap(position, end)) is not None:
            self._compare(position, view[position - start : gap[0] - start])
            self._spool_file.pwrite(gap[0], view[gap[0] - start : gap[1] - start])
            position = gap[1]
        self._compare(position, view[position - start :])
        self._written.add(start, end)
        self.arrived.add(start, end)
        self._running.take(start, view)
        if not self._has_old_bytes:
            self._running.reach(self.first_missing)
        self._show(start, end)

    def end_at(self, position: int) -> None:
        """Take in that an answer without a last byte of its own has ended at ``position``.

        Raises:
            TruncatedContentError: There are more bytes.
        """
        promised = self.length_bytes
        if promised is None:
            promised = max((end for _, end in self._written), default=0)
        if position < promised:
            raise TruncatedContentError(received_bytes=position, expected_bytes=promised)
        self.length_bytes = position

    async def check(self) -> Range | None:
        """Check the whole once ``is_all_here``, and complete it; return bytes to bring again.

        Those are what an earlier copy has lost on this machine's disk; None if all is well.

        Raises:
            HashMismatchError: It is not what was promised.
        """
        length = self.length_bytes
        assert length is not None, "nothing is missing"
        damaged = await self._damaged(length)
        if damaged is not None:
            return damaged
        self.digest = await self._running.finish(length)
        # A thread that was cancelled returns all the same; the file may be somebody else's by now.
        await trio.lowlevel.checkpoint_if_cancelled()
        if self.identity.digest not in {None, self.digest}:
            raise HashMismatchError(
                f"the bytes of {self.identity.file_id} have the hash {self.digest}, "
                f"promised was {self.identity.digest}"
            )
        if self._spool_file.size_bytes != length:  # a longer first pass was there
            self._spool_file.truncate(length)
        self.shown.add(0, length)
        self.is_complete = True
        return None

    def start_over(self) -> None:
        """Begin another pass, which must agree with what was shown; forget what was learnt."""
        self.arrived = Extents()
        self._written = self.shown.copy()
        self._running = RunningDigest(self._spool_file, start_soon=self._start_soon)
        self._has_old_bytes = False
        self._is_doubtful = True
        self.length_bytes = self.identity.size_bytes

    def give_up(self) -> None:
        """Trust nothing that came; who comes next begins afresh."""
        self.shown, self.arrived, self._written = Extents(), Extents(), Extents()
        self._sums = None
        self._is_doubtful = False

    def partial_copy(self) -> CachedCopy | None:
        """Return what is there, for a later download of the same identity; None for nothing.

        Not in the middle of a pass that has to prove what an earlier one has brought.
        """
        if self._is_doubtful or self.shown.total_bytes == 0:
            return None
        return CachedCopy(
            spool_file=self._spool_file,
            extents=self.shown,
            digest=self.identity.digest,
            is_complete=False,
            sums=self._sums,
        )

    def check_invariants(self) -> None:
        """Raise AssertionError if the counts contradict each other."""
        for extents in (self.shown, self.arrived):
            assert all(self._written.covers(start, end) for start, end in extents)
        assert all(end <= self._spool_file.size_bytes for _, end in self._written)
        if self.is_complete:
            assert self.length_bytes == self._spool_file.size_bytes
            assert self.shown.covers(0, self._spool_file.size_bytes)

    def _compare(self, position: int, again: memoryview) -> None:
        if again and self._spool_file.pread(position, len(again)) != again:
            raise HashMismatchError(f"two transfers of {self.identity.file_id} differ")

    def _show(self, start: int, end: int) -> None:
        """Let readers have the bytes, but keep the last chunk to come for the check."""
        if self.length_bytes is None:
            start, end = 0, self.arrived.present_end(0) - self._chunk_bytes
        else:
            gap = self.shown.first_gap(start, end)
            if gap is None:
                return
            left = self.length_bytes - self._chunk_bytes - self.shown.total_bytes
            start, end = gap[0], min(end, gap[0] + left)
        if end > start:
            self.shown.add(start, end)

    async def _damaged(self, length: int) -> Range | None:
        """Return the first block of an earlier copy that is not what it was; None if all are."""
        sums = self._sums
        expected = {} if sums is None else sums.unverified(0, length)
        if sums is None or not expected:
            return None
        found = await damage_in(self._spool_file, expected)
        await trio.lowlevel.checkpoint_if_cancelled()
        damaged = sums.settle(expected, found)
        self._forget(damaged)
        return (damaged[0][0], min(damaged[0][1], length)) if damaged else None

    def _forget(self, damaged: Iterable[Range]) -> None:
        for start, end in damaged:
            log.warning("a block of a cached copy is damaged: it is fetched again")
            for extents in (self.shown, self.arrived, self._written):
                extents.remove(start, end)
