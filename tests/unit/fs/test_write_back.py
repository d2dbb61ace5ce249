"""write=back: docs/semantics.md, promise 13. In virtual time, so that delays cost nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio
import trio.testing
from tests.support.in_process import TRUNCATE, WRITE, InProcessMount, Settings, mounted
from tests.support.service import InProcessService
from tests.support.trees import stored
from tests.unit.fs.test_replay import Crasher
from tests.unit.fs.test_replay_review import database_held

from ctrfs import failpoints
from ctrfs.config import ContentConfig, FileSystemConfig, TreeConfig, WriteMode
from ctrfs.errors import (
    DirectoryNotEmptyError,
    RemoteQuotaError,
    RemoteRefusedError,
    RemoteUnavailableError,
)

# Nothing is listed anew while a test counts requests.
QUIET = TreeConfig(ttl_s=10_000, max_stale_s=10_000)
BACK = Settings(files=FileSystemConfig(write_mode=WriteMode.BACK), tree=QUIET)
DELAY_S = BACK.files.write_delay_s

Clock = trio.testing.MockClock


@pytest.fixture
async def back(
    service: InProcessService, state: Path, work: str, autojump_clock: Clock
) -> AsyncIterator[InProcessMount]:
    async with mounted(service, state, BACK) as mount:
        await mount.names("work")
        service.reset_counters()
        yield mount


def requests(service: InProcessService) -> dict[str, int]:
    return {name: count for name, count in service.counters().items() if count}


async def sync(mount: InProcessMount, path: str) -> None:
    """Do what ``sync DIR`` does."""
    handle = await mount.fs.opendir((await mount.stat(path)).inode)
    try:
        await mount.fs.fsyncdir(handle)
    finally:
        mount.fs.releasedir(handle)


async def all_sent() -> None:
    await trio.sleep(30)


@contextmanager
def a_service_that_refuses(service: InProcessService, route: str, status: int) -> Iterator[None]:
    service.add_fault(route, "status", status=status)
    yield
    service.clear_faults()


# -- when something is sent ----------------------------------------------------------------


async def test_promise_13_a_close_sends_nothing_and_the_bytes_arrive_a_moment_later(
    back: InProcessMount, service: InProcessService, autojump_clock: Clock
) -> None:
    """Promise 13."""
    await back.write_file("work/a", b"bytes")
    assert requests(service) == {}
    assert await back.read_file("work/a") == b"bytes"

    await all_sent()
    assert stored(service, "work") == {"a": b"bytes"}
    assert requests(service)["create_file"] == 1
    assert await back.attribute("work/a", "state") == "clean"
    assert back.fs.unsent_count() == 0


async def test_a_file_saved_five_times_in_a_second_is_sent_once(
    back: InProcessMount, service: InProcessService, autojump_clock: Clock
) -> None:
    for number in range(5):
        await back.write_file("work/a", b"%d" % number)
        await trio.sleep(0.2)
    await all_sent()
    assert requests(service) == {"create_file": 1}
    assert stored(service, "work") == {"a": b"4"}


async def test_a_file_that_is_saved_all_the_time_is_sent_all_the_same(
    back: InProcessMount, service: InProcessService, autojump_clock: Clock
) -> None:
    for number in range(100):
        await back.write_file("work/a", b"%d" % number)
        await trio.sleep(DELAY_S / 2)
    assert 3 <= requests(service)["create_file"] <= 6


async def test_a_file_deleted_before_it_was_sent_is_never_sent(
    back: InProcessMount, service: InProcessService, autojump_clock: Clock
) -> None:
    await back.write_file("work/a", b"bytes")
    await back.unlink("work/a")
    await all_sent()
    assert requests(service) == {}
    assert await back.names("work") == []


async def test_many_files_are_sent_at_once(
    tmp_path: Path, state: Path, autojump_clock: Clock
) -> None:
    with InProcessService(tmp_path / "slow", round_trip_s=1) as service:
        service.create_container("work")
        async with mounted(service, state, BACK) as mount:
            await mount.names("work")
            for number in range(48):
                await mount.write_file(f"work/{number}", b"%d" % number)
            began_s = trio.current_time()
            await sync(mount, "work")
            assert trio.current_time() - began_s <= 5
        assert len(stored(service, "work")) == 48


async def test_what_is_half_written_waits_for_its_close(
    back: InProcessMount, service: InProcessService, autojump_clock: Clock
) -> None:
    await back.write_file("work/a", b"whole")
    handle = await back.open("work/a", TRUNCATE)
    await back.fs.write(handle, 0, b"ha")
    await trio.sleep(100)
    assert requests(service) == {}
    await back.fs.write(handle, 2, b"lf")
    await back.close(handle)
    await all_sent()
    assert requests(service) == {"create_file": 1}
    assert stored(service, "work") == {"a": b"half"}


async def test_what_was_closed_is_sent_though_another_program_has_the_file_open(
    back: InProcessMount, service: InProcessService, autojump_clock: Clock
) -> None:
    await back.write_file("work/a", b"whole")
    handle = await back.open("work/a", WRITE)
    await all_sent()
    assert stored(service, "work") == {"a": b"whole"}
    await back.close(handle)


async def test_bytes_that_are_on_the_service_already_are_not_sent_again(
    back: InProcessMount, service: InProcessService, autojump_clock: Clock
) -> None:
    await back.write_file("work/a", b"bytes")
    await all_sent()
    service.reset_counters()
    await back.write_file("work/a", b"bytes")
    await all_sent()
    assert requests(service) == {}
    assert await back.attribute("work/a", "state") == "clean"


# -- fsync ---------------------------------------------------------------------------------


async def test_promise_13_fsync_of_a_file_waits_for_the_service(
    back: InProcessMount, service: InProcessService, autojump_clock: Clock
) -> None:
    """Promise 13."""
    handle = await back.create("work/a")
    await back.fs.write(handle, 0, b"bytes")
    await back.fs.fsync(handle)
    assert stored(service, "work") == {"a": b"bytes"}
    await back.close(handle)
    await all_sent()
    assert requests(service)["create_file"] == 1


async def test_promise_13_fsync_of_a_file_tells_why_the_service_did_not_take_it(
    back: InProcessMount, service: InProcessService, autojump_clock: Clock
) -> None:
    """Promise 13."""
    with a_service_that_refuses(service, "create_file", 403):
        await back.write_file("work/a", b"bytes")
        handle = await back.open("work/a", WRITE)
        with pytest.raises(RemoteRefusedError):
            await back.fs.fsync(handle)
        await back.close(handle)
    assert await back.read_file("work/a") == b"bytes"
    assert back.fs.unsent_count() == 1


async def test_promise_13_fsync_of_a_directory_waits_for_everything_below_and_nothing_else(
    back: InProcessMount, service: InProcessService, autojump_clock: Clock
) -> None:
    """Promise 13."""
    await back.write_file("work/gone", b"gone")
    await back.mkdir("other")
    await back.mkdir("work/folder")
    await sync(back, "work")
    service.reset_counters()

    await back.write_file("work/folder/a", b"a")
    await back.write_file("work/b", b"b")
    await back.unlink("work/gone")
    await back.write_file("other/c", b"c")
    await sync(back, "work")
    assert stored(service, "work") == {"folder/a": b"a", "b": b"b"}
    assert stored(service, "other") == {}
    await sync(back, "")
    assert stored(service, "other") == {"c": b"c"}


async def test_fsync_of_a_directory_sends_the_rest_and_tells_what_failed(
    back: InProcessMount, service: InProcessService, autojump_clock: Clock
) -> None:
    for name in ("a", "b", "c"):
        await back.write_file(f"work/{name}", name.encode())
    service.add_fault("create_file", "status", status=403, count=1)
    with pytest.raises(RemoteRefusedError):
        await sync(back, "work")
    assert len(stored(service, "work")) == 2


async def test_fsync_of_a_directory_tells_that_something_could_not_be_deleted(
    back: InProcessMount, service: InProcessService, autojump_clock: Clock
) -> None:
    await back.write_file("work/a", b"a")
    await sync(back, "work")
    service.add_fault("delete_file", "status", status=500)
    await back.unlink("work/a")
    with pytest.raises(RemoteUnavailableError):
        await sync(back, "work")
    service.clear_faults()
    await sync(back, "work")
    assert stored(service, "work") == {}


# -- deletions -----------------------------------------------------------------------------


async def test_overwriting_costs_two_requests_and_the_old_bytes_go_last(
    back: InProcessMount, service: InProcessService, autojump_clock: Clock
) -> None:
    await back.write_file("work/a", b"old")
    await all_sent()
    service.reset_counters()
    await back.write_file("work/a", b"new")
    assert requests(service) == {}
    await all_sent()
    assert requests(service) == {"create_file": 1, "delete_file": 1}
    assert stored(service, "work") == {"a": b"new"}


async def test_removing_a_container_with_all_in_it_costs_one_listing_and_one_deletion(
    back: InProcessMount, service: InProcessService, autojump_clock: Clock
) -> None:
    for number in range(20):
        await back.write_file(f"work/{number}", b"%d" % number)
    await sync(back, "work")
    service.reset_counters()
    for name in await back.names("work"):
        await back.unlink(f"work/{name}")
    await back.rmdir("work")
    await all_sent()
    assert requests(service) == {"list_files": 1, "delete_container": 1}
    assert back.parts.journal.deletes() == []
    assert await back.names() == []


async def test_a_container_that_is_not_empty_after_all_loses_what_was_removed_and_no_more(
    back: InProcessMount, service: InProcessService, work: str, autojump_clock: Clock
) -> None:
    await back.write_file("work/a", b"a")
    await sync(back, "work")
    await back.unlink("work/a")
    service.plant(work, "/mnt/data/new.txt", b"by the model")
    with pytest.raises(DirectoryNotEmptyError):
        await back.rmdir("work")
    await all_sent()
    assert stored(service, "work") == {"new.txt": b"by the model"}


@pytest.mark.parametrize("_attempt", range(8))
async def test_a_sync_in_the_moment_in_which_a_deletion_begins_waits_for_its_end(
    back: InProcessMount, service: InProcessService, autojump_clock: Clock, _attempt: int
) -> None:
    """Which of the tasks that wake in that moment is the first to go on is left to chance."""
    await back.write_file("work/a", b"a")
    await sync(back, "work")
    service.add_fault("delete_file", "delay", seconds=5)
    begins_s = trio.current_time() + DELAY_S
    await back.unlink("work/a")

    await trio.sleep_until(begins_s)
    await back.fs.postponed.flush()

    assert stored(service, "work") == {}


async def test_a_deletion_that_the_service_refuses_shows_the_file_again(
    back: InProcessMount, service: InProcessService, autojump_clock: Clock
) -> None:
    await back.write_file("work/a", b"a")
    await sync(back, "work")
    with a_service_that_refuses(service, "delete_file", 403):
        await back.unlink("work/a")
        assert await back.names("work") == []
        await all_sent()
    assert await back.names("work") == ["a"]
    assert await back.read_file("work/a") == b"a"
    assert await back.attribute("work", "error")
    assert back.parts.journal.deletes() == []


async def test_a_deletion_that_fails_is_made_later(
    back: InProcessMount, service: InProcessService, autojump_clock: Clock
) -> None:
    await back.write_file("work/a", b"a")
    await sync(back, "work")
    service.add_fault("delete_file", "status", status=500)
    await back.unlink("work/a")
    await all_sent()
    assert stored(service, "work") == {"a": b"a"}
    assert await back.names("work") == []
    service.clear_faults()
    await trio.sleep(700)
    assert stored(service, "work") == {}


@pytest.mark.parametrize("pause_s", [0.0, DELAY_S, DELAY_S + 0.5, 30.0])
async def test_a_name_removed_and_made_again_survives_where_ids_are_paths(
    tmp_path: Path, state: Path, pause_s: float, autojump_clock: Clock
) -> None:
    with InProcessService(tmp_path / "slow", round_trip_s=1) as service:
        service.set_behaviour(ids="path", hash_prefix=False)
        service.create_container("work")
        async with mounted(service, state, BACK) as mount:
            await mount.write_file("work/a", b"old")
            await sync(mount, "work")
            await mount.unlink("work/a")
            await trio.sleep(pause_s)
            await mount.write_file("work/a", b"new")
            await all_sent()
            assert await mount.fs.drain() == 0
            assert stored(service, "work") == {"a": b"new"}
            assert await mount.walk("work") == {"work/a": b"new"}


# -- rename --------------------------------------------------------------------------------


async def test_an_editors_save_by_rename_costs_two_requests(
    back: InProcessMount, service: InProcessService, autojump_clock: Clock
) -> None:
    await back.write_file("work/a", b"old")
    await sync(back, "work")
    service.reset_counters()
    await back.write_file("work/a.new", b"new")
    await back.rename("work/a.new", "work/a")
    assert await back.names("work") == ["a"]
    await all_sent()
    assert requests(service) == {"create_file": 1, "delete_file": 1}
    assert stored(service, "work") == {"a": b"new"}


async def test_an_editors_save_through_a_local_only_name_costs_two_requests(
    back: InProcessMount, service: InProcessService, autojump_clock: Clock
) -> None:
    await back.write_file("work/a", b"old")
    await sync(back, "work")
    service.reset_counters()
    await back.write_file("work/.goutputstream-X1", b"new")
    await back.rename("work/.goutputstream-X1", "work/a")
    await all_sent()
    assert requests(service) == {"create_file": 1, "delete_file": 1}
    assert stored(service, "work") == {"a": b"new"}
    assert back.parts.local.all_files() == []


async def test_a_stored_file_that_is_renamed_is_stored_under_the_new_name_a_moment_later(
    back: InProcessMount, service: InProcessService, autojump_clock: Clock
) -> None:
    await back.write_file("work/a", b"bytes")
    await back.write_file("work/b", b"other")
    await sync(back, "work")
    service.reset_counters()
    await back.rename("work/a", "work/b")
    assert requests(service) == {}
    assert await back.walk("work") == {"work/b": b"bytes"}
    await all_sent()
    assert requests(service) == {"create_file": 1, "delete_file": 2}
    assert stored(service, "work") == {"b": b"bytes"}


async def test_a_file_that_is_renamed_there_and_back_costs_nothing(
    back: InProcessMount, service: InProcessService, autojump_clock: Clock
) -> None:
    await back.write_file("work/a", b"bytes")
    await sync(back, "work")
    service.reset_counters()
    await back.rename("work/a", "work/b")
    await back.rename("work/b", "work/a")
    await all_sent()
    assert requests(service) == {}
    assert stored(service, "work") == {"a": b"bytes"}
    assert await back.attribute("work/a", "state") == "clean"


async def test_a_renamed_file_can_be_removed_before_it_is_sent(
    back: InProcessMount, service: InProcessService, autojump_clock: Clock
) -> None:
    await back.write_file("work/a", b"bytes")
    await sync(back, "work")
    service.reset_counters()
    await back.rename("work/a", "work/b")
    await back.unlink("work/b")
    await all_sent()
    assert requests(service) == {"delete_file": 1}
    assert stored(service, "work") == {}


async def test_a_refresh_before_a_renamed_file_is_sent_shows_it_once(
    back: InProcessMount, service: InProcessService, autojump_clock: Clock
) -> None:
    await back.write_file("work/a", b"bytes")
    await sync(back, "work")
    await back.rename("work/a", "work/b")
    await back.refresh("work")
    assert await back.walk("work") == {"work/b": b"bytes"}
    await all_sent()
    await back.refresh("work")
    assert await back.walk("work") == {"work/b": b"bytes"}
    assert stored(service, "work") == {"b": b"bytes"}


# -- failures ------------------------------------------------------------------------------


async def test_promise_13_closes_go_on_while_the_service_is_dead(
    back: InProcessMount, service: InProcessService, autojump_clock: Clock
) -> None:
    """Promise 13."""
    service.add_fault("create_file", "status", status=500)
    for number in range(5):
        await back.write_file(f"work/{number}", b"%d" % number)
    await trio.sleep(60)
    assert back.fs.unsent_count() == 5
    service.clear_faults()
    await trio.sleep(700)
    assert stored(service, "work") == {str(number): b"%d" % number for number in range(5)}


async def test_what_only_a_person_can_mend_is_told_and_tried_again_at_the_next_close(
    back: InProcessMount, service: InProcessService, autojump_clock: Clock
) -> None:
    service.add_fault(
        "create_file",
        "status",
        status=429,
        body={"error": {"message": "no", "code": "insufficient_quota"}},
    )
    await back.write_file("work/a", b"first")
    await all_sent()
    assert await back.attribute("work/a", "state") == "failed"
    handle = await back.open("work/a", WRITE)
    with pytest.raises(RemoteQuotaError):
        await back.fs.fsync(handle)
    await back.close(handle)
    service.clear_faults()
    await back.write_file("work/a", b"second")
    await all_sent()
    assert stored(service, "work") == {"a": b"second"}
    assert await back.attribute("work/a", "state") == "clean"


async def test_a_close_waits_for_the_service_where_the_disk_takes_no_record(
    back: InProcessMount, service: InProcessService, state: Path, autojump_clock: Clock
) -> None:
    handle = await back.create("work/a")
    await back.fs.write(handle, 0, b"bytes")
    with database_held(state):
        await back.close(handle)
        assert stored(service, "work") == {"a": b"bytes"}


async def test_a_close_waits_for_the_service_once_little_room_is_left(
    service: InProcessService, state: Path, work: str, autojump_clock: Clock
) -> None:
    tight = Settings(
        files=BACK.files, content=ContentConfig(spool_bytes_max=100_000, cache_bytes_max=0)
    )
    async with mounted(service, state, tight) as mount:
        await mount.write_file("work/a", b"a" * 50_000)
        assert stored(service, "work") == {}
        await mount.write_file("work/b", b"b" * 40_000)
        assert stored(service, "work") == {"b": b"b" * 40_000}


async def test_the_end_of_a_mount_sends_everything_without_the_delay(
    back: InProcessMount, service: InProcessService, autojump_clock: Clock
) -> None:
    await back.write_file("work/old", b"old")
    await sync(back, "work")
    began_s = trio.current_time()
    await back.write_file("work/a", b"a")
    await back.unlink("work/old")
    assert await back.fs.drain() == 0
    assert trio.current_time() - began_s < DELAY_S / 2
    assert stored(service, "work") == {"a": b"a"}


async def test_the_end_of_a_mount_records_why_nothing_was_sent(
    back: InProcessMount, service: InProcessService, autojump_clock: Clock
) -> None:
    await back.write_file("work/a", b"a")
    service.add_fault("create_file", "stall")
    service.add_fault("list_files", "reset")
    with pytest.raises(RemoteUnavailableError):
        await back.refresh("work")
    with trio.move_on_after(1):
        await back.fs.drain()

    await back.fs.record_unsent()

    (row,) = back.parts.journal.rows()
    words = "the mount ended before the file was sent; the service has not answered: "
    assert row.error.startswith(words)
    assert row.error != words


# -- crashes -------------------------------------------------------------------------------


@pytest.mark.parametrize("point", ["close.kept", "save.intended", "save.stored", "save.settled"])
async def test_promise_13_what_was_closed_survives_a_crash_and_is_sent_by_the_next_mount(
    service: InProcessService, state: Path, work: str, point: str, autojump_clock: Clock
) -> None:
    """Promise 13."""

    async def work_on(mount: InProcessMount) -> None:
        await mount.write_file("work/a", b"new")
        await all_sent()

    async with mounted(service, state) as mount:
        await mount.write_file("work/a", b"old")
    await Crasher(service, state, BACK).run(point, work_on)

    async with mounted(service, state, BACK) as mount:
        assert await mount.read_file("work/a") == b"new"
        await all_sent()
        assert await mount.walk("work") == {"work/a": b"new"}
    assert stored(service, "work") == {"a": b"new"}


@pytest.mark.parametrize("point", ["rename.kept", "save.intended", "save.stored", "save.deleted"])
async def test_a_renaming_that_was_answered_survives_a_crash(
    service: InProcessService, state: Path, work: str, point: str, autojump_clock: Clock
) -> None:
    async def work_on(mount: InProcessMount) -> None:
        await mount.rename("work/a", "work/b")
        await all_sent()

    async with mounted(service, state) as mount:
        await mount.write_file("work/a", b"bytes")
        await mount.write_file("work/b", b"replaced")
    await Crasher(service, state, BACK).run(point, work_on)

    async with mounted(service, state, BACK) as mount:
        assert await mount.read_file("work/b") == b"bytes"
        await all_sent()
        assert await mount.walk("work") == {"work/b": b"bytes"}
    assert stored(service, "work") == {"b": b"bytes"}


async def test_a_removal_that_was_answered_survives_a_crash(
    service: InProcessService, state: Path, work: str, autojump_clock: Clock
) -> None:
    async def work_on(mount: InProcessMount) -> None:
        await mount.unlink("work/a")
        failpoints.reached("folder.settled")

    async with mounted(service, state) as mount:
        await mount.write_file("work/a", b"bytes")
    await Crasher(service, state, BACK).run("folder.settled", work_on)
    assert stored(service, "work") == {"a": b"bytes"}

    async with mounted(service, state, BACK) as mount:
        assert await mount.names("work") == []
        await all_sent()
    assert stored(service, "work") == {}
