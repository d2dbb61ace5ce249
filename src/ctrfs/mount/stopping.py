"""The end of a mount: what ends when, and what is still sent."""

from __future__ import annotations

import logging
import signal
from collections.abc import AsyncIterator
from typing import Final

import trio

from ctrfs.fuse.session import KernelSession
from ctrfs.mount.graph import Floors

log = logging.getLogger(__name__)

STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
# For writing down what is unsent, after the time to send it is over: local disk only.
_RECORD_TIMEOUT_S: Final = 10.0


class Stopper:
    """Ends the mount on a signal: the first politely, the second at once.

    Owner of the two deadlines of the end: for requests under way, and for unsent bytes.
    """

    def __init__(self, nursery: trio.Nursery, *, drain_timeout_s: float) -> None:
        self._nursery = nursery
        self._drain_timeout_s = drain_timeout_s
        self._session: KernelSession | None = None
        self._serving = trio.CancelScope()
        self._draining = trio.CancelScope()
        self._deadline_s: float | None = None

    async def run(self, signals: AsyncIterator[int]) -> None:
        """Act on signals until cancelled."""
        async for number in signals:
            log.info("%s: stopping", signal.Signals(number).name)
            if self._session is None:
                self._nursery.cancel_scope.cancel()
            elif self._deadline_s is None:
                self._deadline_s = trio.current_time() + self._drain_timeout_s
                self._serving.deadline = self._deadline_s
                self._session.stop()
            else:
                self._serving.cancel()
                self._draining.cancel()

    async def serve(self, session: KernelSession) -> None:
        """Serve until unmounted or stopped; requests under way are answered before it returns."""
        self._session = session
        with self._serving:
            await session.serve()
        if self._serving.cancelled_caught:
            log.warning("requests were still under way when the time to stop them was over")

    async def drain(self, floors: Floors) -> int:
        """Send what is unsent, within the deadline; return how many files are left."""
        unsent_files = floors.file_system.unsent_count()
        floors.file_system.read_ahead.stop()
        self._draining.deadline = self._deadline_s or trio.current_time() + self._drain_timeout_s
        with self._draining:
            unsent_files = await floors.file_system.drain()
        if self._draining.cancelled_caught:
            log.warning("unsent bytes were left when the time to send them was over")
            with trio.move_on_after(_RECORD_TIMEOUT_S, shield=True):
                await floors.file_system.record_unsent()
            unsent_files = floors.file_system.unsent_count()
        return unsent_files
