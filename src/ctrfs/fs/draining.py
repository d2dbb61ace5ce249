"""The end of a mount: the last attempt to send what is unsent."""

from __future__ import annotations

import logging
from typing import Final

import trio

from ctrfs.errors import CtrfsError
from ctrfs.fs.deleting import Deleter
from ctrfs.fs.describing import Describer
from ctrfs.fs.parts import Parts
from ctrfs.fs.postponing import PostponedDeletes
from ctrfs.fs.recording import Recorder
from ctrfs.fs.saving import Saver
from ctrfs.fs.strays import Strays
from ctrfs.tree.nodes import File, InodeNumber

# More than there are connections; each has the descriptor of a local file.
SENT_AT_ONCE: Final = 64

log = logging.getLogger(__name__)


class Drainer:
    """Sends what is left once nobody can write any more."""

    def __init__(
        self,
        parts: Parts,
        *,
        saver: Saver,
        recorder: Recorder,
        deleter: Deleter,
        postponed: PostponedDeletes,
        strays: Strays,
    ) -> None:
        self._parts = parts
        self._postponed = postponed
        self._recorder = recorder
        self._deleter = deleter
        self._saver = saver
        self._strays = strays
        self._describer = Describer(parts)

    def unsent_count(self) -> int:
        """Return how many files have bytes that the service lacks."""
        return max(len(self._parts.journal), len(self._parts.store.unsent_inodes()))

    async def drain(self) -> int:
        """Try to send everything that is still unsent; return how many files are left.

        Waits for the service as long as it takes: the caller sets the deadline. A service that
        has not answered for long is asked once more; those who then waited in vain for the first
        answer come again, as long as that gets anything sent.
        """
        self._parts.api.ask_again()
        before = self.unsent_count()
        await self._send_all()
        while 0 < (left := self.unsent_count()) < before:
            before = left
            await self._send_all()
        self._recorder.take_away_owed()
        await self._postponed.flush()
        await self._deleter.retry()
        await self._strays.clear()
        return self.unsent_count()

    async def _send_all(self) -> None:
        limiter = trio.CapacityLimiter(SENT_AT_ONCE)
        async with trio.open_nursery() as nursery:
            store = self._parts.store
            for inode in {*store.unsent_inodes(), *store.resident_inodes()}:
                nursery.start_soon(self._drain_one, inode, limiter)

    async def record_unsent(self) -> None:
        """Record all that is still unsent, so that it outlives this mount; sends nothing."""
        for inode in self._parts.store.unsent_inodes():
            file = self._file(inode)
            if file is not None:
                await self._saver.record_unsent(file)

    async def _drain_one(self, inode: InodeNumber, limiter: trio.CapacityLimiter) -> None:
        try:
            async with limiter:
                file = self._file(inode)
                if file is not None:
                    await self._saver.save(file)
        except CtrfsError as error:
            name = self._describer.inode(inode)
            log.warning("%s could not be sent before the end: %s", name, error)

    def _file(self, inode: InodeNumber) -> File | None:
        node = self._parts.tree.inodes.find(inode)
        return node if isinstance(node, File) else None
