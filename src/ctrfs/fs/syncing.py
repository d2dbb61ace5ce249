"""fsync of a directory: everything that is pending below it, on the service."""

from __future__ import annotations

from typing import Final

import trio

from ctrfs.config import WriteMode
from ctrfs.errors import CtrfsError, RemoteUnavailableError
from ctrfs.fs.deleting import Deleter
from ctrfs.fs.parts import Parts
from ctrfs.fs.postponing import PostponedDeletes
from ctrfs.fs.recording import Recorder
from ctrfs.fs.saving import Saver
from ctrfs.tree.nodes import File, Parent, Root, owner_of

# More than there are connections; each has the descriptor of a local file.
SENT_AT_ONCE: Final = 64


class Syncer:
    """Sends now what write=back has put off."""

    def __init__(
        self,
        parts: Parts,
        *,
        saver: Saver,
        recorder: Recorder,
        deleter: Deleter,
        postponed: PostponedDeletes,
    ) -> None:
        self._parts = parts
        self._saver = saver
        self._recorder = recorder
        self._deleter = deleter
        self._postponed = postponed

    async def sync(self, directory: Parent) -> None:
        """Return once the service has all that was closed or removed below ``directory``.

        With write=through nothing is ever put off, and this returns at once. What somebody is
        still writing is pending only from the close on.

        Raises:
            CtrfsError: What failed first; the rest was sent all the same.
        """
        if self._parts.config.write_mode is WriteMode.THROUGH:
            return
        failures: list[CtrfsError] = []
        limiter = trio.CapacityLimiter(SENT_AT_ONCE)
        async with trio.open_nursery() as nursery:
            for file in self._pending_below(directory):
                nursery.start_soon(self._save, file, limiter, failures)
        await self._delete_below(directory)
        if failures:
            raise failures[0]

    def _pending_below(self, directory: Parent) -> list[File]:
        files = map(self._parts.tree.inodes.find, self._parts.store.unsent_inodes())
        return [
            file
            for file in files
            if isinstance(file, File)
            and _is_below(file, directory)
            and (
                self._recorder.is_recorded(file)
                or not self._parts.handles.is_being_written(file.inode)
            )
        ]

    async def _save(
        self, file: File, limiter: trio.CapacityLimiter, failures: list[CtrfsError]
    ) -> None:
        try:
            async with limiter:
                await self._saver.save(file)
        except CtrfsError as error:
            failures.append(error)

    async def _delete_below(self, directory: Parent) -> None:
        container_ids: set[str] | None = None
        if not isinstance(directory, Root):
            container_ids = {owner_of(directory).container.id}
        await self._postponed.flush(container_ids)
        if self._recorder.has_overdue(container_ids):
            await self._deleter.retry()
        if self._recorder.has_overdue(container_ids):
            raise RemoteUnavailableError("files that were removed here are still on the service")


def _is_below(file: File, directory: Parent) -> bool:
    step: Parent | None = file.parent
    while step is not None and step is not directory:
        step = step.parent
    return step is directory
