"""How the sending goes on, as a mount tells it."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest
import trio
import trio.testing
from tests.support.in_process import InProcessMount, mounted
from tests.support.service import InProcessService

from ctrfs.disk.progress import MountProgress, read_progress
from ctrfs.errors import RemoteError, RemoteInvalidError


def slot_of(state: Path) -> Path:
    (database,) = state.glob("*/0/state.db")
    return database.parent


async def shown(mount: InProcessMount) -> MountProgress:
    text = await mount.read_file(".ctrfs/progress")
    assert text.count(b"\n") == 1
    return msgspec.json.decode(text, type=MountProgress)


async def test_an_idle_mount_has_nothing_to_send(mount: InProcessMount) -> None:
    progress = await shown(mount)

    assert (progress.sent_files, progress.left_files, progress.sending) == (0, 0, ())
    assert progress.pid == os.getpid()


async def test_what_is_sent_is_counted(mount: InProcessMount) -> None:
    await mount.write_file("work/a.txt", b"12345")
    await mount.write_file("work/b.txt", b"")

    progress = await shown(mount)

    assert (progress.sent_files, progress.sent_bytes) == (2, 5)
    assert (progress.left_files, progress.left_bytes) == (0, 0)


async def test_a_file_on_its_way_is_named(
    mount: InProcessMount,
    service: InProcessService,
    nursery: trio.Nursery,
    autojump_clock: trio.testing.MockClock,
) -> None:
    service.add_fault("create_file", "delay", seconds=10)
    nursery.start_soon(mount.write_file, "work/a.txt", b"12345")
    await trio.sleep(5)

    progress = await shown(mount)

    (sending,) = progress.sending
    assert (sending.name, sending.size_bytes, sending.sent_bytes) == ("a.txt", 5, 0)
    assert (progress.sending_files, progress.pending_files, progress.left_bytes) == (1, 1, 5)
    assert progress.moved_at_s == pytest.approx(sending.since_s)
    await trio.sleep(10)
    assert (await shown(mount)).sending == ()


async def test_what_failed_says_why(mount: InProcessMount, service: InProcessService) -> None:
    service.add_fault("create_file", "status", status=400)
    with pytest.raises(RemoteInvalidError):
        await mount.write_file("work/a.txt", b"12345")

    progress = await shown(mount)

    assert (progress.pending_files, progress.pending_bytes, progress.failed_files) == (1, 5, 1)
    assert progress.error.endswith(")"), "the words of the service and the request's number"


async def test_a_silent_service_is_named(
    mount: InProcessMount, service: InProcessService, autojump_clock: trio.testing.MockClock
) -> None:
    await mount.names("work")
    service.add_fault("*", "reset")
    with pytest.raises(RemoteError):
        await mount.write_file("work/a.txt", b"12345")

    progress = await shown(mount)

    assert progress.silent_since_s > 0
    assert progress.service_error


async def test_the_file_follows_an_upload_and_is_gone_at_the_end(
    service: InProcessService, state: Path, work: str, autojump_clock: trio.testing.MockClock
) -> None:
    assert work
    async with mounted(service, state) as mount, trio.open_nursery() as nursery:
        reporter = mount.floors.progress
        await nursery.start(reporter.run)
        slot = slot_of(state)
        await trio.sleep(1)
        assert read_progress(slot, pid=os.getpid()) == reporter.now()
        service.add_fault("create_file", "delay", seconds=10, count=1)

        nursery.start_soon(mount.write_file, "work/a.txt", b"12345")
        await trio.sleep(3)
        on_its_way = read_progress(slot, pid=os.getpid())
        await trio.sleep(10)
        at_rest = read_progress(slot, pid=os.getpid())

        assert on_its_way is not None
        assert on_its_way.sending_files == 1
        assert at_rest is not None
        assert (at_rest.sent_files, at_rest.left_files) == (1, 0)
        nursery.cancel_scope.cancel()
    assert read_progress(slot, pid=os.getpid()) is None


async def test_a_mount_at_rest_wakes_for_nothing(
    service: InProcessService, state: Path, work: str, autojump_clock: trio.testing.MockClock
) -> None:
    assert work
    async with mounted(service, state) as mount, trio.open_nursery() as nursery:
        await nursery.start(mount.floors.progress.run)
        await trio.sleep(5)

        assert trio.lowlevel.current_statistics().seconds_to_next_deadline == float("inf")
        nursery.cancel_scope.cancel()
