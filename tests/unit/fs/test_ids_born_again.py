"""Servers that give one id to the same bytes, or to the same path, again and again.

Whoever wanted the file of that id deleted must not delete what it stands for by now.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest
import trio
import trio.testing
from tests.support.in_process import WRITE, InProcessMount, Settings, mounted
from tests.support.service import InProcessService, until_asked_for
from tests.support.trees import stored

from ctrfs.config import FileSystemConfig, TreeConfig, WriteMode
from ctrfs.errors import CtrfsError, DirectoryNotEmptyError
from ctrfs.fs.handles import HandleNumber

BACK: Final = Settings(files=FileSystemConfig(write_mode=WriteMode.BACK))
BY_BYTES: Final[dict[str, object]] = {"duplicates": "same"}
BY_PATH: Final[dict[str, object]] = {"hash_prefix": False, "ids": "path"}
LONG_S: Final = 120.0


@pytest.mark.parametrize("lag_s", [0.5, 1.0, 20.0])
async def test_made_again_while_its_deletion_waits_it_stays(
    service: InProcessService,
    state: Path,
    autojump_clock: trio.testing.MockClock,
    lag_s: float,
) -> None:
    service.set_behaviour(**BY_BYTES)
    service.create_container("work")
    async with mounted(service, state, BACK) as mount:
        await mount.write_file("work/a", b"same")
        await mount.sync("work")
        await mount.unlink("work/a")
        service.add_fault("create_file", "delay", seconds=lag_s, when="after")

        handle = await mount.create("work/a")
        await mount.fs.write(handle, 0, b"same")
        await mount.fs.fsync(handle)
        await mount.close(handle)
        await trio.sleep(LONG_S)

        assert stored(service, "work") == {"a": b"same"}
        await mount.refresh("work")
        assert await mount.walk("work") == {"work/a": b"same"}
        assert mount.parts.journal.deletes() == []


async def test_made_again_while_a_failed_deletion_is_tried_again_it_stays(
    service: InProcessService, state: Path, autojump_clock: trio.testing.MockClock
) -> None:
    service.set_behaviour(**BY_BYTES)
    service.create_container("work")
    async with mounted(service, state, Settings(tree=TreeConfig(ttl_s=1))) as mount:
        await mount.write_file("work/a", b"same")
        service.add_fault("delete_file", "status", status=503)
        await mount.write_file("work/a", b"other")
        service.clear_faults()
        service.add_fault("list_files", "delay", seconds=10, count=1)
        await until_asked_for(service, "list_files")

        await mount.write_file("work/a", b"same")
        await trio.sleep(LONG_S)

        assert stored(service, "work") == {"a": b"same"}


async def test_made_again_while_its_container_is_not_removed_it_stays(
    service: InProcessService, state: Path, autojump_clock: trio.testing.MockClock
) -> None:
    service.set_behaviour(**BY_BYTES)
    service.create_container("work")
    async with mounted(service, state, BACK) as mount:
        await mount.write_file("work/a", b"same")
        await mount.sync("work")
        await mount.unlink("work/a")
        await mount.write_file("work/a", b"same")
        service.add_fault("list_files", "delay", seconds=5, count=1)

        with pytest.raises(DirectoryNotEmptyError):
            await mount.rmdir("work")
        await mount.sync("work")
        await trio.sleep(LONG_S)

        assert stored(service, "work") == {"a": b"same"}


async def renamed_over_and_on(mount: InProcessMount, service: InProcessService) -> HandleNumber:
    """Rename ``f``, which is being written, over ``b`` and on to ``c``; return its handle."""
    work = service.create_container("work")
    service.upload(work, "b", b"bbb")
    service.upload(work, "f", b"fff")
    await mount.refresh("")
    await mount.walk()
    handle = await mount.open("work/f", WRITE)
    await mount.fs.write(handle, 0, b"FFF")
    await mount.rename("work/f", "work/b")
    await mount.rename("work/b", "work/c")
    return handle


@pytest.mark.parametrize(
    ("behaviour", "new"),
    [
        pytest.param({}, b"new", id="new ids"),
        pytest.param(BY_PATH, b"new", id="by path"),
        pytest.param(BY_BYTES, b"bbb", id="by bytes"),
    ],
)
async def test_what_a_file_was_renamed_over_may_be_made_again_before_that_is_saved(
    service: InProcessService,
    state: Path,
    autojump_clock: trio.testing.MockClock,
    behaviour: dict[str, object],
    new: bytes,
) -> None:
    service.set_behaviour(**behaviour)
    async with mounted(service, state) as mount:
        handle = await renamed_over_and_on(mount, service)

        await mount.write_file("work/b", new)
        await mount.close(handle)
        await trio.sleep(LONG_S)

        assert stored(service, "work") == {"b": new, "c": b"FFF"}


async def test_what_a_file_was_renamed_over_may_be_made_again_before_that_is_removed(
    service: InProcessService, state: Path, autojump_clock: trio.testing.MockClock
) -> None:
    service.set_behaviour(**BY_PATH)
    async with mounted(service, state) as mount:
        handle = await renamed_over_and_on(mount, service)

        await mount.write_file("work/b", b"new")
        await mount.unlink("work/c")
        await mount.close(handle)
        await trio.sleep(LONG_S)

        assert stored(service, "work") == {"b": b"new"}


async def test_what_a_file_was_renamed_over_may_be_made_again_by_others(
    service: InProcessService, state: Path, autojump_clock: trio.testing.MockClock
) -> None:
    service.set_behaviour(**BY_PATH)
    async with mounted(service, state) as mount:
        handle = await renamed_over_and_on(mount, service)
        await trio.sleep(30)
        (work,) = (str(row["id"]) for row in service.containers())
        service.upload(work, "b", b"theirs")
        await mount.refresh("work")

        await mount.close(handle)
        await trio.sleep(LONG_S)

        assert stored(service, "work") == {"b": b"theirs", "c": b"FFF"}


async def test_with_write_back_what_a_file_was_renamed_over_may_be_made_again(
    service: InProcessService, state: Path, autojump_clock: trio.testing.MockClock
) -> None:
    service.set_behaviour(**BY_PATH)
    work = service.create_container("work")
    service.upload(work, "b", b"bbb")
    service.upload(work, "f", b"fff")
    async with mounted(service, state, BACK) as mount:
        await mount.walk()
        await mount.rename("work/f", "work/b")
        await mount.rename("work/b", "work/c")

        handle = await mount.create("work/b")
        await mount.fs.write(handle, 0, b"new")
        await mount.fs.fsync(handle)
        await mount.close(handle)
        await trio.sleep(LONG_S)

        assert stored(service, "work") == {"b": b"new", "c": b"fff"}


@pytest.mark.parametrize(
    ("behaviour", "changes"),
    [
        pytest.param({}, [b"changed"], id="new ids"),
        pytest.param(BY_PATH, [b"changed"], id="by path"),
        pytest.param(BY_BYTES, [b"changed", b"xxx"], id="by bytes"),
    ],
)
async def test_a_file_changed_while_its_folder_moves_is_in_the_new_place(
    service: InProcessService,
    state: Path,
    autojump_clock: trio.testing.MockClock,
    behaviour: dict[str, object],
    changes: list[bytes],
) -> None:
    service.set_behaviour(**behaviour)
    work = service.create_container("work")
    for name in ("x", "y"):
        service.upload(work, f"d/{name}", b"xxx")
    async with mounted(service, state) as mount:
        await mount.walk()
        service.add_fault("create_file", "delay", seconds=20, nth=2)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(mount.rename, "work/d", "work/e")
            await trio.sleep(5)
            (copied,) = (path for path in stored(service, "work") if path.startswith("e/"))
            for content in changes:
                await mount.write_file(copied.replace("e/", "work/d/"), content)
        await trio.sleep(LONG_S)

        expected = {"e/x": b"xxx", "e/y": b"xxx"} | {copied: changes[-1]}
        assert stored(service, "work") == expected


@pytest.mark.parametrize("way", ["in between failed", "in between was settled", "given up"])
async def test_bytes_that_may_have_been_overwritten_in_place_are_stored_again(
    service: InProcessService,
    state: Path,
    autojump_clock: trio.testing.MockClock,
    way: str,
) -> None:
    service.set_behaviour(**BY_PATH)
    service.create_container("work")
    async with mounted(service, state) as mount:
        await mount.write_file("work/a", b"old")
        handle = await mount.open("work/a", WRITE)
        await mount.fs.write(handle, 0, b"new")
        service.add_fault("create_file", "delay", seconds=20, when="after", count=1)
        if way != "given up":
            service.clear_faults()
            service.add_fault("create_file", "reset", when="after", count=1)
            service.add_fault("list_files", "status", status=503)
        with trio.move_on_after(5 if way == "given up" else LONG_S * 3), pytest.raises(CtrfsError):
            await mount.fs.fsync(handle)
        service.clear_faults()
        if way == "in between was settled":
            service.add_fault("create_file", "status", status=403)
            await mount.fs.write(handle, 0, b"NEW")
            with pytest.raises(CtrfsError):
                await mount.fs.fsync(handle)
            service.clear_faults()

        await mount.fs.write(handle, 0, b"old")
        await mount.close(handle)

        assert stored(service, "work") == {"a": b"old"}


@pytest.mark.parametrize("to", ["other/b", "work/b~"], ids=["another container", "this machine"])
async def test_what_another_has_stored_under_a_name_renamed_over_here_stays_when_that_moves_on(
    service: InProcessService, state: Path, autojump_clock: trio.testing.MockClock, to: str
) -> None:
    """Promise 10: it has the id of what was overwritten, and a listing has shown it since."""
    service.set_behaviour(**BY_PATH)
    work = service.create_container("work")
    service.create_container("other")
    service.upload(work, "b", b"old")
    async with mounted(service, state) as mount:
        await mount.names("work")
        handle = await mount.create("work/a")
        await mount.fs.write(handle, 0, b"ours")
        await mount.rename("work/a", "work/b")
        service.advance(100)
        service.upload(work, "b", b"theirs")
        await mount.refresh("work")

        await mount.rename("work/b", to)
        await mount.close(handle)
        await trio.sleep(LONG_S)

        assert stored(service, "work") == {"b": b"theirs"}
        assert await mount.read_file(to) == b"ours"


async def test_promise_7_a_listing_that_was_under_way_does_not_undo_a_save_in_place(
    service: InProcessService, state: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """The service has made its answer before the save, and gives it after."""
    service.set_behaviour(**BY_PATH)
    service.create_container("work")
    async with mounted(service, state, Settings(tree=TreeConfig(ttl_s=10))) as mount:
        await mount.write_file("work/a", b"old")
        await mount.refresh("work")
        service.advance(LONG_S)
        inode = (await mount.stat("work/a")).inode
        service.add_fault("list_files", "delay", seconds=5, count=1, when="after")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(mount.refresh, "work")
            await trio.sleep(1)
            await mount.write_file("work/a", b"newer bytes")

        facts = await mount.stat("work/a")
        assert (facts.size_bytes, facts.inode) == (11, inode)
        assert await mount.read_file("work/a") == b"newer bytes"
