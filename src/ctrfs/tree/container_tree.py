"""The upper storey of the tree: the root and its containers; single steps, no waits.

``tree.entries.EntryTree`` adds what is inside the containers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from ctrfs.api.models import Container, ContainerId
from ctrfs.clock import Clock
from ctrfs.disk.overlay import Overlay
from ctrfs.tree.inodes import InodeTable
from ctrfs.tree.making import NodeMaker
from ctrfs.tree.names import with_id
from ctrfs.tree.nodes import ContainerDirectory, InodeNumber, Parent, Root
from ctrfs.tree.plan import plan_containers

CONTROL_NAME: Final = b".ctrfs"
# Names that the kernel was told are not there, of which it must be told when they are. It
# believes so for ``ttl`` at most; more than this in that time only cost it a request each.
DENIED_MAX: Final = 10_000


class Change(msgspec.Struct, frozen=True):
    """A name that now means something else, for the kernel's caches."""

    parent: InodeNumber
    name: bytes


class ContainerTree(ABC):
    """The root and the containers in it.

    Attributes:
        root: The account, or the one container that is mounted.
        inodes: Who has which number.
        on_forgotten: Told of each container that has gone, or that another has taken the place of.
    """

    def __init__(self, *, clock: Clock, overlay: Overlay, show_expired: bool) -> None:
        self._clock = clock
        self._show_expired = show_expired
        self._containers: dict[ContainerId, ContainerDirectory] = {}
        # Containers that have gone away while bytes in them are only on this machine.
        self._gone: dict[ContainerId, ContainerDirectory] = {}
        self._changes: list[Change] = []
        self._denied: OrderedDict[Change, None] = OrderedDict()
        self.inodes = InodeTable()
        self.on_forgotten: Callable[[ContainerId], None] = lambda _container_id: None
        self._maker = NodeMaker(clock=clock, inodes=self.inodes, overlay=overlay)
        self.root: Root | ContainerDirectory = Root(mtime_ns=clock.wall_ns())
        self.inodes.register(self.root)

    @abstractmethod
    def _restore(self, directory: ContainerDirectory) -> None:
        """Bring back what this machine kept of a container from earlier mounts."""

    @abstractmethod
    def _resume(self, directory: ContainerDirectory) -> None:
        """Go on with what was left to do in a container that is back."""

    @abstractmethod
    def _drop_inodes(self, directory: ContainerDirectory) -> bool:
        """Drop the numbers of all that is in a container, unless bytes in it are only here.

        Returns whether they were dropped.
        """

    def container(self, container_id: ContainerId) -> ContainerDirectory | None:
        """Return the directory of a container that is shown."""
        return self._containers.get(container_id)

    def keeps(self, container_id: ContainerId) -> bool:
        """Tell whether a container has a directory: it is shown, or bytes in it are only here."""
        return container_id in self._containers or container_id in self._gone

    def become_one_container(self, container: Container) -> ContainerDirectory:
        """Make ``container`` the root of this mount; before anything was looked up."""
        assert isinstance(self.root, Root)
        assert not self._containers
        self.root = self._maker.root_container(container)
        self._containers = {container.id: self.root}
        self._restore(self.root)
        return self.root

    def apply_containers(self, rows: Sequence[Container]) -> None:
        """Lay a listing of all containers over the root."""
        root = self._account()
        names = plan_containers(rows, show_expired=self._show_expired, reserved={CONTROL_NAME})
        by_id = {row.id: row for row in rows}
        for container_id, directory in list(self._containers.items()):
            if container_id in by_id:
                directory.container = by_id[container_id]
            if names.get(container_id) == directory.name:
                continue
            self._unlink_container(directory)
            if container_id not in names:
                self._forget_container(directory)
        for container_id, name in names.items():
            directory = self._containers.get(container_id) or self._new_container(
                by_id[container_id]
            )
            if root.children.get(name) is not directory:
                directory.name = name
                directory.parent = root
                root.children[name] = directory
                self._name_came(root, name)

    def forget_container(self, directory: ContainerDirectory) -> None:
        """Take a container away: the service says that it is gone, or it was removed here."""
        self._unlink_container(directory)
        self._forget_container(directory)

    def new_container(self, container: Container, name: bytes) -> ContainerDirectory:
        """Add a container that was just created here; another of that name steps aside."""
        root = self._account()
        directory = self._containers.get(container.id) or self._new_container(container)
        self._unlink_container(directory)
        other = root.children.get(name)
        if other is not None:
            self._unlink_container(other)
            other.name = with_id(name, other.container.id, whole=False)
            if other.name in root.children:
                other.name = with_id(name, other.container.id, whole=True)
            root.children[other.name] = other
        directory.name = name
        directory.parent = root
        root.children[name] = directory
        root.mtime_ns = self._clock.wall_ns()
        return directory

    def rename_container(
        self, directory: ContainerDirectory, container: Container, name: bytes
    ) -> None:
        """Let ``directory`` stand for another container, under another name."""
        double = self._containers.get(container.id)
        if double is not None and double is not directory:
            self.forget_container(double)
        self._unlink_container(directory)
        self._forget_id(directory.container.id)
        directory.container = container
        self._containers[container.id] = directory
        self.new_container(container, name)

    def take_changes(self) -> list[Change]:
        """Return the names that have changed for the kernel since the last call."""
        changes, self._changes = self._changes, []
        return changes

    def note_denied(self, parent: Parent, name: bytes) -> None:
        """Take note that the kernel is being told that there is no such name."""
        self._denied[Change(parent.inode, name)] = None
        if len(self._denied) > DENIED_MAX:
            self._denied.popitem(last=False)

    def _name_went(self, parent: Parent, name: bytes) -> None:
        """Let the kernel be told that a name has gone, or means something else."""
        self._changes.append(Change(parent.inode, name))

    def _name_came(self, parent: Parent, name: bytes) -> None:
        """Let the kernel be told of a new name, if it believes that there is none.

        Not otherwise: by the time it is told, somebody may work in the directory of that
        name, and would find it unhashed: ``getcwd`` then fails.
        """
        change = Change(parent.inode, name)
        if change in self._denied:
            del self._denied[change]
            self._changes.append(change)

    def _account(self) -> Root:
        assert isinstance(self.root, Root)
        return self.root

    def _unlink_container(self, directory: ContainerDirectory) -> None:
        root = self.root
        if isinstance(root, Root) and root.children.get(directory.name) is directory:
            self._name_went(root, directory.name)
            del root.children[directory.name]

    def _new_container(self, container: Container) -> ContainerDirectory:
        returned = self._gone.pop(container.id, None)
        if returned is not None:
            returned.is_gone = False
            returned.container = container
            self._containers[container.id] = returned
            self._resume(returned)
            return returned
        directory = self._maker.container(container)
        self._containers[container.id] = directory
        self._restore(directory)
        return directory

    def _forget_container(self, directory: ContainerDirectory) -> None:
        directory.is_gone = True
        if not self._drop_inodes(directory):
            self._gone[directory.container.id] = directory
        self._forget_id(directory.container.id)

    def _forget_id(self, container_id: ContainerId) -> None:
        self._containers.pop(container_id, None)
        self.on_forgotten(container_id)
