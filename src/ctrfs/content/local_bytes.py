"""The bytes of one file that lie on this machine, and how far they are to be trusted."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from ctrfs.content.identity import ContentIdentity
from ctrfs.content.present_digest import PresentDigest
from ctrfs.content.surroundings import Surroundings
from ctrfs.content.whole_file import damage_in
from ctrfs.disk.block_sums import BlockSums
from ctrfs.disk.content_cache import CachedCopy
from ctrfs.disk.extents import Extents, Range
from ctrfs.disk.spool import SpoolFile
from ctrfs.errors import BadHandleError

log = logging.getLogger(__name__)


class LocalBytes:
    """All bytes of a file or some, in a spool file of its own once anybody has asked for them.

    They may be a copy out of the cache, which the disk may have damaged: its blocks are compared
    with their sums when they are first read, and all of them before anything is made of them.

    Owner: ``OpenFile``, which says who may change them, and when.

    Attributes:
        digest: Of the present bytes.
        is_closed: Whether they were handed over; there is no place for any after that.
    """

    def __init__(
        self,
        surroundings: Surroundings,
        *,
        identity: ContentIdentity | None,
        spool_file: SpoolFile | None,
        take_copy: Callable[[], CachedCopy | None] | None,
        expected_digest: str | None,
    ) -> None:
        """Arguments as of ``OpenFile``."""
        assert take_copy is None or spool_file is None
        self._spool = surroundings.spool
        self._spool_file = spool_file
        self._is_complete = spool_file is not None or (
            identity is not None and identity.size_bytes == 0
        )
        self._complete_size_bytes = spool_file.size_bytes if spool_file is not None else 0
        self._promised_digest = None if identity is None else identity.digest
        self._take_copy = take_copy
        self._partial: CachedCopy | None = None
        # Of the present bytes when they were cached, as long as they are unchanged.
        self._sums: BlockSums | None = None
        self.digest = PresentDigest(
            self._promised_digest if self._is_complete else None,
            expected=expected_digest,
            start_soon=surroundings.start_soon,
        )
        self.is_closed = False

    @property
    def is_complete(self) -> bool:
        """Whether all bytes are here, compared or not."""
        self.look_into_cache()
        return self._is_complete

    @property
    def is_whole(self) -> bool:
        """Whether all bytes are here, and none of them is still to be compared."""
        return self.is_complete and (self._sums is None or self._sums.is_verified)

    @property
    def size_bytes(self) -> int | None:
        """The length, if all bytes are here for all that is known without a look into the cache."""
        return self._complete_size_bytes if self._is_complete else None

    @property
    def spool_file(self) -> SpoolFile:
        """Where they lie; an empty place is made if there is none.

        Raises:
            BadHandleError: They were handed over.
        """
        if self.is_closed:
            raise BadHandleError("the file is closed")
        self.look_into_cache()
        if self._spool_file is None:
            self._spool_file = self._spool.create()
        return self._spool_file

    def look_into_cache(self) -> None:
        """Take the copy of an earlier opener, if there is one and nobody has looked yet."""
        if self._take_copy is None:
            return
        take_copy, self._take_copy = self._take_copy, None
        copy = take_copy()
        if copy is None:
            return
        if self._promised_digest not in {None, copy.digest}:
            copy.spool_file.delete()
            return
        self._spool_file = copy.spool_file
        if not copy.is_complete:
            self._partial = copy
            return
        self._is_complete = True
        self._complete_size_bytes = copy.spool_file.size_bytes
        self.digest.known = copy.digest
        self._sums = copy.sums

    def read(self, start: int, end: int) -> bytes | None:
        """Return these bytes of a complete file; None if some are damaged, and to be fetched."""
        spool_file = self.spool_file
        if self._sums and (damaged := self._sums.verify(spool_file, start, end)):
            self._forget_damaged(damaged)
            return None
        return spool_file.pread(start, end - start)

    def write(self, offset: int, data: bytes) -> int:
        """Write all of ``data`` into a whole file; return how many bytes that is.

        Raises:
            LocalDiskFullError: The spool has no room; some bytes may be written.
        """
        spool_file = self.spool_file
        running = self.digest.behind(offset, spool_file)
        # Before the first byte: a write that fails halfway has changed some, too.
        self._forget_what_is_known()
        written = spool_file.pwrite(offset, data)
        if running is not None:
            self.digest.goes_on(running, offset, data)
        self._complete_size_bytes = spool_file.size_bytes
        return written

    def truncate(self, size: int) -> None:
        """Make a whole file ``size`` bytes long, or any file empty."""
        assert size == 0 or self.is_whole, "what is not here cannot be kept"
        self._forget_what_is_known()
        self._is_complete = True
        self.spool_file.truncate(size)
        self._complete_size_bytes = size

    def move_to(self, spool_file: SpoolFile) -> None:
        """Say that a copy has taken the place of the spool file, which is somebody else's now."""
        self._spool_file = spool_file

    def land(self, size: int, digest: str) -> None:
        """Say that a download has brought all bytes, and checked them."""
        self._is_complete = True
        self._complete_size_bytes = size
        self.digest.known = digest

    def take_partial(self) -> CachedCopy | None:
        """Return, once, what a download can begin with."""
        partial, self._partial = self._partial, None
        return partial

    def forget_copies(self) -> None:
        """Say that nothing the cache has is wanted any more."""
        self._take_copy = self._partial = None

    async def compare(self) -> None:
        """Compare what is left of a complete copy with its sums; what is damaged is to be fetched.

        Many bytes in a thread. Cancelling the wait changes nothing.
        """
        sums, spool_file = self._sums, self.spool_file
        assert sums is not None, "there is something to compare"
        expected = sums.unverified(0, self._complete_size_bytes)
        damaged = await damage_in(spool_file, expected)
        # Another may have finished first, and written since: these bytes are no damage.
        if self._sums is sums and (ranges := sums.settle(expected, damaged)):
            self._forget_damaged(ranges)

    def rest(self) -> None:
        """Give back the file descriptor until the next use."""
        if self._spool_file is not None:
            self._spool_file.rest()

    def hand_over(self, arrived: CachedCopy | None) -> CachedCopy | None:
        """Return what is here if it is of worth, and close.

        Args:
            arrived: What a download that has not ended has brought; None without one.
        """
        partial = self.take_partial() if arrived is None else arrived
        self.forget_copies()
        self.is_closed = True
        spool_file, self._spool_file = self._spool_file, None
        if spool_file is None:
            return None
        if not self._is_complete:
            if partial is None:
                spool_file.delete()
            return partial
        return CachedCopy(
            spool_file=spool_file,
            extents=Extents([(0, self._complete_size_bytes)]),
            digest=self.digest.known,
            is_complete=True,
            sums=self._sums,
        )

    def check_invariants(self) -> None:
        """Raise AssertionError if the length is not that of the spool file."""
        if self._is_complete and self._spool_file is not None:
            assert self._spool_file.size_bytes == self._complete_size_bytes

    def _forget_what_is_known(self) -> None:
        self.digest.forget()
        self._sums = None

    def _forget_damaged(self, damaged: Sequence[Range]) -> None:
        """Have the damaged blocks of a cached copy fetched again: the service has the bytes."""
        log.warning("%d blocks of a cached copy are damaged: fetched again", len(damaged))
        extents = Extents([(0, self._complete_size_bytes)])
        for start, end in damaged:
            extents.remove(start, end)
        self._partial = CachedCopy(
            spool_file=self.spool_file,
            extents=extents,
            digest=self.digest.known,
            is_complete=False,
            sums=self._sums,
        )
        self._is_complete = False
        self._sums = self.digest.known = None
        self._complete_size_bytes = 0
