"""The bytes of all files that somebody holds, or that the service lacks.

The face of this floor. Everything here but ``run`` is a plain ``def`` and sends nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

import trio

from ctrfs import deadlines
from ctrfs.api.protocol import ContainersApi
from ctrfs.clock import Clock
from ctrfs.config import ContentConfig
from ctrfs.content.closed_copies import ClosedCopies
from ctrfs.content.file_state import FileState
from ctrfs.content.identity import ContentIdentity
from ctrfs.content.open_file import OpenFile
from ctrfs.content.surroundings import Surroundings
from ctrfs.disk.content_cache import CachedCopy, ContentCache
from ctrfs.disk.spool import SpoolDirectory, SpoolFile
from ctrfs.errors import LocalDiskError, ShuttingDownError
from ctrfs.tree.nodes import InodeNumber

# From here on a close waits for its upload: what is written must not outrun what is sent until
# nothing can be written any more.
CROWDED_SHARE: Final = 0.75


class ContentStore:
    """Open files by inode, with their references, and the cache of those closed.

    How many there can be is bounded above, by the limit of handles.

    Invariant: a file is in ``_files`` exactly while it has references, or is unsent, or is
    resident; one in ``_discarded`` only while it has references.

    Attributes:
        on_change: Told of an inode before each change of its bytes; must not wait.
    """

    def __init__(
        self,
        api: ContainersApi,
        clock: Clock,
        config: ContentConfig,
        *,
        spool: SpoolDirectory,
        cache: ContentCache,
    ) -> None:
        """Take over ``spool`` and ``cache``: space that one lacks is taken from the other."""
        self._spool = spool
        self._copies = ClosedCopies(cache)
        spool.reclaim = self._copies.give_up
        spool.outside_bytes = lambda: cache.bytes_used
        self._crowded_bytes = int(config.spool_bytes_max * CROWDED_SHARE)
        self._files: dict[InodeNumber, OpenFile] = {}
        self._discarded: set[InodeNumber] = set()
        self._lent: set[InodeNumber] = set()
        self._nursery: trio.Nursery | None = None
        self.on_change: Callable[[InodeNumber], None] = lambda _inode: None
        self._surroundings = Surroundings(
            api=api,
            clock=clock,
            config=config,
            spool=spool,
            start_soon=self._start_soon,
            on_idle=self._retire_if_idle,
            on_change=self._tell_of_change,
        )

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Own the downloads until cancelled; then delete what the service has, too."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                nursery.start_soon(self._copies.run)
                task_status.started()
                await trio.sleep_forever()
        finally:
            self._nursery = None
            self._leave_only_unsent()

    @property
    def bytes_used(self) -> int:
        """How many bytes of disk all local copies take, the cached ones of other mounts too."""
        return self._spool.bytes_used + self._spool.outside_bytes()

    @property
    def is_crowded(self) -> bool:
        """Whether little room is left for bytes that cannot be had again from the service."""
        return self._spool.bytes_used - self._copies.waiting_bytes > self._crowded_bytes

    def __contains__(self, inode: InodeNumber) -> bool:
        """Tell whether bytes of an inode are held, if only by a fetch that nobody has asked for."""
        return inode in self._files

    def get(self, inode: InodeNumber) -> OpenFile | None:
        """Return the file of an inode, if somebody holds it or it is kept."""
        return self._files.get(inode)

    def has(self, inode: InodeNumber, identity: ContentIdentity) -> bool:
        """Tell whether somebody holds the file, or the cache has a copy of these bytes."""
        return inode in self._files or identity.key in self._copies

    def open(self, inode: InodeNumber, identity: ContentIdentity) -> OpenFile:
        """Return the file of an inode with one reference more; sends nothing.

        Args:
            inode: Whose bytes.
            identity: Which bytes, if nobody holds the file yet; else what it holds counts.
        """
        file = self._files.get(inode)
        if file is None:
            file = self._add(inode, identity, take_copy=lambda: self._copies.take(identity.key))
        file.references += 1
        return file

    def create(self, inode: InodeNumber) -> OpenFile:
        """Return a new, empty, DIRTY file with one reference.

        Raises:
            LocalDiskFullError: The spool has no room.
        """
        assert inode not in self._files, "a new file has a new inode"
        file = self._add(inode, None, spool_file=self._spool.create())
        file.references = 1
        return file

    def adopt(self, inode: InodeNumber, spool_name: str) -> OpenFile:
        """Return a file whose bytes an earlier mount left: DIRTY, resident, no reference.

        Raises:
            LocalDiskError: There are no bytes of that name.
        """
        assert inode not in self._files, "a file is adopted once"
        file = self._add(inode, None, spool_file=self._spool.open(spool_name))
        file.is_resident = True
        file.rest()  # there may be thousands, and nobody has asked for one yet
        return file

    def adopt_unsent(self, inode: InodeNumber, spool_name: str, *, digest: str | None) -> OpenFile:
        """Return a file whose bytes an earlier mount could not send: DIRTY, no reference.

        Args:
            inode: Whose bytes.
            spool_name: Where they lie.
            digest: What their blake2b must be, where that is known.

        Raises:
            LocalDiskError: There are no bytes of that name.
        """
        assert inode not in self._files, "a file is adopted once"
        spool_file = self._spool.open(spool_name)
        file = self._add(inode, None, spool_file=spool_file, expected_digest=digest)
        file.recorded.note()
        file.rest()
        return file

    def delete_unsent(self, spool_name: str) -> None:
        """Delete bytes that an earlier mount left and nobody wants any more; harmless if gone."""
        with suppress(LocalDiskError):
            self._spool.open(spool_name).delete()

    def retain(self, inode: InodeNumber) -> None:
        """Add a reference to a file that is here."""
        self._files[inode].references += 1

    def release(self, inode: InodeNumber) -> None:
        """Take back a reference.

        With the last one a clean and complete file goes to the cache, a clean and incomplete
        one ends with its download; what is unsent or resident stays.
        """
        file = self._files[inode]
        assert file.references > 0, "more releases than references"
        file.references -= 1
        self._retire_if_idle(inode)

    def lend(self, inode: InodeNumber) -> Callable[[], None]:
        """Keep the bytes of a file for a record that becomes another's; return what ends that."""
        self.retain(inode)
        self._lent.add(inode)

        def give_back() -> None:
            self._lent.discard(inode)
            self.release(inode)

        return give_back

    def discard(self, inode: InodeNumber, identity: ContentIdentity | None = None) -> None:
        """Let the bytes of an unlinked file go: at the last release, now if nobody holds it.

        Args:
            inode: Whose bytes.
            identity: What the service called them, for the copy in the cache.
        """
        if identity is not None:
            self._copies.drop(identity.key)
        if inode in self._files:
            self._discarded.add(inode)
            self._retire_if_idle(inode)

    def unsent_inodes(self) -> list[InodeNumber]:
        """Return the files that are to be sent and are not: neither resident nor discarded."""
        return [
            inode
            for inode, file in self._files.items()
            if file.is_unsent and not file.is_resident and inode not in self._discarded
        ]

    def resident_inodes(self) -> list[InodeNumber]:
        """Return the files that stay on this machine though nobody will send them."""
        return [inode for inode, file in self._files.items() if file.is_resident]

    def check_invariants(self) -> None:
        """Raise AssertionError if something is kept without a reason, or the other way round."""
        for inode, file in self._files.items():
            file.check_invariants()
            assert file.references > 0 or file.is_resident or file.state is not FileState.CLEAN
            assert inode not in self._discarded or file.references > 0
        assert self._discarded <= self._files.keys()

    def _add(
        self,
        inode: InodeNumber,
        identity: ContentIdentity | None,
        *,
        spool_file: SpoolFile | None = None,
        take_copy: Callable[[], CachedCopy | None] | None = None,
        expected_digest: str | None = None,
    ) -> OpenFile:
        file = OpenFile(
            self._surroundings,
            inode,
            identity=identity,
            spool_file=spool_file,
            take_copy=take_copy,
            expected_digest=expected_digest,
        )
        self._files[inode] = file
        return file

    def _tell_of_change(self, inode: InodeNumber) -> None:
        self.on_change(inode)  # who wants to know says so only later

    def _retire_if_idle(self, inode: InodeNumber) -> None:
        file = self._files.get(inode)
        if file is None or file.references > 0:
            return
        is_discarded = inode in self._discarded
        if not is_discarded and (file.is_resident or file.state is not FileState.CLEAN):
            file.rest()
            return
        del self._files[inode]
        self._discarded.discard(inode)
        self._end(file, is_wanted=not is_discarded)

    def _end(self, file: OpenFile, *, is_wanted: bool) -> None:
        copy = file.end()
        if copy is None:
            return
        if is_wanted and file.identity is not None:
            self._copies.put(file.identity.key, copy)
        else:
            copy.spool_file.delete()

    def _leave_only_unsent(self) -> None:
        """Give all copies of what the service has to the cache; the rest stays in the spool."""
        for inode, file in list(self._files.items()):
            file.rest()
            if inode in self._lent:
                continue  # its record could not be replaced to the last
            is_elsewhere = file.state is FileState.CLEAN and not file.is_resident
            if inode in self._discarded or is_elsewhere:
                self._end(file, is_wanted=inode not in self._discarded)
        self._copies.finish()

    def _start_soon(self, run: Callable[[], Awaitable[None]]) -> None:
        if self._nursery is None:
            raise ShuttingDownError("the mount is ending")
        with deadlines.none():  # it serves all readers, not only the one who came first
            self._nursery.start_soon(run, name="download")
