"""Changes in a folder that a listing has taken away: docs/semantics.md, promise 8.

A shell stands in ``work/a/b``; another client deletes the only file there, and the folder goes
with it. The kernel goes on knowing its inode.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeAlias

import pytest
import trio
import trio.testing
from tests.support.in_process import WRITE, InProcessMount, Settings, mounted
from tests.support.service import InProcessService
from tests.support.trees import stored
from tests.unit.fs.test_races import disk_held_up

from ctrfs.config import FileSystemConfig, WriteMode
from ctrfs.errors import NoSuchEntryError
from ctrfs.fs.attributes import AttributeChanges
from ctrfs.running_digest import INLINE_MAX
from ctrfs.tree.nodes import InodeNumber

LATE_S = 10.0
# The disk is waited for in a thread.
LARGE = b"x" * (INLINE_MAX + 1)
# A listing is not fresh any more, and a known name is still answered at once.
PAST_TTL_S = 11.0
SETTINGS = [Settings(files=FileSystemConfig(write_mode=mode)) for mode in WriteMode]
BOTH_WRITE_MODES = pytest.mark.parametrize("settings", SETTINGS, ids=list(WriteMode))

Clock: TypeAlias = trio.testing.MockClock
Change: TypeAlias = Callable[[InProcessMount, InodeNumber], Awaitable[object]]


async def create(mount: InProcessMount, folder: InodeNumber) -> None:
    opened, made = await mount.fs.create(folder, b"new", 0o644, WRITE)
    mount.remember(made.inode)
    await mount.fs.write(opened.handle, 0, b"bytes")
    await mount.close(opened.handle)


async def mkdir(mount: InProcessMount, folder: InodeNumber) -> None:
    made = await mount.fs.mkdir(folder, b"new", 0o755)
    mount.remember(made.inode)


async def move_file_in(mount: InProcessMount, folder: InodeNumber) -> None:
    work = (await mount.stat("work")).inode
    await mount.fs.rename(work, b"g", folder, b"new", no_replace=False)


async def move_folder_in(mount: InProcessMount, folder: InodeNumber) -> None:
    work = (await mount.stat("work")).inode
    await mount.fs.rename(work, b"d", folder, b"new", no_replace=False)


CHANGES = pytest.mark.parametrize("change", [create, mkdir, move_file_in, move_folder_in])
UNTOUCHED = {"g": b"g", "d/x": b"x"}
SHOWN: dict[str, bytes | None] = {"work/d": None, "work/d/x": b"x", "work/g": b"g"}


@pytest.fixture
async def only_file(service: InProcessService, work: str) -> str:
    """The id of the only file in ``a/b``; beside that folder there are others."""
    for path, content in UNTOUCHED.items():
        service.plant(work, f"/mnt/data/{path}", content)
    return service.plant(work, "/mnt/data/a/b/f", b"f")


async def refused(mount: InProcessMount, old: str, new: str) -> None:
    with pytest.raises(NoSuchEntryError):
        await mount.rename(old, new)


@CHANGES
async def test_nothing_can_be_made_in_or_moved_into_a_folder_that_is_gone(
    service: InProcessService, state: Path, work: str, only_file: str, change: Change
) -> None:
    """Promise 8: as in a directory that was removed."""
    async with mounted(service, state) as mount:
        folder = (await mount.stat("work/a/b")).inode
        service.delete_file(work, only_file)
        await mount.refresh("work")

        with pytest.raises(NoSuchEntryError):
            await change(mount, folder)

        assert stored(service, "work") == UNTOUCHED
        assert await mount.walk("work") == SHOWN
    async with mounted(service, state) as mount:
        assert await mount.walk("work") == SHOWN


@CHANGES
async def test_a_folder_that_goes_during_a_change_in_it_takes_no_entry(
    mount: InProcessMount,
    service: InProcessService,
    work: str,
    only_file: str,
    change: Change,
    mock_clock: Clock,
) -> None:
    """Promise 8: the change itself has the listing fetched."""
    folder = (await mount.stat("work/a/b")).inode
    service.delete_file(work, only_file)
    mock_clock.jump(PAST_TTL_S)

    with pytest.raises(NoSuchEntryError):
        await change(mount, folder)

    assert stored(service, "work") == UNTOUCHED
    assert await mount.walk("work") == SHOWN


async def test_a_change_in_a_folder_that_is_gone_asks_the_service_nothing(
    mount: InProcessMount,
    service: InProcessService,
    work: str,
    only_file: str,
    mock_clock: Clock,
) -> None:
    folder = (await mount.stat("work/a/b")).inode
    service.delete_file(work, only_file)
    await mount.refresh("work")
    mock_clock.jump(PAST_TTL_S)
    service.reset_counters()

    with pytest.raises(NoSuchEntryError):
        await create(mount, folder)

    assert service.counters().get("list_files", 0) == 0


async def test_a_folder_that_is_there_again_takes_entries_by_its_path(
    mount: InProcessMount, service: InProcessService, work: str, only_file: str
) -> None:
    """Who stands in the one that went has to enter it anew."""
    folder = (await mount.stat("work/a/b")).inode
    service.delete_file(work, only_file)
    await mount.refresh("work")
    service.plant(work, "/mnt/data/a/b/again", b"again")
    await mount.refresh("work")

    with pytest.raises(NoSuchEntryError):
        await create(mount, folder)
    await mount.write_file("work/a/b/new", b"bytes")

    assert stored(service, "work") == {**UNTOUCHED, "a/b/again": b"again", "a/b/new": b"bytes"}


async def test_the_mode_of_a_folder_that_is_gone_is_not_kept_for_another(
    service: InProcessService, state: Path, work: str, only_file: str
) -> None:
    """Promise 19."""
    async with mounted(service, state) as mount:
        folder = (await mount.stat("work/a/b")).inode
        service.delete_file(work, only_file)
        await mount.refresh("work")

        await mount.fs.setattr(folder, AttributeChanges(permissions=0o500), None)

        await mount.mkdir("work/b")
        assert (await mount.stat("work/b")).permissions == 0o755


# -- the folder goes while a rename waits ----------------------------------------------------


@BOTH_WRITE_MODES
@pytest.mark.parametrize("name", ["g", "g~"])
async def test_a_file_whose_new_folder_goes_while_its_bytes_are_fetched_keeps_its_place(
    service: InProcessService,
    state: Path,
    work: str,
    only_file: str,
    settings: Settings,
    name: str,
    autojump_clock: Clock,
) -> None:
    """Promises 8, 13 and 22."""
    async with mounted(service, state, settings) as mount:
        await mount.stat("work/g")
        service.add_fault("file_content", "delay", seconds=LATE_S)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(refused, mount, "work/g", f"work/a/b/{name}")
            await trio.sleep(LATE_S / 2)
            service.delete_file(work, only_file)
            await mount.refresh("work")
        service.clear_faults()
        await mount.sync()

        assert stored(service, "work") == UNTOUCHED
        assert await mount.walk("work") == SHOWN
    async with mounted(service, state, settings) as mount:
        assert await mount.walk("work") == SHOWN


@BOTH_WRITE_MODES
@pytest.mark.parametrize("name", ["g", "g~"])
async def test_a_file_whose_new_folder_goes_while_the_disk_takes_its_bytes_keeps_its_place(
    service: InProcessService,
    state: Path,
    work: str,
    only_file: str,
    settings: Settings,
    name: str,
) -> None:
    """Promises 8, 13 and 22: nothing is recorded for a place that is not there."""
    service.plant(work, "/mnt/data/large", LARGE)
    async with mounted(service, state, settings) as mount:
        await mount.walk()

        async with trio.open_nursery() as nursery:
            async with disk_held_up():
                nursery.start_soon(refused, mount, "work/large", f"work/a/b/{name}")
                await trio.testing.wait_all_tasks_blocked()
                service.delete_file(work, only_file)
                await mount.refresh("work")

        assert mount.fs.unsent_count() == 0
        assert mount.parts.journal.rows() == []
        assert mount.parts.local.all_files() == []
        assert stored(service, "work") == {**UNTOUCHED, "large": LARGE}
        assert await mount.walk("work") == {**SHOWN, "work/large": LARGE}
    async with mounted(service, state, settings) as mount:
        assert await mount.walk("work") == {**SHOWN, "work/large": LARGE}


async def test_a_file_being_written_whose_new_folder_goes_is_saved_under_its_old_name(
    mount: InProcessMount,
    service: InProcessService,
    work: str,
    only_file: str,
    autojump_clock: Clock,
) -> None:
    """Promises 8 and 12: the rename waits for bytes that an opener of the other file may read."""
    reader = await mount.open("work/a/b/f")
    writer = await mount.create("work/new")
    await mount.fs.write(writer, 0, b"bytes")
    service.add_fault("file_content", "delay", seconds=LATE_S, count=1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(refused, mount, "work/new", "work/a/b/f")
        await trio.sleep(LATE_S / 2)
        service.delete_file(work, only_file)
        await mount.refresh("work")
    await mount.close(writer)
    await mount.close(reader)

    assert stored(service, "work") == {**UNTOUCHED, "new": b"bytes"}


@BOTH_WRITE_MODES
async def test_a_file_being_written_that_could_not_become_a_backup_is_saved_by_its_close(
    service: InProcessService, state: Path, work: str, only_file: str, settings: Settings
) -> None:
    """Promises 8, 12 and 22."""
    async with mounted(service, state, settings) as mount:
        await mount.walk()
        handle = await mount.create("work/new")
        await mount.fs.write(handle, 0, LARGE)

        async with trio.open_nursery() as nursery:
            async with disk_held_up():
                nursery.start_soon(refused, mount, "work/new", "work/a/b/new~")
                await trio.testing.wait_all_tasks_blocked()
                service.delete_file(work, only_file)
                await mount.refresh("work")
        await mount.close(handle)
        await mount.sync()

        assert stored(service, "work") == {**UNTOUCHED, "new": LARGE}


async def test_a_file_whose_new_folder_goes_while_it_is_stored_there_keeps_its_place(
    mount: InProcessMount,
    service: InProcessService,
    work: str,
    only_file: str,
    autojump_clock: Clock,
) -> None:
    """Promises 8 and 18: the copy at the new name is deleted again."""
    await mount.walk()
    service.add_fault("create_file", "delay", seconds=LATE_S)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(refused, mount, "work/g", "work/a/b/g")
        await trio.sleep(LATE_S / 2)
        service.delete_file(work, only_file)
        await mount.refresh("work")

    assert service.counters()["create_file"] == 1
    assert stored(service, "work") == UNTOUCHED
    assert await mount.walk("work") == SHOWN
    await mount.refresh("work")
    assert await mount.walk("work") == SHOWN


async def test_unsent_bytes_whose_new_folder_goes_while_they_are_stored_there_are_sent_later(
    service: InProcessService, state: Path, work: str, only_file: str, autojump_clock: Clock
) -> None:
    """Promise 14: they are still unsent bytes of their old name."""
    async with mounted(service, state) as mount:
        await mount.walk()
        service.add_fault("create_file", "status", status=507)
        handle = await mount.open("work/g", WRITE)
        await mount.fs.write(handle, 0, b"G")
        await mount.fs.release(handle)
        service.clear_faults()
        service.add_fault("create_file", "delay", seconds=LATE_S)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(refused, mount, "work/g", "work/a/b/g")
            await trio.sleep(LATE_S / 2)
            service.delete_file(work, only_file)
            await mount.refresh("work")

        assert [row.path for row in mount.parts.journal.rows()] == [b"g"]
        assert await mount.read_file("work/g") == b"G"
        assert await mount.fs.drain() == 0
        assert stored(service, "work") == {**UNTOUCHED, "g": b"G"}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param("work/d", "work/a/b/d", id="its new place: it stays where it is"),
        pytest.param("work/a/b", "work/c", id="itself: it is in neither place"),
    ],
)
async def test_what_goes_while_a_folder_moves_leaves_nothing_at_the_new_name(
    mount: InProcessMount,
    service: InProcessService,
    work: str,
    only_file: str,
    old: str,
    new: str,
    autojump_clock: Clock,
) -> None:
    """Promises 8 and 18."""
    await mount.walk()
    service.add_fault("create_file", "delay", seconds=LATE_S)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(refused, mount, old, new)
        await trio.sleep(LATE_S / 2)
        service.delete_file(work, only_file)
        await mount.refresh("work")

    assert mount.parts.journal.folder_moves() == []
    assert stored(service, "work") == UNTOUCHED
    assert await mount.walk("work") == SHOWN


@pytest.mark.parametrize("old", ["work/a/b/f", "work/a/b", "work/a"])
async def test_what_a_rename_finds_to_be_gone_is_not_moved(
    mount: InProcessMount,
    service: InProcessService,
    work: str,
    only_file: str,
    old: str,
    mock_clock: Clock,
) -> None:
    """Promise 8: the look at the new name fetches the listing; the bytes are still here."""
    await mount.walk()
    service.delete_file(work, only_file)
    mock_clock.jump(PAST_TTL_S)

    await refused(mount, old, "work/c")

    assert stored(service, "work") == UNTOUCHED
    assert await mount.walk("work") == SHOWN


# -- what somebody has open there ------------------------------------------------------------


@BOTH_WRITE_MODES
async def test_a_file_being_written_holds_its_folder_up(
    service: InProcessService,
    state: Path,
    work: str,
    only_file: str,
    settings: Settings,
    autojump_clock: Clock,
) -> None:
    """Promise 10: others can be made beside it."""
    async with mounted(service, state, settings) as mount:
        handle = await mount.create("work/a/b/ours")
        folder = (await mount.stat("work/a/b")).inode
        service.delete_file(work, only_file)
        await mount.refresh("work")

        await create(mount, folder)
        await mount.fs.write(handle, 0, b"ours")
        await mount.close(handle)
        await mount.sync()

        assert stored(service, "work") == {**UNTOUCHED, "a/b/ours": b"ours", "a/b/new": b"bytes"}


@BOTH_WRITE_MODES
async def test_a_file_first_written_after_its_folder_went_is_stored_in_that_folder(
    service: InProcessService,
    state: Path,
    work: str,
    only_file: str,
    settings: Settings,
    autojump_clock: Clock,
) -> None:
    """Promise 10: the folder is there again, and takes other entries, too."""
    async with mounted(service, state, settings) as mount:
        handle = await mount.open("work/a/b/f", WRITE)
        await mount.read_all(handle)
        service.delete_file(work, only_file)
        await mount.refresh("work")

        await mount.fs.write(handle, 0, b"F")
        await mount.close(handle)
        await mount.write_file("work/a/b/new", b"bytes")
        await mount.sync()

        assert stored(service, "work") == {**UNTOUCHED, "a/b/f": b"F", "a/b/new": b"bytes"}
