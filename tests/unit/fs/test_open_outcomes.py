"""Uploads that may have arrived though nobody was told, and what is done to the file after."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias

import pytest
import trio
import trio.testing
from tests.support.in_process import WRITE, InProcessMount
from tests.support.service import InProcessService, until_asked_for
from tests.support.trees import stored

from ctrfs.errors import RemoteRefusedError, RemoteUnavailableError, RemoteUncertainError

Work: TypeAlias = Callable[[InProcessMount], Awaitable[None]]


async def overwrite(mount: InProcessMount) -> None:
    await mount.write_file("work/a", b"between")


async def write_again_under_another_name(mount: InProcessMount) -> None:
    handle = await mount.open("work/a", WRITE)
    await mount.fs.write(handle, 0, b"old")
    await mount.rename("work/a", "work/b")
    await mount.close(handle)


async def overwrite_with_the_old(mount: InProcessMount) -> None:
    await mount.write_file("work/a", b"old")


async def rename_back_while_it_is_open(mount: InProcessMount) -> None:
    handle = await mount.open("work/b", WRITE)
    await mount.fs.write(handle, 0, b"old")
    await mount.rename("work/b", "work/a")
    await mount.close(handle)


@pytest.mark.parametrize(
    ("change", "change_back"),
    [
        pytest.param(overwrite, overwrite_with_the_old, id="other bytes"),
        pytest.param(
            write_again_under_another_name, rename_back_while_it_is_open, id="another name"
        ),
    ],
)
async def test_a_file_that_is_back_to_what_is_stored_leaves_nothing_of_what_was_between(
    mount: InProcessMount,
    service: InProcessService,
    work: str,
    autojump_clock: trio.testing.MockClock,
    change: Work,
    change_back: Work,
) -> None:
    await mount.write_file("work/a", b"old")
    service.add_fault("create_file", "reset", when="after", count=1)
    service.add_fault("list_files", "status", status=503)
    with pytest.raises(RemoteUncertainError):
        await change(mount)
    service.clear_faults()
    assert len(service.files(work)) == 2  # or this test would prove nothing

    await change_back(mount)

    assert stored(service, "work") == {"a": b"old"}
    await mount.refresh("work")
    assert await mount.walk("work") == {"work/a": b"old"}
    mount.check_invariants()


async def test_a_file_that_is_back_to_what_is_stored_is_not_stored_a_second_time(
    mount: InProcessMount,
    service: InProcessService,
    work: str,
    autojump_clock: trio.testing.MockClock,
) -> None:
    """What had arrived was found by an attempt that then failed."""
    await mount.write_file("work/a", b"old")
    (old,) = service.files(work)
    service.add_fault("create_file", "reset", when="after", count=1)
    service.add_fault("list_files", "status", status=503)
    with pytest.raises(RemoteUncertainError):
        await mount.write_file("work/a", b"between")
    service.clear_faults()
    service.add_fault("create_file", "status", status=403)
    with pytest.raises(RemoteRefusedError):
        await mount.write_file("work/a", b"later")
    service.clear_faults()
    service.reset_counters()

    await mount.write_file("work/a", b"old")

    assert "create_file" not in service.counters()
    assert service.files(work) == [old]
    await mount.refresh("work")
    assert await mount.walk("work") == {"work/a": b"old"}
    mount.check_invariants()


async def test_a_file_renamed_over_another_and_back_is_not_stored_a_second_time(
    mount: InProcessMount, service: InProcessService, work: str
) -> None:
    await mount.write_file("work/a", b"old")
    (old,) = service.files(work)
    await mount.write_file("work/b", b"overwritten")
    handle = await mount.open("work/a", WRITE)
    await mount.fs.write(handle, 0, b"old")

    await mount.rename("work/a", "work/b")
    await mount.rename("work/b", "work/a")
    await mount.close(handle)

    assert service.files(work) == [old]
    assert await mount.walk("work") == {"work/a": b"old"}
    assert len(mount.parts.journal) == 0
    assert mount.parts.journal.deletes() == []


async def test_what_is_learnt_of_one_upload_is_not_forgotten_of_the_same_by_another_file(
    mount: InProcessMount,
    service: InProcessService,
    work: str,
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The first file has another name by now, and is saved while the other is on its way."""
    first = await mount.create("work/c")
    await mount.fs.write(first, 0, b"same")
    service.add_fault("create_file", "reset", count=1)
    service.add_fault("list_files", "status", status=503)
    with pytest.raises(RemoteUncertainError):
        await mount.fs.fsync(first)
    service.clear_faults()
    await mount.rename("work/c", "work/z")
    second = await mount.create("work/c")
    await mount.fs.write(second, 0, b"same")
    service.add_fault("create_file", "stall", seconds=20, bytes=0, when="before", count=1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(mount.close, second)
        await until_asked_for(service, "create_file")
        await mount.close(first)

    assert stored(service, "work") == {"c": b"same", "z": b"same"}


@pytest.mark.parametrize("is_noticed", [True, False])
async def test_a_file_that_is_back_to_what_others_have_deleted_is_stored_again(
    mount: InProcessMount,
    service: InProcessService,
    work: str,
    autojump_clock: trio.testing.MockClock,
    *,
    is_noticed: bool,
) -> None:
    """By a listing; or because something else is to be deleted for it."""
    await mount.write_file("work/a", b"old")
    (old,) = service.files(work)
    await mount.write_file("work/b", b"overwritten")
    handle = await mount.open("work/a", WRITE)
    await mount.fs.write(handle, 0, b"OLD")
    if not is_noticed:
        await mount.rename("work/a", "work/b")
    service.delete_file(work, str(old["id"]))
    if is_noticed:
        await trio.sleep(1)
        await mount.refresh("work")
        await mount.unlink("work/b")
    else:
        await mount.rename("work/b", "work/a")

    await mount.fs.write(handle, 0, b"old")
    await mount.close(handle)

    assert stored(service, "work") == {"a": b"old"}


async def test_a_folder_is_renamed_without_what_an_upload_in_doubt_has_made_in_it(
    mount: InProcessMount,
    service: InProcessService,
    work: str,
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A listing has it meanwhile; it is not shown beside the file whose bytes it has."""
    await mount.mkdir("work/d")
    service.add_fault("create_file", "reset", when="after", count=1)
    service.add_fault("list_files", "status", status=503)
    with pytest.raises(RemoteUncertainError):
        await mount.write_file("work/d/a", b"bytes")
    service.clear_faults()
    await mount.refresh("work")
    assert await mount.walk("work") == {"work/d": None, "work/d/a": b"bytes"}

    await mount.rename("work/d", "work/e")
    await trio.sleep(600)

    assert stored(service, "work") == {"e/a": b"bytes"}
    await mount.refresh("work")
    assert await mount.walk("work") == {"work/e": None, "work/e/a": b"bytes"}
    mount.check_invariants()


async def test_a_folder_renamed_during_an_upload_that_was_given_up_has_no_copy_in_its_old_place(
    mount: InProcessMount,
    service: InProcessService,
    work: str,
    autojump_clock: trio.testing.MockClock,
) -> None:
    """What is in doubt is where the upload was sent, not where the file is by now."""
    await mount.mkdir("work/d")
    handle = await mount.create("work/d/a")
    await mount.fs.write(handle, 0, b"bytes")
    service.add_fault("create_file", "delay", seconds=20, when="after", count=1)
    with trio.move_on_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(mount.fs.fsync, handle)
            await trio.sleep(5)
            await mount.refresh("work")
            await mount.rename("work/d", "work/e")
    service.clear_faults()

    await mount.close(handle)
    await trio.sleep(60)

    assert stored(service, "work") == {"e/a": b"bytes"}
    await mount.refresh("work")
    assert await mount.walk("work") == {"work/e": None, "work/e/a": b"bytes"}


async def test_a_removal_that_failed_and_was_made_all_the_same_takes_no_later_save_along(
    mount: InProcessMount,
    service: InProcessService,
    work: str,
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Promise 12: the bytes are those that the service had, when it was last heard of."""
    await mount.write_file("work/a", b"bytes")
    service.add_fault("delete_file", "reset", when="after", count=1)
    service.add_fault("delete_file", "status", status=503)
    with pytest.raises(RemoteUnavailableError):
        await mount.unlink("work/a")
    service.clear_faults()
    assert stored(service, "work") == {}  # or this test would prove nothing

    await mount.write_file("work/a", b"bytes")

    assert stored(service, "work") == {"a": b"bytes"}
    mount.check_invariants()
