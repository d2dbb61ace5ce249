"""A renaming that failed leaves nothing at the new name: docs/semantics.md, promises 12 and 18.

The service may have stored a copy though its answer got lost, or nobody waited for it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeAlias

import pytest
import trio
import trio.testing
from tests.support.in_process import WRITE, InProcessMount, Settings, mounted
from tests.support.service import InProcessService
from tests.support.trees import id_of, stored

from ctrfs.config import FileSystemConfig, WriteMode
from ctrfs.errors import CtrfsError

# Longer than a copy is looked for, and than the pause before the next attempt at anything.
LONG_S = 600.0
LATE_S = 20.0
RENAMES = [
    pytest.param("work/a", "work/c", id="a file"),
    pytest.param("work/a", "work/b", id="a file over another"),
    pytest.param("work/a", "other/a", id="a file to another container"),
    pytest.param("work/d", "work/e", id="a folder"),
]
IN_WORK = {"a": b"aaa", "b": b"bbb", "d/x": b"xxx"}


@pytest.fixture
async def containers(service: InProcessService) -> set[str]:
    """Fill the service; return the ids of the files."""
    work = service.create_container("work")
    service.create_container("other")
    return {service.upload(work, name, content) for name, content in IN_WORK.items()}


def ids(service: InProcessService) -> set[str]:
    rows = [row for name in ("work", "other") for row in service.files(id_of(service, name))]
    return {str(row["id"]) for row in rows}


async def rename_without_answer(
    mount: InProcessMount, service: InProcessService, old: str, new: str
) -> None:
    """The copy arrives, its answer gets lost, and then nobody can say what there is."""
    service.add_fault("create_file", "reset", when="after", count=1)
    service.add_fault("list_files", "status", status=503)
    with pytest.raises(CtrfsError):
        await mount.rename(old, new)
    service.clear_faults()


async def rename_given_up(
    mount: InProcessMount, service: InProcessService, old: str, new: str
) -> None:
    """The copy arrives, and its answer would come late."""
    service.add_fault("create_file", "delay", seconds=LATE_S, when="after", count=1)
    with trio.move_on_after(LATE_S / 2) as scope:
        await mount.rename(old, new)
    assert scope.cancelled_caught
    service.clear_faults()


Failing: TypeAlias = Callable[[InProcessMount, InProcessService, str, str], Awaitable[None]]
FAILURES: list[Failing] = [rename_without_answer, rename_given_up]


@pytest.mark.parametrize("fail_to_rename", FAILURES)
@pytest.mark.parametrize(("old", "new"), RENAMES)
async def test_a_copy_that_nobody_has_been_told_of_is_deleted(
    service: InProcessService,
    state: Path,
    containers: set[str],
    autojump_clock: trio.testing.MockClock,
    old: str,
    new: str,
    fail_to_rename: Failing,
) -> None:
    async with mounted(service, state) as mount:
        seen = await mount.walk()

        await fail_to_rename(mount, service, old, new)
        assert len(ids(service)) == len(containers) + 1  # or this test would prove nothing
        await trio.sleep(LONG_S)

        assert ids(service) == containers
        assert await mount.walk() == seen
        mount.check_invariants()


@pytest.mark.parametrize(("old", "new"), RENAMES)
async def test_no_listing_ever_shows_a_copy_of_a_renaming_that_failed(
    service: InProcessService,
    state: Path,
    containers: set[str],
    autojump_clock: trio.testing.MockClock,
    old: str,
    new: str,
) -> None:
    """Nor before it is looked for."""
    async with mounted(service, state) as mount:
        seen = await mount.walk()
        await rename_without_answer(mount, service, old, new)

        for name in ("work", "other"):
            await mount.refresh(name)

        assert await mount.walk() == seen
        assert len(ids(service)) == len(containers) + 1


@pytest.mark.parametrize(("old", "new"), RENAMES)
async def test_the_next_mount_deletes_what_a_renaming_that_failed_has_left(
    service: InProcessService,
    state: Path,
    containers: set[str],
    autojump_clock: trio.testing.MockClock,
    old: str,
    new: str,
) -> None:
    async with mounted(service, state) as mount:
        seen = await mount.walk()
        await rename_without_answer(mount, service, old, new)
    assert len(ids(service)) == len(containers) + 1

    async with mounted(service, state) as again:
        assert await again.walk() == seen
        await trio.sleep(LONG_S)

        assert await again.walk() == seen
    assert ids(service) == containers


async def test_what_a_mount_in_another_slot_has_left_is_deleted_by_the_next(
    service: InProcessService,
    state: Path,
    containers: set[str],
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with mounted(service, state), mounted(service, state) as second:
        await second.walk()
        await rename_without_answer(second, service, "work/d", "work/e")

    async with mounted(service, state) as again:
        await again.walk()
        await trio.sleep(LONG_S)

    assert ids(service) == containers


async def test_what_is_to_be_looked_for_is_listed_among_what_is_pending(
    service: InProcessService,
    state: Path,
    containers: set[str],
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with mounted(service, state) as mount:
        await mount.walk()
        await rename_without_answer(mount, service, "work/d", "work/e")

        pending = await mount.read_file(".ctrfs/pending")

    assert json.loads(pending) == {"container_id": id_of(service, "work"), "delete_copy": "e/x"}


async def test_an_orderly_end_deletes_what_a_renaming_that_failed_has_left(
    service: InProcessService,
    state: Path,
    containers: set[str],
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with mounted(service, state) as mount:
        await mount.walk()
        await rename_without_answer(mount, service, "work/d", "work/e")

        await mount.fs.drain()

    assert ids(service) == containers


@pytest.mark.parametrize(("old", "new"), RENAMES)
async def test_a_renaming_that_is_made_again_takes_the_copy_and_keeps_it(
    service: InProcessService,
    state: Path,
    containers: set[str],
    autojump_clock: trio.testing.MockClock,
    old: str,
    new: str,
) -> None:
    async with mounted(service, state) as mount:
        await mount.walk()
        await rename_without_answer(mount, service, old, new)

        await check_renamed(mount, service, old, new)


@pytest.mark.parametrize(("old", "new"), RENAMES)
async def test_a_renaming_that_the_next_mount_makes_takes_the_copy_before_it_is_looked_for(
    service: InProcessService,
    state: Path,
    containers: set[str],
    autojump_clock: trio.testing.MockClock,
    caplog: pytest.LogCaptureFixture,
    old: str,
    new: str,
) -> None:
    async with mounted(service, state) as mount:
        await mount.walk()
        await rename_without_answer(mount, service, old, new)
    async with mounted(service, state) as again:
        caplog.set_level(logging.INFO)
        service.add_fault("list_files", "status", status=503)
        await again.names()
        while "is not known yet" not in caplog.text:  # noqa: ASYNC110  # the log is all there is
            await trio.sleep(1)
        service.clear_faults()

        await check_renamed(again, service, old, new)


async def check_renamed(
    mount: InProcessMount, service: InProcessService, old: str, new: str
) -> None:
    before = await mount.walk()
    service.reset_counters()

    await mount.rename(old, new)

    assert "create_file" not in service.counters()
    seen = await mount.walk()
    assert old not in seen
    assert seen[new] == before[old]
    await trio.sleep(LONG_S)
    await mount.refresh("work")
    assert await mount.walk() == seen
    mount.check_invariants()
    assert len(ids(service)) == sum(content is not None for content in seen.values())


async def test_what_somebody_else_has_stored_at_the_new_name_stays(
    service: InProcessService,
    state: Path,
    containers: set[str],
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Of another server, too, whose names do not tell the bytes."""
    service.set_behaviour(hash_prefix=False)
    async with mounted(service, state) as mount:
        await mount.walk()
        service.add_fault("create_file", "reset", when="before", count=1)
        service.add_fault("list_files", "status", status=503)
        with pytest.raises(CtrfsError):
            await mount.rename("work/a", "work/c")
        service.clear_faults()
        theirs = service.upload(id_of(service, "work"), "c", b"AAA")

        await trio.sleep(LONG_S)

        assert ids(service) == {*containers, theirs}
        await mount.refresh("work")
        assert await mount.read_file("work/c") == b"AAA"


async def test_a_copy_that_a_user_is_changing_stays_until_it_is_saved(
    service: InProcessService,
    state: Path,
    containers: set[str],
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A listing has shown it while the renaming was under way."""
    async with mounted(service, state) as mount:
        await mount.walk()
        service.add_fault("create_file", "delay", seconds=LATE_S, when="after", count=1)
        with trio.move_on_after(LATE_S):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(mount.rename, "work/d", "work/e")
                await trio.sleep(LATE_S / 2)
                await mount.refresh("work")
                handle = await mount.open("work/e/x", WRITE)
                await mount.fs.write(handle, 3, b"more")
                nursery.cancel_scope.cancel()
        await trio.sleep(LONG_S)

        await mount.close(handle)
        await trio.sleep(LONG_S)

        assert stored(service, "work") == {**IN_WORK, "e/x": b"xxxmore"}
        mount.check_invariants()


async def test_with_write_back_a_folder_that_could_not_be_renamed_leaves_no_copy(
    service: InProcessService,
    state: Path,
    containers: set[str],
    autojump_clock: trio.testing.MockClock,
) -> None:
    settings = Settings(files=FileSystemConfig(write_mode=WriteMode.BACK))
    async with mounted(service, state, settings) as mount:
        seen = await mount.walk()
        await rename_without_answer(mount, service, "work/d", "work/e")

        await trio.sleep(LONG_S)

        assert ids(service) == containers
        assert await mount.walk() == seen
