"""Bytes on their way from the service into a spool file, for all who read that file.

Readers wait for a watermark, not for the end. What lies below it is there to read; what has
come but lies above is not shown yet: the last chunk stays back until length and hash of the
whole are checked, so that nobody reads to the end of a file with wrong content.

A transfer that breaks goes on from where it stopped. A whole that turns out wrong is fetched
again from the start, and must then agree with everything readers have already been given.
"""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final, TypeAlias

import trio

from ctrfs import errands
from ctrfs.api.protocol import ContainersApi, ContentStream
from ctrfs.config import ContentConfig
from ctrfs.content.identity import ContentIdentity, new_hasher
from ctrfs.content.pace import Pace
from ctrfs.disk.spool import SpoolFile
from ctrfs.errors import (
    ContainerExpiredError,
    ContentError,
    CtrfsError,
    HashMismatchError,
    RemoteNotFoundError,
    RemoteProtocolError,
    RemoteStalledError,
    RemoteUnavailableError,
    ShuttingDownError,
    StaleHandleError,
    TruncatedContentError,
)
from ctrfs.units import MIB

StartSoon: TypeAlias = Callable[[Callable[[], Awaitable[None]]], None]

# The service's own hiccups last seconds; waiting much longer than a request takes gains nothing.
BACKOFF_S: Final = 0.5
# A line that carried so much before it broke is worth as many further attempts as the first:
# else no file of many GB would ever come over a line that breaks now and then.
WORTHWHILE_BYTES: Final = 1 * MIB
# What one reader was told of a silent service goes for those, too, whom the kernel has let wait
# behind that one for the same page: it asks anew for each, one after another, in milliseconds.
FAILURE_LASTS_S: Final = 1.0

log = logging.getLogger(__name__)


class Download:
    """The download of one file, begun by its first reader, and again after a failure.

    Attributes:
        watermark: How many bytes from the start can be read from the spool file now.
        length_bytes: How long the file is; None until the service has said so.
        is_complete: All bytes are there and checked.

    Invariant: ``watermark <= _received`` except in a second pass, which compares what comes
    with what lies below the watermark; ``_hasher`` has seen exactly the first ``_received``
    bytes.
    """

    def __init__(
        self,
        api: ContainersApi,
        config: ContentConfig,
        identity: ContentIdentity,
        *,
        spool_file: SpoolFile,
        start_soon: StartSoon,
        on_complete: Callable[[int, str], None],
    ) -> None:
        """Prepare a download; nothing is sent before somebody waits.

        Args:
            api: Where the bytes come from.
            config: How long to wait and how often to try.
            identity: Which bytes.
            spool_file: Where they go; must not be written by anyone else meanwhile.
            start_soon: Starts a background task, or raises ShuttingDownError.
            on_complete: Told length and digest in the step in which the last bytes appear.
        """
        self._api = api
        self._config = config
        self._identity = identity
        self._spool_file = spool_file
        self._start_soon = start_soon
        self._on_complete = on_complete
        self._progress = trio.lowlevel.ParkingLot()
        self._flight: _Flight | None = None
        self._received = 0
        self._hasher = new_hasher()
        self._pace = Pace(config.stall_timeout_s)
        self._stalled: tuple[float, int] | None = None
        self.watermark = 0
        self.length_bytes = identity.size_bytes
        self.is_complete = False

    async def wait_until(self, end: int) -> None:
        """Return once the first ``end`` bytes can be read, or all if the file is shorter.

        Cancelling the wait leaves the download running for others. Bytes before ``end`` that
        arrive are a reason to wait on, up to ``config.transfer_timeout_s`` in all.

        Raises:
            RemoteStalledError: Nothing, or next to nothing (``pace``), arrived for
                ``config.stall_timeout_s``; or the whole took too long.
            StaleHandleError: The service does not have the file any more.
            ContentError: Length or hash are wrong, retries included.
            LocalDiskFullError: The spool has no room.
            ShuttingDownError: The download was cancelled.
            RemoteError: The service refused, or broke off too often.
        """
        await self._wait(lambda: self.is_complete or self.watermark >= end)

    async def wait_for_all(self) -> None:
        """Return once all bytes are there and checked; raises like ``wait_until``."""
        await self._wait(lambda: self.is_complete)

    async def wait_for_length(self) -> None:
        """Return once ``length_bytes`` is known; raises like ``wait_until``."""
        await self._wait(lambda: self.length_bytes is not None)

    def cancel(self) -> None:
        """Stop; waiters get ShuttingDownError. The spool file is not touched any more."""
        if self._flight is not None:
            self._flight.scope.cancel()

    def check_invariants(self) -> None:
        """Raise AssertionError if the counts contradict each other."""
        assert 0 <= self.watermark <= self._spool_file.size_bytes
        if self.is_complete:
            assert self.watermark == self.length_bytes == self._spool_file.size_bytes

    async def _wait(self, is_reached: Callable[[], bool]) -> None:
        if is_reached():
            return
        began_s = trio.current_time()
        if self._stalled is not None:
            stalled_s, received = self._stalled
            if began_s - stalled_s < FAILURE_LASTS_S and received == self._received:
                raise self._stall_error()
        flight = self._flight or self._take_off()
        errands.joined(flight.errand)
        end_s = began_s + self._config.transfer_timeout_s
        # Whoever comes to a download that already crawls waits as long as all others.
        patient_until_s = began_s + self._config.stall_timeout_s
        while not (is_reached() or flight.is_over):
            # A request that waits for its turn behind others is no sign of silence.
            limit_s = end_s if flight.waits_for_turn else min(patient_until_s, end_s)
            with trio.move_on_at(limit_s) as patience:
                await self._progress.park()
            turn_came_s = flight.turn_came_s + self._config.stall_timeout_s
            patient_until_s = max(patient_until_s, turn_came_s, self._pace.lasts_until_s())
            if patience.cancelled_caught:
                self._check_patience(patient_until_s, end_s)
        if not is_reached():
            raise flight.error

    def _check_patience(self, patient_until_s: float, end_s: float) -> None:
        now_s = trio.current_time()
        file_id = self._identity.file_id
        if now_s >= end_s:
            timeout_s = self._config.transfer_timeout_s
            raise RemoteStalledError(f"bytes of {file_id} did not come within {timeout_s:g} s")
        if now_s >= patient_until_s:
            self._stalled = (now_s, self._received)
            raise self._stall_error()

    def _stall_error(self) -> RemoteStalledError:
        timeout_s = self._config.stall_timeout_s
        return RemoteStalledError(
            f"hardly a byte of {self._identity.file_id} came for {timeout_s:g} s"
        )

    def _take_off(self) -> _Flight:
        # Not async on purpose: no task may run between "no flight" and "recorded".
        flight = _Flight()

        async def fly() -> None:
            await self._fly(flight)

        self._start_soon(fly)
        self._flight = flight
        return flight

    async def _fly(self, flight: _Flight) -> None:
        try:
            with flight.scope:
                await self._fetch(flight)
        except CtrfsError as error:
            flight.error = error
        except Exception as error:  # handed to the readers, not hidden
            log.exception("download of %s: unexpected failure", self._identity.file_id)
            flight.error = CtrfsError(f"unexpected failure of a download: {error!r}")
        finally:
            flight.is_over = True
            self._flight = None
            self._progress.unpark_all()

    async def _fetch(self, flight: _Flight) -> None:
        """Bring all bytes into the spool file, with as many attempts as allowed."""
        retries = 0
        while True:
            received_before = self._received
            failure = await self._attempt(flight)
            if failure is None:
                return
            if self._received - received_before >= WORTHWHILE_BYTES:
                retries = 0
            if retries == self._config.download_retries_max:
                break
            log.info("download of %s again: %s", self._identity.file_id, failure)
            await trio.sleep(BACKOFF_S * 2**retries)
            retries += 1
        if isinstance(failure, ContentError):
            # Nothing that came is to be trusted; the next reader begins afresh.
            self.watermark = 0
        raise failure

    async def _attempt(self, flight: _Flight) -> CtrfsError | None:
        """Return what broke a transfer such that another may do better; None if all is well.

        Raises:
            CtrfsError: Another attempt would fare no better, or has been made in ``api``.
        """
        identity = self._identity

        def on_turn() -> None:
            # Only the first: a request that is sent again has brought nothing.
            if flight.waits_for_turn:
                flight.waits_for_turn = False
                flight.turn_came_s = trio.current_time()
                self._progress.unpark_all()

        try:
            async with self._api.download(
                identity.container_id, identity.file_id, offset=self._received, on_turn=on_turn
            ) as stream:
                return await self._receive(stream)
        except (RemoteNotFoundError, ContainerExpiredError) as error:
            raise StaleHandleError(str(error)) from error

    async def _receive(self, stream: ContentStream) -> CtrfsError | None:
        try:
            self._begin(stream)
            position = stream.offset
            began_s = trio.current_time()
            async with _closing(stream.pieces()) as pieces:
                while (piece := await self._next_of(pieces, began_s=began_s)) is not None:
                    # A buffered piece comes without a checkpoint, and a cancelled download
                    # must not write: the spool file may be somebody else's by now.
                    await trio.lowlevel.checkpoint_if_cancelled()
                    self._accept(position, piece)
                    position += len(piece)
            await trio.lowlevel.checkpoint_if_cancelled()
            self._finish(position)
        except (RemoteUnavailableError, RemoteStalledError) as error:
            return error
        except ContentError as error:
            self._start_over()
            return error
        return None

    async def _next_of(self, pieces: AsyncIterator[bytes], *, began_s: float) -> bytes | None:
        """Return the next piece of a transfer; None at its end.

        Raises:
            RemoteStalledError: Hardly anything comes: the connection is of more use to others.
        """
        timeout_s = self._config.stall_timeout_s
        with trio.move_on_at(max(began_s + timeout_s, self._pace.lasts_until_s())):
            return await anext(pieces, None)
        raise RemoteStalledError(f"hardly a byte came for {timeout_s:g} s")

    def _begin(self, stream: ContentStream) -> None:
        if stream.offset > self._received:
            raise RemoteProtocolError(
                f"asked for bytes from {self._received}, got them from {stream.offset}"
            )
        if stream.length_bytes is None:
            return
        announced = stream.offset + stream.length_bytes
        if self.length_bytes is None:
            self.length_bytes = announced
        elif announced != self.length_bytes:
            raise TruncatedContentError(received_bytes=announced, expected_bytes=self.length_bytes)
        self._progress.unpark_all()

    def _accept(self, position: int, piece: bytes) -> None:
        """Take the bytes that belong at ``position``: compare what is there, write the rest."""
        self._pace.note(len(piece), now_s=trio.current_time())
        end = position + len(piece)
        if self.length_bytes is not None and end > self.length_bytes:
            raise TruncatedContentError(received_bytes=end, expected_bytes=self.length_bytes)
        view = memoryview(piece)
        compared = max(self._received, self.watermark)
        if position < compared:
            again = view[: compared - position]
            if self._spool_file.pread(position, len(again)) != again:
                raise HashMismatchError(f"two transfers of {self._identity.file_id} differ")
        if end > compared:
            self._spool_file.pwrite(max(position, compared), view[max(0, compared - position) :])
        if end > self._received:
            self._hasher.update(view[self._received - position :])
            self._received = end
        self._publish()

    def _publish(self) -> None:
        """Raise the watermark, but not into the last chunk: that waits for the checks."""
        length = self._received if self.length_bytes is None else self.length_bytes
        shown = min(self._received, length - self._config.chunk_bytes)
        self.watermark = max(self.watermark, shown)
        self._progress.unpark_all()

    def _finish(self, position: int) -> None:
        promised = max(self._received, self.watermark, self.length_bytes or 0)
        if position < promised:
            raise TruncatedContentError(received_bytes=position, expected_bytes=promised)
        digest = self._hasher.hexdigest()
        if self._identity.digest not in {None, digest}:
            raise HashMismatchError(
                f"the bytes of {self._identity.file_id} have the hash {digest}, "
                f"promised was {self._identity.digest}"
            )
        if self._spool_file.size_bytes != position:  # a longer first pass was there
            self._spool_file.truncate(position)
        self.length_bytes = self.watermark = position
        self.is_complete = True
        self._on_complete(position, digest)
        self._progress.unpark_all()

    def _start_over(self) -> None:
        """Let the next attempt begin at the first byte, what was learnt from this one forgotten."""
        self._received = 0
        self._hasher = new_hasher()
        self.length_bytes = self._identity.size_bytes


@asynccontextmanager
async def _closing(pieces: AsyncIterator[bytes]) -> AsyncIterator[AsyncIterator[bytes]]:
    """End ``pieces`` with the block: a generator left half-way would end at some later time."""
    try:
        yield pieces
    finally:
        if isinstance(pieces, AsyncGenerator):
            await pieces.aclose()


class _Flight:
    """One task that fetches.

    Attributes:
        error: Why it ended without all bytes, once ``is_over``.
        waits_for_turn: Whether its first request is still behind others.
        turn_came_s: When that was sent, by trio's clock.
        errand: What it was begun on, if not for a reader.
    """

    def __init__(self) -> None:
        self.waits_for_turn = True
        self.turn_came_s = -math.inf
        self.errand = errands.unwanted()
        self.scope = trio.CancelScope()
        self.is_over = False
        self.error: CtrfsError = ShuttingDownError("the download was cancelled")
