"""What a listing takes away and brings back: docs/semantics.md, promises 3, 8 to 10, 14 and 22.

One answer that denies a container is no proof that it is gone: the service has been seen to
answer 404 for what it listed a second later.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import trio
import trio.testing
from tests.support.in_process import WRITE, InProcessMount, Settings, mounted
from tests.support.service import InProcessService
from tests.support.trees import stored

from ctrfs.config import TreeConfig
from ctrfs.errors import (
    LocalDiskError,
    NoSuchEntryError,
    RemoteInvalidError,
    RemoteRefusedError,
)
from ctrfs.fs.attributes import AttributeChanges

# Longer than a listing counts as fresh, so that the next reader asks.
TTL_PASSED_S = TreeConfig().ttl_s + 1
# Longer than anything that was deleted here is hidden from listings that still have it.
HIDING_PASSED_S = 400.0


def deny_one_listing(service: InProcessService) -> None:
    """Let the next listing of files be answered as if the container were gone."""
    service.add_fault("list_files", "status", status=404, count=1)


def spooled(state: Path) -> list[str]:
    """Return the names of the spool files of a state directory."""
    return [path.name for path in state.rglob("*") if path.is_file() and "spool" in path.parts]


@contextmanager
def database_held(state: Path) -> Iterator[None]:
    """Let nothing be recorded in the state directory inside the block."""
    (path,) = state.rglob("state.db")
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield


async def save_unsent(mount: InProcessMount, service: InProcessService, path: str) -> None:
    """Leave ``b"unsent"`` in a file, which the service did not take."""
    service.add_fault("create_file", "status", status=403)
    with pytest.raises(RemoteRefusedError):
        await mount.write_file(path, b"unsent")
    service.clear_faults()


# -- one 404 of a listing ------------------------------------------------------------------


async def test_one_denied_listing_costs_no_local_only_file(
    mount: InProcessMount,
    service: InProcessService,
    work: str,
    autojump_clock: trio.testing.MockClock,
) -> None:
    service.upload(work, "a.txt", b"sent")
    await mount.write_file("work/.a.txt.swp", b"kept here")
    await trio.sleep(TTL_PASSED_S)
    deny_one_listing(service)

    assert await mount.names("work") == [".a.txt.swp", "a.txt"]
    await trio.sleep(TTL_PASSED_S)
    assert await mount.walk("work") == {
        "work/.a.txt.swp": b"kept here",
        "work/a.txt": b"sent",
    }
    await mount.write_file("work/.a.txt.swp", b"and can be written")
    assert await mount.read_file("work/.a.txt.swp") == b"and can be written"


async def test_one_denied_listing_does_not_end_a_mount_of_one_container(
    service: InProcessService,
    state: Path,
    work: str,
    autojump_clock: trio.testing.MockClock,
) -> None:
    service.upload(work, "a.txt", b"sent")
    async with mounted(service, state, Settings(only="work")) as mount:
        await trio.sleep(TTL_PASSED_S)
        deny_one_listing(service)

        assert await mount.names() == ["a.txt"]
        await trio.sleep(TTL_PASSED_S)
        assert await mount.walk() == {"a.txt": b"sent"}


async def test_one_denied_listing_leaves_a_file_open_for_writing_writable(
    mount: InProcessMount,
    service: InProcessService,
    work: str,
    autojump_clock: trio.testing.MockClock,
) -> None:
    service.upload(work, "a.txt", b"x")
    handle = await mount.open("work/a.txt", WRITE)
    await mount.fs.write(handle, 0, b"1")
    await trio.sleep(TTL_PASSED_S)
    deny_one_listing(service)

    assert await mount.names("work") == ["a.txt"]
    await mount.fs.write(handle, 1, b"2")
    await mount.close(handle)

    assert stored(service, "work") == {"a.txt": b"12"}
    await mount.refresh("work")
    assert await mount.walk("work") == {"work/a.txt": b"12"}


async def test_one_denied_listing_leaves_unsent_bytes_to_be_sent(
    mount: InProcessMount,
    service: InProcessService,
    work: str,
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Promise 14."""
    service.upload(work, "a.txt", b"old")
    await save_unsent(mount, service, "work/a.txt")
    mount.forget_all()
    await trio.sleep(TTL_PASSED_S)
    deny_one_listing(service)

    assert await mount.names("work") == ["a.txt"]
    await trio.sleep(TTL_PASSED_S)
    assert await mount.names() == ["work"]
    assert (await mount.stat("work/a.txt")).size_bytes == len(b"unsent")
    assert await mount.read_file("work/a.txt") == b"unsent"
    assert await mount.fs.drain() == 0
    assert stored(service, "work") == {"a.txt": b"unsent"}
    assert mount.parts.journal.rows() == []


async def test_a_container_that_is_gone_for_good_takes_no_bytes_of_this_machine_along(
    service: InProcessService,
    state: Path,
    work: str,
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Promise 22: a backup may be the last copy of what the container held."""
    async with mounted(service, state) as mount:
        await mount.write_file("work/a.txt~", b"kept here")
        service.delete_container(work)
        await trio.sleep(TTL_PASSED_S)

        assert await mount.names() == []
        assert [row.path for row in mount.parts.local.all_files()] == [b"a.txt~"]
    assert len(spooled(state)) == 1
    async with mounted(service, state) as mount:
        assert [row.size_bytes for row in mount.parts.local.all_files()] == [9]
    assert len(spooled(state)) == 1


# -- changes made elsewhere ----------------------------------------------------------------


async def test_a_folder_that_became_a_file_elsewhere_is_a_file_and_the_reverse(
    mount: InProcessMount, service: InProcessService, work: str
) -> None:
    """Promise 8."""
    inside = service.plant(work, "/mnt/data/x/y", b"inside")
    assert await mount.walk("work") == {"work/x": None, "work/x/y": b"inside"}

    service.delete_file(work, inside)
    alone = service.plant(work, "/mnt/data/x", b"a file now")
    await mount.refresh("work")
    assert await mount.walk("work") == {"work/x": b"a file now"}

    service.delete_file(work, alone)
    service.plant(work, "/mnt/data/x/y", b"a folder again")
    await mount.refresh("work")
    assert await mount.walk("work") == {"work/x": None, "work/x/y": b"a folder again"}


async def test_the_bytes_written_to_a_file_known_to_be_gone_are_sent_though_they_are_the_same(
    mount: InProcessMount, service: InProcessService, work: str
) -> None:
    """Promises 10 and 12a: what is the same is not there any more."""
    file_id = service.upload(work, "a.txt", b"same")
    handle = await mount.open("work/a.txt", WRITE)
    service.delete_file(work, file_id)
    await mount.refresh("work")
    assert await mount.names("work") == []

    inode = mount.parts.handles.writable(handle).file.inode
    await mount.fs.setattr(inode, AttributeChanges(size_bytes=0), handle)
    await mount.fs.write(handle, 0, b"same")
    await mount.close(handle)

    assert stored(service, "work") == {"a.txt": b"same"}
    await mount.refresh("work")
    assert await mount.walk("work") == {"work/a.txt": b"same"}


async def test_a_file_whose_folder_went_away_elsewhere_takes_no_name_of_another(
    mount: InProcessMount, service: InProcessService, work: str
) -> None:
    """Promise 10: our close still stores our bytes, and theirs stay."""
    inside = service.plant(work, "/mnt/data/d/a", b"inside")
    service.plant(work, "/mnt/data/a", b"top")
    handle = await mount.open("work/d/a", WRITE)
    assert await mount.read_all(handle) == b"inside"
    service.delete_file(work, inside)
    await mount.refresh("work")
    assert await mount.walk("work") == {"work/a": b"top"}

    await mount.fs.write(handle, 0, b"INSIDE")
    await mount.close(handle)

    expected = {"work/a": b"top", "work/d": None, "work/d/a": b"INSIDE"}
    assert await mount.walk("work") == expected
    assert stored(service, "work") == {"a": b"top", "d/a": b"INSIDE"}
    await mount.refresh("work")
    assert await mount.walk("work") == expected


async def test_a_file_deleted_elsewhere_can_be_removed(
    mount: InProcessMount, service: InProcessService, work: str
) -> None:
    """It is gone, which is what was asked for; nobody needs its bytes, not even an opener."""
    file_id = service.upload(work, "a.txt", b"bytes")
    handle = await mount.open("work/a.txt")
    service.delete_file(work, file_id)

    await mount.unlink("work/a.txt")

    assert await mount.names("work") == []
    await mount.close(handle)


async def test_a_file_deleted_elsewhere_cannot_be_renamed_and_is_looked_for_again(
    mount: InProcessMount, service: InProcessService, work: str
) -> None:
    """The errno table: 404 of something just listed."""
    file_id = service.upload(work, "a.txt", b"bytes")
    await mount.stat("work/a.txt")
    service.delete_file(work, file_id)

    with pytest.raises(NoSuchEntryError):
        await mount.rename("work/a.txt", "work/b.txt")
    await trio.testing.wait_all_tasks_blocked()

    assert await mount.names("work") == []
    assert stored(service, "work") == {}


async def test_new_bytes_under_an_old_id_are_another_inode(
    mount: InProcessMount, service: InProcessService, work: str
) -> None:
    """Promise 9: some servers keep the id of a path over an overwrite."""
    service.set_behaviour(hash_prefix=False, ids="path")
    service.upload(work, "a.txt", b"11111")
    handle = await mount.open("work/a.txt")
    assert await mount.read_all(handle) == b"11111"
    old = await mount.stat("work/a.txt")
    service.advance(100)
    service.upload(work, "a.txt", b"22222")

    await mount.refresh("work")

    assert (await mount.stat("work/a.txt")).inode != old.inode
    assert await mount.read_file("work/a.txt") == b"22222"
    assert await mount.read_all(handle) == b"11111"
    await mount.close(handle)


async def test_lengths_that_a_listing_leaves_out_stay_known(
    mount: InProcessMount, service: InProcessService
) -> None:
    """Promise 9: null is no length, and so no change of it."""
    service.set_behaviour(null_bytes=True)
    await mount.write_file("work/a.txt", b"12345")
    handle = await mount.open("work/a.txt")
    inode = (await mount.stat("work/a.txt")).inode

    await mount.refresh("work")

    assert (await mount.stat("work/a.txt")).size_bytes == 5
    assert (await mount.stat("work/a.txt")).inode == inode
    assert await mount.read_all(handle) == b"12345"
    await mount.close(handle)


async def test_the_kernel_is_not_told_of_the_names_that_a_first_listing_brings(
    mount: InProcessMount, service: InProcessService, work: str
) -> None:
    """It cannot have them wrong, and whoever works in one of them would lose it."""
    service.plant(work, "/mnt/data/d/a", b"1")
    service.plant(work, "/mnt/data/d/b", b"2")

    assert await mount.walk("work") == {"work/d": None, "work/d/a": b"1", "work/d/b": b"2"}

    assert list(mount.changes) == []


async def test_the_kernel_is_told_of_a_name_that_it_believes_not_to_be_there(
    mount: InProcessMount, service: InProcessService, work: str
) -> None:
    """Promise 8."""
    assert not await mount.exists("work/a.txt")
    service.plant(work, "/mnt/data/a.txt", b"new")
    service.plant(work, "/mnt/data/b.txt", b"never asked for")

    await mount.refresh("work")

    assert [change.name for change in mount.changes] == [b"a.txt"]


# -- our own changes, and listings that lag ------------------------------------------------


async def test_a_copy_into_a_folder_is_no_second_name_of_the_same_bytes(
    mount: InProcessMount, service: InProcessService, work: str
) -> None:
    """Promise 6, where the server cuts folders off and knows bytes again: ``cp a d/a``."""
    service.set_behaviour(slashes="base", duplicates="same")
    service.upload(work, "a", b"same")
    await mount.mkdir("work/d")

    await mount.write_file("work/d/a", b"same")

    expected = {"work/a": b"same", "work/d": None, "work/d/a": b"same"}
    assert await mount.walk("work") == expected
    await mount.refresh("work")
    assert await mount.walk("work") == expected


async def test_ls_shows_a_new_file_although_the_service_cannot_confirm_it(
    mount: InProcessMount,
    service: InProcessService,
    work: str,
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Promise 7: only a denial takes away what we know to be there."""
    service.set_behaviour(list_lag_s=60)
    await mount.write_file("work/a.txt", b"new")
    await trio.sleep(TTL_PASSED_S)
    service.add_fault("retrieve_file", "status", status=500)

    assert await mount.names("work") == ["a.txt"]


async def test_what_a_file_being_written_replaces_stays_hidden_until_it_is_deleted(
    mount: InProcessMount,
    service: InProcessService,
    work: str,
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Promise 17: however long the writer takes."""
    service.upload(work, "b", b"old")
    handle = await mount.create("work/b.part")
    await mount.fs.write(handle, 0, b"half")
    await mount.rename("work/b.part", "work/b")

    await trio.sleep(HIDING_PASSED_S)

    assert await mount.names("work") == ["b"]
    await mount.close(handle)
    assert await mount.names("work") == ["b"]
    assert stored(service, "work") == {"b": b"half"}


async def test_what_was_replaced_and_could_not_be_deleted_stays_hidden(
    mount: InProcessMount,
    service: InProcessService,
    work: str,
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Promise 14: its deletion is still to be made."""
    service.upload(work, "a.txt", b"old")
    await mount.names("work")
    service.add_fault("delete_file", "status", status=500)
    await mount.write_file("work/a.txt", b"new")
    service.clear_faults()

    await trio.sleep(HIDING_PASSED_S)

    assert await mount.walk("work") == {"work/a.txt": b"new"}


async def test_unlink_by_the_full_stored_name_tells_the_kernel_of_the_shown_one(
    mount: InProcessMount, service: InProcessService, work: str
) -> None:
    """Promise 3: the kernel may hold the file under both names."""
    service.upload(work, "a.txt", b"bytes")
    full_name = str(service.files(work)[0]["path"]).rpartition("/")[2]
    await mount.stat("work/a.txt")
    told_before = len(mount.changes)

    await mount.unlink(f"work/{full_name}")

    assert b"a.txt" in {change.name for change in mount.changes[told_before:]}
    assert not await mount.exists("work/a.txt")
    assert stored(service, "work") == {}


async def test_a_rename_to_a_backup_name_that_this_disk_refuses_changes_nothing(
    mount: InProcessMount, service: InProcessService, work: str, state: Path
) -> None:
    """Promise 22: there is no copy to rely on, so the service keeps its own."""
    service.upload(work, "a.txt", b"bytes")
    service.plant(work, "/mnt/data/b~", b"in the way")
    inode = (await mount.stat("work/a.txt")).inode

    with database_held(state), pytest.raises(LocalDiskError):
        await mount.rename("work/a.txt", "work/b~")

    assert mount.parts.store.get(inode) is None
    assert await mount.walk("work") == {"work/a.txt": b"bytes", "work/b~": b"in the way"}
    assert stored(service, "work") == {"a.txt": b"bytes", "b~": b"in the way"}


async def test_a_backup_that_replaces_what_cannot_be_deleted_hides_it(
    mount: InProcessMount, service: InProcessService, work: str
) -> None:
    """Promise 14: both deletions are still to be made."""
    ids = {service.upload(work, "a.txt", b"bytes"), service.plant(work, "/mnt/data/b~", b"old")}
    await mount.names("work")
    service.add_fault("delete_file", "status", status=403)

    await mount.rename("work/a.txt", "work/b~")

    assert {version.file_id for version in mount.parts.journal.deletes()} == ids
    await mount.refresh("work")
    assert await mount.walk("work") == {"work/b~": b"bytes"}


async def test_an_unsent_file_renamed_to_a_backup_name_is_nothing_to_send_any_more(
    mount: InProcessMount, service: InProcessService, work: str, state: Path
) -> None:
    """Promises 14 and 22."""
    service.upload(work, "a.txt", b"old")
    await save_unsent(mount, service, "work/a.txt")

    await mount.rename("work/a.txt", "work/a.txt~")

    assert mount.parts.journal.rows() == []
    assert mount.fs.unsent_count() == 0
    assert await mount.walk("work") == {"work/a.txt~": b"unsent"}
    await mount.unlink("work/a.txt~")
    assert await mount.names("work") == []


# -- reading a directory in pieces ---------------------------------------------------------


async def test_readdir_goes_on_with_present_attributes_and_without_dead_names(
    mount: InProcessMount, service: InProcessService, work: str
) -> None:
    """The kernel believes the attributes that come with names: they must not be old ones."""
    for name in "abc":
        service.plant(work, f"/mnt/data/{name}", b"1")
    handle = await mount.fs.opendir((await mount.stat("work")).inode)
    dot, dotdot = list(mount.fs.readdir(handle, 0))[:2]
    assert (dot.name, dotdot.name) == (b".", b"..")

    await mount.write_file("work/a", b"longer")
    await mount.unlink("work/b")

    rest = list(mount.fs.readdir(handle, dotdot.next_cookie))
    assert [(entry.name, entry.attributes.size_bytes) for entry in rest] == [(b"a", 6), (b"c", 1)]
    mount.fs.releasedir(handle)


async def test_readdir_goes_on_with_the_names_whose_files_were_replaced(
    mount: InProcessMount, service: InProcessService, work: str
) -> None:
    """A name that was there all the time must be shown, whoever has it now."""
    replaced = service.plant(work, "/mnt/data/a", b"1")
    service.plant(work, "/mnt/data/b", b"1")
    handle = await mount.fs.opendir((await mount.stat("work")).inode)
    _, dotdot = list(mount.fs.readdir(handle, 0))[:2]

    service.delete_file(work, replaced)
    service.plant(work, "/mnt/data/a", b"22")
    await mount.refresh("work")
    await mount.write_file("work/.b~", b"333")
    await mount.rename("work/.b~", "work/b")

    rest = list(mount.fs.readdir(handle, dotdot.next_cookie))
    assert [(entry.name, entry.attributes.size_bytes) for entry in rest] == [(b"a", 2), (b"b", 3)]
    mount.fs.releasedir(handle)


async def test_a_file_gone_from_under_its_writer_leaves_the_name_to_one_made_here_since(
    mount: InProcessMount, service: InProcessService, work: str
) -> None:
    """Promise 10: both keep their bytes."""
    file_id = service.upload(work, "log", b"old\n")
    handle = await mount.open("work/log", WRITE)
    await mount.read_all(handle)
    service.delete_file(work, file_id)
    await mount.refresh("work")
    await mount.write_file("work/log", b"new")

    await mount.fs.write(handle, 4, b"more\n")
    await mount.close(handle)

    assert await mount.read_file("work/log") == b"new"
    (other,) = [name for name in await mount.names("work") if name != "log"]
    assert await mount.read_file(f"work/{other}") == b"old\nmore\n"


async def test_a_local_file_written_after_its_last_close_has_its_whole_length_after_a_remount(
    service: InProcessService, state: Path, work: str
) -> None:
    """Promise 22."""
    async with mounted(service, state) as mount:
        handle = await mount.create("work/f~")
        await mount.fs.write(handle, 0, b"one")
        await mount.fs.flush(handle)
        await mount.fs.write(handle, 3, b"two")
    async with mounted(service, state) as mount:
        assert (await mount.stat("work/f~")).size_bytes == 6
        assert await mount.read_file("work/f~") == b"onetwo"


async def test_the_copy_of_a_removed_file_is_not_kept(mount: InProcessMount, work: str) -> None:
    await mount.write_file("work/a.txt", b"x" * 5000)
    assert await mount.read_file("work/a.txt") == b"x" * 5000

    await mount.unlink("work/a.txt")

    assert mount.parts.store.bytes_used == 0


async def test_the_times_of_bytes_that_were_not_sent_come_back_with_them(
    service: InProcessService, state: Path, work: str
) -> None:
    """Promise 19: with the old bytes, rsync would take them for the new."""
    service.upload(work, "a.txt", b"old!")
    async with mounted(service, state) as mount:
        service.add_fault("create_file", "status", status=400)
        handle = await mount.open("work/a.txt", WRITE)
        await mount.fs.write(handle, 0, b"new!")
        await mount.set("work/a.txt", AttributeChanges(mtime_ns=1))
        with pytest.raises(RemoteInvalidError):
            await mount.close(handle)
    async with mounted(service, state) as mount:
        assert (await mount.stat("work/a.txt")).mtime_ns == 1
        assert await mount.read_file("work/a.txt") == b"new!"


async def test_a_listing_that_takes_longer_than_it_lasts_serves_more_than_one_look(
    mount: InProcessMount,
    service: InProcessService,
    work: str,
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Promise 8: a large container on a slow service."""
    service.plant(work, "/mnt/data/a.txt", b"x")
    service.transport.round_trip_s = 15.0
    await mount.refresh("work")
    service.reset_counters()

    assert await mount.names("work") == ["a.txt"]

    assert service.counters().get("list_files", 0) == 0
