"""The local bytes of one file, shared by every handle on its inode."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

import trio

from ctrfs.api.protocol import UploadBody
from ctrfs.content.arrivals import Arrivals
from ctrfs.content.download import Download
from ctrfs.content.file_state import TRANSITIONS, FileState
from ctrfs.content.identity import ContentIdentity
from ctrfs.content.local_bytes import LocalBytes
from ctrfs.content.outgoing import Outgoing, Settlement
from ctrfs.content.recorded_bytes import RecordedBytes
from ctrfs.content.surroundings import Surroundings
from ctrfs.content.whole_file import sync
from ctrfs.disk.content_cache import CachedCopy
from ctrfs.disk.spool import SpoolFile
from ctrfs.errors import CtrfsError, RemoteTooLargeError, ShuttingDownError
from ctrfs.tree.nodes import InodeNumber


class OpenFile:
    """The state machine of one file's bytes.

    Owner: ``ContentStore``, which alone counts references and ends it.

    Attributes:
        inode: Whose bytes these are.
        identity: The service's version that the bytes are, or were made from; None for a file
            that the service has never had.
        last_error: Why the last attempt to send failed; None after a success.
        dirty_since_ns: When the first change was made that the service lacks.
        references: How many holders there are; changed by the store only.
        recorded: What the journal has of the bytes; told by the file system.

    Invariant: a file that is not CLEAN is whole: complete, and all of it compared if it comes from
    the cache. A file without identity is never CLEAN.
    """

    def __init__(
        self,
        surroundings: Surroundings,
        inode: InodeNumber,
        *,
        identity: ContentIdentity | None,
        spool_file: SpoolFile | None = None,
        take_copy: Callable[[], CachedCopy | None] | None = None,
        expected_digest: str | None = None,
    ) -> None:
        """Take the bytes in ``spool_file`` for complete; without one they are on the service.

        Or in the cache: ``take_copy`` is called when the first byte is wanted, which of a file
        whose pages the kernel still has is never. Bytes of ``expected_digest`` are sent only
        if they have it, or have been changed since.
        """
        self._surroundings = surroundings
        self._bytes = LocalBytes(
            surroundings,
            identity=identity,
            spool_file=spool_file,
            take_copy=take_copy,
            expected_digest=expected_digest,
        )
        self._download: Download | None = None
        self._state = FileState.DIRTY if identity is None else FileState.CLEAN
        self._stillness = trio.Lock()
        self._is_resident = False
        self.inode = inode
        self.identity = identity
        self.last_error: CtrfsError | None = None
        self.dirty_since_ns = surroundings.clock.wall_ns() if identity is None else None
        self.references = 0
        self.recorded = RecordedBytes()

    @property
    def state(self) -> FileState:
        """Who has the newest bytes."""
        return self._state

    @property
    def is_unsent(self) -> bool:
        """Whether the service lacks the newest bytes, an upload under way or not."""
        return self.dirty_since_ns is not None

    @property
    def is_complete(self) -> bool:
        """Whether all bytes are on this machine, and were checked when they came."""
        return self._bytes.is_complete

    @property
    def size_bytes(self) -> int | None:
        """The length; None as long as neither the listing nor a download has told it."""
        told = None if self.identity is None else self.identity.size_bytes
        if told is None:
            self._bytes.look_into_cache()
        here = self._bytes.size_bytes
        if here is None and self._download is not None:
            return self._download.arrivals.length_bytes
        return told if here is None else here

    @property
    def is_resident(self) -> bool:
        """Whether the bytes stay here after the last close though nobody will send them."""
        return self._is_resident

    @is_resident.setter
    def is_resident(self, value: bool) -> None:
        self._is_resident = value
        self._surroundings.on_idle(self.inode)

    @property
    def spool_name(self) -> str:
        """Under which name the bytes lie in the spool; an empty place is made if there is none."""
        return self._bytes.spool_file.name

    async def read(self, offset: int, size: int) -> bytes:
        """Return up to ``size`` bytes from ``offset``; fewer only at the end of the file.

        Waits until a download has brought them. Cancelling the wait leaves it running for other
        readers. Raises as ``Download.wait_for``.
        """
        self._bytes.look_into_cache()
        while True:
            length = self.size_bytes
            end = offset + size if length is None else min(offset + size, length)
            if end <= offset:
                return b""
            if self._bytes.is_complete:
                data = self._bytes.read(offset, end)
                if data is None:
                    continue
                return data
            download = self._own_download()
            if download.arrivals.has(offset, end):
                return self._bytes.spool_file.pread(offset, end - offset)
            with self._unless_replaced(download):
                await download.wait_for(offset, end)

    async def write(self, offset: int, data: bytes) -> int:
        """Write all of ``data`` at ``offset``, and return how many bytes that is.

        Completes the download first; waits while an upload reads the bytes. Cancelling the
        wait changes nothing.

        Raises:
            RemoteTooLargeError: The file would become larger than the service takes.
            LocalDiskFullError: The spool has no room; length and other bytes are as before.
        """
        self._check_sendable(offset + len(data))
        is_free = self._bytes.is_whole and not self.recorded.are_present
        if is_free and not self._stillness.locked():
            return self._write_now(offset, data)
        await self.complete()
        async with self._stillness:
            await self._leave_recorded(is_wanted=True)
            return self._write_now(offset, data)

    async def truncate(self, size: int) -> None:
        """Make the file ``size`` bytes long; what is added reads as zeros.

        To 0 needs no byte of the old content: a download under way is cancelled. Waits while
        an upload reads the bytes.

        Raises:
            RemoteTooLargeError: The file would become larger than the service takes.
        """
        self._check_sendable(size)
        if size > 0 and size != self.size_bytes:
            await self.complete()
        async with self._stillness:
            if size == self.size_bytes:
                return
            if size == 0:
                self._bytes.forget_copies()
                self._drop_download()
            await self._leave_recorded(is_wanted=size > 0)
            self._note_change()
            self._bytes.truncate(size)

    async def complete(self) -> None:
        """Return once all bytes are here and checked; raises as ``Download.wait_for``."""
        while not self._bytes.is_whole:
            if self._bytes.is_complete:
                await self._bytes.compare()
                continue
            download = self._own_download()
            with self._unless_replaced(download):
                await download.wait_for_all()

    async def learn_size(self) -> int:
        """Return the length, from a download's first answer where nothing else tells it."""
        while (size := self.size_bytes) is None:
            download = self._own_download()
            with self._unless_replaced(download):
                await download.wait_for_length()
        return size

    @asynccontextmanager
    async def sending(self) -> AsyncIterator[Outgoing]:
        """Hold the bytes still for an upload; completes the download first.

        Uploads of one file wait for each other, writers and truncations wait for the upload,
        readers do not wait. When the block ends: CLEAN if it has called ``settle``; FAILED,
        with ``last_error``, if it raised an error of ours and there was something unsent;
        else, cancelled or simply left, as before.

        Raises:
            RemoteTooLargeError: The file is larger than the service takes.
        """
        if self.size_bytes is not None:
            self._check_sendable(self.size_bytes)
        await self.complete()
        try:
            async with self._stillness:
                spool_file = self._bytes.spool_file
                size_bytes = spool_file.size_bytes
                self._check_sendable(size_bytes)
                upload, state_before = Settlement(), self._state
                self._move_to(FileState.SENDING)
                try:
                    with spool_file.pinned():
                        yield Outgoing(
                            size_bytes=size_bytes,
                            digest=await self._bytes.digest.learn(spool_file),
                            body=UploadBody(size_bytes=size_bytes, open=spool_file.pieces),
                            settle=upload.settle,
                        )
                except CtrfsError as error:
                    upload.error = error
                    raise
                finally:
                    self._finish_upload(upload, state_before)
        finally:
            self._surroundings.on_idle(self.inode)

    async def sync_to_disk(self) -> None:
        """Return when the local disk holds all bytes, whatever happens to the machine after."""
        await sync(self._bytes.spool_file)

    async def store_on_disk(self, *, small_max: int = 0) -> tuple[str, bytes | None]:
        """Return the blake2b of all bytes once the local disk has them, whatever happens after.

        Up to ``small_max`` bytes are returned, too, and are the caller's to keep: the disk was
        not waited for. Waits for an upload under way; writers wait meanwhile. Nobody changes the
        bytes between the end of this and the caller's next wait.

        Raises:
            LocalDiskError: This machine's disk failed.
        """
        await self.complete()
        async with self._stillness:
            spool_file = self._bytes.spool_file
            with spool_file.pinned():
                digest = await self._bytes.digest.learn(spool_file)
            # An empty file is nothing but its name, which has to be synced.
            if 0 < spool_file.size_bytes <= small_max:
                return digest, spool_file.pread(0, spool_file.size_bytes)
            await self.sync_to_disk()
        return digest, None

    def mark_unsent(self) -> None:
        """Say that the service is to be given these bytes again, under another name."""
        assert self._bytes.is_complete, "only complete bytes are sent"
        if self.dirty_since_ns is None:
            self.dirty_since_ns = self._surroundings.clock.wall_ns()
        if self._state is FileState.CLEAN:
            self._move_to(FileState.DIRTY)

    def rest(self) -> None:
        """Give back the file descriptor until the next use."""
        self._bytes.rest()

    def end(self) -> CachedCopy | None:
        """Stop for good, and hand over the bytes if they are of worth.

        Owner: the store, on the last release. Nothing may be asked of this file after.
        """
        download = self._download
        arrived = None if download is None else download.arrivals.partial_copy()
        self._drop_download()
        self.recorded.forget()
        return self._bytes.hand_over(arrived)

    def check_invariants(self) -> None:
        """Raise AssertionError if the state contradicts the bytes."""
        if self._state is not FileState.CLEAN:
            assert self._bytes.is_whole
        if self.identity is None:
            assert self._state is not FileState.CLEAN
        assert self.is_unsent or self._state in {FileState.CLEAN, FileState.SENDING}
        self._bytes.check_invariants()
        if self._bytes.is_complete:
            assert self._download is None
        if self._download is not None:
            self._download.arrivals.check_invariants()

    def _write_now(self, offset: int, data: bytes) -> int:
        # Not async on purpose: bytes, length and state change in one step.
        if not data:
            return 0
        self._note_change()
        return self._bytes.write(offset, data)

    async def _leave_recorded(self, *, is_wanted: bool) -> None:
        """Before a change, keep what the journal has promised; see ``RecordedBytes.set_aside``."""
        if self.recorded.are_present:
            self._bytes.move_to(
                await self.recorded.set_aside(
                    self._bytes.spool_file, self._surroundings.spool, is_wanted=is_wanted
                )
            )

    def _note_change(self) -> None:
        self._surroundings.on_change(self.inode)
        if self.dirty_since_ns is None:
            self.dirty_since_ns = self._surroundings.clock.wall_ns()
        if self._state is not FileState.DIRTY:
            self._move_to(FileState.DIRTY)

    def _move_to(self, state: FileState) -> None:
        assert state in TRANSITIONS[self._state], f"{self._state} to {state}"
        self._state = state

    def _finish_upload(self, upload: Settlement, state_before: FileState) -> None:
        if upload.identity is not None:
            self.identity = upload.identity
            self.last_error = None
            self.dirty_since_ns = None
            self._move_to(FileState.CLEAN)
        elif upload.error is not None and state_before is not FileState.CLEAN:
            self.last_error = upload.error
            self._move_to(FileState.FAILED)
        else:
            self._move_to(state_before)

    def _check_sendable(self, size: int) -> None:
        limit = self._surroundings.config.file_bytes_max
        if size > limit:
            raise RemoteTooLargeError(f"{size} bytes are more than the {limit} of one file")

    def _own_download(self) -> Download:
        if self._download is None:
            assert self.identity is not None, "a file without identity is complete"
            config, spool_file = self._surroundings.config, self._bytes.spool_file
            self._download = Download(
                self._surroundings.api,
                config,
                Arrivals(
                    self.identity,
                    spool_file,
                    copy=self._bytes.take_partial(),
                    chunk_bytes=config.chunk_bytes,
                    start_soon=self._surroundings.start_soon,
                ),
                habits=self._surroundings.habits,
                start_soon=self._surroundings.start_soon,
                on_complete=self._land,
            )
        return self._download

    def _land(self, size: int, digest: str) -> None:
        self._bytes.land(size, digest)
        self._download = None

    def _drop_download(self) -> None:
        if self._download is not None:
            self._download.cancel()
            self._download = None

    @contextmanager
    def _unless_replaced(self, download: Download) -> Iterator[None]:
        """Swallow the end of a download that a truncation has made needless."""
        try:
            yield
        except ShuttingDownError:
            if self._download is download or self._bytes.is_closed:
                raise
