"""The digest of what a file holds at the moment, where it is known or can be had cheaply."""

from __future__ import annotations

from ctrfs.content.whole_file import digest_of
from ctrfs.disk.spool import SpoolFile
from ctrfs.errors import LocalDiskError
from ctrfs.running_digest import RunningDigest, StartSoon


class PresentDigest:
    """The blake2b of one file's present bytes.

    What is written from the start on, one byte after another, is hashed on the way; after any other
    change, who wants the digest reads all bytes.

    Attributes:
        known: 32 hex digits; None where it would have to be computed.
    """

    def __init__(self, known: str | None, *, expected: str | None, start_soon: StartSoon) -> None:
        """Begin with unchanged bytes.

        Args:
            known: As the attribute.
            expected: What it must turn out to be, unless the bytes are changed first.
            start_soon: Where a thread that hashes is waited for.
        """
        self.known = known
        self._expected = expected
        self._start_soon = start_soon
        self._running: RunningDigest | None = None

    def forget(self) -> None:
        """Say that the bytes are about to change, in whatever way."""
        self.known = self._expected = None
        self._running = None

    def behind(self, offset: int, spool_file: SpoolFile) -> RunningDigest | None:
        """Return what has seen all bytes, if a write at ``offset`` goes on behind them.

        To be asked before the change, and to be told of it: ``goes_on``.
        """
        if spool_file.size_bytes != offset:
            return None
        if offset == 0:
            return RunningDigest(spool_file, start_soon=self._start_soon)
        running = self._running
        if running is None or running.source is not spool_file or running.end != offset:
            return None
        return running

    def goes_on(self, running: RunningDigest, offset: int, data: bytes) -> None:
        """Say that ``data`` was written where ``running`` ended."""
        running.take(offset, data)
        self._running = running

    async def learn(self, spool_file: SpoolFile) -> str:
        """Return it; many bytes that are still to be hashed wait for a thread.

        The bytes hold still meanwhile.

        Raises:
            LocalDiskError: It is not what it must be, or the disk does not give the bytes.
        """
        if self.known is None and self._running is not None:
            self.known = await self._running.finish(spool_file.size_bytes)
        elif self.known is None:
            self.known = await digest_of(spool_file)
        if self._expected not in {None, self.known}:
            raise LocalDiskError("the local copy of unsent bytes is damaged: it is not sent")
        return self.known
