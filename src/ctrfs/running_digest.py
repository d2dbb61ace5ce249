"""The digest of a file, computed beside what brings its bytes.

blake2b makes 1 GB/s, and nothing else of a transfer takes as long: of 256 MiB read from a service
next door it was 280 of 650 ms. Few bytes are hashed where they come by. Of many, a thread reads
back what has come, out of the page cache: it follows, in larger steps the further it is behind.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import Final, Protocol, TypeAlias

import trio

from ctrfs.errors import LocalDiskError, ShuttingDownError
from ctrfs.units import MIB

# Source: the service's own choice for the prefix of uploaded names; docs/api-notes.md.
_DIGEST_BYTES: Final = 16

StartSoon: TypeAlias = Callable[[Callable[[], Awaitable[None]]], None]

# A MiB takes 1 ms, which nobody feels; a hop to a thread takes 0.1.
INLINE_MAX: Final = 1 * MIB
# Up to here each piece is hashed where it comes by: 8 ms at most, spread over a whole transfer.
_FOLLOWED_BYTES_MIN: Final = 8 * MIB
# What one hop takes at most, as nobody can end a thread: 8 ms, and 80 from a cold disk.
_STEP_BYTES_MAX: Final = 8 * MIB
_PIECE_BYTES: Final = 1 * MIB

log = logging.getLogger(__name__)


def new_hasher() -> hashlib.blake2b:
    """Return the beginning of a digest; its ``hexdigest`` is what the service names files by."""
    return hashlib.blake2b(digest_size=_DIGEST_BYTES)


class ReadableBytes(Protocol):
    """Bytes of a local file that is still being written."""

    def pread(self, offset: int, size: int) -> bytes:
        """Return up to ``size`` bytes from ``offset``; fewer only at the end."""

    def pinned(self) -> AbstractContextManager[None]:
        """Let ``pread`` work inside the block, whatever becomes of the file meanwhile."""


class RunningDigest:
    """The blake2b of the first bytes of a file.

    Bytes once reported must not change as long as this is used. Whoever hashes more than what comes
    by is ``_is_busy`` with it: the hasher and the position are then his, or his thread's, alone.

    Attributes:
        source: Whose bytes.
        end: How many bytes from the start have been reported.

    Invariant: ``_hasher`` has seen ``_position`` bytes, at most ``end``.
    """

    def __init__(self, source: ReadableBytes, *, start_soon: StartSoon | None) -> None:
        """Begin at the first byte.

        Args:
            source: Whose bytes.
            start_soon: Starts a task that waits for a thread, or raises ShuttingDownError; None
                has everything hashed where it comes by.
        """
        self.source = source
        self.end = 0
        self._start_soon = start_soon
        self._hasher = new_hasher()
        self._position = 0
        self._is_busy = False
        self._rest = trio.lowlevel.ParkingLot()

    def take(self, start: int, piece: bytes | memoryview) -> None:
        """See the bytes at ``start``, if they are the next ones; they are in the file already."""
        end = start + len(piece)
        if not start <= self.end < end:
            return
        is_near = end <= _FOLLOWED_BYTES_MIN or self._start_soon is None
        if is_near and not self._is_busy and self._position == self.end:
            self._hasher.update(memoryview(piece)[self._position - start :])
            self._position = end
        self.reach(end)

    def reach(self, end: int) -> None:
        """Say that all bytes up to ``end`` are in the file."""
        self.end = max(self.end, end)
        is_far = self.end > _FOLLOWED_BYTES_MIN and self.end - self._position > INLINE_MAX
        if is_far and not self._is_busy and self._start_soon is not None:
            pin = ExitStack()
            # From now on: when the task begins, the file may have come to its end.
            pin.enter_context(self.source.pinned())
            try:
                self._start_soon(partial(self._follow, pin))
            except ShuttingDownError:
                pin.close()  # whoever still wants to know looks at the rest himself
            else:
                self._is_busy = True

    async def finish(self, length_bytes: int) -> str:
        """Return the digest of the first ``length_bytes``, of which none may have been passed.

        They are all in the file, and hold still. Many bytes that are left wait for a thread.

        Raises:
            LocalDiskError: The disk does not give them.
        """
        while self._is_busy:
            await self._rest.park()
        assert self._position <= length_bytes, "the file has become shorter"
        self._is_busy = True
        with self._rested(), self.source.pinned():
            while (left := length_bytes - self._position) > INLINE_MAX:
                await self._see_in_thread(self._position + min(left, _STEP_BYTES_MAX))
            self._see(length_bytes)
        return self._hasher.hexdigest()

    async def _follow(self, pin: ExitStack) -> None:
        try:
            with self._rested(), pin:
                while (left := self.end - self._position) > INLINE_MAX:
                    await self._see_in_thread(self._position + min(left, _STEP_BYTES_MAX))
        except LocalDiskError as error:
            # Who wants the digest goes on from there, and is told if that fails, too.
            log.info("bytes cannot be read back behind a transfer: %s", error)

    @contextmanager
    def _rested(self) -> Iterator[None]:
        """Let others have the hasher once the block has ended."""
        try:
            yield
        finally:
            self._is_busy = False
            self._rest.unpark_all()

    async def _see_in_thread(self, end: int) -> None:
        # Not abandoned when cancelled: nobody else may have the hasher meanwhile.
        await trio.to_thread.run_sync(self._see, end)
        # It then returns all the same, and what follows must not be done any more.
        await trio.lowlevel.checkpoint_if_cancelled()

    def _see(self, end: int) -> None:
        while self._position < end:
            piece = self.source.pread(self._position, min(end - self._position, _PIECE_BYTES))
            if not piece:
                raise LocalDiskError("a local file is shorter than it was")
            self._hasher.update(piece)
            self._position += len(piece)
