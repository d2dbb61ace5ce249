"""A renaming that failed leaves nothing at the new name: docs/semantics.md, promises 12 and 18.

The service may have stored a copy though its answer got lost, or nobody waited for it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeAlias

import pytest
import trio
import trio.testing
from msgspec.structs import replace
from tests.support.in_process import WRITE, InProcessMount, Settings, mounted
from tests.support.service import InProcessService, until_asked_for
from tests.support.trees import id_of, stored

from ctrfs.api.client import ContainersClient
from ctrfs.api.models import ContainerFile, ContainerId
from ctrfs.api.protocol import UploadBody
from ctrfs.config import FileSystemConfig, TreeConfig, WriteMode
from ctrfs.errors import CrossContainerError, CtrfsError, DirectoryNotEmptyError

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
    mount: InProcessMount, service: InProcessService, old: str, new: str, *, arrives: bool = True
) -> None:
    """The copy arrives, its answer gets lost, and then nobody can say what there is."""
    service.add_fault("create_file", "reset", when="after" if arrives else "before", count=1)
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


@pytest.mark.parametrize(("old", "new"), [*RENAMES[:2], RENAMES[3]])
async def test_no_listing_ever_shows_a_copy_of_a_renaming_that_failed(
    service: InProcessService,
    state: Path,
    containers: set[str],
    autojump_clock: trio.testing.MockClock,
    old: str,
    new: str,
) -> None:
    """Beside what it was copied from, that is: elsewhere it might be the only thing there."""
    async with mounted(service, state) as mount:
        seen = await mount.walk()
        await rename_without_answer(mount, service, old, new)

        for name in ("work", "other"):
            await mount.refresh(name)

        assert await mount.walk() == seen
        assert len(ids(service)) == len(containers) + 1


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


async def rename_too(another: InProcessMount) -> None:
    await another.rename("work/a", "work/c")


async def remove_the_first(another: InProcessMount) -> None:
    await another.unlink("work/a")


@pytest.mark.parametrize("arrives", [True, False])
@pytest.mark.parametrize("change", [rename_too, remove_the_first])
async def test_a_copy_goes_only_while_what_it_was_copied_from_is_there(
    service: InProcessService,
    state: Path,
    containers: set[str],
    autojump_clock: trio.testing.MockClock,
    change: Callable[[InProcessMount], Awaitable[None]],
    *,
    arrives: bool,
) -> None:
    """Another mount has made the renaming meanwhile, or somebody has removed the first name."""
    async with mounted(service, state) as mount, mounted(service, state) as another:
        await mount.walk()
        await another.walk()
        await rename_without_answer(mount, service, "work/a", "work/c", arrives=arrives)
        await change(another)
        left = b"aaa" in stored(service, "work").values()

        await trio.sleep(LONG_S)

        assert (b"aaa" in stored(service, "work").values()) == left
        await mount.refresh("work")
        assert (b"aaa" in (await mount.walk("work")).values()) == left


async def test_a_copy_goes_when_its_source_has_another_name_or_other_bytes_by_now(
    service: InProcessService,
    state: Path,
    containers: set[str],
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with mounted(service, state) as mount:
        await mount.walk()
        await rename_without_answer(mount, service, "work/a", "work/c")
        await rename_without_answer(mount, service, "work/d", "work/e")
        await mount.rename("work/a", "work/z")
        await mount.write_file("work/d/x", b"other")

        await trio.sleep(LONG_S)

        assert stored(service, "work") == {"z": b"aaa", "b": b"bbb", "d/x": b"other"}


async def test_what_a_listing_has_shown_is_gone_once_the_renaming_has_failed(
    service: InProcessService,
    state: Path,
    containers: set[str],
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with mounted(service, state) as mount:
        seen = await mount.walk()
        service.add_fault("create_file", "delay", seconds=LATE_S, when="after", count=1)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(mount.rename, "work/d", "work/e")
            await trio.sleep(LATE_S / 2)
            await mount.refresh("work")
            assert await mount.names("work/e") == ["x"]
            nursery.cancel_scope.cancel()
        await trio.sleep(0.1)

        assert await mount.walk() == seen


async def test_the_last_attempt_counts_where_listings_lag(
    service: InProcessService,
    state: Path,
    containers: set[str],
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with mounted(service, state) as mount:
        await mount.walk()
        service.set_behaviour(list_lag_s=5.0)
        service.add_fault("create_file", "reset", count=1)
        service.add_fault("list_files", "status", status=503)
        with pytest.raises(CtrfsError):
            await mount.rename("work/a", "work/c")
        service.clear_faults()
        service.add_fault("create_file", "delay", seconds=LATE_S, when="after", count=1)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(mount.rename, "work/a", "work/c")
            await until_asked_for(service, "create_file")
            await trio.sleep(0.5)
            nursery.cancel_scope.cancel()
        service.clear_faults()
        await trio.sleep(LONG_S)

        assert ids(service) == containers


@pytest.mark.parametrize(("old", "new"), RENAMES)
async def test_a_copy_that_is_wanted_again_while_it_is_looked_for_is_not_deleted(
    service: InProcessService,
    state: Path,
    containers: set[str],
    autojump_clock: trio.testing.MockClock,
    old: str,
    new: str,
) -> None:
    """The server gives the same id to the same bytes."""
    service.set_behaviour(duplicates="same")
    async with mounted(service, state) as mount:
        before = await mount.walk()
        await rename_without_answer(mount, service, old, new)
        await while_it_is_looked_for(service)

        await mount.rename(old, new)
        await trio.sleep(LONG_S)

        await mount.refresh("work")
        await mount.refresh("other")
        seen = await mount.walk()
        assert sorted(filter(None, seen.values())) == sorted(
            content for name, content in before.items() if content and name != gone_with(new)
        )


def gone_with(new: str) -> str:
    """Return what a renaming overwrites: only one of them does."""
    return "work/b" if new == "work/b" else ""


async def while_it_is_looked_for(service: InProcessService) -> None:
    service.add_fault("list_files", "delay", seconds=10, count=1)
    await until_asked_for(service, "list_files")


async def test_what_is_stored_under_the_same_id_while_a_copy_is_looked_for_stays(
    service: InProcessService, state: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """The server knows a file by its path."""
    service.set_behaviour(hash_prefix=False, ids="path")
    service.upload(service.create_container("work"), "a", b"aaa")
    settings = Settings(tree=TreeConfig(ttl_s=600, max_stale_s=600))
    async with mounted(service, state, settings) as mount:
        await mount.walk()
        await rename_without_answer(mount, service, "work/a", "work/c")
        await while_it_is_looked_for(service)

        await mount.write_file("work/c", b"brand new")
        await trio.sleep(LONG_S)

        assert stored(service, "work") == {"a": b"aaa", "c": b"brand new"}


async def test_a_file_of_another_length_is_not_read_to_tell_whose_it_is(
    service: InProcessService, state: Path, autojump_clock: trio.testing.MockClock
) -> None:
    service.set_behaviour(hash_prefix=False)
    service.upload(service.create_container("work"), "a", b"aaa")
    async with mounted(service, state) as mount:
        await mount.walk()
        service.add_fault("create_file", "reset", count=1)
        service.add_fault("list_files", "status", status=503)
        with pytest.raises(CtrfsError):
            await mount.rename("work/a", "work/c")
        service.clear_faults()
        await mount.write_file("work/c", b"much longer")
        service.reset_counters()

        await trio.sleep(LONG_S)

        assert "file_content" not in service.counters()


async def test_a_copy_of_which_the_service_says_another_length_is_deleted(
    service: InProcessService,
    state: Path,
    containers: set[str],
    autojump_clock: trio.testing.MockClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with mounted(service, state) as mount:
        seen = await mount.walk()
        create_file = ContainersClient.create_file

        async def create_and_lie(
            client: ContainersClient, container_id: ContainerId, *, name: str, body: UploadBody
        ) -> ContainerFile:
            made = await create_file(client, container_id, name=name, body=body)
            return replace(made, size_bytes=7)

        with monkeypatch.context() as patch:
            patch.setattr(ContainersClient, "create_file", create_and_lie)
            with pytest.raises(CtrfsError):
                await mount.rename("work/a", "work/c")

        await trio.sleep(LONG_S)

        assert ids(service) == containers
        assert await mount.walk() == seen


@pytest.mark.parametrize("arrives", [True, False])
async def test_a_container_with_a_copy_in_it_is_not_empty(
    service: InProcessService,
    state: Path,
    containers: set[str],
    autojump_clock: trio.testing.MockClock,
    *,
    arrives: bool,
) -> None:
    """Another mount has made the same renaming: the copy is the only one."""
    async with mounted(service, state) as mount, mounted(service, state) as another:
        await mount.walk()
        await another.walk()
        await rename_without_answer(mount, service, "work/a", "other/a", arrives=arrives)
        await another.rename("work/a", "other/a")

        with pytest.raises(DirectoryNotEmptyError):
            await mount.rmdir("other")
        with pytest.raises(CrossContainerError):
            await mount.rename("other", "third")

        assert b"aaa" in stored_anywhere(service, "other")


def stored_anywhere(service: InProcessService, container: str) -> list[bytes]:
    container_id = id_of(service, container)
    return [service.content(container_id, str(row["id"])) for row in service.files(container_id)]


async def test_what_others_have_stored_between_two_attempts_stays(
    service: InProcessService,
    state: Path,
    containers: set[str],
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with mounted(service, state) as mount:
        await mount.walk()
        await rename_without_answer(mount, service, "work/a", "work/c", arrives=False)
        service.add_fault("list_files", "status", status=503)
        await trio.sleep(100)
        service.clear_faults()
        theirs = service.upload(id_of(service, "work"), "c", b"aaa")
        await mount.refresh("work")
        await rename_without_answer(mount, service, "work/a", "work/c", arrives=False)

        await trio.sleep(LONG_S)

        assert ids(service) == {*containers, theirs}


async def test_what_the_user_has_stored_there_while_the_copy_waited_stays(
    service: InProcessService, state: Path, autojump_clock: trio.testing.MockClock
) -> None:
    work = service.create_container("work")
    service.upload(work, "d/x", b"xxx")
    settings = Settings(tree=TreeConfig(ttl_s=600, max_stale_s=600))
    async with mounted(service, state, settings) as mount:
        await mount.stat("work/d/x")
        await mount.mkdir("work/e")
        service.add_fault("file_content", "delay", seconds=5, count=1)
        service.add_fault("create_file", "delay", seconds=10, when="after", count=1)
        service.add_fault("create_file", "delay", seconds=20, nth=2)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(mount.rename, "work/d", "work/e")
            await trio.sleep(1)
            await mount.write_file("work/e/x", b"xxx")
            await trio.sleep(2)
            nursery.cancel_scope.cancel()
        service.clear_faults()

        await trio.sleep(LONG_S)

        await mount.refresh("work")
        assert await mount.walk("work") == {
            "work/d": None, "work/d/x": b"xxx", "work/e": None, "work/e/x": b"xxx",
        }  # fmt: skip
        assert stored(service, "work") == {"d/x": b"xxx", "e/x": b"xxx"}


async def test_a_copy_is_deleted_where_listings_do_not_say_how_long_files_are(
    service: InProcessService,
    state: Path,
    containers: set[str],
    autojump_clock: trio.testing.MockClock,
) -> None:
    service.set_behaviour(null_bytes=True)
    async with mounted(service, state) as mount:
        await mount.walk()
        await rename_without_answer(mount, service, "work/a", "work/c")

        await trio.sleep(LONG_S)

        assert ids(service) == containers
