"""How many requests are under way at once, and how soon one may follow another.

The limit adapts: it grows while requests that use all of it succeed, and shrinks where the
service says that it has too much to do or falls silent. The shape is TCP's: double in a round
trip at first, then one more a round trip. How far it shrinks follows the share of requests
that were refused of late, so that the odd 503 costs little, and a wall of them half.
Source: RFC 5681 (slow start and after), RFC 8257, 3.3 (shrinking by share), RFC 7661 (no growth
of a limit that is not used), 2026-11.

Errands (``ctrfs.errands``) come last: into places that are left over, and not at all where the
service has too much to do.

Nothing here runs by itself: who leaves lets the next one in.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import trio

from ctrfs import errands, errors
from ctrfs.api.failures import AttemptFailedError, Failure
from ctrfs.clock import Clock
from ctrfs.errands import Errand

# The official clients set no limit; more than this at the start only wait in the service's own
# queue, and fewer would make the first ``ls -R`` slower.
LIMIT_AT_START: Final = 16
# So many requests without file bytes can always be under way: a directory can still be listed
# while many large files are on their way, also when the limit has just shrunk below these.
RESERVED: Final = 2
# Errands leave so many places more: whoever asks for file bytes meanwhile need not wait for the
# end of one.
KEPT_FROM_ERRANDS: Final = 1
# With one for file bytes and one without, none waits for the end of the other.
LIMIT_MIN: Final = 2
SHRINK_MOST: Final = 0.5
# How much one answer counts for the share of refusals: one in ten settles near a tenth, a
# round trip of 16 refusals makes it two thirds. Source: RFC 8257, 4.2.
_SHARE_GAIN: Final = 1 / 16
# What was learnt so long ago is as good as nothing. Else a mount with one program at a time,
# which never uses all of a small limit, would keep it for good, and read nothing ahead.
# Source: RFC 5681, 4.1 (restart after idling).
FORGOTTEN_AFTER_S: Final = 60.0
# Whoever asks for a longer pause gets asked again after this one.
PAUSE_S_MAX: Final = 120.0
# Where more is asked for than the rate allows, who came first has waited longest. A place used
# in its last moment brings no answer, and then none ever would; a page of a listing takes less
# than these seconds. Who has little time from the start keeps half of it for the answer.
ANSWER_S: Final = 3.0
_OVERLOAD: Final = frozenset({429, 503})


class Slot:
    """The right to have one request under way; tells how it went.

    Attributes:
        started_s: When the request could begin, on the monotonic clock.
        is_transfer: Whether it carries file bytes.
    """

    __slots__ = ("_pacing", "is_transfer", "started_s")

    def __init__(self, pacing: Pacing, *, is_transfer: bool) -> None:
        self._pacing = pacing
        self.is_transfer = is_transfer
        self.started_s = 0.0

    def answered(self, status: int, *, asked_s: float | None) -> None:
        """Learn from an answer.

        Args:
            status: The HTTP status.
            asked_s: The pause in seconds that the answer asks for, if it names one.
        """
        if status not in _OVERLOAD:
            self._pacing.answered(self, is_success=status < 500)
            return
        self._pacing.refused(self, is_sure=False)
        if asked_s is not None:
            self._pacing.pause(asked_s)

    def timed_out(self) -> None:
        """Learn that no answer came in time."""
        self._pacing.refused(self, is_sure=True)


class _Waiter:
    __slots__ = ("errand", "is_let_in", "is_transfer", "turn", "woken")

    def __init__(self, *, is_transfer: bool, turn: int, errand: Errand | None = None) -> None:
        self.is_transfer = is_transfer
        self.turn = turn
        self.errand = errand
        self.is_let_in = False
        self.woken = trio.Event()


class Pacing:
    """The limit of requests at once, and the queue before it: first come, first served.

    One exception to the order: a request with file bytes that has to leave room for others
    lets requests without them pass.

    Invariant: ``transfers <= under_way <= limit_max``, and nobody waits who could be let in.
    """

    def __init__(self, *, limit_max: int, rps: float | None, clock: Clock) -> None:
        """Begin with nothing under way.

        Args:
            limit_max: Never more requests at once than these, at least 1.
            rps: Never more requests a second than these on average; None for no limit.
            clock: For round trips, pauses and the rate.
        """
        self._clock = clock
        self._limit_max = limit_max
        self._limit_min = float(min(LIMIT_MIN, limit_max))
        self._reserved = min(RESERVED, limit_max - 1)
        self._limit = float(min(LIMIT_AT_START, limit_max))
        self._grows_fast_below = math.inf
        self._rate = None if rps is None else _Rate(rps)
        self._rate_queue = trio.Lock()
        self._others = 0
        self._transfers = 0
        self._turns = 0
        # Apart, so that neither search walks over the other's; ordered, as both are left from
        # anywhere when a caller gives up.
        self._waiting: dict[bool, OrderedDict[_Waiter, None]] = {
            True: OrderedDict(),
            False: OrderedDict(),
        }
        self._errands: OrderedDict[_Waiter, None] = OrderedDict()
        self._paused_until_s = -math.inf
        # All that is known at first is the next answer.
        self._share = 1.0
        self._shrunk_at_s = -math.inf
        self._round_started_s = -math.inf
        self._was_full = False

    @property
    def limit(self) -> int:
        """How many requests may be under way now."""
        return int(self._limit)

    @property
    def under_way(self) -> int:
        """How many requests are under way, or about to be."""
        return self._others + self._transfers

    @property
    def waiting(self) -> int:
        """How many requests wait for their turn, errands not counted."""
        return len(self._waiting[True]) + len(self._waiting[False])

    @property
    def paused_s(self) -> float:
        """For how many seconds from now the service wants no request; 0 for none."""
        return max(0.0, self._paused_until_s - self._clock.monotonic_s())

    @asynccontextmanager
    async def slot(self, *, is_transfer: bool, deadline_s: float) -> AsyncIterator[Slot]:
        """Hold a slot for one request; waits for its turn, pauses and the rate.

        Args:
            is_transfer: Whether the request carries file bytes.
            deadline_s: When the call must have ended, on the monotonic clock.

        Raises:
            AttemptFailedError: The service wants no request before the deadline, or no
                errand now; or the rate leaves no time for an answer.
        """
        self._refuse_if_paused_beyond(deadline_s)
        left_s = deadline_s - self._clock.monotonic_s()
        begin_by_s = deadline_s - min(ANSWER_S, left_s / 2)
        errand = errands.unwanted()
        if errand is None:
            await self._enter(is_transfer=is_transfer)
        else:
            await self._enter_last(errand, is_transfer=is_transfer)
        try:
            slot = Slot(self, is_transfer=is_transfer)
            if self._rate is not None:
                await self._wait_for_rate(self._rate, begin_by_s)
            await self._wait_for_end_of_pause(deadline_s)
            slot.started_s = self._clock.monotonic_s()
            yield slot
        finally:
            self._leave(is_transfer=is_transfer)

    def answered(self, slot: Slot, *, is_success: bool) -> None:
        """Adapt the limit to an answer that does not complain of too many requests."""
        self._share *= 1.0 - _SHARE_GAIN
        is_full = self.under_way >= self.limit
        if is_success and (self._was_full or is_full):
            step = 1.0 if self._limit < self._grows_fast_below else 1.0 / self._limit
            self._limit = min(self._limit + step, float(self._limit_max))
        if is_success and self._clock.monotonic_s() - self._shrunk_at_s >= FORGOTTEN_AFTER_S:
            self._limit = max(self._limit, float(min(LIMIT_AT_START, self._limit_max)))
        # A request that began after the last look has made a whole round trip since.
        if slot.started_s >= self._round_started_s:
            self._round_started_s = self._clock.monotonic_s()
            self._was_full = is_full
        self._let_in()

    def refused(self, slot: Slot, *, is_sure: bool) -> None:
        """Shrink the limit, once a round trip.

        Args:
            slot: Of the request that was refused; one that began before the limit was last
                shrunk says nothing about the present one.
            is_sure: Whether this alone is reason enough to halve it.
        """
        self._share += (1.0 - self._share) * _SHARE_GAIN
        if slot.started_s >= self._shrunk_at_s:
            share = 1.0 if is_sure else self._share
            self._limit = max(self._limit * (1.0 - SHRINK_MOST * share), self._limit_min)
            self._grows_fast_below = self._limit
            self._shrunk_at_s = self._clock.monotonic_s()

    def pause(self, seconds: float) -> None:
        """Begin no request for so long, two minutes at most; those under way go on."""
        until_s = self._clock.monotonic_s() + min(seconds, PAUSE_S_MAX)
        self._paused_until_s = max(self._paused_until_s, until_s)

    async def _enter(self, *, is_transfer: bool) -> None:
        if self._is_admissible(is_transfer=is_transfer) and not self._waiting[is_transfer]:
            self._count(1, is_transfer=is_transfer)
            return
        waiter = self._new_waiter(is_transfer=is_transfer)
        self._waiting[is_transfer][waiter] = None
        await self._wait_for_turn(waiter)

    async def _enter_last(self, errand: Errand, *, is_transfer: bool) -> None:
        if self.paused_s > 0 or self._places_for_errands() < 1:
            raise AttemptFailedError(
                Failure(
                    error=errors.RemoteBusyError("the service has enough to do"),
                    may_be_done=False,
                    is_final=True,
                )
            )
        if self._has_place_for_errand() and not self._errands:
            self._count(1, is_transfer=is_transfer)
            return
        waiter = self._new_waiter(is_transfer=is_transfer, errand=errand)
        self._errands[waiter] = None
        errand.on_wanted = lambda: self._promote(errand)
        await self._wait_for_turn(waiter)

    def _promote(self, errand: Errand) -> None:
        """Let all of an errand that somebody waits for by now take places at the queue's end."""
        # One errand waits several times over: a listing asks for many of its pages at once.
        for waiter in [waiter for waiter in self._errands if waiter.errand is errand]:
            del self._errands[waiter]
            self._turns += 1
            waiter.turn = self._turns
            self._waiting[waiter.is_transfer][waiter] = None
        self._let_in()

    def _new_waiter(self, *, is_transfer: bool, errand: Errand | None = None) -> _Waiter:
        self._turns += 1
        return _Waiter(is_transfer=is_transfer, turn=self._turns, errand=errand)

    async def _wait_for_turn(self, waiter: _Waiter) -> None:
        try:
            await waiter.woken.wait()
        except BaseException:
            if waiter.is_let_in:
                self._leave(is_transfer=waiter.is_transfer)
            else:
                self._waiting[waiter.is_transfer].pop(waiter, None)
                self._errands.pop(waiter, None)
            raise

    def _leave(self, *, is_transfer: bool) -> None:
        self._count(-1, is_transfer=is_transfer)
        self._let_in()

    def _count(self, change: int, *, is_transfer: bool) -> None:
        if is_transfer:
            self._transfers += change
        else:
            self._others += change
        self._was_full = self._was_full or self.under_way >= self.limit

    def _let_in(self) -> None:
        while (waiter := self._next()) is not None:
            del self._waiting[waiter.is_transfer][waiter]
            self._wake(waiter)
        while self._errands and self._has_place_for_errand():
            self._wake(self._errands.popitem(last=False)[0])

    def _wake(self, waiter: _Waiter) -> None:
        waiter.is_let_in = True
        self._count(1, is_transfer=waiter.is_transfer)
        waiter.woken.set()

    def _next(self) -> _Waiter | None:
        """Return who has waited longest of those that may come in."""
        heads = [
            next(iter(queue))
            for is_transfer, queue in self._waiting.items()
            if queue and self._is_admissible(is_transfer=is_transfer)
        ]
        return min(heads, key=lambda waiter: waiter.turn, default=None)

    def _is_admissible(self, *, is_transfer: bool) -> bool:
        if is_transfer:
            transfers_max = max(1, self.limit - self._reserved)
            return self._transfers < transfers_max and self.under_way < self.limit
        return self.under_way < self.limit or self._others < self._reserved

    def _places_for_errands(self) -> int:
        return self.limit - self._reserved - KEPT_FROM_ERRANDS

    def _has_place_for_errand(self) -> bool:
        is_busy = self.waiting > 0 or self.paused_s > 0
        if is_busy or self.under_way >= self._places_for_errands():
            return False
        return self._rate is None or self._rate.has_plenty(self._clock.monotonic_s())

    async def _wait_for_end_of_pause(self, deadline_s: float) -> None:
        while (wait_s := self.paused_s) > 0:
            self._refuse_if_paused_beyond(deadline_s)
            await trio.sleep(wait_s)

    async def _wait_for_rate(self, rate: _Rate, begin_by_s: float) -> None:
        # A place is taken when it has come, so that who gives up before leaves it to the next;
        # and without an await where it is there, so that errands see at once that it is gone.
        if not self._rate_queue.locked() and rate.wait_s(self._clock.monotonic_s()) <= 0:
            rate.take(self._clock.monotonic_s())
            return
        async with self._rate_queue:
            now_s = self._clock.monotonic_s()
            wait_s = rate.wait_s(now_s)
            if wait_s > 0 and now_s + wait_s > begin_by_s:
                # Told as at the deadline: callers make no difference.
                error = errors.RemoteStalledError("too many requests wait for the rate")
                raise AttemptFailedError(Failure(error=error, may_be_done=False, is_final=True))
            if wait_s > 0:
                await trio.sleep(wait_s)
            rate.take(self._clock.monotonic_s())

    def _refuse_if_paused_beyond(self, deadline_s: float) -> None:
        if self.paused_s > 0 and self._paused_until_s >= deadline_s:
            error = errors.RemoteBusyError(
                f"the service wants no requests for another {self.paused_s:.0f} s"
            )
            raise AttemptFailedError(Failure(error=error, may_be_done=False, is_final=True))


class _Rate:
    """So many requests a second on average, and at most those of one second at once.

    Source: the generic cell rate algorithm, ITU-T I.371, annex A.
    """

    def __init__(self, rps: float) -> None:
        self._interval_s = 1.0 / rps
        self._burst_s = max(1.0, rps) * self._interval_s
        self._full_s = -math.inf

    def has_plenty(self, now_s: float) -> bool:
        """Tell whether more than half of what may come at once is left, and nobody waits."""
        return self.wait_s(now_s) <= 0 and self._full_s - now_s < self._burst_s / 2

    def wait_s(self, now_s: float) -> float:
        """Return in how many seconds the next place comes."""
        used_s = max(0.0, self._full_s - now_s)
        return max(0.0, used_s + self._interval_s - self._burst_s)

    def take(self, now_s: float) -> None:
        """Take the place that has come."""
        self._full_s = max(self._full_s, now_s) + self._interval_s
