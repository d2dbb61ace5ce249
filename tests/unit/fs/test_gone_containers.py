"""What a mount keeps of containers that are gone: nothing, but what is on this machine alone.

A container expires after twenty idle minutes, so that a mount of weeks sees many of them go.
"""

from __future__ import annotations

import trio
import trio.testing
from tests.support.in_process import InProcessMount
from tests.support.service import InProcessService

from ctrfs.api.models import ContainerId, RejectedRow
from ctrfs.errors import CtrfsError, NoSuchEntryError


def lose_and_regain(mount: InProcessMount, container_id: str) -> None:
    """Let one listing of the account lack a container, and the next have it again."""
    directory = mount.parts.tree.container(ContainerId(container_id))
    assert directory is not None
    mount.parts.tree.apply_containers([])
    mount.parts.tree.apply_containers([directory.container])


def rejected_of(mount: InProcessMount, container_id: str) -> list[RejectedRow]:
    """Return the rows of one container that ``.ctrfs/errors`` has."""
    return [row for row in mount.parts.namespace.rejected() if container_id in row.excerpt]


async def fail_to_list(mount: InProcessMount, path: str, failures: list[CtrfsError]) -> None:
    """Add what listing a directory raises to ``failures``."""
    try:
        await mount.names(path)
    except CtrfsError as error:
        failures.append(error)


async def test_rows_that_made_no_sense_are_forgotten_with_their_container(
    mount: InProcessMount, service: InProcessService, work: str
) -> None:
    service.set_behaviour(rubbish=True)
    await mount.names("work")
    assert rejected_of(mount, work)

    service.delete_container(work)
    await mount.refresh("")

    assert not rejected_of(mount, work)


async def test_what_was_done_in_a_container_that_has_expired_is_forgotten(
    mount: InProcessMount, service: InProcessService, work: str
) -> None:
    await mount.write_file("work/a.txt", b"a")
    await mount.unlink("work/a.txt")
    service.advance(86_400)

    await mount.refresh("")

    assert mount.parts.namespace._own_files == {}
    assert mount.parts.tree._laid == {}


async def test_what_was_known_of_a_container_is_forgotten_when_another_takes_its_place(
    mount: InProcessMount, work: str
) -> None:
    await mount.write_file("work/a.txt", b"a")
    await mount.unlink("work/a.txt")
    await mount.refresh("work")

    await mount.rename("work", "play")

    assert mount.parts.namespace._own_files == {}
    assert mount.parts.tree._laid == {}


async def test_the_answer_to_a_deletion_leaves_nothing_of_a_container_that_went_meanwhile(
    mount: InProcessMount,
    service: InProcessService,
    work: str,
    autojump_clock: trio.testing.MockClock,
) -> None:
    service.upload(work, "a.txt", b"a")
    await mount.names("work")
    service.add_fault("delete_file", "delay", seconds=5, when="after")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(mount.unlink, "work/a.txt")
        await trio.sleep(1)
        service.delete_container(work)
        await mount.refresh("")

    assert mount.parts.namespace._own_files == {}


async def test_a_listing_that_comes_after_its_container_has_gone_brings_nothing(
    mount: InProcessMount,
    service: InProcessService,
    work: str,
    autojump_clock: trio.testing.MockClock,
) -> None:
    for number in range(10):
        service.upload(work, f"{number}.txt", b"x")
    await mount.names()
    known = len(mount.parts.tree.inodes)
    service.add_fault("list_files", "delay", seconds=5, when="after")
    failures: list[CtrfsError] = []

    async with trio.open_nursery() as nursery:
        nursery.start_soon(fail_to_list, mount, "work", failures)
        await trio.sleep(1)
        service.delete_container(work)
        await mount.refresh("")

    assert [type(error) for error in failures] == [NoSuchEntryError]
    mount.forget_all()
    assert len(mount.parts.tree.inodes) < known
    assert mount.parts.tree._laid == {}
    assert mount.parts.namespace._own_files == {}


async def test_a_listing_that_comes_after_its_container_has_gone_and_come_back_is_shown(
    mount: InProcessMount,
    service: InProcessService,
    work: str,
    autojump_clock: trio.testing.MockClock,
) -> None:
    service.upload(work, "a.txt", b"a")
    await mount.names()
    service.add_fault("list_files", "delay", seconds=5, when="after")
    mount.parts.namespace.list_behind(mount.parts.tree.root.children[b"work"])
    await trio.sleep(1)

    lose_and_regain(mount, work)

    assert await mount.names("work") == ["a.txt"]
    assert trio.current_time() == 5


async def test_what_a_file_being_written_replaces_stays_hidden_while_its_container_is_away(
    mount: InProcessMount, service: InProcessService, work: str
) -> None:
    service.upload(work, "b", b"old")
    handle = await mount.create("work/b.part")
    await mount.fs.write(handle, 0, b"half")
    await mount.rename("work/b.part", "work/b")

    lose_and_regain(mount, work)

    assert await mount.names("work") == ["b"]
    await mount.close(handle)
    assert await mount.names("work") == ["b"]
