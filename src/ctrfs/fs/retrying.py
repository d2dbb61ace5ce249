"""Sending behind the users' backs: what write=back keeps for a moment, and what has failed.

A file that was closed is sent once it has been left alone for a moment. One that the service
did not take is tried again, each at its own pace, from some seconds up to minutes. What only a
person can mend is not tried again by itself: a close, an fsync, an umount or the next mount
try it.
"""

from __future__ import annotations

import heapq
import logging
import math
import random
from collections.abc import Sequence
from typing import Final

import msgspec
import trio

from ctrfs.api.retry import backoff_s
from ctrfs.errors import (
    CtrfsError,
    LocalDiskError,
    RemoteInvalidError,
    RemoteMiscountError,
    RemoteQuotaError,
    RemoteReadOnlyError,
    RemoteTooLargeError,
    StaleHandleError,
)
from ctrfs.fs.deleting import Deleter
from ctrfs.fs.describing import Describer
from ctrfs.fs.parts import Parts
from ctrfs.fs.recording import Recorder
from ctrfs.fs.restoring import Finisher
from ctrfs.fs.saving import Saver
from ctrfs.fs.strays import Strays
from ctrfs.tree.nodes import File, InodeNumber

log = logging.getLogger(__name__)

FIRST_WAIT_S: Final = 5.0
LONGEST_WAIT_S: Final = 300.0
# A file that is saved again and again is sent all the same when so much time has passed.
LONGEST_DELAY_S: Final = 10.0
# Uploads behind the users' backs leave room for the users' own requests; most of it where the
# service has just failed.
SENT_AT_ONCE: Final = 12
RETRIED_AT_ONCE: Final = 4

_FOR_A_PERSON: Final = (
    LocalDiskError,
    RemoteInvalidError,
    RemoteMiscountError,
    RemoteQuotaError,
    RemoteReadOnlyError,
    RemoteTooLargeError,
)


class _Pace(msgspec.Struct):
    """When something is tried next.

    Attributes:
        due_s: When.
        since_s: When it was put off first, or an attempt began.
        failures: How often it has failed in a row.
        is_busy: Whether an attempt is under way.
        is_asked_for: Whether a user has closed the file since the last attempt began.
    """

    due_s: float
    since_s: float
    failures: int = 0
    is_busy: bool = False
    is_asked_for: bool = False

    def failed(self) -> None:
        if self.is_asked_for:
            return  # closed again meanwhile: that attempt is to come soon
        self.failures += 1
        self.due_s = trio.current_time() + _wait_s(self.failures)


class BackgroundRetries:
    """Owner of the paces at which things are tried; runs in a task of its own.

    Nothing here looks at all files for the sake of one: there may be ten thousand.

    Invariant: a file has a pace only while it is unsent; one that is not busy is in ``_queue``
    with the present ``due_s``. Entries of the queue with another time count for nothing.
    """

    def __init__(
        self,
        parts: Parts,
        *,
        saver: Saver,
        recorder: Recorder,
        deleter: Deleter,
        finisher: Finisher,
        strays: Strays,
    ) -> None:
        self._parts = parts
        self._saver = saver
        self._recorder = recorder
        self._deleter = deleter
        self._finisher = finisher
        self._strays = strays
        self._describer = Describer(parts)
        self._files: dict[InodeNumber, _Pace] = {}
        self._queue: list[tuple[float, InodeNumber]] = []
        self._others: _Pace | None = None
        self._wake = trio.Event()
        recorder.on_failure = self.note
        recorder.on_kept = self.keep

    def begin(self) -> None:
        """Have all that earlier mounts have left tried at once."""
        self._note(self._parts.store.unsent_inodes(), wait_s=0.0)

    def keep(self, inode: InodeNumber) -> None:
        """Have a file that was closed sent once it has been left alone for a moment."""
        now_s = trio.current_time()
        pace = self._files.setdefault(inode, _Pace(now_s, now_s))
        pace.due_s = min(now_s + self._parts.config.write_delay_s, pace.since_s + LONGEST_DELAY_S)
        pace.failures = 0
        pace.is_asked_for = True
        if not pace.is_busy:
            heapq.heappush(self._queue, (pace.due_s, inode))
        self._wake.set()

    def note(self, inode: InodeNumber | None) -> None:
        """Take note that a file, or something else, has just failed: it is tried again later."""
        self._note([] if inode is None else [inode], wait_s=_wait_s(0))

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Try things when they are due, until cancelled."""
        first, again = trio.CapacityLimiter(SENT_AT_ONCE), trio.CapacityLimiter(RETRIED_AT_ONCE)
        async with trio.open_nursery() as nursery:
            task_status.started()
            while True:
                self._wake = trio.Event()
                now_s = trio.current_time()
                if self._others is not None and _take(self._others, now_s):
                    nursery.start_soon(self._try_others, self._others)
                while self._queue and self._queue[0][0] <= now_s:
                    due_s, inode = heapq.heappop(self._queue)
                    pace = self._files.get(inode)
                    if pace is not None and pace.due_s == due_s and _take(pace, now_s):
                        limiter = first if pace.is_asked_for else again
                        nursery.start_soon(self._try_file, inode, pace, limiter)
                with trio.move_on_at(self._next_s()):
                    await self._wake.wait()

    def _note(self, inodes: Sequence[InodeNumber], *, wait_s: float) -> None:
        now_s = trio.current_time()
        due_s = now_s + wait_s
        for inode in inodes:
            if inode not in self._files and self._waiting_file(inode) is not None:
                self._files[inode] = _Pace(due_s, now_s)
                heapq.heappush(self._queue, (due_s, inode))
        if self._others is None and self._has_others:
            self._others = _Pace(due_s, now_s)
        self._wake.set()

    @property
    def _has_others(self) -> bool:
        recorder = self._recorder
        return bool(
            recorder.overdue or recorder.is_owing or self._finisher.is_needed or self._strays.is_any
        )

    def _next_s(self) -> float:
        others_s = math.inf if self._others is None or self._others.is_busy else self._others.due_s
        return min(others_s, self._queue[0][0] if self._queue else math.inf)

    async def _try_file(
        self, inode: InodeNumber, pace: _Pace, limiter: trio.CapacityLimiter
    ) -> None:
        async with limiter:
            file = self._waiting_file(inode, is_asked_for=pace.is_asked_for)
            try:
                if file is not None and pace.due_s <= trio.current_time():
                    await self._try_now(file, pace)
            except StaleHandleError as error:
                pace.failed()
                log.info("%s could not be sent: %s", self._describer.inode(inode), error)
                if file is not None:
                    # Is the container gone? Then its return is waited for.
                    self._parts.namespace.suspect(file)
            except CtrfsError as error:
                pace.failed()
                log.info("%s could not be sent yet: %s", self._describer.inode(inode), error)
            except Exception:
                # A bug met here must not end the mount.
                name = self._describer.inode(inode)
                log.exception("%s could not be sent: unexpected failure", name)
                pace.due_s = trio.current_time() + LONGEST_WAIT_S
            finally:
                pace.is_busy = False
        if self._waiting_file(inode, is_asked_for=pace.is_asked_for) is None:
            self._files.pop(inode, None)
        else:
            heapq.heappush(self._queue, (pace.due_s, inode))
            self._wake.set()

    async def _try_now(self, file: File, pace: _Pace) -> None:
        pace.is_asked_for = False
        if self._is_half_written(file):
            # Half of a change would be shown to everybody; the close will send it.
            pace.due_s = trio.current_time() + _wait_s(pace.failures)
            return
        pace.since_s = trio.current_time()
        await self._saver.save(file)
        if self._waiting_file(file.inode) is not None:
            pace.failed()  # it has been changed again, or cannot be sent yet

    async def _try_others(self, pace: _Pace) -> None:
        try:
            self._recorder.take_away_owed()
            await self._deleter.retry()
            await self._finisher.finish()
            await self._strays.clear()
        except Exception:
            log.exception("what earlier requests have left is not finished: unexpected failure")
        pace.is_busy = False
        if self._has_others:
            pace.failed()
        else:
            self._others = None
        self._wake.set()

    def _is_half_written(self, file: File) -> bool:
        """Tell whether a file has been changed since its last close, and there will be another."""
        return self._parts.handles.is_being_written(file.inode) and not self._recorder.is_recorded(
            file
        )

    def _waiting_file(self, inode: InodeNumber, *, is_asked_for: bool = False) -> File | None:
        """Return the file of an inode if it has bytes that another attempt may send.

        Those that were recorded, or that failed where the disk does not take a record.

        Args:
            inode: Whose bytes.
            is_asked_for: Whether to try also what only a person can mend: one has closed it.
        """
        file = self._parts.tree.inodes.find(inode)
        open_file = self._parts.store.get(inode)
        if (
            not isinstance(file, File)
            or open_file is None
            or not open_file.is_unsent
            or (file.journal_key is None and open_file.last_error is None)
            or file.is_removed
            or file.is_local_only
            or (isinstance(open_file.last_error, _FOR_A_PERSON) and not is_asked_for)
            or file.owner.is_gone
            or file.owner.container.is_expired
        ):
            return None
        return file


def _take(pace: _Pace, now_s: float) -> bool:
    """Tell whether it is time, and if so take the attempt."""
    if pace.is_busy or pace.due_s > now_s:
        return False
    pace.is_busy = True
    return True


def _wait_s(failures: int) -> float:
    """Return how long to wait after so many failures."""
    return backoff_s(
        failures,
        random=random.random(),  # noqa: S311  # nosec B311  # no secret
        first_s=FIRST_WAIT_S,
        longest_s=LONGEST_WAIT_S,
    )
