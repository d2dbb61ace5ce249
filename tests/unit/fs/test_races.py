"""What happens to a file between two awaits of something else that is done to it.

The service takes a second to answer; whoever is waiting for it is met halfway.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing
from tests.support.in_process import WRITE, InProcessMount, mounted
from tests.support.service import InProcessService
from tests.support.trees import stored

from ctrfs.errors import NoSuchEntryError, RemoteRefusedError
from ctrfs.fs.attributes import AttributeChanges

ROUND_TRIP_S = 1.0
HALFWAY_S = 0.5


@asynccontextmanager
async def disk_held_up() -> AsyncIterator[None]:
    """Let no sync of the spool begin inside the block: there is no thread for it."""
    limiter = trio.to_thread.current_default_thread_limiter()
    threads = limiter.total_tokens
    limiter.total_tokens = 1
    try:
        async with limiter:
            yield
    finally:
        limiter.total_tokens = threads


async def test_bytes_written_while_an_upload_runs_are_sent_by_the_close(
    service: InProcessService,
    state: Path,
    work: str,
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Promise 12: a child that closes its copy of the descriptor sends what is there by then."""
    async with mounted(service, state) as mount:
        handle = await mount.create("work/log")
        await mount.fs.write(handle, 0, b"first\n")
        service.transport.round_trip_s = ROUND_TRIP_S

        async with trio.open_nursery() as nursery:
            nursery.start_soon(mount.fs.flush, handle)
            await trio.sleep(HALFWAY_S)
            await mount.fs.write(handle, 6, b"last\n")
        await mount.close(handle)

        assert stored(service, "work") == {"log": b"first\nlast\n"}
        assert await mount.fs.drain() == 0
    async with mounted(service, state) as mount:
        assert await mount.walk("work") == {"work/log": b"first\nlast\n"}


async def test_bytes_that_wait_for_a_download_are_sent_although_another_handle_closes_meanwhile(
    mount: InProcessMount,
    service: InProcessService,
    work: str,
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Promise 12."""
    service.upload(work, "a.txt", b"old bytes")
    writer, other = await mount.open("work/a.txt", WRITE), await mount.open("work/a.txt", WRITE)
    service.transport.round_trip_s = ROUND_TRIP_S

    async with trio.open_nursery() as nursery:
        nursery.start_soon(mount.fs.write, writer, 0, b"NEW")
        await trio.sleep(HALFWAY_S)
        await mount.close(other)
    await mount.close(writer)

    assert stored(service, "work") == {"a.txt": b"NEW bytes"}


async def test_bytes_written_while_a_file_moves_to_another_container_are_sent_there(
    mount: InProcessMount,
    service: InProcessService,
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Promise 17."""
    await mount.mkdir("other")
    handle = await mount.create("work/a")
    await mount.fs.write(handle, 0, b"1")
    service.transport.round_trip_s = ROUND_TRIP_S

    async with trio.open_nursery() as nursery:
        nursery.start_soon(mount.rename, "work/a", "other/a")
        await trio.sleep(HALFWAY_S)
        await mount.fs.write(handle, 1, b"2")
    await mount.close(handle)

    assert stored(service, "other") == {"a": b"12"}
    assert stored(service, "work") == {}


async def test_bytes_written_while_a_truncation_by_name_is_sent_are_sent_by_the_close(
    mount: InProcessMount,
    service: InProcessService,
    work: str,
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Promise 12."""
    service.upload(work, "a.txt", b"abc")
    handle = await mount.open("work/a.txt", WRITE)
    await mount.read_all(handle)
    service.transport.round_trip_s = ROUND_TRIP_S

    async with trio.open_nursery() as nursery:
        nursery.start_soon(mount.set, "work/a.txt", AttributeChanges(size_bytes=1))
        await trio.sleep(HALFWAY_S)
        await mount.fs.write(handle, 1, b"ZZ")
    await mount.close(handle)

    assert stored(service, "work") == {"a.txt": b"aZZ"}


async def test_a_write_while_the_file_is_being_unlinked_never_brings_its_name_back(
    mount: InProcessMount,
    service: InProcessService,
    work: str,
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Promise 17: the writer goes on with a file without a name."""
    service.upload(work, "log", b"one\n")
    handle = await mount.open("work/log", WRITE)
    await mount.read_all(handle)
    service.transport.round_trip_s = ROUND_TRIP_S

    async with trio.open_nursery() as nursery:
        nursery.start_soon(mount.unlink, "work/log")
        await trio.sleep(HALFWAY_S)
        await mount.fs.write(handle, 4, b"two\n")

    assert await mount.names("work") == []
    await mount.write_file("work/log", b"another file")
    await mount.close(handle)
    assert stored(service, "work") == {"log": b"another file"}
    await mount.refresh("work")
    assert await mount.walk("work") == {"work/log": b"another file"}


async def test_a_write_while_an_unlink_fails_is_sent_by_the_close(
    mount: InProcessMount,
    service: InProcessService,
    work: str,
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Promise 12: the name is back, and with it the duty to send."""
    service.upload(work, "log", b"one\n")
    handle = await mount.open("work/log", WRITE)
    await mount.read_all(handle)
    service.transport.round_trip_s = ROUND_TRIP_S
    service.add_fault("delete_file", "status", status=403, count=1)

    async def unlink() -> None:
        with pytest.raises(RemoteRefusedError):
            await mount.unlink("work/log")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(unlink)
        await trio.sleep(HALFWAY_S)
        await mount.fs.write(handle, 4, b"two\n")
    service.clear_faults()
    await mount.close(handle)

    assert stored(service, "work") == {"log": b"one\ntwo\n"}
    assert await mount.walk("work") == {"work/log": b"one\ntwo\n"}


async def test_a_close_during_an_unlink_that_fails_leaves_nothing_unsent(
    mount: InProcessMount,
    service: InProcessService,
    work: str,
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Promise 12: nobody but the unlink is left to send what the close has acknowledged."""
    service.upload(work, "log", b"one\n")
    handle = await mount.open("work/log", WRITE)
    await mount.read_all(handle)
    service.transport.round_trip_s = ROUND_TRIP_S
    service.add_fault("delete_file", "status", status=403, count=1)

    async def unlink() -> None:
        with pytest.raises(RemoteRefusedError):
            await mount.unlink("work/log")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(unlink)
        await trio.sleep(HALFWAY_S)
        await mount.fs.write(handle, 4, b"two\n")
        await mount.close(handle)

    assert stored(service, "work") == {"log": b"one\ntwo\n"}
    assert await mount.walk("work") == {"work/log": b"one\ntwo\n"}


async def test_a_listing_that_lands_while_a_file_becomes_a_backup_leaves_it_its_new_name(
    mount: InProcessMount,
    service: InProcessService,
    work: str,
) -> None:
    """Promise 22: the local disk takes its time."""
    service.upload(work, "a.txt", b"precious")
    assert await mount.read_file("work/a.txt") == b"precious"

    async with trio.open_nursery() as nursery:
        async with disk_held_up():
            nursery.start_soon(mount.rename, "work/a.txt", "work/a.txt~")
            await trio.testing.wait_all_tasks_blocked()
            await mount.refresh("work")

    assert await mount.walk("work") == {"work/a.txt~": b"precious"}
    assert [row.path for row in mount.parts.local.all_files()] == [b"a.txt~"]
    await mount.refresh("work")
    assert await mount.walk("work") == {"work/a.txt~": b"precious"}


async def test_a_backup_made_by_rename_is_there_after_a_remount(
    service: InProcessService, state: Path, work: str
) -> None:
    """Promise 22: the service has no copy of it any more."""
    service.upload(work, "a.txt", b"precious")
    async with mounted(service, state) as mount:
        await mount.rename("work/a.txt", "work/a.txt~")

    async with mounted(service, state) as mount:
        assert await mount.walk("work") == {"work/a.txt~": b"precious"}
    async with mounted(service, state) as mount:
        assert await mount.walk("work") == {"work/a.txt~": b"precious"}


async def test_a_rename_to_a_name_that_another_mount_takes_meanwhile_leaves_both_files(
    mount: InProcessMount,
    service: InProcessService,
    work: str,
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Promise 10: theirs stays, too."""
    service.upload(work, "a", b"ours")
    await mount.walk()
    service.add_fault("create_file", "delay", seconds=3)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(mount.rename, "work/a", "work/b")
        await trio.sleep(HALFWAY_S)
        service.plant(work, "/mnt/data/b", b"theirs")
        await mount.refresh("work")

    assert await mount.read_file("work/b") == b"ours"
    assert not await mount.exists("work/a")
    assert set((await mount.walk("work")).values()) == {b"ours", b"theirs"}
    await mount.refresh("work")
    assert await mount.read_file("work/b") == b"ours"
    assert len(await mount.names("work")) == 2


async def test_a_renamed_file_that_a_listing_shows_before_the_upload_is_answered_is_one_file(
    mount: InProcessMount,
    service: InProcessService,
    work: str,
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Promise 17."""
    service.upload(work, "a", b"bytes")
    inode = (await mount.stat("work/a")).inode
    service.add_fault("create_file", "delay", seconds=3, when="after")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(mount.rename, "work/a", "work/b")
        await trio.sleep(HALFWAY_S)
        await mount.refresh("work")

    assert await mount.walk("work") == {"work/b": b"bytes"}
    assert (await mount.stat("work/b")).inode == inode
    await mount.refresh("work")
    assert await mount.walk("work") == {"work/b": b"bytes"}
    assert stored(service, "work") == {"b": b"bytes"}


async def test_a_container_made_here_and_elsewhere_at_once_is_two_containers(
    mount: InProcessMount, service: InProcessService, autojump_clock: trio.testing.MockClock
) -> None:
    """Promise 2: both stay visible, and each can be removed."""
    await mount.names()
    service.add_fault("create_container", "delay", seconds=3)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(mount.mkdir, "new")
        await trio.sleep(HALFWAY_S)
        service.clear_faults()
        service.create_container("new")
        await mount.refresh("")

    names = await mount.names()
    assert len(names) == 3
    assert {"new", "work"} < set(names)
    mount.check_invariants()
    await mount.rmdir(next(name for name in names if name.startswith("new~")))
    await mount.rmdir("new")
    assert [row["name"] for row in service.containers()] == ["work"]
    await mount.refresh("")
    assert await mount.names() == ["work"]


async def test_a_file_made_in_an_empty_container_while_that_is_renamed_is_not_lost(
    mount: InProcessMount, service: InProcessService, autojump_clock: trio.testing.MockClock
) -> None:
    """Promises 12 and 18: its close said that the service has it."""
    await mount.walk()
    service.transport.round_trip_s = ROUND_TRIP_S

    async def write() -> None:
        await trio.sleep(ROUND_TRIP_S + 0.05)
        await mount.write_file("work/a", b"acknowledged")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        await mount.rename("work", "play")

    service.transport.round_trip_s = 0.0
    assert await mount.walk() == {"play": None, "play/a": b"acknowledged"}
    await mount.refresh("")
    await mount.refresh("play")
    assert await mount.walk() == {"play": None, "play/a": b"acknowledged"}
    assert stored(service, "play") == {"a": b"acknowledged"}


async def test_a_file_gone_elsewhere_while_its_truncation_fails_is_gone(
    mount: InProcessMount, service: InProcessService, work: str
) -> None:
    """Promise 10: nothing was written, so there are no bytes of ours to keep."""
    file_id = service.upload(work, "a.txt", b"12345")
    await mount.stat("work/a.txt")
    service.add_fault("*", "status", status=403)
    with pytest.raises(RemoteRefusedError):
        await mount.set("work/a.txt", AttributeChanges(size_bytes=2))
    service.clear_faults()
    service.delete_file(work, file_id)

    await mount.refresh("work")

    assert await mount.names("work") == []
    with pytest.raises(NoSuchEntryError):
        await mount.read_file("work/a.txt")
