"""Which entries exist, asked the service as seldom as docs/semantics.md allows.

Reads wait only when what is known is too old to answer; changes that the service has confirmed
are taken into the tree in one step and survive listings that lag behind them.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeAlias, TypeVar

import trio

from ctrfs.api.models import (
    Container,
    ContainerFile,
    ContainerId,
    FileId,
    Listing,
    RejectedRow,
)
from ctrfs.api.paging import marks_among
from ctrfs.api.protocol import ContainersApi
from ctrfs.clock import Clock
from ctrfs.config import TreeConfig
from ctrfs.errors import (
    NoSuchEntryError,
    RemoteError,
    RemoteGoneError,
    RemoteNotFoundError,
    RemoteStalledError,
    RemoteUnavailableError,
)
from ctrfs.tree.container_tree import Change
from ctrfs.tree.entries import EntryTree
from ctrfs.tree.listings import ROOT_LISTING, ListingCache, ListingKey
from ctrfs.tree.marks import ContainerMarks
from ctrfs.tree.nodes import ContainerDirectory, Directory, File, Node, Parent, Root, owner_of
from ctrfs.tree.own_writes import OwnWrites

log = logging.getLogger(__name__)

T = TypeVar("T")
Row = TypeVar("Row", Container, ContainerFile)
Wanted: TypeAlias = Callable[[ContainerId, Sequence[ContainerFile]], Sequence[ContainerFile]]

# A new container has been seen to answer 404 for some ten seconds.
READY_WITHIN_S: Final = 20.0
READY_PAUSE_S: Final = 0.5
# How many rows of ours that a listing lacks are asked for one by one: each is a request.
CONFIRM_MAX: Final = 8
REJECTED_KEPT: Final = 200
# How many times ``ttl`` the kernel may believe in a name without asking again: three times fewer
# upcalls, and listings, for a program that looks at the same names all the time. Not more, for
# a short ``ttl`` says that the user wants to see changes soon.
KNOWN_FOR_TTLS: Final = 3


class Namespace:
    """The entries and the freshness of what is known about them.

    Attributes:
        tree: The entries.
        wanted: Says which of the files that a listing has are to be shown.
    """

    def __init__(  # noqa: PLR0913  # it is where the floors above and below meet
        self,
        api: ContainersApi,
        *,
        clock: Clock,
        config: TreeConfig,
        tree: EntryTree,
        marks: ContainerMarks,
        nursery: trio.Nursery,
        on_changes: Callable[[Sequence[Change]], None],
    ) -> None:
        """Fetches run in ``nursery``; ``on_changes`` is told what listings have changed."""
        self._api = api
        self._marks = marks
        self._clock = clock
        self._config = config
        self._on_changes = on_changes
        self._listings = ListingCache(self._fetch, clock=clock, config=config, nursery=nursery)
        self._own_containers: OwnWrites[Container] = OwnWrites()
        self._own_files: dict[ContainerId, OwnWrites[ContainerFile]] = {}
        self._created_here: dict[ContainerId, float] = {}
        self._rejected: dict[str, list[RejectedRow]] = {}
        self.tree = tree
        self.tree.on_forgotten = self._forget_answers
        self.wanted: Wanted = lambda _container_id, rows: rows

    # -- reading ---------------------------------------------------------------------------

    async def start(self, *, only: Container | None = None) -> None:
        """Prove key and address with the one request that the first ``ls`` needs anyway.

        Args:
            only: The one container to show as the root.

        Raises:
            RemoteError: The service did not answer as it should.
        """
        if only is not None:
            self.tree.become_one_container(only)
        await self._listings.freshen(self._key(self.tree.root))

    async def child(
        self, parent: Parent, name: bytes
    ) -> ContainerDirectory | Directory | File | None:
        """Return the entry called ``name``, or None.

        Waits only if what is known is too old: ``max_stale_s`` for an entry already known,
        ``ttl_s`` for a name that is not. Where the service cannot be reached, a known entry
        is answered however old it is, so that the bytes that are here can be read.

        Raises:
            NoSuchEntryError: The container itself is gone.
            RemoteError: The listing was needed and could not be had.
        """
        self._check_alive(parent)
        key = self._key(parent)
        found = self.tree.child(parent, name)
        if found is not None and (self._listings.is_known(key) or self._is_ours(found)):
            if not self._listings.is_fresh(key):
                self._listings.refresh_behind(key)
            return found
        if not self._listings.is_fresh(key):
            try:
                await self._listings.freshen(key)
            except (RemoteUnavailableError, RemoteStalledError):
                found = self.tree.child(parent, name)
                if found is None:
                    raise
                return found
            self._check_alive(parent)
            found = self.tree.child(parent, name)
        return found

    async def children(self, parent: Parent) -> list[ContainerDirectory | Directory | File]:
        """Return the entries of ``parent``, from a listing no older than ``ttl_s``.

        Raises:
            NoSuchEntryError: The container is gone.
            RemoteError: The listing was needed and could not be had.
        """
        self._check_alive(parent)
        await self._listings.freshen(self._key(parent))
        self._check_alive(parent)
        return list(parent.children.values())

    async def refetch(self, node: Node) -> None:
        """Fetch the listing that ``node`` is in now, whatever its age; for the root, all.

        All that have been asked for: a container that nobody has looked into costs no request.

        Raises:
            RemoteError: The service did not give one of them.
        """
        await self._listings.refetch(self._key(node))
        if not isinstance(node, Root):
            return
        failures: list[RemoteError] = []
        async with trio.open_nursery() as nursery:
            for key in self._listings.known_keys():
                if key != ROOT_LISTING:
                    nursery.start_soon(self._refetch_container, key, failures)
        if failures:
            raise failures[0]

    async def _refetch_container(self, key: ListingKey, failures: list[RemoteError]) -> None:
        try:
            await self._listings.refetch(key)
        except NoSuchEntryError as error:
            log.debug("nothing to refresh: %s", error)
        except RemoteError as error:
            failures.append(error)

    def suspect(self, node: Node) -> None:
        """Fetch the listing of ``node`` anew behind the readers: the service denies a row of it."""
        key = self._key(node)
        self._listings.forget(key)
        self._listings.refresh_behind(key)

    @property
    def ttl_s(self) -> float:
        """How long a listing answers everything without a request."""
        return self._config.ttl_s

    def is_listed(self, node: Node) -> bool:
        """Tell whether ``children`` of ``node`` would send nothing."""
        return self._listings.is_fresh(self._key(node))

    def list_behind(self, node: Node) -> None:
        """Begin to fetch the listing of ``node``; ``children`` and ``child`` join that.

        A failure is logged, and told to those who have joined.
        """
        self._listings.refresh_behind(self._key(node))

    def known_timeout_s(self, node: Node) -> float:
        """Return how long the kernel may believe in the name of ``node``.

        It is told of each change that is noticed, so this only bounds what nobody notices. It
        asks again while the listing still answers: the next is then fetched behind the reader.
        """
        parent = node.parent if not isinstance(node, Root) else node
        age_s = 0.0 if parent is None else self._listings.age_s(self._key(parent))
        if age_s is None:
            return 0.0
        config = self._config
        asked_again_at_s = min(config.max_stale_s / 2, KNOWN_FOR_TTLS * config.ttl_s)
        return max(
            0.0, min(max(config.ttl_s, asked_again_at_s - age_s), config.max_stale_s - age_s)
        )

    def missing_timeout_s(self, parent: Parent) -> float:
        """Return how long the kernel may believe that a name is not in ``parent``."""
        age_s = self._listings.age_s(self._key(parent))
        return 0.0 if age_s is None else max(0.0, self._config.ttl_s - age_s)

    def rejected(self) -> list[RejectedRow]:
        """Return the rows of current listings that could not be understood."""
        return [row for rows in self._rejected.values() for row in rows]

    # -- our own writes --------------------------------------------------------------------

    def created_container(self, container: Container, name: bytes) -> ContainerDirectory:
        """Take in a container that the service has just created for us."""
        self._note_created(container)
        return self.tree.new_container(container, name)

    def replaced_container(
        self, directory: ContainerDirectory, container: Container, name: bytes
    ) -> None:
        """Let ``directory`` stand for a new container that took the old one's place."""
        now_s = self._clock.monotonic_s()
        self._own_containers.remove(directory.container.id, now_s=now_s)
        self._own_containers.confirm_removed(directory.container.id, now_s=now_s)
        self.tree.rename_container(directory, container, name)
        self._note_created(container)

    def removed_container(self, directory: ContainerDirectory, *, is_expected: bool = True) -> None:
        """Hide a container that is deleted; the kernel knows if it has asked for that."""
        now_s = self._clock.monotonic_s()
        self._own_containers.remove(directory.container.id, now_s=now_s)
        self._own_containers.confirm_removed(directory.container.id, now_s=now_s)
        self.tree.forget_container(directory)
        if is_expected:
            self.tree.take_changes()
        else:
            self._tell_changes()

    def is_removed(self, container_id: ContainerId) -> bool:
        """Tell whether a container was deleted here, though listings may still have it."""
        return self._own_containers.is_removed(container_id)

    def stored(self, file: File, remote: ContainerFile, *, digest: str) -> None:
        """Bind ``file`` to what the service has just stored for it; one step, same inode."""
        self.tree.bind(file, remote, digest=digest)
        self._own(file.owner).add(remote, now_s=self._clock.monotonic_s())
        self._tell_changes()

    def hide(self, owner: ContainerDirectory, row: ContainerFile) -> None:
        """Hide a stored file that is going to be deleted, also from listings that have it.

        An id that a listing shows with another version stands for another file: it is shown.
        """
        self._own(owner).remove(row.id, row=row, now_s=self._clock.monotonic_s())

    def deleted(self, owner: ContainerDirectory, file_id: FileId) -> None:
        """Take note that the service has deleted a hidden file."""
        self._own(owner).confirm_removed(file_id, now_s=self._clock.monotonic_s())

    def is_hidden(self, owner: ContainerDirectory, file_id: FileId) -> bool:
        """Tell whether a stored file is not shown because it is going to be deleted."""
        return self._own(owner).is_removed(file_id)

    def unhide(self, owner: ContainerDirectory, file_id: FileId) -> None:
        """Show a stored file again that could not be deleted."""
        self._own(owner).unremove(file_id)

    def changed_by_us(self) -> None:
        """Tell the kernel of names that had to step aside for an operation of ours."""
        self._tell_changes()

    async def when_ready(self, container_id: ContainerId, call: Callable[[], Awaitable[T]]) -> T:
        """Make ``call``, again and again while a container created here is not ready yet.

        Waits at most ``READY_WITHIN_S`` after the creation.

        Raises:
            RemoteError: What ``call`` raised last.
        """
        while True:
            try:
                return await call()
            except RemoteNotFoundError:
                age_s = self._clock.monotonic_s() - self._created_here.get(container_id, -1e9)
                if age_s > READY_WITHIN_S:
                    raise
                await trio.sleep(READY_PAUSE_S)

    # -- listings --------------------------------------------------------------------------

    async def _fetch(self, key: ListingKey) -> None:
        if key == ROOT_LISTING and isinstance(self.tree.root, Root):
            await self._fetch_containers()
        else:
            await self._fetch_files(ContainerId(key))
        self._tell_changes()

    async def _fetch_containers(self) -> None:
        started_s = self._clock.monotonic_s()
        listing = await self._api.list_containers(marks=self._marks.known())
        self._marks.learn(listing.items)
        doubtful = self._own_containers.doubtful(listing.items, started_s=started_s)
        gone = await self._gone(doubtful, lambda row: self._api.retrieve_container(row.id))
        rows = self._own_containers.fold(
            listing.items, started_s=started_s, now_s=self._clock.monotonic_s(), gone=gone
        )
        self.tree.apply_containers(rows)
        self._rejected[ROOT_LISTING] = list(listing.rejected)[:REJECTED_KEPT]

    async def _fetch_files(self, container_id: ContainerId) -> None:
        owner = self._owner_with(container_id)
        if owner.container.is_expired:
            self.tree.apply_files(owner, [])  # its data is gone for good: nothing to ask for
            return
        started_s = self._clock.monotonic_s()
        try:
            marks = marks_among(self.tree.listed_ids(owner))
            listing = await self._list_believably(container_id, marks)
        except RemoteGoneError as error:
            self._lost(container_id)
            raise NoSuchEntryError(f"container {container_id} is gone: {error}") from error
        doubtful = self._own(owner).doubtful(listing.items, started_s=started_s)
        gone = await self._gone(
            doubtful, lambda row: self._api.retrieve_file(row.container_id, row.id)
        )
        # It may be gone by now, and what was laid over it would never be dropped; or be back.
        owner = self._owner_with(container_id)
        rows = self._own(owner).fold(
            self.wanted(container_id, listing.items),
            started_s=started_s,
            now_s=self._clock.monotonic_s(),
            gone=gone,
        )
        rejected = self.tree.apply_files(owner, rows)
        self._rejected[container_id] = [*listing.rejected, *rejected][:REJECTED_KEPT]

    async def _list_believably(
        self, container_id: ContainerId, marks: Sequence[str]
    ) -> Listing[ContainerFile]:
        """Fetch a listing; a container is gone only if the service says so twice.

        Raises:
            RemoteNotFoundError: It is gone.
            ContainerExpiredError: Its data is.
        """

        async def fetch() -> Listing[ContainerFile]:
            return await self._api.list_files(container_id, marks=marks)

        try:
            return await self.when_ready(container_id, fetch)
        except RemoteNotFoundError:
            container = await self._api.retrieve_container(container_id)
            if container.is_expired:
                raise
        return await fetch()

    async def _gone(
        self, doubtful: Sequence[Row], ask: Callable[[Row], Awaitable[object]]
    ) -> set[str]:
        """Ask for rows of ours that a listing lacks; return the ids that are really gone."""
        gone: set[str] = set()
        for row in doubtful[:CONFIRM_MAX]:
            try:
                await ask(row)
            except RemoteNotFoundError:
                gone.add(row.id)
            except RemoteError as error:
                log.debug("%s stays: whether it is there could not be asked: %s", row.id, error)
        return gone

    def _lost(self, container_id: ContainerId) -> None:
        """Take note that the service no longer has a container."""
        owner = self.tree.container(container_id)
        if owner is None:
            return  # a listing of the account has said so already
        log.info("container %s is gone from the service", container_id)
        self.tree.forget_container(owner)
        self._tell_changes()

    def _forget_answers(self, container_id: ContainerId) -> None:
        """Drop what is known of a container that is gone, or there would be ever more of it.

        Where its directory waits for its return, what we did in it counts when it is back.
        """
        if not self.tree.keeps(container_id):
            self._own_files.pop(container_id, None)
        self._rejected.pop(container_id, None)
        self._listings.forget(ListingKey(container_id))

    def _note_created(self, container: Container) -> None:
        now_s = self._clock.monotonic_s()
        for container_id, created_s in list(self._created_here.items()):
            if now_s - created_s > READY_WITHIN_S:
                del self._created_here[container_id]
        self._created_here[container.id] = now_s
        self._own_containers.add(container, now_s=now_s)
        # Nothing can be in it yet that we do not know of: its first listing costs no request.
        self._listings.put(ListingKey(container.id), started_s=now_s)

    def _own(self, owner: ContainerDirectory) -> OwnWrites[ContainerFile]:
        container_id = owner.container.id
        if not self.tree.keeps(container_id):
            return OwnWrites()  # of something that was under way when it went
        return self._own_files.setdefault(container_id, OwnWrites())

    def _owner_with(self, container_id: ContainerId) -> ContainerDirectory:
        owner = self.tree.container(container_id)
        if owner is None:
            raise NoSuchEntryError(f"container {container_id} is gone")
        return owner

    def _key(self, node: Node) -> ListingKey:
        if isinstance(node, Root):
            return ROOT_LISTING
        owner = node.owner if isinstance(node, File) else owner_of(node)
        return ListingKey(owner.container.id)

    def _is_ours(self, node: ContainerDirectory | Directory | File) -> bool:
        """Tell whether this machine alone knows of the entry, or of something in it.

        No listing can answer for that, and without the service it must be within reach.
        """
        if isinstance(node, File):
            return node.is_claimed or node.remote is None
        if isinstance(node, Directory) and node.is_local:
            return True
        return any(file.is_claimed for file in self.tree.files_below(node))

    def _check_alive(self, parent: Parent) -> None:
        if not isinstance(parent, Root) and owner_of(parent).is_gone:
            raise NoSuchEntryError(f"container {owner_of(parent).container.id} is gone")

    def _tell_changes(self) -> None:
        changes = self.tree.take_changes()
        if changes:
            self._on_changes(changes)
