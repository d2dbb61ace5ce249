"""What can meet a replay, and what can fail around the journal: docs/durability.md, promise 14."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest
import trio
import trio.testing
from tests.support.in_process import WRITE, InProcessMount, mounted
from tests.support.service import InProcessService, until_asked_for
from tests.support.trees import stored
from tests.unit.fs.test_replay import Crasher, CrashError, settled, spooled

from ctrfs import failpoints
from ctrfs.config import TreeConfig
from ctrfs.errors import NoSuchEntryError, RemoteError, RemoteRefusedError
from ctrfs.fs.attributes import AttributeChanges

TTL_PASSED_S = TreeConfig().ttl_s + 1


@pytest.fixture
def crasher(service: InProcessService, state: Path) -> Crasher:
    return Crasher(service, state)


@contextmanager
def database_held(state: Path) -> Iterator[None]:
    """Let nothing be recorded in the state directory inside the block."""
    (path,) = state.rglob("state.db")
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield


async def save_unsent(
    mount: InProcessMount, service: InProcessService, path: str, content: bytes = b"unsent"
) -> None:
    """Leave bytes in a file, which the service did not take."""
    service.add_fault("create_file", "status", status=403)
    with pytest.raises(RemoteRefusedError):
        await mount.write_file(path, content)
    service.clear_faults()


def descriptors() -> int:
    """Return how many descriptors this process has."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


# -- bytes changed again, and a crash before they are closed -------------------------------


async def test_restored_bytes_that_were_changed_before_a_crash_come_back_as_they_were_closed(
    service: InProcessService,
    state: Path,
    work: str,
    crasher: Crasher,
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with mounted(service, state) as mount:
        await save_unsent(mount, service, "work/a.txt", b"first")

    async def change(mount: InProcessMount) -> None:
        handle = await mount.open("work/a.txt", WRITE)
        await mount.fs.write(handle, 0, b"SECOND")
        failpoints.reached("folder.settled")

    service.add_fault("create_file", "status", status=403)
    await crasher.run("folder.settled", change)

    async with mounted(service, state) as mount:
        await settled(mount)
        assert await mount.walk("work") == {"work/a.txt": b"first"}


async def test_bytes_changed_behind_an_upload_that_failed_come_back_as_they_were_closed(
    tmp_path: Path, state: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async def change(mount: InProcessMount) -> None:
        service.add_fault("create_file", "status", status=403)
        handle = await mount.create("work/a.txt")
        await mount.fs.write(handle, 0, b"first")

        async def flush() -> None:
            with suppress(RemoteRefusedError):
                await mount.fs.flush(handle)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(flush)
            await trio.sleep(0.5)
            await mount.fs.write(handle, 0, b"SECOND")  # waits for the upload
        failpoints.reached("folder.settled")

    with InProcessService(tmp_path / "slow service", round_trip_s=1) as service:
        service.create_container("work")
        await Crasher(service, state).run("folder.settled", change)

        async with mounted(service, state) as mount:
            await settled(mount)
            assert await mount.walk("work") == {"work/a.txt": b"first"}


async def test_a_truncation_that_was_never_closed_takes_the_place_of_nothing(
    service: InProcessService,
    state: Path,
    work: str,
    crasher: Crasher,
    autojump_clock: trio.testing.MockClock,
) -> None:
    service.upload(work, "a.txt", b"acknowledged")

    async def truncate(mount: InProcessMount) -> None:
        await save_unsent(mount, service, "work/a.txt", b"failed")
        handle = await mount.open("work/a.txt", WRITE)
        await mount.fs.setattr(
            (await mount.stat("work/a.txt")).inode, AttributeChanges(size_bytes=0), handle
        )
        failpoints.reached("folder.settled")

    await crasher.run("folder.settled", truncate)

    async with mounted(service, state) as mount:
        await settled(mount)
        await trio.sleep(TTL_PASSED_S)
        assert await mount.walk("work") == {"work/a.txt": b"failed"}


async def test_unsent_bytes_that_an_open_file_is_renamed_over_outlive_a_crash_before_its_close(
    service: InProcessService,
    state: Path,
    work: str,
    crasher: Crasher,
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def rename_over(mount: InProcessMount) -> None:
        await save_unsent(mount, service, "work/b.txt")
        handle = await mount.create("work/new.txt")
        await mount.fs.write(handle, 0, b"new")
        await mount.rename("work/new.txt", "work/b.txt")
        failpoints.reached("folder.settled")

    await crasher.run("folder.settled", rename_over)

    async with mounted(service, state) as mount:
        assert await mount.walk("work") == {"work/b.txt": b"unsent"}


# -- taking over ---------------------------------------------------------------------------


@pytest.mark.parametrize("point", ["takeover.linked", "takeover.recorded", "takeover.released"])
async def test_what_another_slot_has_left_is_there_once_wherever_taking_over_is_interrupted(
    service: InProcessService,
    state: Path,
    work: str,
    point: str,
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with mounted(service, state), mounted(service, state) as second:
        await second.write_file("work/.x.swp", b"local")
        await save_unsent(second, service, "work/a.txt")
    service.add_fault("create_file", "status", status=403)

    def listener(name: str, _detail: str) -> None:
        if name == point:
            raise CrashError(name)

    failpoints.install(listener)
    try:
        with pytest.raises(BaseExceptionGroup):
            async with mounted(service, state):
                pass
    finally:
        failpoints.install(None)
    service.clear_faults()

    async with mounted(service, state) as mount:
        await settled(mount)
        assert await mount.walk("work") == {"work/.x.swp": b"local", "work/a.txt": b"unsent"}
        await mount.unlink("work/.x.swp")
    assert stored(service, "work") == {"a.txt": b"unsent"}
    async with mounted(service, state), mounted(service, state):
        pass  # whatever was left in a slot is swept by whoever gets it
    assert spooled(state) == []


# -- the disk fails when a record is to go -------------------------------------------------


async def test_a_record_that_could_not_be_taken_away_does_not_bring_old_bytes_back(
    service: InProcessService, state: Path, work: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with mounted(service, state) as mount:
        await save_unsent(mount, service, "work/a.txt", b"old")
        handle = await mount.open("work/a.txt", WRITE)
        with database_held(state):
            await mount.close(handle)
        assert stored(service, "work") == {"a.txt": b"old"}
        await mount.write_file("work/a.txt", b"newer")
        assert len(mount.parts.journal) == 0
        assert stored(service, "work") == {"a.txt": b"newer"}


async def test_a_record_that_could_not_be_taken_away_goes_later(
    service: InProcessService, state: Path, work: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with mounted(service, state) as mount:
        await save_unsent(mount, service, "work/a.txt", b"old")
        handle = await mount.open("work/a.txt", WRITE)
        with database_held(state):
            await mount.close(handle)
        await settled(mount)


# -- requests that are given up ------------------------------------------------------------


async def test_the_deletion_of_a_close_that_is_given_up_is_made_behind_the_users_back(
    service: InProcessService, state: Path, work: str, autojump_clock: trio.testing.MockClock
) -> None:
    service.upload(work, "a.txt", b"old")
    async with mounted(service, state) as mount:
        assert await mount.names("work") == ["a.txt"]
        service.add_fault("delete_file", "delay", seconds=5, count=1)
        with trio.move_on_after(2) as scope:
            await mount.write_file("work/a.txt", b"new")
        assert scope.cancelled_caught
        await trio.sleep(20)
        assert mount.parts.journal.deletes() == []
    assert stored(service, "work") == {"a.txt": b"new"}


async def test_the_copies_of_a_folder_whose_renaming_is_given_up_go_behind_the_users_back(
    service: InProcessService, state: Path, work: str, autojump_clock: trio.testing.MockClock
) -> None:
    for number in range(20):
        service.upload(work, f"d/{number}", b"%d" % number)
    async with mounted(service, state) as mount:
        assert await mount.names("work") == ["d"]
        service.add_fault("create_file", "delay", seconds=1)
        with trio.move_on_after(1.5) as scope:
            await mount.rename("work/d", "work/e")
        assert scope.cancelled_caught
        service.clear_faults()
        await trio.sleep(60)
        assert mount.parts.journal.deletes() == []
        assert len(stored(service, "work")) - 20 <= 8  # those whose outcome nobody knows


async def test_a_container_whose_removal_is_given_up_is_removed_behind_the_users_back(
    service: InProcessService, state: Path, work: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with mounted(service, state) as mount:
        service.add_fault("delete_container", "delay", seconds=5, count=1)
        with trio.move_on_after(2) as scope:
            await mount.rmdir("work")
        assert scope.cancelled_caught
        await trio.sleep(20)
        assert mount.parts.journal.rmdirs() == []
        assert service.containers() == []


# -- users who work on while a replay goes on ----------------------------------------------


async def test_what_a_user_writes_into_a_folder_that_is_still_being_renamed_is_kept(
    service: InProcessService,
    state: Path,
    work: str,
    crasher: Crasher,
    autojump_clock: trio.testing.MockClock,
) -> None:
    service.upload(work, "d/a.txt", b"a")
    service.upload(work, "d/b.txt", b"b")
    await crasher.run("folder.copied", lambda mount: mount.rename("work/d", "work/f"))

    # The replay's first look at the container takes a while: the user is faster.
    service.add_fault("list_files", "delay", seconds=1)
    async with mounted(service, state) as mount:
        handles = {name: await mount.open(f"work/d/{name}", WRITE) for name in ("a.txt", "b.txt")}
        for handle in handles.values():
            await mount.fs.write(handle, 0, b"the user's")
        await trio.sleep(60)
        for handle in handles.values():
            await mount.close(handle)
        await settled(mount)
        shown = await mount.walk("work")
    assert list(shown.values()).count(b"the user's") == 2


async def test_a_folder_is_renamed_to_its_place_though_listings_come_meanwhile(
    tmp_path: Path, state: Path, autojump_clock: trio.testing.MockClock
) -> None:
    with InProcessService(tmp_path / "slow service", round_trip_s=1) as service:
        work = service.create_container("work")
        service.upload(work, "d/e/a.txt", b"a")
        service.upload(work, "d/e/b.txt", b"b")
        crasher = Crasher(service, state)
        await crasher.run("folder.intended", lambda mount: mount.rename("work/d", "work/f"))

        async with mounted(service, state) as mount, trio.open_nursery() as nursery:

            @nursery.start_soon
            async def refresh() -> None:
                while True:
                    await mount.refresh("work")
                    await trio.sleep(0.3)

            await settled(mount)
            nursery.cancel_scope.cancel()
            expected = {
                "work/f": None,
                "work/f/e": None,
                "work/f/e/a.txt": b"a",
                "work/f/e/b.txt": b"b",
            }
            await mount.refresh("work")
            assert await mount.walk("work") == expected
        assert stored(service, "work") == {"f/e/a.txt": b"a", "f/e/b.txt": b"b"}


async def test_a_container_is_not_removed_under_the_hands_of_somebody_who_works_in_it(
    service: InProcessService,
    state: Path,
    work: str,
    crasher: Crasher,
    autojump_clock: trio.testing.MockClock,
) -> None:
    await crasher.run("rmdir.intended", lambda mount: mount.rmdir("work"))

    service.add_fault("list_files", "delay", seconds=1)
    async with mounted(service, state) as mount:
        handle = await mount.create("work/a.txt")
        await mount.fs.write(handle, 0, b"a")
        await trio.sleep(60)
        await mount.close(handle)
        await settled(mount)
    service.clear_faults()
    assert stored(service, "work") == {"a.txt": b"a"}


async def test_a_container_that_is_removed_late_is_shown_no_more(
    service: InProcessService,
    state: Path,
    work: str,
    crasher: Crasher,
    autojump_clock: trio.testing.MockClock,
) -> None:
    service.set_behaviour(delete_lag_s=100)
    await crasher.run("rmdir.intended", lambda mount: mount.rmdir("work"))

    async with mounted(service, state) as mount:
        await settled(mount)
        assert await mount.names() == []


# -- uploads of an earlier mount -----------------------------------------------------------


async def test_an_upload_right_before_the_crash_is_found_although_its_bytes_are_old(
    service: InProcessService,
    state: Path,
    work: str,
    crasher: Crasher,
    autojump_clock: trio.testing.MockClock,
) -> None:
    service.set_behaviour(list_lag_s=3)

    async def save(mount: InProcessMount) -> None:
        handle = await mount.create("work/a.txt")
        await mount.fs.write(handle, 0, b"new")
        await trio.sleep(100)
        await mount.close(handle)

    await crasher.run("save.stored", save)

    async with mounted(service, state) as mount:
        await settled(mount)
        await trio.sleep(60)
    assert stored(service, "work") == {"a.txt": b"new"}


async def test_an_upload_of_an_earlier_mount_goes_with_a_file_that_leaves_the_service(
    service: InProcessService,
    state: Path,
    work: str,
    crasher: Crasher,
    autojump_clock: trio.testing.MockClock,
) -> None:
    await crasher.run("save.stored", lambda mount: mount.write_file("work/a.txt", b"new"))

    service.add_fault("list_files", "status", status=403, count=1)
    async with mounted(service, state) as mount:
        await trio.sleep(1)  # the first attempt fails
        await mount.rename("work/a.txt", "work/a.txt~")
        await settled(mount)
        await trio.sleep(60)
        assert await mount.walk("work") == {"work/a.txt~": b"new"}
    assert stored(service, "work") == {}


async def test_an_upload_of_an_earlier_mount_goes_with_a_file_that_is_overwritten(
    service: InProcessService,
    state: Path,
    work: str,
    crasher: Crasher,
    autojump_clock: trio.testing.MockClock,
) -> None:
    await crasher.run("save.stored", lambda mount: mount.write_file("work/a.txt", b"new"))

    service.add_fault("list_files", "status", status=403, count=1)
    async with mounted(service, state) as mount:
        await trio.sleep(1)  # the first attempt fails
        handle = await mount.create("work/b.txt")
        await mount.fs.write(handle, 0, b"other")
        await mount.rename("work/b.txt", "work/a.txt")
        await mount.close(handle)
        await settled(mount)
        await trio.sleep(60)
        assert await mount.walk("work") == {"work/a.txt": b"other"}
    assert stored(service, "work") == {"a.txt": b"other"}


# -- from one container to another ---------------------------------------------------------


async def test_a_renaming_into_another_container_is_finished_where_ids_are_made_of_paths(
    service: InProcessService,
    state: Path,
    work: str,
    crasher: Crasher,
    autojump_clock: trio.testing.MockClock,
) -> None:
    service.set_behaviour(hash_prefix=False, ids="path")
    service.create_container("other")
    service.upload(work, "a.txt", b"a")
    await crasher.run("rename.intended", lambda mount: mount.rename("work/a.txt", "other/a.txt"))

    async with mounted(service, state) as mount:
        await settled(mount)
        assert await mount.walk() == {"other": None, "other/a.txt": b"a", "work": None}
    assert stored(service, "work") == {}


async def test_what_was_moved_away_and_is_born_again_is_not_deleted(
    service: InProcessService,
    state: Path,
    work: str,
    crasher: Crasher,
    autojump_clock: trio.testing.MockClock,
) -> None:
    service.set_behaviour(hash_prefix=False, ids="path")
    service.create_container("other")
    service.upload(work, "a.txt", b"a")
    await crasher.run("rename.intended", lambda mount: mount.rename("work/a.txt", "other/b.txt"))
    service.advance(5)
    service.upload(work, "a.txt", b"born again")

    async with mounted(service, state) as mount:
        await settled(mount)
        assert await mount.walk("work") == {"work/a.txt": b"born again"}
        assert await mount.walk("other") == {"other/b.txt": b"a"}


async def test_discarding_what_was_on_its_way_to_another_container_shows_it_where_it_was(
    service: InProcessService,
    state: Path,
    work: str,
    crasher: Crasher,
    autojump_clock: trio.testing.MockClock,
) -> None:
    service.create_container("other")
    service.upload(work, "a.txt", b"a")
    await crasher.run("rename.intended", lambda mount: mount.rename("work/a.txt", "other/a.txt"))

    service.add_fault("create_file", "status", status=403)
    async with mounted(service, state) as mount:
        await mount.names("work")
        (row,) = mount.parts.journal.rows()
        await mount.fs.setxattr(
            mount.parts.tree.root.inode, b"user.ctrfs.discard", row.key.encode()
        )
        await trio.sleep(TTL_PASSED_S)
        assert await mount.walk() == {"other": None, "work": None, "work/a.txt": b"a"}


# -- many ----------------------------------------------------------------------------------


async def test_files_that_are_back_hold_no_descriptors(
    service: InProcessService, state: Path, work: str, autojump_clock: trio.testing.MockClock
) -> None:
    service.add_fault("create_file", "status", status=403)
    async with mounted(service, state) as mount:
        for number in range(50):
            with pytest.raises(RemoteRefusedError):
                await mount.write_file(f"work/{number}", b"unsent")
            await mount.write_file(f"work/.{number}.swp", b"local")
        before = descriptors()

    async with mounted(service, state) as mount:
        assert len(await mount.names("work")) == 100
        await trio.sleep(100)
        assert descriptors() <= before + 2


async def test_what_is_to_be_deleted_in_a_silent_container_waits_for_one_listing(
    service: InProcessService, state: Path, work: str, autojump_clock: trio.testing.MockClock
) -> None:
    for number in range(20):
        service.upload(work, f"{number}.txt", b"%d" % number)
    async with mounted(service, state) as mount:
        service.add_fault("delete_file", "status", status=403)
        for number in range(20):
            await mount.write_file(f"work/{number}.txt", b"new %d" % number)
        assert len(mount.parts.journal.deletes()) == 20
        service.add_fault("list_files", "status", status=403)
        await trio.sleep(TTL_PASSED_S)
        service.reset_counters()
        await mount.fs.drain()
        assert service.counters().get("list_files", 0) <= 2


# -- containers that come back -------------------------------------------------------------


async def test_unsent_bytes_are_tried_again_once_their_container_is_back(
    service: InProcessService, state: Path, work: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with mounted(service, state) as mount:
        await save_unsent(mount, service, "work/a.txt")
        service.add_fault("*", "status", status=404)
        await trio.sleep(10)  # an attempt finds no container
        service.clear_faults()
        for _look in range(60):
            await mount.names()
            await trio.sleep(11)
        assert len(mount.parts.journal) == 0
    assert stored(service, "work") == {"a.txt": b"unsent"}


async def test_unsent_bytes_are_tried_again_once_their_container_is_listed_again(
    service: InProcessService, state: Path, work: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with mounted(service, state) as mount:
        await save_unsent(mount, service, "work/a.txt")
        service.add_fault("*", "status", status=404)
        for path in ("work", ""):  # the listing of the account cannot be had, either
            with suppress(RemoteError, NoSuchEntryError):
                await mount.refresh(path)
        await trio.sleep(10)
        service.clear_faults()
        for _look in range(60):
            await mount.names()
            await trio.sleep(11)
        assert len(mount.parts.journal) == 0
    assert stored(service, "work") == {"a.txt": b"unsent"}


@pytest.mark.parametrize("end", ["deleted", "expired"])
async def test_unsent_bytes_of_a_container_that_has_gone_are_not_tried_again_and_again(
    service: InProcessService,
    state: Path,
    work: str,
    autojump_clock: trio.testing.MockClock,
    end: str,
) -> None:
    async with mounted(service, state) as mount:
        await save_unsent(mount, service, "work/a.txt")
        if end == "deleted":
            service.delete_container(work)
        else:
            service.advance(3600)
        service.reset_counters()
        await trio.sleep(10_000)
        assert service.counters().get("create_file", 0) <= 2
        assert len(mount.parts.journal) == 1


async def test_unsent_and_local_files_go_with_a_folder_whose_renaming_is_finished_later(
    service: InProcessService,
    state: Path,
    work: str,
    crasher: Crasher,
    autojump_clock: trio.testing.MockClock,
) -> None:
    service.upload(work, "d/a.txt", b"a")

    async def rename(mount: InProcessMount) -> None:
        await save_unsent(mount, service, "work/d/unsent.txt")
        await mount.write_file("work/d/.x.swp", b"local")
        await mount.rename("work/d", "work/f")

    await crasher.run("folder.intended", rename)

    async with mounted(service, state) as mount:
        await settled(mount)
        assert await mount.walk("work") == {
            "work/f": None,
            "work/f/.x.swp": b"local",
            "work/f/a.txt": b"a",
            "work/f/unsent.txt": b"unsent",
        }
    assert stored(service, "work") == {"f/a.txt": b"a", "f/unsent.txt": b"unsent"}


async def test_what_a_user_saves_in_the_old_folder_after_the_crash_stays_there(
    service: InProcessService,
    state: Path,
    work: str,
    crasher: Crasher,
    autojump_clock: trio.testing.MockClock,
) -> None:
    service.upload(work, "d/a.txt", b"a")

    async def rename(mount: InProcessMount) -> None:
        await save_unsent(mount, service, "work/d/unsent.txt")
        await mount.rename("work/d", "work/f")

    await crasher.run("folder.intended", rename)
    service.add_fault("create_file", "status", status=403)
    async with mounted(service, state) as mount:
        await mount.names("work")
        with pytest.raises(RemoteRefusedError):
            await mount.write_file("work/d/unsent.txt", b"another")
    service.clear_faults()

    async with mounted(service, state) as mount:
        await settled(mount)
        assert await mount.walk("work") == {
            "work/d": None,
            "work/d/unsent.txt": b"another",
            "work/f": None,
            "work/f/a.txt": b"a",
            "work/f/unsent.txt": b"unsent",
        }


async def test_a_file_that_a_user_renames_while_its_folder_is_being_moved_stays_there(
    service: InProcessService,
    state: Path,
    work: str,
    crasher: Crasher,
    autojump_clock: trio.testing.MockClock,
) -> None:
    service.upload(work, "d/a", b"a")
    service.upload(work, "d/b", b"b")
    await crasher.run("folder.intended", lambda mount: mount.rename("work/d", "work/f"))
    service.transport.round_trip_s = 1.0

    async with mounted(service, state) as mount:
        await until_asked_for(service, "create_file")  # of the file that comes first
        await mount.rename("work/d/a", "work/kept")
        await settled(mount)
        assert stored(service, "work") == {"kept": b"a", "f/b": b"b"}
