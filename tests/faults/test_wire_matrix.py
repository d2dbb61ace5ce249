"""Every operation, with everything that can go wrong in its exchange with the service.

The whole file system over the real wire, in virtual time. Three things are promised: a
program is told of success only where there is success; what is safe to repeat is repeated,
so that one failure goes unnoticed; and when the service is well again, the operation works,
and mount, service and what was acknowledged agree, with nothing twice and nothing missing.
"""

from __future__ import annotations

import errno
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar, Final

import pytest
import trio
import trio.testing
from tests.support.in_process import InProcessMount, mounted
from tests.support.service import InProcessService
from tests.support.wire_breaks import MID, Break, breaks
from tests.support.wire_faults import Wire, wire_to
from typing_extensions import override

from ctrfs.api.breaker import LONGEST_PAUSE_S
from ctrfs.errors import CtrfsError, EntryExistsError, NoSuchEntryError
from ctrfs.fuse.errno_map import errno_for

Tree = Mapping[str, bytes | None]

OLD, NEW = b"old " * 500, b"new bytes " * 600
LARGE: Final = bytes(range(256)) * 1200
BASE: Final[Tree] = {"c": None, "c/a.txt": OLD, "c/plots": None, "c/plots/b.txt": b"b"}
TTL_S: Final = 11.0
STALE_S: Final = 61.0


class Deed(ABC):
    """One operation of a program, and the request in it that meets the fault.

    Attributes:
        route: The request.
        nth: Which one of that kind.
        operation: What the kernel calls it, for the errno.
        has_body: Whether the request has one.
        mid_bytes: What is the middle of its answer.
        before: What there is at the start.
        after: What there is once it is done.
        is_repeated: Whether a lost answer is made good unseen.
    """

    route: str
    nth = 1
    operation = ""
    has_body = False
    mid_bytes = 20
    before: ClassVar[Tree] = BASE
    after: ClassVar[Tree] = BASE
    is_repeated = True

    @abstractmethod
    async def act(self, service: InProcessService, mount: InProcessMount) -> None:
        """Do it."""


class ListContainers(Deed):
    route = "list_containers"
    operation = "opendir"

    @override
    async def act(self, service: InProcessService, mount: InProcessMount) -> None:
        await trio.sleep(TTL_S)
        assert await mount.names() == ["c"]


class CreateContainer(Deed):
    route = "create_container"
    operation = "mkdir"
    has_body = True
    after: ClassVar[Tree] = {**BASE, "made": None}
    # Two containers of one name are allowed, so nothing is sent twice that may have been done.
    is_repeated = False

    @override
    async def act(self, service: InProcessService, mount: InProcessMount) -> None:
        await mount.mkdir("made")


class RetrieveContainer(Deed):
    route = "retrieve_container"
    operation = "opendir"

    @override
    async def act(self, service: InProcessService, mount: InProcessMount) -> None:
        # It is asked for when a listing says that the container is gone.
        service.add_fault("list_files", "status", status=404, count=1)
        await trio.sleep(TTL_S)
        assert sorted(await mount.names("c")) == ["a.txt", "plots"]


class DeleteContainer(Deed):
    route = "delete_container"
    operation = "rmdir"
    before: ClassVar[Tree] = {**BASE, "empty": None}

    @override
    async def act(self, service: InProcessService, mount: InProcessMount) -> None:
        await mount.rmdir("empty")


class UploadNew(Deed):
    route = "create_file"
    operation = "flush"
    has_body = True
    after: ClassVar[Tree] = {**BASE, "c/plots/new.txt": NEW}

    @override
    async def act(self, service: InProcessService, mount: InProcessMount) -> None:
        await mount.write_file("c/plots/new.txt", NEW)


class UploadOver(Deed):
    route = "create_file"
    operation = "flush"
    has_body = True
    after: ClassVar[Tree] = {**BASE, "c/a.txt": NEW}

    @override
    async def act(self, service: InProcessService, mount: InProcessMount) -> None:
        await mount.write_file("c/a.txt", NEW)


class ListFiles(Deed):
    route = "list_files"
    operation = "opendir"

    @override
    async def act(self, service: InProcessService, mount: InProcessMount) -> None:
        await trio.sleep(TTL_S)
        assert sorted(await mount.names("c")) == ["a.txt", "plots"]


class ListSecondPage(Deed):
    route = "list_files"
    nth = 2
    operation = "opendir"
    before: ClassVar[Tree] = {"c": None, **{f"c/{number:03}": b"" for number in range(101)}}
    after: ClassVar[Tree] = before

    @override
    async def act(self, service: InProcessService, mount: InProcessMount) -> None:
        await trio.sleep(TTL_S)
        assert len(await mount.names("c")) == 101


class RetrieveFile(Deed):
    route = "retrieve_file"
    operation = "opendir"
    after: ClassVar[Tree] = {**BASE, "c/own.txt": NEW}

    @override
    async def act(self, service: InProcessService, mount: InProcessMount) -> None:
        # It is asked for when a listing lacks what this mount has just stored.
        service.set_behaviour(list_lag_s=20)
        await mount.write_file("c/own.txt", NEW)
        await trio.sleep(TTL_S)
        assert "own.txt" in await mount.names("c")
        await trio.sleep(TTL_S)


class DeleteFile(Deed):
    route = "delete_file"
    operation = "unlink"
    after: ClassVar[Tree] = {name: content for name, content in BASE.items() if name != "c/a.txt"}

    @override
    async def act(self, service: InProcessService, mount: InProcessMount) -> None:
        await mount.unlink("c/a.txt")


class DeleteReplacedFile(UploadOver):
    route = "delete_file"
    has_body = False


class Content(Deed):
    route = "file_content"
    operation = "read"
    mid_bytes = 290_000
    before: ClassVar[Tree] = {**BASE, "c/large.bin": LARGE}
    after: ClassVar[Tree] = before

    @override
    async def act(self, service: InProcessService, mount: InProcessMount) -> None:
        assert await mount.read_file("c/large.bin") == LARGE


DEEDS: Final[Mapping[str, Deed]] = {
    "list-containers": ListContainers(),
    "create-container": CreateContainer(),
    "retrieve-container": RetrieveContainer(),
    "delete-container": DeleteContainer(),
    "upload-new": UploadNew(),
    "upload-over": UploadOver(),
    "list-files-page-1": ListFiles(),
    "list-files-page-2": ListSecondPage(),
    "retrieve-file": RetrieveFile(),
    "delete-file": DeleteFile(),
    "delete-replaced-file": DeleteReplacedFile(),
    "content": Content(),
}


def cases() -> Iterator[object]:
    for deed_name, deed in DEEDS.items():
        for broken in breaks():
            if deed.has_body or not broken.needs_body:
                yield pytest.param(deed, broken, id=f"{deed_name}-{broken.name}")


def prepare(service: InProcessService, tree: Tree) -> None:
    ids: dict[str, str] = {}
    for path, content in tree.items():
        container, _, rest = path.partition("/")
        if not rest:
            ids[container] = service.create_container(container)
        elif content is not None:
            folder, _, name = rest.rpartition("/")
            digest = hashlib.blake2b(content, digest_size=16).hexdigest()
            stored = f"{folder}/{digest}-{name}" if folder else f"{digest}-{name}"
            service.plant(ids[container], f"/mnt/data/{stored}", content, source="user")


def files_of(service: InProcessService) -> list[tuple[str, bytes]]:
    """Return the files of the service under the names that they show at, in order."""
    found: list[tuple[str, bytes]] = []
    for container in service.containers():
        for row in service.files(str(container["id"])):
            folder, _, name = str(row["path"]).removeprefix("/mnt/data/").rpartition("/")
            shown = f"{folder}/{name[33:]}" if folder else name[33:]
            content = service.content(str(container["id"]), str(row["id"]))
            found.append((f"{container['name']}/{shown}", content))
    return sorted(found)


def strike(deed: Deed, broken: Break, service: InProcessService, wire: Wire, *, count: int) -> None:
    fields = dict(broken.fields)
    if fields.get("bytes") == MID:
        fields["bytes"] = deed.mid_bytes
    add = wire.add_fault if broken.is_unread else service.add_fault
    add(deed.route, broken.action, nth=deed.nth, count=count, **fields)


async def errno_of(deed: Deed, service: InProcessService, mount: InProcessMount) -> str:
    """Return the name of the errno that the operation ends with; nothing for success."""
    try:
        await deed.act(service, mount)
    except CtrfsError as error:
        return errno.errorcode[errno_for(error, operation=deed.operation)]
    return ""


async def act_again(deed: Deed, service: InProcessService, mount: InProcessMount) -> None:
    """Do what a person does who was told of a failure: the same again."""
    try:
        await deed.act(service, mount)
    except (EntryExistsError, NoSuchEntryError):
        assert deed.operation in {"mkdir", "rmdir", "unlink"}, "it had been done"


async def assert_agreement(deed: Deed, service: InProcessService, mount: InProcessMount) -> None:
    assert await mount.fs.drain() == 0
    await trio.sleep(STALE_S)
    await mount.names()
    await mount.names("c")
    assert await mount.walk() == deed.after
    names = sorted(str(container["name"]) for container in service.containers())
    assert names == sorted(path for path in deed.after if "/" not in path)
    assert files_of(service) == sorted(
        (path, content) for path, content in deed.after.items() if content is not None
    )


def assert_nothing_lost(deed: Deed, service: InProcessService) -> None:
    """Check the service after a failure: of each file the old or the new bytes are there."""
    found = files_of(service)
    for path, content in deed.before.items():
        if content is not None and path in deed.after:
            assert (path, content) in found or (path, deed.after[path]) in found
    for path, content in found:
        assert content in {deed.before.get(path), deed.after.get(path)}


@pytest.mark.parametrize(("deed", "broken"), list(cases()))
async def test_one_failure_is_made_good_or_told(
    tmp_path: Path, autojump_clock: trio.testing.MockClock, deed: Deed, broken: Break
) -> None:
    with InProcessService() as service:
        prepare(service, deed.before)
        async with (
            wire_to(service) as wire,
            mounted(service, tmp_path, transport_factory=wire.transport) as mount,
        ):
            await mount.names("c")
            strike(deed, broken, service, wire, count=1)

            told = await errno_of(deed, service, mount)

            assert told in errnos_of_one(deed, broken)
            service.clear_faults()
            assert_nothing_lost(deed, service)
            if told:
                await act_again(deed, service, mount)
            await assert_agreement(deed, service, mount)


@pytest.mark.parametrize(("deed", "broken"), list(cases()))
async def test_a_lasting_failure_is_told_and_forgotten_once_it_is_over(
    tmp_path: Path, autojump_clock: trio.testing.MockClock, deed: Deed, broken: Break
) -> None:
    with InProcessService() as service:
        prepare(service, deed.before)
        async with (
            wire_to(service) as wire,
            mounted(service, tmp_path, transport_factory=wire.transport) as mount,
        ):
            await mount.names("c")
            strike(deed, broken, service, wire, count=10**6)

            told = await errno_of(deed, service, mount)

            assert told in {"", *errnos_of_many(deed, broken)}
            if told and deed.operation == "flush":
                # The service lacks them; whoever reads here gets them all the same.
                assert (await mount.walk())["c/a.txt"] in {OLD, NEW}
            service.clear_faults()
            wire.faults.clear()
            # The breaker may have opened; by now it lets a caller find out that all is well.
            await trio.sleep(LONGEST_PAUSE_S + 1.0)
            assert_nothing_lost(deed, service)
            if told:
                await act_again(deed, service, mount)
            await assert_agreement(deed, service, mount)


def errnos_of_one(deed: Deed, broken: Break) -> frozenset[str]:
    """Return how an operation may end that met one failure; only "" where it must succeed."""
    if broken.name == "429-without-retry-after":
        return frozenset({"", "EBUSY"})
    if not deed.is_repeated and broken.may_be_done and not broken.is_done:
        return broken.errnos
    if broken.is_stall and deed.route != "create_file":
        # The silence alone takes all the time that the call has.
        return frozenset({"", "ETIMEDOUT"})
    return frozenset({""})


def errnos_of_many(deed: Deed, broken: Break) -> frozenset[str]:
    """Return what a program may be told of a failure that lasts."""
    if broken.name == "409" and deed.operation == "mkdir":
        return frozenset({"EEXIST"})
    return broken.errnos
