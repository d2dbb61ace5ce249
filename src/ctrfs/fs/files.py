"""Open files: from open to release."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ctrfs.content.file_state import FileState
from ctrfs.content.open_file import OpenFile
from ctrfs.errors import ContentError, CtrfsError, StaleHandleError
from ctrfs.fs.attributes import OpenFlags
from ctrfs.fs.describing import described
from ctrfs.fs.handles import ControlHandle, FileHandle, HandleNumber, OpenedFile
from ctrfs.fs.holding import Holder
from ctrfs.fs.parts import Parts
from ctrfs.fs.read_ahead import ReadAhead
from ctrfs.fs.saving import Saver
from ctrfs.tree.nodes import File, InodeNumber, path_from_root

log = logging.getLogger(__name__)


class Files:
    """What is done with handles of files. Each waits only where its docstring says so."""

    def __init__(
        self,
        parts: Parts,
        saver: Saver,
        holder: Holder,
        read_ahead: ReadAhead,
        *,
        on_pages_stale: Callable[[InodeNumber], None],
        holds_open: Callable[[int, bytes], bool],
    ) -> None:
        self._parts = parts
        self._saver = saver
        self._holder = holder
        self._read_ahead = read_ahead
        self._on_pages_stale = on_pages_stale
        self._holds_open = holds_open

    async def open(
        self, file: File, flags: OpenFlags, *, opener_pid: int | None = None
    ) -> OpenedFile:
        """Open a file; sends nothing, unless only a download can tell its length.

        Raises:
            TooManyOpenFilesError: The mount's limit is reached.
            ReadOnlyError: It is to be written and cannot be.
        """
        self._parts.handles.check_room()
        if flags.can_write or flags.truncate:
            self._check_changeable(file)
        open_file = self._holder.take(file)
        is_length_new = False
        try:
            if flags.truncate:
                await self._truncate_held(file, open_file, 0)
            elif file.size_bytes is None:
                is_length_new = True
                with self._parts.failures.noting(file.inode):
                    file.size_bytes = await open_file.learn_size()
                self._on_pages_stale(file.inode)
        except BaseException:
            self._parts.store.release(file.inode)
            raise
        opened = FileHandle(file=file, open_file=open_file, flags=flags, opener_pid=opener_pid)
        handle = self._parts.handles.add(opened)
        if not flags.can_write:
            self._read_ahead.opened(file)
        return OpenedFile(handle=handle, direct_io=is_length_new, keep_cache=True)

    def open_new(
        self, file: File, flags: OpenFlags, *, opener_pid: int | None = None
    ) -> OpenedFile:
        """Open a file that was made just now; there is room for its handle."""
        open_file = self._parts.store.create(file.inode)
        opened = FileHandle(file=file, open_file=open_file, flags=flags, opener_pid=opener_pid)
        handle = self._parts.handles.add(opened)
        return OpenedFile(handle=handle, direct_io=False, keep_cache=True)

    async def read(self, handle: HandleNumber, offset: int, size: int) -> bytes:
        """Return up to ``size`` bytes; waits until they have come from the service.

        Raises as ``OpenFile.read``.
        """
        opened = self._parts.handles.opened(handle)
        if isinstance(opened, ControlHandle):
            return opened.text[offset : offset + size]
        if offset == 0:
            self._read_ahead.reading(opened.file, is_here=opened.open_file.is_complete)
        try:
            with self._parts.failures.noting(opened.file.inode):
                return await opened.open_file.read(offset, size)
        except StaleHandleError:
            self._parts.namespace.suspect(opened.file)
            raise
        except ContentError:
            # Earlier pages of the same bad download must not be served from the kernel's cache.
            self._on_pages_stale(opened.file.inode)
            raise

    async def write(self, handle: HandleNumber, offset: int, data: bytes) -> int:
        """Write to the local copy; waits for the rest of the file where bytes of it remain.

        Raises as ``OpenFile.write``, and:
            BadHandleError: Not open for writing.
        """
        opened = self._parts.handles.writable(handle)
        with self._changing(opened.file, opened.open_file):
            return await opened.open_file.write(offset, data)

    async def truncate(self, file: File, size: int, handle: HandleNumber | None) -> None:
        """Change the length; without a handle no flush will come, so this does what one does."""
        if handle is not None:
            opened = self._parts.handles.writable(handle)
            await self._truncate_held(file, opened.open_file, size)
            return
        open_file = self._holder.take(file)
        try:
            await self._truncate_held(file, open_file, size)
            await self._saver.acknowledge(file)
        finally:
            self._parts.store.release(file.inode)

    async def flush(self, handle: HandleNumber) -> None:
        """Have what the service lacks sent; once per close of each descriptor, idempotent.

        Waits and raises as ``Saver.acknowledge``.
        """
        opened = self._parts.handles.opened(handle)
        if not isinstance(opened, FileHandle) or not opened.flags.can_write:
            return
        if self._is_about_to_be_written(opened):
            return
        await self._saver.acknowledge(opened.file)

    async def fsync(self, handle: HandleNumber) -> None:
        """Return once the service has all bytes of the file; raises as ``Saver.save``."""
        opened = self._parts.handles.opened(handle)
        if isinstance(opened, FileHandle):
            await self._saver.save(opened.file)

    async def release(self, handle: HandleNumber) -> None:
        """Close a handle for good; sends what came after the last flush (a mapping's pages).

        Never raises for the service's sake: nobody is left to be told.
        """
        opened = self._parts.handles.remove(handle)
        if not isinstance(opened, FileHandle):
            return
        try:
            # What a flush has failed to send was told to the caller then, and waits for the next.
            if opened.flags.can_write and opened.open_file.state is not FileState.FAILED:
                await self._saver.acknowledge(opened.file)
        except CtrfsError as error:
            log.warning("release of %s: kept unsent: %s", described(opened.file), error)
        finally:
            self._parts.store.release(opened.file.inode)

    def _is_about_to_be_written(self, opened: FileHandle) -> bool:
        """Tell whether an empty file is in the middle of a shell's ``> file``.

        A shell opens the file, copies the descriptor and closes the first one before anything
        is written: sending the empty file then would cost a request, and over an existing
        file it would for a moment put nothing in the place of the old bytes. The close of the
        opener's last descriptor is a flush of its own.
        """
        return (
            opened.opener_pid is not None
            and opened.open_file.state is FileState.DIRTY
            and opened.open_file.size_bytes == 0
            and opened.file.parent is not None
            and self._holds_open(opened.opener_pid, path_from_root(opened.file))
        )

    def _check_changeable(self, file: File) -> None:
        if not file.is_removed:
            folder = file.parent or file.owner
            self._parts.check_changeable(folder)
            self._parts.check_takes_files(folder)

    @contextmanager
    def _changing(self, file: File, open_file: OpenFile) -> Iterator[None]:
        """Claim the name of a file while its bytes change in the block, and note the change.

        Claimed before, so that no listing takes the name away while the change waits; and
        again after, because a save that the change has waited for has taken the claim back.
        """
        self._check_changeable(file)
        self._claim(file)
        try:
            with self._parts.failures.noting(file.inode):
                yield
        finally:
            if open_file.state is FileState.CLEAN:
                file.is_claimed = False
            else:
                self._claim(file)
                file.size_bytes = open_file.size_bytes
                file.mtime_ns = self._parts.clock.wall_ns()

    def _claim(self, file: File) -> None:
        """Say that the newest bytes of a file are here, and that its name stays with it."""
        if file.is_removed:
            return
        if file.parent is None:
            # Taken away by somebody else: what the service had under this name is gone.
            file.shown_at = None
            self._parts.tree.give_name_back(file)
            self._parts.namespace.changed_by_us()
        file.is_claimed = True

    async def _truncate_held(self, file: File, open_file: OpenFile, size: int) -> None:
        with self._changing(file, open_file):
            await open_file.truncate(size)
        if open_file.state is FileState.CLEAN:
            # It had that length: nothing to send, but Linux counts it as a change all the same,
            # and scripts touch their empty stamps so.
            file.mtime_ns = self._parts.clock.wall_ns()
            with self._parts.spared():
                self._parts.keep_facts(file)
