"""Plays lists of ``operations`` and checks the promises after each step.

Each step is tried as a program would try it. What it may answer follows from what the mount
shows at that moment; what it must have done is for the ``ledger`` to check.
"""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from tests.model.ledger import Ledger, Mine
from tests.model.machines import Machine, Shown, View
from tests.model.operations import CONTAINERS, SLOTS
from tests.model.truth import Life, Truth
from tests.model.world import World

T = TypeVar("T")


NOT_THERE: Final = {errno.ENOENT, errno.ENOTDIR, errno.ESTALE}


@dataclass(slots=True)
class Held:
    """An open descriptor."""

    descriptor: int
    file: Mine
    has_been_read: bool = False


@dataclass(frozen=True, slots=True)
class Place:
    """A path that a mount can walk to, up to the last name."""

    path: str
    container: str
    inner: str
    view: View

    @property
    def container_id(self) -> str:
        """The container that the mount shows under that name."""
        return self.view.container_id

    @property
    def shown(self) -> Shown | None:
        """The file there, if the mount shows one."""
        return self.view.files.get(self.inner)


class Stage:
    """What all kinds of steps need: the mounts, the ledger, and one try of one call."""

    def __init__(self, world: World, machines: Sequence[Machine]) -> None:
        self.world = world
        self.machines = machines
        self.truth = Truth(world.records)
        self.ledger = Ledger(self.truth)
        self.slots: dict[tuple[int, int], Held] = {}
        self.refreshed_s = [0.0 for _ in machines]
        self.is_excused = False
        """Whether a request of the present step may fail."""
        self.born: list[Life] = []
        self.died: list[Life] = []

    async def attempt(self, work: Callable[[], Awaitable[T]]) -> T | OSError:
        """Make one call; return what it returns, or how it fails, with all checked."""
        try:
            return await self.world.run(work)
        except OSError as error:
            return error
        finally:
            self.look(is_by_mounts=True)

    def look(self, *, is_by_mounts: bool) -> None:
        """See what the service has now, and check what has changed."""
        changes = self.truth.look(self.world.now_s, is_by_mounts=is_by_mounts)
        for life in changes.born:
            life.is_uncertain = self.is_excused
        self.born += changes.born
        self.died += changes.died
        if is_by_mounts:
            self.ledger.check(changes)

    def excuse(self, error: OSError, *files: Mine, container_id: str) -> None:
        """Accept a failure that a fault, or a change made elsewhere, explains."""
        is_gone = not self.truth.is_alive(container_id)
        is_lost = any(self.has_lost_base(file) for file in files)
        if not (self.is_excused or is_gone or is_lost):
            raise AssertionError(f"failed for no reason: {error}") from error
        for file in files:
            file.has_ever_failed = True

    def has_lost_base(self, file: Mine) -> bool:
        """Tell whether another client has deleted what a file was made from."""
        return file.base is not None and self.truth.lives[file.base].died_s is not None

    async def place(self, mount: int, path: str) -> Place | None:
        """Walk to a path as the kernel does; None if a folder on the way is not shown."""
        machine = self.machines[mount]
        container, _, inner = path.partition("/")
        for step in dict.fromkeys([path.rpartition("/")[0], path]):
            found = await self.attempt(lambda step=step: machine.is_folder(step))  # type: ignore[misc]  # bound now
            if isinstance(found, OSError) and found.errno not in NOT_THERE:
                assert self.is_excused, found
                return None
        view = await machine.view(container)
        if view is None:
            return None
        folder = inner.rpartition("/")[0]
        if folder and folder not in view.folders:
            return None
        return Place(path, container, inner, view)

    async def file_at(self, mount: int, place: Place, descriptor: int) -> Mine:
        """Return the record of a file just opened: the one that the mount shows there."""
        inode = await self.machines[mount].inode(descriptor)
        view = await self.machines[mount].view(place.container)
        entry = None if view is None else view.files.get(place.inner)
        if entry is None or entry.inode != inode:
            # A listing fetched behind has replaced it since; the ledger knows it by inode.
            assert place.shown is not None, "promise 7"
            assert place.shown.inode == inode, "promise 7"
            entry = place.shown
        file = self.ledger.file(mount, place.container_id, place.inner, entry)
        file.openers += 1
        return file

    async def close(self, mount: int, held: Held) -> OSError | None:
        """Close a descriptor, with promise 12 checked."""
        file = held.file
        file.may_be_sent()
        error = await self.attempt(lambda: self.machines[mount].close(held.descriptor))
        file.openers -= 1
        if error is None:
            self.ledger.acknowledge(file)
            return None
        self.ledger.failed(file)
        self.excuse(error, file, container_id=file.container_id)
        return error

    async def reconcile(self) -> None:
        """Take in what the mounts have done by themselves."""
        self.look(is_by_mounts=True)
        for mount, machine in enumerate(self.machines):
            for container in CONTAINERS:
                view = await machine.view(container)
                if view is not None and self.truth.is_alive(view.container_id):
                    self.ledger.reconcile(mount, view)
        self.ledger.prune()

    async def check_views(self, mount: int) -> None:
        """Compare what a mount shows, whose listings are fresh, with what there is."""
        for container in CONTAINERS:
            view = await self.machines[mount].view(container)
            container_id = self.truth.id_of(container)
            if container_id is None:
                assert view is None, f"promise 8: {container} is gone and still shown"
                continue
            assert view is not None, f"promise 8: {container} is not shown"
            assert view.container_id == container_id, f"promise 8: {container} is another one"
            self.ledger.check_view(mount, view)

    def open_slots(self, mount: int) -> list[Held]:
        """Return, and forget, what is open in a mount."""
        keys = [(mount, slot) for slot in SLOTS if (mount, slot) in self.slots]
        return [self.slots.pop(key) for key in keys]
