"""Rename in every variant: docs/semantics.md, promises 17, 18 and 22."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio.testing
from tests.support.in_process import WRITE, InProcessMount, Settings, mounted
from tests.support.service import InProcessService

from ctrfs.config import FileSystemConfig
from ctrfs.errors import (
    CrossContainerError,
    DirectoryNotEmptyError,
    EntryExistsError,
    IsADirectoryEntryError,
    NoSuchEntryError,
    NotADirectoryEntryError,
    NotPermittedError,
    RemoteInvalidError,
    RemoteRefusedError,
    UnsupportedRenameError,
)
from ctrfs.fs.attributes import AttributeChanges


def stored(service: InProcessService, container_id: str) -> dict[str, bytes]:
    """Return the bytes of all files of a container by their names without the hash."""
    return {
        str(row["path"]).removeprefix("/mnt/data/").rpartition("-")[2]: service.content(
            container_id, str(row["id"])
        )
        for row in service.files(container_id)
    }


async def write_unsent(mount: InProcessMount, service: InProcessService, path: str) -> None:
    """Leave a file on this machine that the service did not take."""
    service.add_fault("create_file", "status", status=403)
    with pytest.raises(RemoteRefusedError):
        await mount.write_file(path, b"unsent")
    service.clear_faults()


async def test_a_clean_file_is_stored_again_and_the_old_one_deleted(
    mount: InProcessMount, service: InProcessService, work: str
) -> None:
    """Promise 17."""
    await mount.write_file("work/a", b"bytes")
    inode = (await mount.stat("work/a")).inode
    service.reset_counters()

    await mount.rename("work/a", "work/b")

    assert service.counters() == {"create_file": 1, "delete_file": 1}
    assert stored(service, work) == {"b": b"bytes"}
    assert await mount.names("work") == ["b"]
    assert (await mount.stat("work/b")).inode == inode


async def test_a_file_being_written_only_changes_its_name_until_close(
    mount: InProcessMount, service: InProcessService, work: str
) -> None:
    """Promise 17."""
    handle = await mount.create("work/a")
    await mount.fs.write(handle, 0, b"bytes")
    service.reset_counters()

    await mount.rename("work/a", "work/b")
    assert service.counters() == {}
    await mount.close(handle)

    assert stored(service, work) == {"b": b"bytes"}


async def test_a_file_replaces_another_with_an_upload_and_two_deletes(
    mount: InProcessMount, service: InProcessService, work: str
) -> None:
    """Promise 17: what stood at the new name goes last."""
    await mount.write_file("work/a", b"new")
    await mount.write_file("work/b", b"old")

    await mount.rename("work/a", "work/b")

    assert stored(service, work) == {"b": b"new"}
    assert await mount.walk("work") == {"work/b": b"new"}
    await mount.refresh("work")
    assert await mount.walk("work") == {"work/b": b"new"}


async def test_a_replaced_file_that_is_open_reads_on(
    mount: InProcessMount, service: InProcessService, work: str
) -> None:
    """Promise 17."""
    service.plant(work, "/mnt/data/b", b"old and only there")
    await mount.write_file("work/a", b"new")
    await mount.refresh("work")
    handle = await mount.open("work/b")

    await mount.rename("work/a", "work/b")

    assert await mount.read_all(handle) == b"old and only there"
    assert await mount.read_file("work/b") == b"new"
    await mount.close(handle)


async def test_a_dirty_file_renamed_onto_another_replaces_it_at_close(
    mount: InProcessMount, service: InProcessService, work: str
) -> None:
    """Promise 17: an editor that renames before it closes."""
    await mount.write_file("work/b", b"old")
    handle = await mount.create("work/a")
    await mount.fs.write(handle, 0, b"new")

    await mount.rename("work/a", "work/b")
    assert await mount.read_file("work/b") == b"new"
    await mount.close(handle)

    assert stored(service, work) == {"b": b"new"}
    await mount.refresh("work")
    assert await mount.walk("work") == {"work/b": b"new"}


async def test_a_local_only_file_renamed_is_one_upload_and_one_delete(
    mount: InProcessMount, service: InProcessService, work: str
) -> None:
    """Promise 22: how editors save."""
    await mount.write_file("work/a.txt", b"old")
    service.reset_counters()
    await mount.write_file("work/.goutputstream-X1", b"new")
    assert service.counters() == {}

    await mount.rename("work/.goutputstream-X1", "work/a.txt")

    assert service.counters() == {"create_file": 1, "delete_file": 1}
    assert stored(service, work) == {"a.txt": b"new"}
    assert mount.parts.local.all_files() == []


async def test_renaming_to_a_backup_name_takes_the_file_off_the_service(
    mount: InProcessMount, service: InProcessService, work: str
) -> None:
    """Promise 22: how vim keeps a backup."""
    await mount.write_file("work/a.txt", b"old")

    await mount.rename("work/a.txt", "work/a.txt~")

    assert stored(service, work) == {}
    assert await mount.walk("work") == {"work/a.txt~": b"old"}
    assert await mount.attribute("work/a.txt~", "state") == "local"


async def test_a_local_only_file_renamed_over_another_leaves_one(
    mount: InProcessMount, service: InProcessService, work: str, state: Path
) -> None:
    """Promise 22."""
    await mount.write_file("work/a~", b"first")
    await mount.write_file("work/b~", b"second")

    await mount.rename("work/a~", "work/b~")

    assert await mount.walk("work") == {"work/b~": b"first"}
    assert [row.path for row in mount.parts.local.all_files()] == [b"b~"]


async def test_an_unsent_file_is_sent_by_its_rename(
    mount: InProcessMount, service: InProcessService, work: str
) -> None:
    """Promise 14: nothing else would ever send it."""
    await write_unsent(mount, service, "work/a")

    await mount.rename("work/a", "work/b")

    assert stored(service, work) == {"b": b"unsent"}
    assert mount.parts.journal.rows() == []


async def test_a_refused_rename_changes_nothing(
    mount: InProcessMount, service: InProcessService, work: str
) -> None:
    await mount.write_file("work/a", b"new")
    await mount.write_file("work/b", b"old")
    service.add_fault("create_file", "status", status=403)

    with pytest.raises(RemoteRefusedError):
        await mount.rename("work/a", "work/b")

    assert stored(service, work) == {"a": b"new", "b": b"old"}
    assert await mount.walk("work") == {"work/a": b"new", "work/b": b"old"}
    assert mount.fs.unsent_count() == 0


async def test_no_replace_is_honoured(mount: InProcessMount) -> None:
    """Promise 17."""
    await mount.write_file("work/a", b"a")
    await mount.write_file("work/b", b"b")

    with pytest.raises(EntryExistsError):
        await mount.rename("work/a", "work/b", no_replace=True)
    await mount.rename("work/a", "work/c", no_replace=True)

    assert await mount.walk("work") == {"work/b": b"b", "work/c": b"a"}


async def test_a_rename_onto_itself_does_nothing(
    mount: InProcessMount, service: InProcessService
) -> None:
    await mount.write_file("work/a", b"a")
    service.reset_counters()

    await mount.rename("work/a", "work/a")

    assert service.counters() == {}


async def test_a_rename_of_nothing_is_an_error(mount: InProcessMount) -> None:
    with pytest.raises(NoSuchEntryError):
        await mount.rename("work/a", "work/b")


@pytest.mark.parametrize("is_dirty", [False, True])
async def test_a_file_moves_to_another_container(
    mount: InProcessMount, service: InProcessService, work: str, is_dirty: bool
) -> None:
    """Promise 17."""
    await mount.mkdir("other")
    await mount.write_file("work/a", b"bytes")
    handle = await mount.open("work/a", WRITE)
    if is_dirty:
        await mount.fs.write(handle, 0, b"BYTES")

    await mount.rename("work/a", "other/b")
    await mount.close(handle)

    content = b"BYTES" if is_dirty else b"bytes"
    assert stored(service, work) == {}
    assert await mount.walk() == {"other": None, "other/b": content, "work": None}
    await mount.refresh("work")
    await mount.refresh("other")
    assert await mount.walk() == {"other": None, "other/b": content, "work": None}


async def test_a_file_replaces_one_in_another_container(
    mount: InProcessMount, service: InProcessService, work: str
) -> None:
    """Promise 17."""
    await mount.mkdir("other")
    await mount.write_file("work/a", b"new")
    await mount.write_file("other/a", b"old")

    await mount.rename("work/a", "other/a")

    await mount.refresh("work")
    await mount.refresh("other")
    assert await mount.walk() == {"other": None, "other/a": b"new", "work": None}


async def test_a_folder_moves_with_all_in_it(
    mount: InProcessMount, service: InProcessService, work: str
) -> None:
    """Promise 18."""
    await mount.mkdir("work/x")
    await mount.mkdir("work/x/deep")
    await mount.write_file("work/x/a", b"a")
    await mount.write_file("work/x/deep/b", b"b")
    await mount.write_file("work/x/c~", b"local")
    before = await mount.stat("work/x/deep/b")

    await mount.rename("work/x", "work/y")

    expected = {
        "work/y": None,
        "work/y/a": b"a",
        "work/y/c~": b"local",
        "work/y/deep": None,
        "work/y/deep/b": b"b",
    }
    assert await mount.walk("work") == expected
    assert (await mount.stat("work/y/deep/b")).inode == before.inode
    await mount.refresh("work")
    assert await mount.walk("work") == expected
    assert len(service.files(work)) == 2


async def test_a_folder_over_an_empty_one_replaces_it_and_over_a_full_one_not(
    mount: InProcessMount,
) -> None:
    """Promise 18."""
    for name in ("x", "empty", "full"):
        await mount.mkdir(f"work/{name}")
    await mount.write_file("work/x/a", b"a")
    await mount.write_file("work/full/b", b"b")
    await mount.write_file("work/file", b"f")

    with pytest.raises(DirectoryNotEmptyError):
        await mount.rename("work/x", "work/full")
    with pytest.raises(NotADirectoryEntryError):
        await mount.rename("work/x", "work/file")
    with pytest.raises(IsADirectoryEntryError):
        await mount.rename("work/file", "work/x")
    await mount.rename("work/x", "work/empty")

    assert await mount.names("work") == ["empty", "file", "full"]
    assert await mount.read_file("work/empty/a") == b"a"


async def test_an_empty_folder_renamed_over_another_is_there_after_a_remount(
    service: InProcessService, state: Path, work: str
) -> None:
    async with mounted(service, state) as mount:
        await mount.mkdir("work/d")
        await mount.mkdir("work/e")
        await mount.rename("work/d", "work/e")
        assert await mount.walk("work") == {"work/e": None}

    async with mounted(service, state) as mount:
        assert await mount.walk("work") == {"work/e": None}


async def test_a_folder_never_goes_into_itself(mount: InProcessMount) -> None:
    """Promise 18."""
    await mount.mkdir("work/x")
    await mount.mkdir("work/x/y")

    with pytest.raises(UnsupportedRenameError):
        await mount.rename("work/x", "work/x/y/z")
    with pytest.raises(UnsupportedRenameError):
        await mount.rename("work/x", "work/x/z")


async def test_a_folder_of_more_files_than_the_limit_is_copied_by_programs(
    service: InProcessService, state: Path, work: str
) -> None:
    """Promise 18."""
    settings = Settings(files=FileSystemConfig(rename_dir_limit=2))
    async with mounted(service, state, settings) as mount:
        await mount.mkdir("work/x")
        for name in "abc":
            await mount.write_file(f"work/x/{name}", name.encode())
        service.reset_counters()

        with pytest.raises(CrossContainerError):
            await mount.rename("work/x", "work/y")

        assert service.counters() == {}
        await mount.unlink("work/x/a")
        await mount.rename("work/x", "work/y")
        assert await mount.names("work/y") == ["b", "c"]


async def test_a_folder_that_fails_half_way_stays_where_it_was(
    mount: InProcessMount, service: InProcessService, work: str
) -> None:
    """Promise 18."""
    await mount.mkdir("work/x")
    for name in "abcdef":
        await mount.write_file(f"work/x/{name}", name.encode())
    before = await mount.walk("work")
    ids = {row["id"] for row in service.files(work)}
    service.add_fault("create_file", "status", status=403, nth=4)

    with pytest.raises(RemoteRefusedError):
        await mount.rename("work/x", "work/y")

    assert await mount.walk("work") == before
    assert {row["id"] for row in service.files(work)} == ids
    await mount.refresh("work")
    assert await mount.walk("work") == before


async def test_a_folder_in_which_a_file_is_being_written_moves(
    mount: InProcessMount, service: InProcessService, work: str
) -> None:
    """Promise 18."""
    await mount.mkdir("work/x")
    await mount.write_file("work/x/old", b"old")
    handle = await mount.create("work/x/new")
    await mount.fs.write(handle, 0, b"new")

    await mount.rename("work/x", "work/y")
    await mount.close(handle)

    await mount.refresh("work")
    assert await mount.walk("work") == {
        "work/y": None,
        "work/y/new": b"new",
        "work/y/old": b"old",
    }
    assert len(service.files(work)) == 2


async def test_a_folder_does_not_move_to_another_container_or_to_the_root(
    mount: InProcessMount,
) -> None:
    """Promise 18: EXDEV, so that ``mv`` copies."""
    await mount.mkdir("other")
    await mount.mkdir("work/x")

    with pytest.raises(CrossContainerError):
        await mount.rename("work/x", "other/x")
    with pytest.raises(CrossContainerError):
        await mount.rename("work/x", "x")
    with pytest.raises(CrossContainerError):
        await mount.rename("other", "work/other")


async def test_a_file_does_not_move_into_the_root(mount: InProcessMount) -> None:
    """Promise 5."""
    await mount.write_file("work/a", b"a")

    with pytest.raises(NotPermittedError):
        await mount.rename("work/a", "a")


async def test_an_empty_container_is_made_again_under_its_new_name(
    mount: InProcessMount, service: InProcessService, work: str
) -> None:
    """Promise 18."""
    inode = (await mount.stat("work")).inode

    await mount.rename("work", "play")

    assert await mount.names() == ["play"]
    assert (await mount.stat("play")).inode == inode
    assert [row["name"] for row in service.containers()] == ["play"]
    await mount.write_file("play/a", b"a")
    await mount.refresh("")
    assert await mount.walk() == {"play": None, "play/a": b"a"}


async def test_a_container_with_files_is_not_renamed(
    mount: InProcessMount, service: InProcessService, work: str
) -> None:
    """Promise 18: also if this machine does not know of them yet."""
    assert await mount.names("work") == []
    service.plant(work, "/mnt/data/a", b"a")

    with pytest.raises(CrossContainerError):
        await mount.rename("work", "play")

    assert [row["id"] for row in service.containers()] == [work]


async def test_a_container_replaces_an_empty_one_only(
    mount: InProcessMount, service: InProcessService
) -> None:
    """Promise 18."""
    await mount.mkdir("full")
    await mount.write_file("full/a", b"a")
    await mount.mkdir("empty")

    with pytest.raises(DirectoryNotEmptyError):
        await mount.rename("work", "full")
    await mount.rename("work", "empty")

    assert await mount.names() == ["empty", "full"]
    await mount.refresh("")
    assert await mount.names() == ["empty", "full"]


async def test_a_renamed_container_keeps_its_memory_and_its_hours(
    mount: InProcessMount, service: InProcessService
) -> None:
    """Promise 18: the same container, but for its name."""
    hours = {"anchor": "last_active_at", "minutes": 7}
    service.create_container("small", memory_limit="4g", expires_after=hours)
    await mount.refresh("")

    await mount.rename("small", "kept")

    (row,) = [row for row in service.containers() if row["name"] == "kept"]
    assert row["memory_limit"] == "4g"
    assert row["expires_after"] == hours


async def test_a_container_with_a_list_of_domains_keeps_its_name(
    mount: InProcessMount, service: InProcessService
) -> None:
    """Promise 18: another one could not be given the secrets of the domains."""
    policy = {"type": "allowlist", "allowed_domains": ["example.com"]}
    service.create_container("strict", network_policy=policy)
    await mount.refresh("")

    with pytest.raises(NotPermittedError):
        await mount.rename("strict", "kept")

    assert await mount.names() == ["strict", "work"]


async def test_a_moved_file_keeps_its_time_and_mode(mount: InProcessMount) -> None:
    """Promise 19."""
    await mount.write_file("work/a", b"a")
    await mount.set("work/a", AttributeChanges(mtime_ns=123_000, permissions=0o600))

    await mount.rename("work/a", "work/b")

    moved = await mount.stat("work/b")
    assert (moved.mtime_ns, moved.permissions) == (123_000, 0o600)


async def test_an_open_reader_keeps_its_bytes_through_a_rename(
    mount: InProcessMount,
    service: InProcessService,
    work: str,
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Promise 17: also if the bytes were not here yet."""
    service.plant(work, "/mnt/data/a", b"0123456789" * 1000)
    await mount.refresh("work")
    handle = await mount.open("work/a")

    await mount.rename("work/a", "work/b")

    assert await mount.read_all(handle) == b"0123456789" * 1000
    await mount.close(handle)


async def test_a_container_that_cannot_be_created_again_leaves_both_names(
    mount: InProcessMount, service: InProcessService, work: str
) -> None:
    """Promise 18."""
    await mount.mkdir("a")
    await mount.mkdir("b")
    service.add_fault("create_container", "status", status=400)

    with pytest.raises(RemoteInvalidError):
        await mount.rename("a", "b")

    assert await mount.names() == ["a", "b", "work"]
    assert {row["name"] for row in service.containers()} == {"a", "b", "work"}
