"""Deleting what others have replaced: recorded before, tried again until it is done."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from contextlib import nullcontext, suppress
from typing import Final

import trio

from ctrfs.api.models import ContainerFile, ContainerId
from ctrfs.errors import (
    CtrfsError,
    NoSuchEntryError,
    RemoteError,
    RemoteGoneError,
)
from ctrfs.failpoints import reached
from ctrfs.fs.parts import Parts, stored_at
from ctrfs.fs.recording import Recorder, remote_of, version_of
from ctrfs.tree.nodes import ContainerDirectory

# The service takes a second for each, and a folder may have had hundreds.
DELETED_AT_ONCE: Final = 8
# Behind the users' backs: most of the connections are left to the users.
RETRIED_AT_ONCE: Final = 4

log = logging.getLogger(__name__)


class Deleter:
    """Deletes stored files that the user has replaced, and that version of them only.

    Attributes:
        put_off: With write=back, who makes deletions later; None where they are made at once.
    """

    def __init__(self, parts: Parts, recorder: Recorder) -> None:
        self._parts = parts
        self._recorder = recorder
        self.put_off: Callable[[Iterable[ContainerFile]], None] | None = None

    async def delete_all(self, rows: Iterable[ContainerFile]) -> None:
        """Delete files that others have replaced and whose deletion is recorded.

        They are hidden at once. Never raises for the service's sake: the new bytes are safe,
        which is what was asked; what fails is tried again later. With write=back they are
        deleted a moment later, and this does not wait.
        """
        todo = list(rows)
        for row in todo:
            self.hide(row)
        if self.put_off is not None:
            self.put_off(todo)
            return
        limiter = trio.CapacityLimiter(DELETED_AT_ONCE)
        async with trio.open_nursery() as nursery:
            for row in todo:
                nursery.start_soon(self.delete, row, limiter)

    def hide(self, row: ContainerFile) -> None:
        """Hide a file that is going to be deleted, in whichever container it is."""
        owner = self._parts.tree.container(row.container_id)
        if owner is not None:
            self._parts.namespace.hide(owner, row)

    async def delete(
        self, row: ContainerFile, limiter: trio.CapacityLimiter | None = None
    ) -> RemoteError | None:
        """Delete one replaced file, and settle its record; return why that is not done yet.

        Args:
            row: Which file; cancelled, it is tried again later.
            limiter: Of how many are deleted at once.
        """
        try:
            async with limiter or nullcontext(), self._parts.stored_paths.hold(stored_at(row)):
                # It may have been called off while this waited, or before.
                is_wanted = self._recorder.is_to_be_deleted(row)
                return await self.delete_held(row) if is_wanted else None
        except RemoteError as error:  # of the lock
            self._recorder.not_deleted(row)
            return error
        except trio.Cancelled:
            self._recorder.not_deleted(row)
            raise

    async def delete_held(self, row: ContainerFile) -> RemoteError | None:
        """Do what ``delete`` does, for a caller that holds the lock of the stored path."""
        try:
            await self._parts.api.delete_file(row.container_id, row.id)
        except RemoteGoneError:
            log.debug("replaced file %s was gone already", row.id)
        except RemoteError as error:
            log.warning("replaced file %s could not be deleted yet: %s", row.id, error)
            self._recorder.not_deleted(row)
            return error
        except trio.Cancelled:
            self._recorder.not_deleted(row)
            raise
        reached("save.deleted")
        owner = self._parts.tree.container(row.container_id)
        if owner is not None:
            self._parts.namespace.deleted(owner, row.id)
        self._recorder.deleted(row)
        return None

    def call_off(self, owner: ContainerDirectory, stored: ContainerFile) -> None:
        """Say that an id that was to be deleted is alive again; the caller holds its path's lock.

        Some servers give the same id to the same bytes, or to the same path.
        """
        if not self._parts.namespace.is_hidden(owner, stored.id):
            return
        self._recorder.call_off(stored)
        self._parts.namespace.unhide(owner, stored.id)
        for file in self._parts.tree.files_below(owner):
            if any(row.id == stored.id for row in file.replaces):
                file.replaces = tuple(row for row in file.replaces if row.id != stored.id)

    async def retry(self) -> None:
        """Try once more to delete what has been replaced and could not be deleted.

        An id that is shown again has been born again, with a version that nobody replaced.
        """
        waiting: dict[ContainerId, list[ContainerFile]] = {}
        for version in self._recorder.overdue:
            row = remote_of(version)
            waiting.setdefault(row.container_id, []).append(row)
        for container_id, rows in waiting.items():
            try:
                owner = await self.listed(container_id)
            except CtrfsError as error:
                log.info("what is to be deleted in %s waits: %s", container_id, error)
                continue
            limiter = trio.CapacityLimiter(RETRIED_AT_ONCE)
            with self._parts.spared(), self._parts.journal.together():
                for row in [] if owner is not None else rows:
                    self._recorder.deleted(row)
            async with trio.open_nursery() as nursery:
                for row in [] if owner is None else rows:
                    nursery.start_soon(self._retry_one, row, limiter)

    async def _retry_one(self, row: ContainerFile, limiter: trio.CapacityLimiter) -> None:
        async with limiter:
            if not self._recorder.is_to_be_deleted(row):
                return  # called off meanwhile
            if not self.is_unchanged(row):
                self._recorder.deleted(row)
                return
            self.hide(row)
            owner = self._parts.tree.container(row.container_id)
            if owner is not None and row.id in owner.files:
                self._parts.tree.take_name(owner.files[row.id])
            await self.delete(row)

    async def listed(self, container_id: ContainerId) -> ContainerDirectory | None:
        """Return a container whose listing is fresh; None if it is gone for good.

        Raises:
            CtrfsError: That cannot be told, or the container is not shown here.
        """
        owner = self._parts.tree.container(container_id)
        if owner is not None:
            await self._parts.namespace.children(owner)
            return owner
        with suppress(RemoteGoneError):
            if (await self._parts.api.retrieve_container(container_id)).is_alive:
                raise NoSuchEntryError(f"container {container_id} is not shown")
        return None

    async def take_away(self, stored: ContainerFile) -> None:
        """Delete a file of ours that landed where it should not."""
        self._recorder.settle(deletes=[stored])
        await self.delete_all([stored])

    def still_those(self, rows: Iterable[ContainerFile]) -> list[ContainerFile]:
        """Return those of ``rows`` whose ids do not stand for something else by now.

        To be asked in the step that records them as deletions: on some servers whoever stores
        the same path again gets the same id.
        """
        return [row for row in rows if self.is_unchanged(row)]

    def is_unchanged(self, row: ContainerFile) -> bool:
        """Tell whether a listing that has just come may have ``row``, hidden, or lacks its id."""
        owner = self._parts.tree.container(row.container_id)
        shown = None if owner is None else owner.files.get(row.id)
        return shown is None or shown.remote is None or version_of(shown.remote) == version_of(row)
