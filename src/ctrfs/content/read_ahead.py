"""Bytes that nobody has asked for yet: fetched behind everything else, held until somebody does.

Who decides which files these are is ``fs.read_ahead``. An open during the fetch joins its
download; one after it finds the bytes; either way they are checked like all others.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import trio

from ctrfs import deadlines, errands
from ctrfs.config import ReadAheadConfig
from ctrfs.content.identity import ContentIdentity
from ctrfs.content.open_file import OpenFile
from ctrfs.content.store import ContentStore
from ctrfs.errands import Errand
from ctrfs.errors import CtrfsError, ShuttingDownError
from ctrfs.tree.nodes import InodeNumber

log = logging.getLogger(__name__)


class AheadFetcher:
    """The files that are held for the case that they will be opened.

    Invariant: each has one reference in the store, from ``fetch`` to ``let_go``.

    Attributes:
        on_failure: Told of an inode whose bytes could not be had; it is let go already.
    """

    def __init__(self, store: ContentStore, config: ReadAheadConfig) -> None:
        self._store = store
        self._config = config
        self._held: dict[InodeNumber, _Held] = {}
        self._nursery: trio.Nursery | None = None
        self.on_failure: Callable[[InodeNumber], None] = lambda _inode: None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Own the fetches until cancelled; then hold nothing any more."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                task_status.started()
                await trio.sleep_forever()
        finally:
            self.stop()

    def stop(self) -> None:
        """Let go of everything at once, and begin nothing any more."""
        self._nursery = None
        for inode in list(self._held):
            self.let_go(inode)

    @property
    def bytes_held(self) -> int:
        """How many bytes all that is held will take, as far as is known."""
        return sum(held.size_bytes for held in self._held.values())

    def has_room(self, size_bytes: int) -> bool:
        """Tell whether one more file of that size may be fetched."""
        is_room = self.bytes_held + size_bytes <= self._config.bytes_max
        return self._nursery is not None and is_room and len(self._held) < self._config.files_max

    def is_needless(self, inode: InodeNumber, identity: ContentIdentity) -> bool:
        """Tell whether the bytes are here, or on their way for somebody."""
        return inode in self._held or self._store.has(inode, identity)

    def fetch(self, inode: InodeNumber, identity: ContentIdentity) -> None:
        """Begin to fetch the bytes of a file that ``has_room`` is true of."""
        assert self._nursery is not None
        assert inode not in self._held
        held = _Held(self._store.open(inode, identity), size_bytes=identity.size_bytes or 0)
        self._held[inode] = held
        with deadlines.none(), errands.on(Errand()):
            self._nursery.start_soon(self._bring, held, name="read ahead")

    def let_go(self, inode: InodeNumber) -> None:
        """Leave the bytes to those who have the file open, or else to the cache.

        A fetch that nobody has joined ends here.
        """
        held = self._held.pop(inode, None)
        if held is not None:
            held.scope.cancel()
            self._store.release(inode)

    async def _bring(self, held: _Held) -> None:
        file = held.open_file
        with held.scope:
            try:
                held.size_bytes = await file.learn_size()
                if held.size_bytes <= self._config.file_bytes_max:
                    await file.complete()
                    return
            except ShuttingDownError:
                return  # a truncation, or the end
            except CtrfsError as error:
                log.debug("reading inode %d ahead failed: %s", file.inode, error)
                if self._held.get(file.inode) is held:
                    self.let_go(file.inode)
                    self.on_failure(file.inode)
                return
            self.let_go(file.inode)


class _Held:
    def __init__(self, open_file: OpenFile, *, size_bytes: int) -> None:
        self.open_file = open_file
        self.size_bytes = size_bytes
        self.scope = trio.CancelScope()
