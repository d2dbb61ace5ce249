"""Promise 14, and 13: a crash in the middle of a change leaves what was closed before it.

What was closed and not sent is in the journal alone. In virtual time.
"""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import trio
import trio.testing
from tests.support.in_process import TRUNCATE, WRITE, InProcessMount, Settings, mounted
from tests.support.service import InProcessService
from tests.support.trees import stored
from tests.unit.fs.test_races import disk_held_up
from tests.unit.fs.test_replay import Crasher

from ctrfs import failpoints
from ctrfs.config import ContentConfig, FileSystemConfig, WriteMode
from ctrfs.errors import (
    CtrfsError,
    LocalDiskFullError,
    RemoteUnavailableError,
    RemoteUncertainError,
)
from ctrfs.fs.attributes import AttributeChanges, OpenFlags
from ctrfs.units import KIB, MIB

BACK = Settings(files=FileSystemConfig(write_mode=WriteMode.BACK))
THROUGH = Settings()
# Synced in a thread.
LARGE = 2 * MIB
OLD, CLOSED = b"old", b"closed, not sent"

Clock = trio.testing.MockClock
both_modes = pytest.mark.parametrize("settings", [BACK, THROUGH], ids=["back", "through"])
# No operation here passes it, so that the tests die where they say.
POINT = "folder.copied"


async def all_sent() -> None:
    await trio.sleep(1000)


def lose_bytes(state: Path, spool_name: str) -> None:
    """Do what a power cut does to a file that was not synced."""
    (spool_file,) = state.rglob(spool_name)
    spool_file.write_bytes(b"")


async def close_unsent(mount: InProcessMount, service: InProcessService, content: bytes) -> None:
    """Save ``work/a`` such that only the journal has it: the service refuses, if asked."""
    service.add_fault("create_file", "status", status=500)
    if mount.parts.config.write_mode is WriteMode.BACK:
        await mount.write_file("work/a", content)
    else:
        with pytest.raises(RemoteUnavailableError):
            await mount.write_file("work/a", content)


@both_modes
@pytest.mark.parametrize("flags", [TRUNCATE, WRITE], ids=["emptied", "in place"])
async def test_a_crash_in_the_middle_of_a_save_leaves_the_last_one(
    service: InProcessService,
    state: Path,
    work: str,
    flags: OpenFlags,
    settings: Settings,
    autojump_clock: Clock,
) -> None:
    """Promise 14."""

    async def work_on(mount: InProcessMount) -> None:
        await close_unsent(mount, service, CLOSED)
        handle = await mount.open("work/a", flags)
        await mount.fs.write(handle, 0, b"NEW")
        failpoints.reached(POINT)

    async with mounted(service, state) as mount:
        await mount.write_file("work/a", OLD)
    await Crasher(service, state, settings).run(POINT, work_on)

    async with mounted(service, state, settings) as mount:
        assert await mount.read_file("work/a") == CLOSED
        await all_sent()
        assert await mount.walk("work") == {"work/a": CLOSED}
    assert stored(service, "work") == {"a": CLOSED}


@both_modes
async def test_the_next_close_is_what_a_crash_leaves_from_then_on(
    service: InProcessService, state: Path, work: str, settings: Settings, autojump_clock: Clock
) -> None:
    """Promise 14."""

    async def work_on(mount: InProcessMount) -> None:
        await close_unsent(mount, service, CLOSED)
        await close_unsent(mount, service, b"again")
        failpoints.reached(POINT)

    await Crasher(service, state, settings).run(POINT, work_on)

    async with mounted(service, state, settings) as mount:
        await all_sent()
        assert await mount.walk("work") == {"work/a": b"again"}
    assert stored(service, "work") == {"a": b"again"}


async def test_a_renaming_into_another_container_that_fails_keeps_what_was_closed(
    service: InProcessService, state: Path, work: str, autojump_clock: Clock
) -> None:
    service.create_container("other")

    async def work_on(mount: InProcessMount) -> None:
        await close_unsent(mount, service, CLOSED)
        handle = await mount.open("work/a", TRUNCATE)
        await mount.fs.write(handle, 0, b"NEW")
        with pytest.raises(RemoteUnavailableError):
            await mount.rename("work/a", "other/a")
        failpoints.reached(POINT)

    await Crasher(service, state, BACK).run(POINT, work_on)

    async with mounted(service, state, BACK) as mount:
        assert await mount.read_file("work/a") == CLOSED
        assert await mount.names("other") == []


@both_modes
async def test_a_crash_before_the_close_of_a_file_that_was_renamed_over_leaves_both_as_they_were(
    service: InProcessService, state: Path, work: str, settings: Settings, autojump_clock: Clock
) -> None:
    """Promise 14."""
    service.upload(work, "other", b"stored")

    async def work_on(mount: InProcessMount) -> None:
        await close_unsent(mount, service, CLOSED)
        handle = await mount.open("work/other", WRITE)
        await mount.fs.write(handle, 0, b"NEW")
        await mount.rename("work/other", "work/a")
        failpoints.reached(POINT)

    await Crasher(service, state, settings).run(POINT, work_on)

    async with mounted(service, state, settings) as mount:
        await all_sent()
        assert await mount.walk("work") == {"work/a": CLOSED, "work/other": b"stored"}
    assert stored(service, "work") == {"a": CLOSED, "other": b"stored"}


@both_modes
async def test_what_was_renamed_over_goes_on_with_the_next_name_until_the_close(
    service: InProcessService, state: Path, work: str, settings: Settings, autojump_clock: Clock
) -> None:
    service.upload(work, "other", b"stored")

    async def work_on(mount: InProcessMount) -> None:
        await close_unsent(mount, service, CLOSED)
        handle = await mount.open("work/other", WRITE)
        await mount.fs.write(handle, 0, b"NEW")
        await mount.rename("work/other", "work/a")
        await mount.rename("work/a", "work/c")
        failpoints.reached(POINT)

    await Crasher(service, state, settings).run(POINT, work_on)

    async with mounted(service, state, settings) as mount:
        await all_sent()
        assert await mount.walk("work") == {"work/c": CLOSED, "work/other": b"stored"}


@both_modes
@pytest.mark.parametrize("end", ["closed", "removed"])
async def test_what_was_renamed_over_takes_no_space_once_the_other_is_closed_or_removed(
    service: InProcessService,
    state: Path,
    work: str,
    end: str,
    settings: Settings,
    autojump_clock: Clock,
) -> None:
    async with mounted(service, state, settings) as mount:
        await close_unsent(mount, service, b"c" * 64 * KIB)
        handle = await mount.create("work/new")
        await mount.fs.write(handle, 0, b"NEW")
        await mount.rename("work/new", "work/a")
        assert mount.parts.store.bytes_used >= 64 * KIB
        service.clear_faults()
        if end == "removed":
            await mount.unlink("work/a")
        await mount.close(handle)
        await all_sent()
        assert mount.parts.store.bytes_used < 64 * KIB
        assert len(mount.parts.journal) == 0
        mount.check_invariants()
    assert stored(service, "work") == ({} if end == "removed" else {"a": b"NEW"})


async def test_what_was_renamed_over_is_still_read_and_written_by_those_who_have_it_open(
    service: InProcessService, state: Path, work: str, autojump_clock: Clock
) -> None:
    async def work_on(mount: InProcessMount) -> None:
        await close_unsent(mount, service, CLOSED)
        old = await mount.open("work/a", WRITE)
        new = await mount.create("work/new")
        await mount.fs.write(new, 0, b"NEW")
        await mount.rename("work/new", "work/a")
        await mount.fs.write(old, 0, b"nobody's")
        assert await mount.fs.read(old, 0, 100) == b"nobody's" + CLOSED[8:]
        await mount.fs.release(old)
        assert await mount.fs.read(new, 0, 100) == b"NEW"
        failpoints.reached(POINT)

    await Crasher(service, state, BACK).run(POINT, work_on)

    async with mounted(service, state, BACK) as mount:
        assert await mount.walk("work") == {"work/a": CLOSED}


async def test_a_large_file_is_copied_once_and_takes_its_space_once_it_is_sent(
    service: InProcessService, state: Path, work: str
) -> None:
    closed = bytes(range(256)) * (8 * KIB)  # 2 MiB: in a thread
    async with mounted(service, state, BACK) as mount:
        await mount.write_file("work/a", closed)
        handle = await mount.open("work/a", WRITE)
        used = mount.parts.store.bytes_used
        for offset in range(4):
            await mount.fs.write(handle, offset, b"x")
        assert used + len(closed) <= mount.parts.store.bytes_used < used + 2 * len(closed)
        await mount.fs.fsync(handle)
        assert mount.parts.store.bytes_used < used + len(closed)
        await mount.fs.release(handle)
    assert stored(service, "work") == {"a": b"xxxx" + closed[4:]}


async def test_where_a_copy_has_no_room_the_write_fails_and_nothing_is_lost(
    service: InProcessService, state: Path, work: str, autojump_clock: Clock
) -> None:
    closed = b"c" * 48 * KIB
    small = replace(BACK, content=ContentConfig(spool_bytes_max=64 * KIB, file_bytes_max=64 * KIB))
    async with mounted(service, state, small) as mount:
        service.add_fault("create_file", "status", status=500)
        with suppress(RemoteUnavailableError):  # three quarters are taken: it waits
            await mount.write_file("work/a", closed)
        handle = await mount.open("work/a", WRITE)
        with pytest.raises(LocalDiskFullError):
            await mount.fs.write(handle, 0, b"NEW")
        assert await mount.read_file("work/a") == closed
        await mount.fs.release(handle)
        service.clear_faults()
        await all_sent()
    assert stored(service, "work") == {"a": closed}


async def test_a_failed_save_records_what_was_closed_and_not_half_of_what_is_written_meanwhile(
    service: InProcessService, state: Path, work: str, autojump_clock: Clock
) -> None:
    """The upload has not begun when it fails: earlier bytes are in doubt, and nobody can look."""
    closed, half = b"2" * LARGE, b"3" * (LARGE // 2)
    async with mounted(service, state) as mount:
        handle = await mount.create("work/a")
        await mount.fs.write(handle, 0, b"1")
        service.add_fault("create_file", "reset", when="after", count=1)
        service.add_fault("list_files", "status", status=503)
        with pytest.raises(RemoteUncertainError):
            await mount.fs.flush(handle)
        await mount.fs.setattr(
            (await mount.stat("work/a")).inode, AttributeChanges(size_bytes=0), handle
        )
        await mount.fs.write(handle, 0, closed)
        async with trio.open_nursery() as nursery:

            async def close() -> None:
                with pytest.raises(RemoteUnavailableError):
                    await mount.fs.flush(handle)

            async with disk_held_up():
                nursery.start_soon(close)
                await trio.sleep(200)
                nursery.start_soon(mount.fs.write, handle, 0, half)
                await trio.sleep(1)
                autojump_clock.autojump_threshold = math.inf  # threads take no virtual time
        service.clear_faults()
        autojump_clock.autojump_threshold = 0
        await trio.sleep(60)
        assert half + closed[len(half) :] not in stored(service, "work").values()

    async with mounted(service, state) as mount:
        assert await mount.read_file("work/a") == closed


async def test_a_power_cut_after_a_renaming_that_failed_leaves_the_small_file_that_was_to_go(
    service: InProcessService, state: Path, work: str, autojump_clock: Clock
) -> None:
    """Its bytes are in the database with its record: nothing else of them was synced."""
    service.upload(service.create_container("other"), "new", b"new")
    async with mounted(service, state, BACK) as mount:
        await mount.names("other")
        await close_unsent(mount, service, CLOSED)
        with pytest.raises(CtrfsError):
            await mount.rename("other/new", "work/a")
        (row,) = mount.parts.journal.rows()
    service.clear_faults()
    lose_bytes(state, row.spool_name)

    async with mounted(service, state, BACK) as mount:
        assert await mount.read_file("work/a") == CLOSED
