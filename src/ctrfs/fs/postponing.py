"""Deletions that write=back puts off: recorded, answered, and made a moment later.

Who removes a folder with everything in it, container by container, then pays one request for
each container instead of one for each file: what is still to be deleted goes with it.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import Final

import trio

from ctrfs.api.models import ContainerFile, ContainerId
from ctrfs.errors import (
    RemoteError,
    RemoteInvalidError,
    RemoteReadOnlyError,
    RemoteRefusedError,
)
from ctrfs.fs.deleting import DELETED_AT_ONCE, Deleter
from ctrfs.fs.parts import Parts
from ctrfs.fs.recording import Recorder, remote_of, version_of
from ctrfs.tree.nodes import ContainerDirectory

log = logging.getLogger(__name__)

# While files of a container go on being removed the first of them waits no longer than this:
# others see it until then.
LONGEST_DELAY_S: Final = 10.0

# Trying again would not help: the file is there to stay, and is shown.
_REFUSALS: Final = (RemoteInvalidError, RemoteReadOnlyError, RemoteRefusedError)


class PostponedDeletes:
    """Owner of when the deletions of each container are made; ``Recorder.postponed`` says which.

    Runs in a task of its own. A deletion that fails is left to ``BackgroundRetries``.

    Invariant: a container has a time in ``_due`` exactly while something of it is postponed, and
    is in ``_under_way`` from the step on that takes that away until the last deletion has ended.
    """

    def __init__(self, parts: Parts, *, recorder: Recorder, deleter: Deleter) -> None:
        self._parts = parts
        self._recorder = recorder
        self._deleter = deleter
        self._due: dict[str, _Due] = {}
        self._under_way: dict[str, int] = {}
        self._has_ended = trio.Event()
        self._wake = trio.Event()

    def add(self, rows: Iterable[ContainerFile]) -> None:
        """Have hidden files deleted once nothing of their container was added for a moment."""
        now_s = trio.current_time()
        for row in rows:
            self._recorder.postponed.setdefault(row.container_id, {})[version_of(row)] = None
            due = self._due.setdefault(row.container_id, _Due(now_s))
            due.put_off(now_s + self._parts.config.write_delay_s)
        self._wake.set()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Make deletions when they are due, until cancelled."""
        async with trio.open_nursery() as nursery:
            task_status.started()
            while True:
                self._wake = trio.Event()
                now_s = trio.current_time()
                for container_id in [cid for cid, due in self._due.items() if due.at_s <= now_s]:
                    self._begin(nursery, container_id)
                next_s = min((due.at_s for due in self._due.values()), default=math.inf)
                with trio.move_on_at(next_s):
                    await self._wake.wait()

    async def flush(self, container_ids: Collection[str] | None = None) -> None:
        """Make the deletions now, those of all containers by default; return when all have ended.

        Never raises for the service's sake: what has failed is in ``Recorder.overdue``.
        """
        async with trio.open_nursery() as nursery:
            for container_id in list(self._due):
                if container_ids is None or container_id in container_ids:
                    self._begin(nursery, container_id)
        while any(container_ids is None or cid in container_ids for cid in self._under_way):
            await self._has_ended.wait()

    @contextmanager
    def swallowed(self, directory: ContainerDirectory) -> Iterator[None]:
        """Hold back the deletions of a container that is deleted itself in the block.

        If the block fails they are put off again.
        """
        rows = self._take(directory.container.id)
        try:
            yield
        except BaseException:
            self.add(rows)
            raise
        with self._parts.spared(), self._parts.journal.together():
            for row in rows:
                self._recorder.deleted(row)

    def _begin(self, nursery: trio.Nursery, container_id: str) -> None:
        """Have the deletions of a container made by a task, which counts from this moment on."""
        rows = self._take(container_id)
        self._under_way[container_id] = self._under_way.get(container_id, 0) + 1
        nursery.start_soon(self._make, container_id, rows)

    def _take(self, container_id: str) -> list[ContainerFile]:
        self._due.pop(container_id, None)
        versions = self._recorder.postponed.pop(container_id, {})
        return [remote_of(version) for version in versions]

    async def _make(self, container_id: str, rows: list[ContainerFile]) -> None:
        limiter = trio.CapacityLimiter(DELETED_AT_ONCE)
        try:
            async with trio.open_nursery() as nursery:
                for row in rows:
                    nursery.start_soon(self._make_one, row, limiter)
        finally:
            self._under_way[container_id] -= 1
            if not self._under_way[container_id]:
                del self._under_way[container_id]
            self._has_ended.set()
            self._has_ended = trio.Event()

    async def _make_one(self, row: ContainerFile, limiter: trio.CapacityLimiter) -> None:
        error = await self._deleter.delete(row, limiter)
        if isinstance(error, _REFUSALS):
            self._show_again(row, error)

    def _show_again(self, row: ContainerFile, error: RemoteError) -> None:
        """Show a file that the service does not give up; whoever removed it has been answered."""
        log.error("%s stays, the service refuses to delete it: %s", row.path, error)
        self._recorder.deleted(row)
        owner = self._parts.tree.container(ContainerId(row.container_id))
        if owner is not None:
            self._parts.failures.note(owner.inode, error)
            self._parts.namespace.unhide(owner, row.id)
            self._parts.namespace.suspect(owner)


class _Due:
    """When the deletions of one container are made."""

    __slots__ = ("_latest_s", "at_s")

    def __init__(self, now_s: float) -> None:
        self._latest_s = now_s + LONGEST_DELAY_S
        self.at_s = now_s

    def put_off(self, until_s: float) -> None:
        self.at_s = min(until_s, self._latest_s)
