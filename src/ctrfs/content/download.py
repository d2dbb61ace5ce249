"""Bytes on their way from the service into a spool file, for all who read that file.

Readers wait for their bytes, not for the end. A file that is read from its start comes in one
request; a read far from what is on its way has a part fetched of its own, where the server sends
parts, and else waits. Who waits for many parts gets the rest of the file besides. Each such
transfer is a lane, a task with its own retries; one that breaks goes on from where it stopped.
What has come is the business of ``arrivals``.

Parts are of one version: the server is told which (If-Range), or the hash of the whole is known.
Where neither is so, only the very first request may ask for a part; the next brings the whole.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

import trio

from ctrfs import errands
from ctrfs.api.protocol import ContainersApi, ContentStream
from ctrfs.config import ContentConfig
from ctrfs.content.arrivals import Arrivals
from ctrfs.content.habits import Habits
from ctrfs.content.lane import Lane, part_around, split_point
from ctrfs.errors import (
    ContentError,
    CtrfsError,
    HashMismatchError,
    RemoteGoneError,
    RemoteProtocolError,
    RemoteStalledError,
    RemoteUnavailableError,
    StaleHandleError,
)
from ctrfs.running_digest import StartSoon
from ctrfs.units import MIB

# The service's own hiccups last seconds; waiting much longer than a request takes gains nothing.
BACKOFF_S: Final = 0.5
# A line that carried so much before it broke is worth as many further attempts as the first:
# else no file of many GB would ever come over a line that breaks now and then.
WORTHWHILE_BYTES: Final = 1 * MIB
# What one reader was told of a silent service goes for those, too, whom the kernel has let wait
# behind that one for the same page: it asks anew for each, one after another, in milliseconds.
FAILURE_LASTS_S: Final = 1.0
# Transfers of one file at once; the others of a wide random reader wait for these.
LANES_MAX: Final = 8
# Further transfers for one sequential reader, where one is slow; four is what browsers of the
# time of HTTP/1.1 settled on for a whole host.
SPLITS_MAX: Final = 4
SPLIT_GAIN: Final = 1.25
SPLIT_LOOK_S: Final = 0.2

log = logging.getLogger(__name__)


class Download:
    """The download of one file, begun by its first reader, and again after a failure.

    Attributes:
        arrivals: What has come so far.
    """

    def __init__(
        self,
        api: ContainersApi,
        config: ContentConfig,
        arrivals: Arrivals,
        *,
        habits: Habits,
        start_soon: StartSoon,
        on_complete: Callable[[int, str], None],
    ) -> None:
        """Prepare a download; nothing is sent before somebody waits.

        Args:
            api: Where the bytes come from.
            config: How long to wait and how often to try.
            arrivals: Which bytes, and where they go.
            habits: What all downloads learn about the service.
            start_soon: Starts a background task, or raises ShuttingDownError.
            on_complete: Told length and digest in the step in which the last bytes appear.
        """
        self._api = api
        self._config = config
        self._identity = arrivals.identity
        self._habits = habits
        self._start_soon = start_soon
        self._on_complete = on_complete
        self._progress = trio.lowlevel.ParkingLot()
        self._waiting = 0
        self._room = trio.Semaphore(LANES_MAX)
        self._lanes: list[Lane] = []
        self._checker: Lane | None = None
        self._grown: dict[int, int] = {}
        self._waited_for_parts_s = 0.0
        self._look_at_split_s = 0.0
        self._rate_at_split = 0.0
        self._stalled: tuple[float, int] | None = None
        self._version: str | None = None
        self.arrivals = arrivals

    async def wait_for(self, start: int, end: int) -> None:
        """Return once ``arrivals`` has these bytes, or what is there of that if the file is shorter.

        Cancelling the wait leaves the download running for others. Bytes that arrive on the
        way to these are a reason to wait on, up to ``config.transfer_timeout_s`` in all.

        Raises:
            RemoteStalledError: Nothing, or next to nothing (``pace``), arrived for
                ``config.stall_timeout_s``; or the whole took too long.
            StaleHandleError: The service does not have the file any more.
            ContentError: Length or hash are wrong, retries included.
            LocalDiskFullError: The spool has no room.
            ShuttingDownError: The download was cancelled.
            RemoteError: The service refused, or broke off too often.
        """
        await self._wait(lambda: self.arrivals.needed_for(start, end))

    async def wait_for_all(self) -> None:
        """Return once all bytes are there and checked; raises like ``wait_for``."""
        await self._wait(self._needed_for_all)

    async def wait_for_length(self) -> None:
        """Return once ``length_bytes`` is known; raises like ``wait_for``."""
        await self._wait(lambda: 0 if self.arrivals.length_bytes is None else None)

    def cancel(self) -> None:
        """Stop; waiters get ShuttingDownError. The spool file is not touched any more."""
        for lane in self._lanes:
            lane.scope.cancel()

    # Waiting

    def _needed_for_all(self) -> int | None:
        return None if self.arrivals.is_complete else self.arrivals.first_missing

    async def _wait(self, needed: Callable[[], int | None]) -> None:
        """Return once ``needed`` gives None; till then it gives the byte that has to come."""
        byte = needed()
        if byte is None:
            return
        began_s = trio.current_time()
        if self._stalled is not None:
            stalled_s, stalled_byte = self._stalled
            if began_s - stalled_s < FAILURE_LASTS_S and stalled_byte == byte:
                raise self._stall_error()
        end_s = began_s + self._config.transfer_timeout_s
        # Whoever comes to a lane that already crawls waits as long as all others.
        patient_until_s = began_s + self._config.stall_timeout_s
        lane: Lane | None = None
        knew_ranges = self._has_ranges
        while (byte := needed()) is not None:
            if lane is not None and lane.is_over and lane.error is not None:
                raise lane.error
            if lane is None or not self._brings(lane, byte) or knew_ranges != self._has_ranges:
                knew_ranges = self._has_ranges
                before, lane = lane, self._lane_for(byte)
                if lane is not before:
                    errands.joined(lane.errand)
                    patient_until_s = trio.current_time() + self._config.stall_timeout_s
            # A request that waits for its turn behind others is no sign of silence.
            limit_s = end_s if lane.waits_for_turn else min(patient_until_s, end_s)
            self._waiting += 1
            try:
                with trio.move_on_at(limit_s) as patience:
                    await self._progress.park()
            finally:
                self._waiting -= 1
            turn_came_s = lane.turn_came_s + self._config.stall_timeout_s
            patient_until_s = max(patient_until_s, turn_came_s, lane.pace.lasts_until_s())
            if patience.cancelled_caught:
                self._check_patience(byte, patient_until_s, end_s)
        if lane is not None and lane.end is not None:
            self._waited_for_parts_s += trio.current_time() - began_s

    def _check_patience(self, byte: int, patient_until_s: float, end_s: float) -> None:
        now_s = trio.current_time()
        file_id = self._identity.file_id
        if now_s >= end_s:
            timeout_s = self._config.transfer_timeout_s
            raise RemoteStalledError(f"bytes of {file_id} did not come within {timeout_s:g} s")
        if now_s >= patient_until_s:
            self._stalled = (now_s, byte)
            raise self._stall_error()

    def _stall_error(self) -> RemoteStalledError:
        timeout_s = self._config.stall_timeout_s
        return RemoteStalledError(
            f"hardly a byte of {self._identity.file_id} came for {timeout_s:g} s"
        )

    # Lanes

    def _brings(self, lane: Lane, byte: int) -> bool:
        is_only = self.arrivals.length_bytes is None and not lane.is_over
        return lane.will_bring(byte) or lane is self._checker or is_only

    def _lane_for(self, byte: int) -> Lane:
        """Return the lane that brings ``byte``, or checks if all is here; opens it if need be."""
        # Not async on purpose: no task may run between "no lane" and "recorded".
        lanes = [lane for lane in self._lanes if self._brings(lane, byte)]
        nearest = max(lanes, key=lambda lane: lane.position, default=None)
        if nearest is not None:
            near_bytes = max(self._config.near_bytes, 2 * self._habits.reach_bytes)
            is_far = byte - nearest.position > near_bytes
            if not is_far or not self._has_ranges or not self._may_ask_for_parts():
                return nearest
        if not self._may_ask_for_parts():
            return self._open(byte if byte == self.arrivals.first_missing else 0, None)
        part = part_around(
            byte,
            arrivals=self.arrivals,
            habits=self._habits,
            config=self._config,
            follows_bytes=self._grown.pop(byte, 0),
            is_rest_coming=any(lane.end is None and not lane.is_over for lane in self._lanes),
        )
        lane = self._open(*part)
        self._bring_the_rest_if_sooner()
        return lane

    def _bring_the_rest_if_sooner(self) -> None:
        """Fetch all that is missing behind readers who have waited for many parts."""
        arrivals, length_bytes = self.arrivals, self.arrivals.length_bytes
        if length_bytes is None or any(lane.end is None for lane in self._lanes):
            return
        missing_bytes = length_bytes - arrivals.arrived.total_bytes
        if not self._habits.is_sooner_whole(missing_bytes, waited_s=self._waited_for_parts_s):
            return
        # What nobody has asked for must not take the room of what somebody will.
        has_room = missing_bytes <= arrivals.room_bytes // 2
        is_coming = any(lane.will_bring(arrivals.first_missing) for lane in self._lanes)
        if has_room and not is_coming and self._may_split():
            self._waited_for_parts_s = 0.0
            self._open(arrivals.first_missing, None)

    @property
    def _has_ranges(self) -> bool:
        """Whether parts can be had for sure; who waits looks for a nearer lane when it turns out."""
        return bool(self._habits.has_ranges) and self.arrivals.length_bytes is not None

    def _may_ask_for_parts(self) -> bool:
        """Whether parts that are asked for are of one version, as far as anybody can tell."""
        is_told = self._version is not None or self._identity.digest is not None
        is_first = self.arrivals.is_empty and not self._lanes
        return self._habits.has_ranges is not False and (is_told or is_first)

    def _open(self, start: int, end: int | None) -> Lane:
        lane = Lane(start, end, stall_timeout_s=self._config.stall_timeout_s)

        async def fly() -> None:
            await self._fly(lane)

        self._start_soon(fly)
        self._lanes.append(lane)
        return lane

    async def _fly(self, lane: Lane) -> None:
        try:
            with lane.scope:
                await self._fetch(lane)
                lane.error = None
        except CtrfsError as error:
            lane.error = error
        except Exception as error:  # handed to the readers, not hidden
            log.exception("download of %s: unexpected failure", self._identity.file_id)
            lane.error = CtrfsError(f"unexpected failure of a download: {error!r}")
        finally:
            lane.is_over = True
            self._lanes.remove(lane)
            self._progress.unpark_all()

    async def _fetch(self, lane: Lane) -> None:
        """Bring the bytes of a lane into the spool file, with as many attempts as allowed."""
        retries = 0
        while True:
            position_before = lane.position
            failure = await self._attempt(lane)
            if failure is None:
                return
            if lane.position - position_before >= WORTHWHILE_BYTES:
                retries = 0
            if retries == self._config.download_retries_max:
                break
            log.info("download of %s again: %s", self._identity.file_id, failure)
            await trio.sleep(BACKOFF_S * 2**retries)
            retries += 1
        if isinstance(failure, ContentError):
            # Nothing that came is to be trusted; the next reader begins afresh.
            self.arrivals.give_up()
        raise failure

    async def _attempt(self, lane: Lane) -> CtrfsError | None:
        """Return what broke a transfer such that another may do better; None if all is well.

        Raises:
            CtrfsError: Another attempt would fare no better, or has been made in ``api``.
        """
        try:
            if not self._is_all_here(lane):
                async with self._room, self._transfer(lane) as stream:
                    failure = await self._receive(lane, stream)
                if failure is not None:
                    return failure
            return await self._check_if_whole(lane)
        except ContentError as error:
            self._start_over(lane)
            return error
        except RemoteGoneError as error:
            raise StaleHandleError(str(error)) from error

    def _is_all_here(self, lane: Lane) -> bool:
        end = self.arrivals.length_bytes if lane.end is None else lane.end
        return end is not None and lane.position >= end > 0

    @asynccontextmanager
    async def _transfer(self, lane: Lane) -> AsyncIterator[ContentStream]:
        asked_s = trio.current_time()

        def on_turn() -> None:
            nonlocal asked_s
            asked_s = trio.current_time()
            # Only the first: a request that is sent again has brought nothing.
            if lane.waits_for_turn:
                lane.waits_for_turn = False
                lane.turn_came_s = asked_s
                self._progress.unpark_all()

        async with self._api.download(
            self._identity.container_id,
            self._identity.file_id,
            offset=lane.position,
            end=lane.end,
            version=self._version,
            on_turn=on_turn,
        ) as stream:
            self._habits.answered(trio.current_time() - asked_s)
            yield stream

    # One transfer

    async def _receive(self, lane: Lane, stream: ContentStream) -> CtrfsError | None:
        """Take the bytes of one answer; return what broke it off, None at its end."""
        try:
            self._begin(lane, stream)
            began_s, start = trio.current_time(), lane.position
            lane.flows(began_s)
            async with _closing(stream.pieces()) as pieces:
                while (piece := await self._next_of(lane, pieces, began_s=began_s)) is not None:
                    # A buffered piece comes without a checkpoint, and a cancelled download
                    # must not write: the spool file may be somebody else's by now.
                    await trio.lowlevel.checkpoint_if_cancelled()
                    self._accept(lane, piece)
                    if lane.has_enough(stream):
                        break
            await trio.lowlevel.checkpoint_if_cancelled()
            self._habits.brought(lane.position - start, trio.current_time() - began_s)
            self._end(lane)
        except (RemoteUnavailableError, RemoteStalledError) as error:
            return error
        return None

    async def _next_of(
        self, lane: Lane, pieces: AsyncIterator[bytes], *, began_s: float
    ) -> bytes | None:
        """Return the next piece of a transfer; None at its end.

        Raises:
            RemoteStalledError: Hardly anything comes: the connection is of more use to others.
        """
        timeout_s = self._config.stall_timeout_s
        with trio.move_on_at(max(began_s + timeout_s, lane.pace.lasts_until_s())):
            return await anext(pieces, None)
        raise RemoteStalledError(f"hardly a byte came for {timeout_s:g} s")

    def _begin(self, lane: Lane, stream: ContentStream) -> None:
        """Compare what an answer promises with what was asked for and is known."""
        if stream.offset > lane.position:
            raise RemoteProtocolError(
                f"asked for bytes from {lane.position}, got them from {stream.offset}"
            )
        if self._version is not None and stream.version not in {None, self._version}:
            raise HashMismatchError(f"{self._identity.file_id} has become another version")
        self._version = stream.version or self._version
        if stream.has_ranges is not None:
            self._habits.has_ranges = stream.has_ranges
        if stream.has_ranges is False:  # all of it instead of the part
            lane.restart()
            if any(other.end is None for other in self._lanes if other is not lane):
                lane.drop()
                return
        if stream.total_bytes is not None:
            self.arrivals.learn_length(stream.total_bytes)
            self._progress.unpark_all()

    def _accept(self, lane: Lane, piece: bytes) -> None:
        now_s = trio.current_time()
        lane.pace.note(len(piece), now_s=now_s)
        self.arrivals.accept(lane.position, piece)
        lane.position += len(piece)
        self._progress.unpark_all()
        self._split_if_slow(lane, now_s)

    def _end(self, lane: Lane) -> None:
        """Look at where an answer has ended."""
        if lane.end is None:
            self.arrivals.end_at(lane.position)
        elif lane.position < lane.end:
            raise RemoteUnavailableError(f"the part ended at {lane.position}, not {lane.end}")
        else:
            self._grown[lane.end] = lane.end - lane.start

    def _split_if_slow(self, lane: Lane, now_s: float) -> None:
        """Let another connection bring half of what a reader would wait for much longer."""
        if now_s < self._look_at_split_s or len(self._lanes) >= SPLITS_MAX:
            return
        latency_s = self._habits.latency_s
        self._look_at_split_s = now_s + max(SPLIT_LOOK_S, 2 * latency_s)
        rate = sum(other.bytes_per_s(now_s) for other in self._lanes)
        point = split_point(
            lane, length_bytes=self.arrivals.length_bytes, now_s=now_s, latency_s=latency_s
        )
        # The last split must have paid; else it is not the connection that is slow.
        has_paid = rate > self._rate_at_split * SPLIT_GAIN
        if point is None or not has_paid or self._waiting == 0 or not self._may_split():
            return
        self._rate_at_split = rate
        end, lane.end = lane.end, point
        self._open(point, end)

    def _may_split(self) -> bool:
        health = self._api.health
        has_leave = health.waiting == 0 and health.under_way <= health.limit // 2
        return has_leave and bool(self._habits.has_ranges) and self._may_ask_for_parts()

    # The whole

    async def _check_if_whole(self, lane: Lane) -> CtrfsError | None:
        """Check length and hash if this lane brought the last bytes; return why to try again."""
        # The end of a transfer may have waited, and a cancelled download must touch nothing.
        await trio.lowlevel.checkpoint_if_cancelled()
        arrivals = self.arrivals
        if not arrivals.is_all_here or self._checker is not None or arrivals.is_complete:
            return None
        self._checker = lane
        try:
            damaged = await arrivals.check()
        finally:
            self._checker = None
        if damaged is not None:
            lane.start, lane.position, lane.end = damaged[0], *damaged
            return RemoteUnavailableError("bytes kept on this machine are damaged")
        self._drop_others(lane)
        assert arrivals.length_bytes is not None, "it is complete"
        self._on_complete(arrivals.length_bytes, arrivals.digest)
        self._progress.unpark_all()
        return None

    def _start_over(self, lane: Lane) -> None:
        """Let the next attempt begin at the first byte, what was learnt from this one forgotten."""
        self._drop_others(lane)
        lane.restart()
        self._version = None
        self.arrivals.start_over()

    def _drop_others(self, lane: Lane) -> None:
        for other in self._lanes:
            if other is not lane:
                other.drop()


@asynccontextmanager
async def _closing(pieces: AsyncIterator[bytes]) -> AsyncIterator[AsyncIterator[bytes]]:
    """End ``pieces`` with the block: a generator left half-way would end at some later time."""
    try:
        yield pieces
    finally:
        if isinstance(pieces, AsyncGenerator):
            await pieces.aclose()
