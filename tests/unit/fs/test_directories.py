"""Containers, folders and what stands in them: docs/semantics.md, promises 1 to 8, 18 to 23."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import trio
import trio.testing
from tests.support.in_process import (
    EXCLUSIVE,
    WRITE,
    InProcessMount,
    Settings,
    mounted,
)
from tests.support.service import InProcessService

from ctrfs.config import ContainerDefaults, FileSystemConfig, SlashMode, TreeConfig
from ctrfs.errors import (
    BadHandleError,
    DirectoryNotEmptyError,
    EntryExistsError,
    IsADirectoryEntryError,
    NameTooLongError,
    NoSuchAttributeError,
    NoSuchEntryError,
    NotADirectoryEntryError,
    NotPermittedError,
    ReadOnlyError,
    RemoteRefusedError,
    RemoteStalledError,
    RemoteUnavailableError,
    StaleHandleError,
    TooManyOpenFilesError,
    UnsupportedAttributeError,
)
from ctrfs.fs.attributes import AttributeChanges, NoEntry

DAY_S = 86_400
LONG_S = 300  # several times max_stale, but before a container expires


async def test_of_containers_with_one_name_the_oldest_keeps_it(
    mount: InProcessMount, service: InProcessService, work: str
) -> None:
    """Promise 2."""
    younger = service.create_container("work")
    await mount.refresh("")

    assert await mount.names() == ["work", f"work~{younger[:13]}"]
    assert await mount.attribute("work", "id") == work


async def test_a_second_mkdir_of_a_name_is_refused(
    mount: InProcessMount, service: InProcessService
) -> None:
    """Promise 5."""
    service.reset_counters()

    with pytest.raises(EntryExistsError):
        await mount.mkdir("work")

    assert "create_container" not in service.counters()


async def test_mkdir_in_the_root_creates_a_container_with_the_options_of_the_mount(
    service: InProcessService, state: Path, work: str
) -> None:
    """Promise 5."""
    defaults = ContainerDefaults(
        memory_limit="4g", expires_after_minutes=5, network_policy="a.example b.example"
    )
    settings = Settings(files=FileSystemConfig(defaults=defaults))
    async with mounted(service, state, settings) as mount:
        await mount.mkdir("made")

        row = next(row for row in service.containers() if row["name"] == "made")
        assert row["memory_limit"] == "4g"
        assert row["expires_after"] == {"anchor": "last_active_at", "minutes": 5}
        assert row["network_policy"] == {
            "type": "allowlist",
            "allowed_domains": ["a.example", "b.example"],
        }


async def test_a_new_container_is_usable_before_the_service_is_ready(
    mount: InProcessMount,
    service: InProcessService,
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Promise 5: it answers 404 for some seconds."""
    service.set_behaviour(ready_delay_s=5.0)

    await mount.mkdir("made")
    await mount.write_file("made/a", b"a")

    await mount.refresh("made")
    assert await mount.walk("made") == {"made/a": b"a"}


async def test_rmdir_deletes_a_container_that_is_empty(
    mount: InProcessMount, service: InProcessService
) -> None:
    """Promise 5."""
    await mount.rmdir("work")

    assert service.containers() == []
    assert await mount.names() == []


async def test_rmdir_asks_the_service_whether_a_container_is_empty(
    mount: InProcessMount, service: InProcessService, work: str
) -> None:
    """Promise 5: a file came in the meantime."""
    assert await mount.names("work") == []
    service.plant(work, "/mnt/data/late", b"late")

    with pytest.raises(DirectoryNotEmptyError):
        await mount.rmdir("work")

    assert await mount.walk("work") == {"work/late": b"late"}


async def test_a_deleted_container_stays_hidden_while_the_service_lists_it(
    mount: InProcessMount, service: InProcessService
) -> None:
    """Promise 5."""
    service.set_behaviour(delete_lag_s=120.0)

    await mount.rmdir("work")
    await mount.refresh("")

    assert await mount.names() == []


async def test_the_root_takes_no_files(mount: InProcessMount) -> None:
    """Promise 5."""
    with pytest.raises(NotPermittedError):
        await mount.create("a.txt")


@pytest.mark.parametrize("name", [".Trash", ".Trash-0", ".Trash-1000"])
async def test_a_trash_folder_is_not_made_into_a_container(
    mount: InProcessMount, service: InProcessService, name: str
) -> None:
    """Promise 23."""
    with pytest.raises(NotPermittedError):
        await mount.mkdir(name)

    assert len(service.containers()) == 1


async def test_a_folder_lasts_without_files_on_this_machine(
    mount: InProcessMount, service: InProcessService, work: str
) -> None:
    """Promise 5."""
    await mount.mkdir("work/x")
    await mount.write_file("work/x/a", b"a")
    await mount.unlink("work/x/a")
    await mount.refresh("work")

    assert await mount.names("work") == ["x"]
    assert service.files(work) == []
    await mount.rmdir("work/x")
    assert await mount.names("work") == []


async def test_empty_folders_and_local_only_files_outlive_a_remount(
    service: InProcessService, state: Path, work: str
) -> None:
    """Promises 5 and 22."""
    async with mounted(service, state) as mount:
        await mount.mkdir("work/x")
        await mount.write_file("work/x/a~", b"local")
        await mount.set("work/x/a~", AttributeChanges(mtime_ns=1000, permissions=0o600))
        await mount.set("work/x", AttributeChanges(mtime_ns=2000, permissions=0o700))

    async with mounted(service, state) as mount:
        assert await mount.walk("work") == {"work/x": None, "work/x/a~": b"local"}
        file, folder = await mount.stat("work/x/a~"), await mount.stat("work/x")
        assert (file.mtime_ns, file.permissions) == (1000, 0o600)
        assert (folder.mtime_ns, folder.permissions) == (2000, 0o700)
        await mount.write_file("work/x/a~", b"changed")

    async with mounted(service, state) as mount:
        assert await mount.read_file("work/x/a~") == b"changed"
        await mount.rename("work/x/a~", "work/x/a")
        assert service.files(work) != []

    async with mounted(service, state) as mount:
        assert await mount.walk("work") == {"work/x": None, "work/x/a": b"changed"}


async def test_local_only_files_are_never_sent(
    mount: InProcessMount, service: InProcessService
) -> None:
    """Promise 22."""
    await mount.write_file("work/.a.swp", b"swap")
    await mount.write_file("work/.DS_Store", b"desktop")
    await mount.unlink("work/.a.swp")
    await mount.refresh("work")

    assert "create_file" not in service.counters()
    assert await mount.walk("work") == {"work/.DS_Store": b"desktop"}


async def test_times_and_modes_outlive_a_remount(
    service: InProcessService, state: Path, work: str
) -> None:
    """Promise 19."""
    async with mounted(service, state) as mount:
        await mount.write_file("work/a", b"a")
        await mount.set("work/a", AttributeChanges(mtime_ns=123_456_789, permissions=0o640))
        before = await mount.stat("work/a")

    async with mounted(service, state) as mount:
        after = await mount.stat("work/a")
        assert (after.mtime_ns, after.permissions) == (123_456_789, 0o640)
        assert before.mtime_ns == after.mtime_ns


async def test_inode_numbers_of_service_files_are_the_same_after_a_remount(
    service: InProcessService, state: Path, work: str
) -> None:
    service.plant(work, "/mnt/data/x/a", b"a")
    found: list[list[int]] = []
    for _ in range(2):
        async with mounted(service, state) as mount:
            found.append(
                [(await mount.stat(path)).inode for path in ("work", "work/x", "work/x/a")]
            )

    assert found[0] == found[1]


async def test_chown_to_the_owner_is_accepted_and_to_others_refused(mount: InProcessMount) -> None:
    """Promise 19."""
    await mount.write_file("work/a", b"a")

    await mount.set("work/a", AttributeChanges(uid=0, gid=0))
    with pytest.raises(NotPermittedError):
        await mount.set("work/a", AttributeChanges(uid=1))
    with pytest.raises(NotPermittedError):
        await mount.set("work/a", AttributeChanges(gid=1))


async def test_paths_outside_the_data_folder_show_under_root_and_take_no_uploads(
    mount: InProcessMount, service: InProcessService, work: str
) -> None:
    """Promise 4."""
    service.plant(work, "/tmp/out/log.txt", b"log")  # noqa: S108
    await mount.refresh("work")

    assert await mount.read_file("work/@root/tmp/out/log.txt") == b"log"
    for attempt in (
        mount.create("work/@root/tmp/new"),
        mount.open("work/@root/tmp/out/log.txt", WRITE),
        mount.mkdir("work/@root/x"),
        mount.rename("work/@root/tmp/out/log.txt", "work/@root/tmp/other"),
    ):
        with pytest.raises(NotPermittedError):
            await attempt
    await mount.rename("work/@root/tmp/out/log.txt", "work/log.txt")
    assert await mount.read_file("work/log.txt") == b"log"
    await mount.refresh("work")
    assert len(service.files(work)) == 1


async def test_a_file_under_root_can_be_deleted(
    mount: InProcessMount, service: InProcessService, work: str
) -> None:
    """Promise 4: nothing on the service is beyond reach."""
    service.plant(work, "/tmp/log.txt", b"log")  # noqa: S108
    await mount.refresh("work")

    await mount.unlink("work/@root/tmp/log.txt")

    assert service.files(work) == []


async def test_rubbish_rows_are_counted_and_listed(
    mount: InProcessMount, service: InProcessService, work: str
) -> None:
    """Promise 4."""
    service.plant(work, "/mnt/data/a", b"a")
    service.set_behaviour(rubbish=True)
    await mount.refresh("work")

    text = (await mount.read_file(".ctrfs/errors")).decode()

    assert "a" in await mount.names("work")
    assert text.splitlines()[0].startswith(str(len(text.splitlines()) - 1))
    assert len(text.splitlines()) > 1


async def test_the_control_directory_is_found_and_never_listed(mount: InProcessMount) -> None:
    assert await mount.names() == ["work"]
    assert await mount.names(".ctrfs") == ["errors", "pending", "progress", "status"]
    status = json.loads(await mount.read_file(".ctrfs/status"))
    assert status["unsent_files"] == 0
    assert status["service"]["is_answering"] is True
    assert status["service"]["requests_at_once"] >= 1
    for attempt in (
        mount.create(".ctrfs/x"),
        mount.open(".ctrfs/status", WRITE),
        mount.unlink(".ctrfs/status"),
        mount.set(".ctrfs/status", AttributeChanges(permissions=0o777)),
        mount.mkdir(".ctrfs/x"),
        mount.rename(".ctrfs/status", "work/status"),
        mount.rename("work", ".ctrfs/work"),
    ):
        with pytest.raises(NotPermittedError):
            await attempt
    for attempt in (mount.mkdir(".ctrfs"), mount.rename("work", ".ctrfs")):
        with pytest.raises(EntryExistsError):
            await attempt
    with pytest.raises(NoSuchEntryError):
        await mount.rmdir(".ctrfs")
    with pytest.raises(NoSuchAttributeError):
        await mount.attribute(".ctrfs/status", "id")
    with pytest.raises(UnsupportedAttributeError):
        await mount.refresh(".ctrfs")


async def test_a_service_file_of_the_control_directorys_name_stays_visible(
    service: InProcessService, state: Path, work: str
) -> None:
    """Promise 3: where the container is the root."""
    file_id = service.plant(work, "/mnt/data/.ctrfs", b"theirs")
    service.plant(work, "/mnt/data/.ctrfs/inner", b"inner")
    async with mounted(service, state, Settings(only="work")) as mount:
        for attempt in (mount.create(".ctrfs"), mount.mkdir(".ctrfs")):
            with pytest.raises(EntryExistsError):
                await attempt

        assert await mount.walk() == {
            f".ctrfs~{file_id[:13]}": b"theirs",
            ".ctrfs~": None,
            ".ctrfs~/inner": b"inner",
        }


async def test_expired_containers_are_hidden(
    mount: InProcessMount, service: InProcessService
) -> None:
    """Promise 1."""
    await mount.write_file("work/a", b"a")
    handle = await mount.open("work/a")
    service.advance(DAY_S)
    await mount.refresh("")

    assert await mount.names() == []
    with pytest.raises(NoSuchEntryError):
        await mount.stat("work")
    await mount.close(handle)


async def test_expired_containers_can_be_shown_and_take_no_changes(
    service: InProcessService, state: Path, work: str
) -> None:
    """Promise 1: ``expired=show`` lists them read-only."""
    service.plant(work, "/mnt/data/a", b"a")
    service.advance(DAY_S)
    async with mounted(service, state, Settings(tree=TreeConfig(show_expired=True))) as mount:
        assert await mount.names() == ["work"]
        with pytest.raises(ReadOnlyError):
            await mount.fs.create((await mount.stat("work")).inode, b"x", 0o644, WRITE)
        assert await mount.names("work") == []
        assert await mount.attribute("work", "status") == "expired"

        await mount.rmdir("work")

        assert await mount.names() == []


async def test_a_container_deleted_elsewhere_is_gone_and_its_open_files_are_stale(
    mount: InProcessMount, service: InProcessService, work: str
) -> None:
    """The table of errors: ENOENT for names, ESTALE for open handles."""
    service.plant(work, "/mnt/data/a", b"a")
    await mount.refresh("work")
    handle = await mount.open("work/a", WRITE)
    directory = await mount.stat("work")
    service.delete_container(work)
    await mount.refresh("")

    with pytest.raises(StaleHandleError):
        await mount.fs.read(handle, 0, 10)
    with pytest.raises(StaleHandleError):
        await mount.fs.write(handle, 0, b"x")
    with pytest.raises(NoSuchEntryError):
        await mount.fs.lookup(directory.inode, b"a")
    with pytest.raises(NoSuchEntryError):
        await mount.stat("work")
    await mount.close(handle)


async def test_a_read_only_mount_changes_nothing(
    service: InProcessService, state: Path, work: str
) -> None:
    service.plant(work, "/mnt/data/a", b"a")
    async with mounted(service, state, Settings(files=FileSystemConfig(read_only=True))) as mount:
        for attempt in (
            mount.mkdir("x"),
            mount.rmdir("work"),
            mount.create("work/b"),
            mount.open("work/a", WRITE),
            mount.unlink("work/a"),
            mount.rename("work/a", "work/b"),
            mount.set("work/a", AttributeChanges(permissions=0o600)),
            mount.set("work/a", AttributeChanges(size_bytes=0)),
        ):
            with pytest.raises(ReadOnlyError):
                await attempt
        assert await mount.read_file("work/a") == b"a"


async def test_wrong_kinds_and_names_are_refused(mount: InProcessMount) -> None:
    await mount.mkdir("work/folder")
    await mount.write_file("work/file", b"x")

    for attempt, error in (
        (mount.unlink("work/folder"), IsADirectoryEntryError),
        (mount.rmdir("work/file"), NotADirectoryEntryError),
        (mount.open("work/folder"), IsADirectoryEntryError),
        (mount.names("work/file"), NotADirectoryEntryError),
        (mount.stat("work/file/x"), NotADirectoryEntryError),
        (mount.create("work/file", EXCLUSIVE), EntryExistsError),
        (mount.mkdir("work/file"), EntryExistsError),
        (mount.unlink("work/none"), NoSuchEntryError),
        (mount.create("work/" + "x" * 256), NameTooLongError),
        (mount.mkdir("work/" + "x" * 256), NameTooLongError),
        (mount.rename("work/file", "work/" + "x" * 256), NameTooLongError),
        (mount.rmdir("work/none"), NoSuchEntryError),
        (mount.set("work/folder", AttributeChanges(size_bytes=0)), IsADirectoryEntryError),
    ):
        with pytest.raises(error):
            await attempt
    await mount.write_file("work/folder/a", b"a")
    with pytest.raises(DirectoryNotEmptyError):
        await mount.rmdir("work/folder")


async def test_no_more_files_are_open_than_the_mount_allows(
    service: InProcessService, state: Path, work: str
) -> None:
    settings = Settings(files=FileSystemConfig(open_files_max=2))
    async with mounted(service, state, settings) as mount:
        handles = [await mount.create(f"work/{name}") for name in "ab"]

        for attempt in (mount.create("work/c"), mount.open("work/a"), mount.names("work")):
            with pytest.raises(TooManyOpenFilesError):
                await attempt

        for handle in handles:
            await mount.close(handle)
        with pytest.raises(BadHandleError):
            await mount.fs.read(handles[0], 0, 1)
        assert await mount.names("work") == ["a", "b"]


async def test_readdir_resumes_at_a_cookie_and_passes_over_what_has_gone(
    mount: InProcessMount,
) -> None:
    for name in "abc":
        await mount.write_file(f"work/{name}", b"")
    handle = await mount.fs.opendir((await mount.stat("work")).inode)
    first = next(iter(mount.fs.readdir(handle, 2)), None)
    whole = list(mount.fs.readdir(handle, 0))

    await mount.unlink("work/b")
    rest = list(mount.fs.readdir(handle, whole[2].next_cookie))

    assert first is None or first.name == b"a"
    assert [entry.name for entry in whole] == [b".", b"..", b"a", b"b", b"c"]
    assert [entry.name for entry in rest] == [b"c"]
    assert [entry.name for entry in mount.fs.readdir(handle, 0)] == [b".", b"..", b"a", b"c"]
    mount.fs.releasedir(handle)


async def test_attributes_tell_what_the_service_knows(
    mount: InProcessMount, service: InProcessService, work: str
) -> None:
    await mount.write_file("work/a.txt", b"a")
    (row,) = service.files(work)
    inode = (await mount.stat("work/a.txt")).inode

    shown = {
        name.decode().removeprefix("user.ctrfs."): (await mount.fs.getxattr(inode, name)).decode()
        for name in await mount.fs.listxattr(inode)
    }

    assert shown == {
        "id": row["id"],
        "container_id": work,
        "path": row["path"],
        "source": "user",
        "created_at": str(row["created_at"]),
        "hash": str(row["path"]).removeprefix("/mnt/data/")[:32],
        "state": "clean",
    }


async def test_foreign_attributes_are_not_supported_and_ours_cannot_be_set(
    mount: InProcessMount,
) -> None:
    """Promise 20."""
    await mount.write_file("work/a.txt", b"a")
    inode = (await mount.stat("work/a.txt")).inode

    with pytest.raises(UnsupportedAttributeError):
        await mount.fs.setxattr(inode, b"user.other", b"x")
    with pytest.raises(UnsupportedAttributeError):
        await mount.fs.setxattr(inode, b"user.ctrfs.id", b"x")
    with pytest.raises(NotPermittedError):
        await mount.fs.removexattr(inode, b"user.ctrfs.id")
    for name in (b"user.other", b"user.ctrfs.nothing", b"user.ctrfs.\xff", b"security.selinux"):
        with pytest.raises(NoSuchAttributeError):
            await mount.fs.getxattr(inode, name)
        with pytest.raises(NoSuchAttributeError):
            await mount.fs.removexattr(inode, name)


@pytest.mark.parametrize("slashes", ["keep", "prefix-first", "base"])
@pytest.mark.parametrize("hash_prefix", [True, False])
@pytest.mark.parametrize("mode", [SlashMode.UNKNOWN, SlashMode.CUT])
async def test_uploads_into_folders_show_there_on_every_server(
    service: InProcessService,
    state: Path,
    work: str,
    slashes: str,
    hash_prefix: bool,
    mode: SlashMode,
) -> None:
    """Promise 6; and what was learnt is known to the next mount."""
    service.set_behaviour(slashes=slashes, hash_prefix=hash_prefix)
    settings = Settings(tree=TreeConfig(slash_mode=mode))
    async with mounted(service, state, settings) as mount:
        await mount.mkdir("work/x")
        await mount.mkdir("work/x/y")
        await mount.write_file("work/x/y/a.txt", b"first")
        await mount.write_file("work/b.txt", b"plain")
        await mount.refresh("work")
        expected = {
            "work/b.txt": b"plain",
            "work/x": None,
            "work/x/y": None,
            "work/x/y/a.txt": b"first",
        }
        assert await mount.walk("work") == expected
        assert len(service.files(work)) == 2
    async with mounted(service, state, settings) as mount:
        assert await mount.walk("work") == expected
        service.reset_counters()
        await mount.write_file("work/x/second.txt", b"second")
        assert service.counters() == {"create_file": 1}


async def test_a_name_that_is_not_there_is_kept_by_the_kernel_for_the_rest_of_the_ttl(
    mount: InProcessMount, mock_clock: trio.testing.MockClock
) -> None:
    """Promise 8."""
    await mount.names("work")
    mock_clock.jump(4)

    found = await mount.fs.lookup((await mount.stat("work")).inode, b"none")

    assert isinstance(found, NoEntry)
    assert found.entry_timeout_s == pytest.approx(6.0)


@pytest.mark.parametrize(
    ("ttl_s", "max_stale_s", "age_s", "kept_s"),
    [
        (10, 60, 0, 30),  # asked again while the listing may still answer
        (10, 60, 15, 15),
        (10, 60, 25, 10),
        (10, 60, 55, 5),  # never beyond max_stale
        (1, 60, 0, 3),  # who wants to see changes soon does
        (0, 60, 0, 0),
        (0, 0, 0, 0),
        (300, 300, 100, 200),
    ],
)
async def test_a_name_is_kept_by_the_kernel_until_it_is_time_to_look_again(
    service: InProcessService,
    state: Path,
    work: str,
    mock_clock: trio.testing.MockClock,
    *,
    ttl_s: float,
    max_stale_s: float,
    age_s: float,
    kept_s: float,
) -> None:
    """Promise 8: what is shown of a known name is never older than ``max_stale``."""
    service.plant(work, "/mnt/data/a")
    config = TreeConfig(ttl_s=ttl_s, max_stale_s=max_stale_s)
    async with mounted(service, state, Settings(tree=config)) as mount:
        await mount.names("work")
        inode = (await mount.stat("work")).inode
        listed_s = trio.current_time()
        mock_clock.jump(age_s)

        found = await mount.fs.lookup(inode, b"a")

        assert not isinstance(found, NoEntry)
        assert listed_s + age_s == trio.current_time()
        assert found.entry_timeout_s == pytest.approx(kept_s)


async def test_a_file_made_elsewhere_appears_after_the_ttl_and_not_before(
    mount: InProcessMount,
    service: InProcessService,
    work: str,
    mock_clock: trio.testing.MockClock,
) -> None:
    """Promise 8."""
    assert await mount.names("work") == []
    service.plant(work, "/mnt/data/a", b"a")

    mock_clock.jump(9)
    assert await mount.names("work") == []
    assert not await mount.exists("work/a")
    mock_clock.jump(2)
    assert await mount.exists("work/a")
    assert await mount.names("work") == ["a"]


async def test_a_file_deleted_elsewhere_disappears_after_the_ttl_and_not_before(
    mount: InProcessMount,
    service: InProcessService,
    work: str,
    mock_clock: trio.testing.MockClock,
) -> None:
    """Promise 8: by readdir; the kernel is told."""
    file_id = service.plant(work, "/mnt/data/a", b"a")
    assert await mount.names("work") == ["a"]
    service.delete_file(work, file_id)

    mock_clock.jump(9)
    assert await mount.names("work") == ["a"]
    mock_clock.jump(2)
    assert await mount.names("work") == []
    assert mount.changes[-1].name == b"a"


async def test_a_known_entry_is_answered_at_once_and_looked_after_behind(
    mount: InProcessMount,
    service: InProcessService,
    work: str,
    mock_clock: trio.testing.MockClock,
) -> None:
    """Promise 8: at most ``max_stale`` old."""
    file_id = service.plant(work, "/mnt/data/a", b"a")
    await mount.names("work")
    service.delete_file(work, file_id)

    mock_clock.jump(30)
    assert await mount.exists("work/a")
    await trio.testing.wait_all_tasks_blocked(0.01)
    assert not await mount.exists("work/a")


async def test_a_known_entry_is_asked_for_once_max_stale_has_passed(
    mount: InProcessMount,
    service: InProcessService,
    work: str,
    mock_clock: trio.testing.MockClock,
) -> None:
    """Promise 8."""
    file_id = service.plant(work, "/mnt/data/a", b"a")
    await mount.names("work")
    service.delete_file(work, file_id)

    mock_clock.jump(61)
    assert not await mount.exists("work/a")


async def test_what_is_known_is_served_while_the_service_is_down(
    mount: InProcessMount, service: InProcessService, work: str, mock_clock: trio.testing.MockClock
) -> None:
    """Promise 8."""
    service.plant(work, "/mnt/data/a", b"a")
    await mount.read_file("work/a")
    service.add_fault("*", "status", status=403)
    mock_clock.jump(30)

    assert await mount.read_file("work/a") == b"a"
    await trio.testing.wait_all_tasks_blocked(0.01)
    assert await mount.read_file("work/a") == b"a"
    with pytest.raises(RemoteRefusedError):
        await mount.stat("work/unknown")


@pytest.mark.parametrize("fault", [("status", {"status": 503}), ("stall", {}), ("reset", {})])
async def test_bytes_that_are_here_can_be_read_however_long_the_service_is_away(
    mount: InProcessMount,
    service: InProcessService,
    work: str,
    autojump_clock: trio.testing.MockClock,
    fault: tuple[str, dict[str, int]],
) -> None:
    """Promise 8: older than ``max_stale`` only while nobody can be asked."""
    service.plant(work, "/mnt/data/a", b"a")
    other_id = service.plant(work, "/mnt/data/b", b"b")
    await mount.read_file("work/a")
    service.delete_file(work, other_id)
    action, fields = fault
    service.add_fault("*", action, **fields)
    await trio.sleep(LONG_S)

    assert await mount.read_file("work/a") == b"a"
    found = await mount.stat("work/a")
    assert found.entry_timeout_s == 0  # the next program that looks has it asked again
    with pytest.raises((RemoteUnavailableError, RemoteStalledError)):
        await mount.stat("work/unknown")
    with pytest.raises((RemoteUnavailableError, RemoteStalledError)):
        await mount.names("work")

    service.clear_faults()
    await trio.sleep(LONG_S)
    assert not await mount.exists("work/b")
    assert await mount.names("work") == ["a"]


async def test_a_service_that_refuses_the_key_is_obeyed_once_max_stale_has_passed(
    mount: InProcessMount, service: InProcessService, work: str, mock_clock: trio.testing.MockClock
) -> None:
    """Promise 8: who is told "no" has been answered."""
    service.plant(work, "/mnt/data/a", b"a")
    await mount.read_file("work/a")
    service.add_fault("*", "status", status=403)
    mock_clock.jump(61)

    with pytest.raises(RemoteRefusedError):
        await mount.stat("work/a")


async def test_a_file_listed_under_its_full_stored_name_is_found_by_it(
    mount: InProcessMount, service: InProcessService, work: str
) -> None:
    """Promise 3."""
    await mount.write_file("work/a.txt", b"a")
    full = str(service.files(work)[0]["path"]).removeprefix("/mnt/data/")

    assert await mount.names("work") == ["a.txt"]
    assert (await mount.stat(f"work/{full}")).inode == (await mount.stat("work/a.txt")).inode
    assert await mount.read_file(f"work/{full}") == b"a"


async def test_only_one_container_can_be_the_root(
    service: InProcessService, state: Path, work: str
) -> None:
    service.create_container("other")
    async with mounted(service, state, Settings(only="work")) as mount:
        await mount.write_file("a.txt", b"a")
        await mount.mkdir("x")
        await mount.write_file("x/b.txt", b"b")
        await mount.refresh("")

        assert await mount.walk() == {"a.txt": b"a", "x": None, "x/b.txt": b"b"}
        assert len(service.files(work)) == 2
        assert await mount.attribute("", "id") == work


async def test_df_shows_room_and_asks_nobody(
    mount: InProcessMount, service: InProcessService
) -> None:
    """Promise 21."""
    room = mount.fs.statfs()

    assert room.blocks_free > 0
    assert room.entries_free > 0
    assert service.counters() == {}
