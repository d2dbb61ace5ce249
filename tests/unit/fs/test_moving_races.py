"""Renaming a folder while its files are worked on: docs/semantics.md, promises 12 and 18."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
import trio.testing
from tests.support.in_process import WRITE, InProcessMount, Settings, mounted
from tests.support.service import InProcessService
from tests.support.trees import stored

from ctrfs.config import FileSystemConfig
from ctrfs.errors import (
    CrossContainerError,
    CtrfsError,
    DirectoryNotEmptyError,
    RemoteInvalidError,
    RemoteRefusedError,
)

ROUND_TRIP_S = 1.0
LATE_S = 10.0
# One more than are stored at once, so that one waits for its turn.
NAMES = [f"{number}.txt" for number in range(9)]


async def test_bytes_written_to_a_file_of_a_moving_folder_are_stored_in_its_new_place(
    mount: InProcessMount,
    service: InProcessService,
    work: str,
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The file was stored at its new path before; another of the folder was still on its way."""
    service.plant(work, "/mnt/data/d/a", b"old")
    service.plant(work, "/mnt/data/d/b", b"other")
    await mount.walk()
    handle = await mount.open("work/d/a", WRITE)
    service.transport.round_trip_s = ROUND_TRIP_S
    service.add_fault("create_file", "delay", seconds=LATE_S, nth=2)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(mount.rename, "work/d", "work/e")
        await trio.sleep(LATE_S / 2)
        await mount.fs.write(handle, 0, b"NEW")
    await mount.close(handle)

    assert stored(service, "work") == {"e/a": b"NEW", "e/b": b"other"}
    await mount.refresh("work")
    assert await mount.walk("work") == {"work/e": None, "work/e/a": b"NEW", "work/e/b": b"other"}


async def test_bytes_saved_while_the_move_of_their_folder_fails_are_stored_in_its_old_place(
    mount: InProcessMount,
    service: InProcessService,
    work: str,
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Whether a file was stored at the new path already, or is waiting for its turn."""
    for name in NAMES:
        service.plant(work, f"/mnt/data/d/{name}", b"old")
    service.plant(work, "/mnt/data/d/empty", b"")
    await mount.walk()
    handles = [await mount.open(f"work/d/{name}", WRITE) for name in NAMES]
    service.set_behaviour(refuse_empty=True)
    service.transport.round_trip_s = ROUND_TRIP_S
    service.add_fault("create_file", "delay", seconds=LATE_S, nth=1)

    async def move() -> None:
        with pytest.raises(RemoteInvalidError):
            await mount.rename("work/d", "work/e")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(move)
        await trio.sleep(ROUND_TRIP_S / 2)
        async with trio.open_nursery() as writers:
            for handle in handles:
                writers.start_soon(mount.fs.write, handle, 0, b"NEW")
        async with trio.open_nursery() as closers:
            for handle in handles:
                closers.start_soon(mount.close, handle)

    saved = {f"d/{name}": b"NEW" for name in NAMES}
    assert stored(service, "work") == {**saved, "d/empty": b""}
    await mount.refresh("work")
    assert await mount.names("work") == ["d"]
    assert await mount.read_file(f"work/d/{NAMES[0]}") == b"NEW"


async def test_a_file_unlinked_from_a_moving_folder_is_in_neither_place(
    mount: InProcessMount,
    service: InProcessService,
    work: str,
    autojump_clock: trio.testing.MockClock,
) -> None:
    """It was stored at its new path before; nobody would ever delete that copy."""
    service.plant(work, "/mnt/data/d/a", b"unwanted")
    service.plant(work, "/mnt/data/d/b", b"wanted")
    await mount.walk()
    service.transport.round_trip_s = ROUND_TRIP_S
    service.add_fault("create_file", "delay", seconds=LATE_S, nth=2)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(mount.rename, "work/d", "work/e")
        await trio.sleep(LATE_S / 2)
        await mount.unlink("work/d/a")

    assert stored(service, "work") == {"e/b": b"wanted"}
    await mount.refresh("work")
    assert await mount.walk("work") == {"work/e": None, "work/e/b": b"wanted"}


async def test_a_file_sent_while_its_folder_moves_is_stored_in_the_new_place(
    mount: InProcessMount,
    service: InProcessService,
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The upload began under the old path."""
    await mount.mkdir("work/d")
    handle = await mount.create("work/d/a")
    await mount.fs.write(handle, 0, b"bytes")
    service.transport.round_trip_s = ROUND_TRIP_S

    async with trio.open_nursery() as nursery:
        nursery.start_soon(mount.close, handle)
        await trio.sleep(ROUND_TRIP_S / 2)
        await mount.rename("work/d", "work/e")

    assert stored(service, "work") == {"e/a": b"bytes"}
    await mount.refresh("work")
    assert await mount.walk("work") == {"work/e": None, "work/e/a": b"bytes"}


async def test_a_moved_folder_that_a_listing_shows_before_it_has_moved_is_one_folder(
    mount: InProcessMount,
    service: InProcessService,
    work: str,
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The answers to the uploads come late."""
    service.plant(work, "/mnt/data/d/a", b"1")
    service.plant(work, "/mnt/data/d/b", b"2")
    await mount.walk()
    service.add_fault("create_file", "delay", seconds=LATE_S, when="after")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(mount.rename, "work/d", "work/e")
        await trio.sleep(LATE_S / 2)
        await mount.refresh("work")

    moved = {"work/e": None, "work/e/a": b"1", "work/e/b": b"2"}
    assert await mount.walk("work") == moved
    await mount.refresh("work")
    assert await mount.walk("work") == moved
    assert stored(service, "work") == {"e/a": b"1", "e/b": b"2"}


async def test_an_unsent_file_renamed_in_a_moving_folder_is_stored_in_the_new_place(
    mount: InProcessMount,
    service: InProcessService,
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Its rename sends it, under the path that it had when that began."""
    await mount.mkdir("work/d")
    service.add_fault("create_file", "status", status=403)
    with pytest.raises(RemoteRefusedError):
        await mount.write_file("work/d/a", b"unsent")
    service.clear_faults()
    service.add_fault("create_file", "delay", seconds=LATE_S, nth=1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(mount.rename, "work/d/a", "work/d/b")
        await trio.sleep(LATE_S / 2)
        await mount.rename("work/d", "work/e")

    assert stored(service, "work") == {"e/b": b"unsent"}
    await mount.refresh("work")
    assert await mount.walk("work") == {"work/e": None, "work/e/b": b"unsent"}


async def test_a_folder_that_outgrows_the_limit_while_it_moves_leaves_no_copies(
    service: InProcessService, state: Path, work: str, autojump_clock: trio.testing.MockClock
) -> None:
    """Promise 18: somebody adds files during the first round of copies."""
    settings = Settings(files=FileSystemConfig(rename_dir_limit=2))
    for name in "ab":
        service.upload(work, f"x/{name}", name.encode())
    async with mounted(service, state, settings) as mount:
        assert await mount.names("work/x") == ["a", "b"]
        service.transport.round_trip_s = 2.0

        async def move() -> None:
            with pytest.raises(CrossContainerError):
                await mount.rename("work/x", "work/y")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(move)
            await trio.sleep(0.5)
            for name in "cdef":
                service.upload(work, f"x/{name}", name.encode())
            await mount.refresh("work")

        assert set(stored(service, "work")) == {f"x/{name}" for name in "abcdef"}


async def test_a_file_made_in_an_empty_folder_while_another_is_moved_over_it_stays(
    mount: InProcessMount,
    service: InProcessService,
    work: str,
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Promise 18: the folder is not empty any more."""
    service.plant(work, "/mnt/data/d/y", b"moved")
    await mount.walk()
    await mount.mkdir("work/e")
    service.add_fault("create_file", "delay", seconds=LATE_S, nth=1)

    async def move() -> None:
        with pytest.raises(DirectoryNotEmptyError):
            await mount.rename("work/d", "work/e")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(move)
        await trio.sleep(LATE_S / 2)
        await mount.write_file("work/e/x", b"made")

    assert stored(service, "work") == {"d/y": b"moved", "e/x": b"made"}
    await mount.refresh("work")
    assert await mount.walk("work") == {
        "work/d": None, "work/d/y": b"moved", "work/e": None, "work/e/x": b"made",
    }  # fmt: skip


async def fail_to_write(mount: InProcessMount, path: str) -> None:
    """Write into a file of which the service does not give the other bytes."""
    handle = await mount.open(path, WRITE)
    with pytest.raises(CtrfsError):
        await mount.fs.write(handle, 5, b"x")
    await mount.close(handle)


async def test_a_rename_changes_nothing_where_it_waits_for_the_same_bytes_as_a_write_in_vain(
    mount: InProcessMount,
    service: InProcessService,
    work: str,
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The write has claimed the file's name, but nothing is changed yet, and nothing will be."""
    service.plant(work, "/mnt/data/b", b"target")
    service.plant(work, "/mnt/data/c", b"source bytes")
    await mount.names("work")
    service.add_fault("file_content", "status", status=503)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(fail_to_write, mount, "work/c")
        await trio.sleep(0.2)
        with pytest.raises(CtrfsError):
            await mount.rename("work/c", "work/b")
    service.clear_faults()

    await mount.refresh("work")
    assert await mount.walk("work") == {"work/b": b"target", "work/c": b"source bytes"}
    assert stored(service, "work") == {"b": b"target", "c": b"source bytes"}


async def test_a_folder_stays_where_it_is_if_the_bytes_of_a_file_in_it_never_come(
    mount: InProcessMount,
    service: InProcessService,
    work: str,
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A write waits for them too: it has claimed the file's name, and no save will follow it."""
    service.plant(work, "/mnt/data/d/a", b"1")
    service.plant(work, "/mnt/data/d/c", b"source bytes")
    await mount.names("work/d")
    await mount.read_file("work/d/a")
    service.add_fault("file_content", "status", status=503)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(fail_to_write, mount, "work/d/c")
        await trio.sleep(0.2)
        with pytest.raises(CtrfsError):
            await mount.rename("work/d", "work/e")
    service.clear_faults()

    await mount.refresh("work")
    assert await mount.names("work") == ["d"]
    assert stored(service, "work") == {"d/a": b"1", "d/c": b"source bytes"}
