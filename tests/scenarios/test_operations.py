"""What each system call does in a container: through a mount, and in process without a kernel."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import pytest
from tests.scenarios.workplace import (
    RENAME_EXCHANGE,
    RENAME_NOREPLACE,
    Workplace,
    errno_of,
    read_file,
    write_file,
)

pytestmark = pytest.mark.both_write_modes

CREATE: Final = os.O_RDWR | os.O_CREAT


@asynccontextmanager
async def fails_with(name: str) -> AsyncIterator[None]:
    """Expect an ``OSError`` of that errno."""
    with pytest.raises(OSError, match=r".") as caught:
        yield
    assert errno_of(caught.value) == name


async def test_a_written_file_reads_back(workplace: Workplace) -> None:
    await write_file(workplace, "a.txt", b"hello")

    assert await read_file(workplace, "a.txt") == b"hello"
    assert await workplace.names() == ["a.txt"]
    assert (await workplace.status("a.txt")).size_bytes == 5


async def test_an_empty_file_reads_back(workplace: Workplace) -> None:
    await write_file(workplace, "empty", b"")

    assert await read_file(workplace, "empty") == b""
    assert (await workplace.status("empty")).size_bytes == 0


async def test_overwriting_replaces_all_bytes(workplace: Workplace) -> None:
    await write_file(workplace, "a.txt", b"a long first version")
    await write_file(workplace, "a.txt", b"short")

    assert await read_file(workplace, "a.txt") == b"short"
    assert await workplace.names() == ["a.txt"]


async def test_writing_into_the_middle_keeps_the_rest(workplace: Workplace) -> None:
    await write_file(workplace, "a.txt", b"0123456789")
    async with workplace.opened("a.txt", os.O_WRONLY) as file:
        await file.write(3, b"abc")

    assert await read_file(workplace, "a.txt") == b"012abc6789"


async def test_writing_past_the_end_leaves_a_hole_of_zeros(workplace: Workplace) -> None:
    await write_file(workplace, "a.txt", b"ab")
    async with workplace.opened("a.txt", os.O_WRONLY) as file:
        await file.write(5, b"z")

    assert await read_file(workplace, "a.txt") == b"ab\0\0\0z"


async def test_writes_are_seen_before_the_close(workplace: Workplace) -> None:
    """Promise 7."""
    async with workplace.opened("a.txt", CREATE) as file:
        await file.write(0, b"not closed yet")
        assert await read_file(workplace, "a.txt") == b"not closed yet"
        assert (await workplace.status("a.txt")).size_bytes == 14
        assert await file.size() == 14


async def test_a_synced_file_can_be_written_further(workplace: Workplace) -> None:
    async with workplace.opened("a.txt", CREATE) as file:
        await file.write(0, b"one")
        await file.sync()
        await file.write(3, b" two")

    assert await read_file(workplace, "a.txt") == b"one two"


async def test_truncating_an_open_and_a_closed_file(workplace: Workplace) -> None:
    await write_file(workplace, "a.txt", b"0123456789")
    await workplace.truncate("a.txt", 6)
    assert await read_file(workplace, "a.txt") == b"012345"

    async with workplace.opened("a.txt", os.O_RDWR) as file:
        await file.truncate(2)
        await file.truncate(4)
        assert await file.read(0, 100) == b"01\0\0"
    assert await read_file(workplace, "a.txt") == b"01\0\0"


async def test_exclusive_creation_refuses_what_exists(workplace: Workplace) -> None:
    await write_file(workplace, "a.txt", b"first")
    async with fails_with("EEXIST"):
        async with workplace.opened("a.txt", CREATE | os.O_EXCL):
            pass

    assert await read_file(workplace, "a.txt") == b"first"


async def test_what_is_not_there_is_enoent(workplace: Workplace) -> None:
    async with fails_with("ENOENT"):
        await workplace.status("none")
    async with fails_with("ENOENT"):
        await read_file(workplace, "none")
    async with fails_with("ENOENT"):
        await workplace.remove_file("none")
    async with fails_with("ENOENT"):
        await workplace.rename("none", "other")
    async with fails_with("ENOENT"):
        await write_file(workplace, "none/a.txt", b"")


async def test_a_removed_file_is_gone(workplace: Workplace) -> None:
    await write_file(workplace, "a.txt", b"x")
    await workplace.remove_file("a.txt")

    assert await workplace.names() == []
    async with fails_with("ENOENT"):
        await workplace.status("a.txt")


async def test_a_removed_file_stays_readable_while_open(workplace: Workplace) -> None:
    await write_file(workplace, "a.txt", b"kept")
    async with workplace.opened("a.txt", os.O_RDWR) as file:
        await workplace.remove_file("a.txt")
        assert await file.read(0, 10) == b"kept"
        await file.write(4, b"!")
        assert await file.read(0, 10) == b"kept!"

    assert await workplace.names() == []


async def test_folders_are_made_filled_and_removed(workplace: Workplace) -> None:
    """Promise 5."""
    await workplace.make_folder("one")
    await workplace.make_folder("one/two")
    await write_file(workplace, "one/two/a.txt", b"deep")
    assert (await workplace.status("one/two")).is_folder
    assert await read_file(workplace, "one/two/a.txt") == b"deep"

    async with fails_with("ENOTEMPTY"):
        await workplace.remove_folder("one/two")
    await workplace.remove_file("one/two/a.txt")
    await workplace.remove_folder("one/two")
    await workplace.remove_folder("one")
    assert await workplace.names() == []


async def test_a_folder_outlives_its_last_file(workplace: Workplace) -> None:
    await workplace.make_folder("one")
    await write_file(workplace, "one/a.txt", b"x")
    await workplace.remove_file("one/a.txt")

    assert await workplace.names() == ["one"]


async def test_files_and_folders_are_not_taken_for_each_other(workplace: Workplace) -> None:
    await workplace.make_folder("folder")
    await write_file(workplace, "file", b"x")

    async with fails_with("EISDIR"):
        await write_file(workplace, "folder", b"")
    async with fails_with("EISDIR"):
        await workplace.remove_file("folder")
    async with fails_with("ENOTDIR"):
        await workplace.remove_folder("file")
    async with fails_with("ENOTDIR"):
        await workplace.names("file")
    async with fails_with("EEXIST"):
        await workplace.make_folder("file")
    async with fails_with("EISDIR"):
        await workplace.rename("file", "folder")
    async with fails_with("ENOTDIR"):
        await workplace.rename("folder", "file")


async def test_renaming_a_file_moves_its_bytes(workplace: Workplace) -> None:
    await write_file(workplace, "old", b"content")
    await workplace.make_folder("folder")
    await workplace.rename("old", "folder/new")

    assert await workplace.names() == ["folder"]
    assert await read_file(workplace, "folder/new") == b"content"


async def test_renaming_over_a_file_replaces_it(workplace: Workplace) -> None:
    await write_file(workplace, "old", b"new content")
    await write_file(workplace, "target", b"replaced")
    await workplace.rename("old", "target")

    assert await workplace.names() == ["target"]
    assert await read_file(workplace, "target") == b"new content"


async def test_renaming_a_file_to_itself_changes_nothing(workplace: Workplace) -> None:
    await write_file(workplace, "same", b"content")
    await workplace.rename("same", "same")

    assert await read_file(workplace, "same") == b"content"


async def test_renaming_without_replacing_refuses_a_taken_name(workplace: Workplace) -> None:
    await write_file(workplace, "old", b"one")
    await write_file(workplace, "taken", b"two")

    async with fails_with("EEXIST"):
        await workplace.rename("old", "taken", flags=RENAME_NOREPLACE)
    await workplace.rename("old", "free", flags=RENAME_NOREPLACE)
    assert await workplace.names() == ["free", "taken"]


async def test_renaming_a_file_that_is_being_written(workplace: Workplace) -> None:
    async with workplace.opened("part", CREATE) as file:
        await file.write(0, b"one ")
        await workplace.rename("part", "whole")
        await file.write(4, b"two")
        assert await workplace.names() == ["whole"]

    assert await read_file(workplace, "whole") == b"one two"


async def test_renaming_over_an_open_file_leaves_its_readers_the_old_bytes(
    workplace: Workplace,
) -> None:
    await write_file(workplace, "target", b"old bytes")
    await write_file(workplace, "source", b"new")
    async with workplace.opened("target", os.O_RDONLY) as file:
        await workplace.rename("source", "target")
        assert await file.read(0, 100) == b"old bytes"

    assert await read_file(workplace, "target") == b"new"


async def test_renaming_a_folder_moves_all_that_is_in_it(workplace: Workplace) -> None:
    """Promise 18."""
    await workplace.make_folder("old")
    await workplace.make_folder("old/inner")
    await write_file(workplace, "old/a", b"a")
    await write_file(workplace, "old/inner/b", b"b")
    await workplace.rename("old", "new")

    assert await workplace.names() == ["new"]
    assert await workplace.names("new") == ["a", "inner"]
    assert await read_file(workplace, "new/a") == b"a"
    assert await read_file(workplace, "new/inner/b") == b"b"


async def test_renaming_a_folder_over_another_needs_that_one_empty(workplace: Workplace) -> None:
    await workplace.make_folder("full")
    await write_file(workplace, "full/a", b"a")
    await workplace.make_folder("source")
    await workplace.make_folder("empty")

    async with fails_with("ENOTEMPTY"):
        await workplace.rename("source", "full")
    await workplace.rename("full", "empty")
    assert await workplace.names() == ["empty", "source"]
    assert await read_file(workplace, "empty/a") == b"a"


async def test_a_folder_cannot_move_into_itself(workplace: Workplace) -> None:
    """Promise 18."""
    await workplace.make_folder("outer")
    await workplace.make_folder("outer/inner")
    async with fails_with("EINVAL"):
        await workplace.rename("outer", "outer/inner/outer")


async def test_modes_and_times_are_kept(workplace: Workplace) -> None:
    await write_file(workplace, "a.txt", b"x")
    await workplace.set_permissions("a.txt", 0o750)
    await workplace.set_mtime("a.txt", 1_234_567_890_000_000_000)

    status = await workplace.status("a.txt")
    assert status.permissions == 0o750
    assert status.mtime_ns == 1_234_567_890_000_000_000


async def test_modes_and_times_follow_a_rename(workplace: Workplace) -> None:
    await write_file(workplace, "a.txt", b"x")
    await workplace.set_permissions("a.txt", 0o750)
    await workplace.set_mtime("a.txt", 1_234_567_890_000_000_000)
    await workplace.rename("a.txt", "b.txt")

    status = await workplace.status("b.txt")
    assert status.permissions == 0o750
    assert status.mtime_ns == 1_234_567_890_000_000_000


async def test_writing_moves_the_time_forward(workplace: Workplace) -> None:
    await write_file(workplace, "a.txt", b"x")
    await workplace.set_mtime("a.txt", 1_000_000_000_000_000_000)
    async with workplace.opened("a.txt", os.O_WRONLY) as file:
        await file.write(0, b"y")

    assert (await workplace.status("a.txt")).mtime_ns > 1_000_000_000_000_000_000


@pytest.mark.parametrize("way", ["open", "file", "path"])
async def test_truncating_to_the_present_length_moves_the_time_forward(
    workplace: Workplace, way: str
) -> None:
    # ``: > stamp`` is how shell scripts touch an empty file.
    await write_file(workplace, "stamp", b"")
    await workplace.set_mtime("stamp", 1_000_000_000_000_000_000)
    flags = os.O_WRONLY | (os.O_TRUNC if way == "open" else 0)
    if way == "path":
        await workplace.truncate("stamp", 0)
    else:
        async with workplace.opened("stamp", flags) as file:
            if way == "file":
                await file.truncate(0)

    assert (await workplace.status("stamp")).mtime_ns > 1_000_000_000_000_000_000


async def test_a_file_keeps_its_inode_over_writes_and_renames(workplace: Workplace) -> None:
    await write_file(workplace, "a.txt", b"x")
    inode = (await workplace.status("a.txt")).inode
    await write_file(workplace, "a.txt", b"yy")
    await workplace.rename("a.txt", "b.txt")

    assert (await workplace.status("b.txt")).inode == inode


async def test_links_are_refused(mounted_container: Workplace) -> None:
    """Promise 20."""
    await write_file(mounted_container, "a.txt", b"x")
    async with fails_with("EPERM"):
        await mounted_container.make_symlink("soft")
    async with fails_with("EPERM"):
        await mounted_container.make_hard_link("hard", "a.txt")
    assert await mounted_container.names() == ["a.txt"]


async def test_an_exchange_is_refused(mounted_container: Workplace) -> None:
    """Promise 17."""
    await write_file(mounted_container, "a", b"a")
    await write_file(mounted_container, "b", b"b")
    async with fails_with("EINVAL"):
        await mounted_container.rename("a", "b", flags=RENAME_EXCHANGE)
    assert await read_file(mounted_container, "a") == b"a"


async def test_attributes_tell_what_the_service_knows(container: Workplace) -> None:
    await write_file(container, "a.txt", b"hello")
    await container.sync_folder()

    assert (await container.attribute("a.txt", "user.ctrfs.id")).startswith(b"cfile_")
    assert (await container.attribute("a.txt", "user.ctrfs.path")).endswith(b"-a.txt")
    assert await container.attribute("a.txt", "user.ctrfs.state") == b"clean"
    async with fails_with("ENODATA"):
        await container.attribute("a.txt", "user.ctrfs.error")


async def test_foreign_attributes_are_not_supported(container: Workplace) -> None:
    """Promise 20."""
    await write_file(container, "a.txt", b"hello")
    async with fails_with("EOPNOTSUPP"):
        await container.set_attribute("a.txt", "user.foreign", b"1")
