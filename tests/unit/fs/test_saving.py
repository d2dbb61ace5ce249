"""Bringing bytes to the service: docs/semantics.md, promises 10 to 12a."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
import trio
import trio.testing
from tests.support.in_process import READ, TRUNCATE, WRITE, InProcessMount, Settings, mounted
from tests.support.service import InProcessService

from ctrfs import failpoints
from ctrfs.api.models import ContainerFile, ContainerId
from ctrfs.api.protocol import ContainersApi, UploadBody
from ctrfs.config import ContentConfig, TreeConfig
from ctrfs.disk.journal import UnsentRow
from ctrfs.errors import (
    LocalDiskError,
    LocalDiskFullError,
    NameTooLongError,
    RemoteInvalidError,
    RemoteMiscountError,
    RemoteQuotaError,
    RemoteRefusedError,
    RemoteTooLargeError,
    RemoteUnavailableError,
    StaleHandleError,
)
from ctrfs.fs.attributes import AttributeChanges
from ctrfs.tree.names import DEPTH_MAX
from ctrfs.units import MIB


def stored(service: InProcessService, container_id: str) -> list[bytes]:
    """Return the bytes of all files of a container, oldest first."""
    rows = service.files(container_id)
    return [service.content(container_id, str(row["id"])) for row in reversed(rows)]


def kept_bytes(state: Path, spool_name: str) -> list[bytes]:
    """Return the bytes of the spool files of that name."""
    return [path.read_bytes() for path in state.glob(f"*/0/spool/**/{spool_name}")]


async def test_a_new_file_is_on_the_service_after_one_request(
    mount: InProcessMount, service: InProcessService, work: str
) -> None:
    """Promise 12."""
    await mount.stat("work")
    await mount.names("work")
    service.reset_counters()

    await mount.write_file("work/a.txt", b"hello")

    assert service.counters() == {"create_file": 1}
    assert stored(service, work) == [b"hello"]


@pytest.mark.parametrize("size", [5, 3 * MIB], ids=["small", "large"])
async def test_the_service_has_a_file_only_once_the_journal_has_it(
    mount: InProcessMount, service: InProcessService, work: str, size: int
) -> None:
    """Promise 14."""
    seen: list[tuple[int, int]] = []

    def look(point: str, _detail: str) -> None:
        if point == "save.intended":
            seen.append((len(service.files(work)), len(mount.parts.journal.rows())))

    failpoints.install(look)
    try:
        await mount.write_file("work/a.txt", bytes(size))
    finally:
        failpoints.install(None)

    assert seen == [(0, 1)]
    assert stored(service, work) == [bytes(size)]


async def test_a_large_file_that_is_refused_is_recorded_all_the_same(
    mount: InProcessMount, service: InProcessService
) -> None:
    """Promise 14."""
    service.add_fault("create_file", "status", status=400)

    with pytest.raises(RemoteInvalidError):
        await mount.write_file("work/a.txt", bytes(3 * MIB))

    (row,) = mount.parts.journal.rows()
    assert (row.size_bytes, row.error != "") == (3 * MIB, True)
    assert await mount.read_file("work/a.txt") == bytes(3 * MIB)


async def test_a_large_file_is_sent_where_the_local_disk_takes_no_record(
    mount: InProcessMount, service: InProcessService, work: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_row: UnsentRow) -> None:
        raise LocalDiskFullError("no space left on device")

    monkeypatch.setattr(mount.parts.journal, "put", refuse)

    await mount.write_file("work/a.txt", bytes(3 * MIB))

    assert stored(service, work) == [bytes(3 * MIB)]


@pytest.mark.parametrize("size", [5, 3 * MIB], ids=["small", "large"])
async def test_an_upload_that_was_cancelled_and_has_arrived_leaves_no_second_file(
    mount: InProcessMount, service: InProcessService, work: str, size: int
) -> None:
    """Promise 14."""
    await mount.names("work")
    service.add_fault("create_file", "delay", seconds=0.5, count=1, when="after")
    handle = await mount.create("work/a.txt")
    await mount.fs.write(handle, 0, b"o" * size)
    with trio.move_on_after(0.3) as scope:
        await mount.fs.flush(handle)
    assert scope.cancelled_caught

    await mount.fs.write(handle, 0, b"n")
    await mount.close(handle)

    assert stored(service, work) == [b"n" + b"o" * (size - 1)]


@pytest.mark.parametrize("size", [5, 3 * MIB], ids=["small", "large"])
async def test_a_file_goes_with_its_folder_that_is_renamed_as_its_upload_ends(
    mount: InProcessMount,
    service: InProcessService,
    work: str,
    nursery: trio.Nursery,
    monkeypatch: pytest.MonkeyPatch,
    size: int,
) -> None:
    """Promise 18."""
    await mount.mkdir("work/d")
    create_file = type(mount.parts.api).create_file

    async def rename_as_it_ends(
        api: ContainersApi, container_id: ContainerId, *, name: str, body: UploadBody
    ) -> ContainerFile:
        answer = await create_file(api, container_id, name=name, body=body)
        nursery.start_soon(mount.rename, "work/d", "work/e")
        return answer

    monkeypatch.setattr(type(mount.parts.api), "create_file", rename_as_it_ends)
    await mount.write_file("work/d/a.txt", bytes(size))
    monkeypatch.undo()
    await trio.testing.wait_all_tasks_blocked(0.05)
    await mount.refresh("work")

    assert await mount.walk("work") == {"work/e": None, "work/e/a.txt": bytes(size)}


@pytest.mark.parametrize("size", [5, 3 * MIB], ids=["small", "large"])
async def test_a_record_that_cannot_be_read_keeps_no_other_file_from_being_sent(
    mount: InProcessMount,
    service: InProcessService,
    work: str,
    monkeypatch: pytest.MonkeyPatch,
    size: int,
) -> None:
    """Promise 15."""
    service.add_fault("create_file", "status", status=400)
    for name in "ab":
        with pytest.raises(RemoteInvalidError):
            await mount.write_file(f"work/{name}.txt", name.encode() * size)
    service.clear_faults()

    def refuse(_key: str) -> None:
        raise LocalDiskError("input/output error")

    monkeypatch.setattr(mount.parts.journal, "row", refuse)
    await mount.fs.drain()
    monkeypatch.undo()

    assert sorted(stored(service, work)) == [b"a" * size, b"b" * size]


async def test_an_overwrite_is_an_upload_and_a_delete_and_keeps_the_inode(
    mount: InProcessMount, service: InProcessService, work: str
) -> None:
    """Promise 12."""
    await mount.write_file("work/a.txt", b"old")
    inode = (await mount.stat("work/a.txt")).inode
    service.reset_counters()

    await mount.write_file("work/a.txt", b"new")

    assert service.counters() == {"create_file": 1, "delete_file": 1}
    assert stored(service, work) == [b"new"]
    assert (await mount.stat("work/a.txt")).inode == inode
    assert await mount.read_file("work/a.txt") == b"new"


async def test_writing_back_the_bytes_that_are_there_sends_nothing(
    mount: InProcessMount, service: InProcessService, work: str
) -> None:
    """Promise 12a."""
    await mount.write_file("work/a.txt", b"same")
    service.reset_counters()

    await mount.write_file("work/a.txt", b"same")
    handle = await mount.open("work/a.txt", WRITE)
    await mount.fs.write(handle, 0, b"same")
    await mount.fs.fsync(handle)
    await mount.close(handle)

    assert service.counters() == {}


async def test_a_flush_without_a_change_sends_nothing(
    mount: InProcessMount, service: InProcessService, work: str
) -> None:
    """Promise 12: flush is called for each close of a duplicated descriptor."""
    await mount.write_file("work/a.txt", b"bytes")
    service.reset_counters()
    handle = await mount.open("work/a.txt", WRITE)

    for _ in range(3):
        await mount.fs.flush(handle)
    await mount.close(handle)

    assert service.counters() == {}


@pytest.mark.parametrize(
    "behaviour",
    [{"duplicates": "same", "hash_prefix": False}, {"ids": "path", "hash_prefix": False}],
)
async def test_an_answer_that_names_the_replaced_file_deletes_nothing(
    mount: InProcessMount, service: InProcessService, work: str, behaviour: dict[str, object]
) -> None:
    """Promise 12a: on some servers it is the same file."""
    service.set_behaviour(**behaviour)
    await mount.write_file("work/a.txt", b"first")
    await mount.write_file("work/a.txt", b"second")

    await mount.refresh("work")

    assert b"second" in stored(service, work)
    assert await mount.read_file("work/a.txt") == b"second"


async def test_close_reports_the_upload_failure_and_keeps_the_bytes(
    mount: InProcessMount, service: InProcessService, work: str
) -> None:
    """Promises 12 and 14."""
    service.add_fault("create_file", "status", status=403)
    handle = await mount.create("work/a.txt")
    await mount.fs.write(handle, 0, b"precious")

    with pytest.raises(RemoteRefusedError):
        await mount.close(handle)

    assert await mount.read_file("work/a.txt") == b"precious"
    (row,) = mount.parts.journal.rows()
    assert (row.container_id, row.path, row.size_bytes) == (work, b"a.txt", 8)
    (line,) = (await mount.read_file(".ctrfs/pending")).splitlines()
    assert json.loads(line)["path"] == "a.txt"
    assert await mount.attribute("work/a.txt", "state") == "failed"
    assert await mount.attribute("work/a.txt", "error")


async def test_kept_bytes_are_synced_to_the_spool_under_the_recorded_name(
    mount: InProcessMount, service: InProcessService, state: Path
) -> None:
    """Promise 14: ``ctrfs recover`` finds them there."""
    service.add_fault("create_file", "status", status=403)
    with pytest.raises(RemoteRefusedError):
        await mount.write_file("work/a.txt", b"precious")

    (row,) = mount.parts.journal.rows()
    assert kept_bytes(state, row.spool_name) == [b"precious"]


async def test_a_later_close_sends_what_an_earlier_one_could_not(
    mount: InProcessMount, service: InProcessService, work: str
) -> None:
    """Promise 14."""
    service.add_fault("create_file", "status", status=403)
    with pytest.raises(RemoteRefusedError):
        await mount.write_file("work/a.txt", b"precious")
    assert stored(service, work) == []
    service.clear_faults()

    handle = await mount.open("work/a.txt", WRITE)
    await mount.close(handle)

    assert stored(service, work) == [b"precious"]
    assert mount.parts.journal.rows() == []
    assert await mount.attribute("work/a.txt", "state") == "clean"
    assert b"user.ctrfs.error" not in await mount.fs.listxattr(
        (await mount.stat("work/a.txt")).inode
    )


async def test_fsync_of_a_reader_sends_what_a_close_could_not(
    mount: InProcessMount, service: InProcessService, work: str
) -> None:
    """Promise 14: ``sync FILE`` opens for reading."""
    service.add_fault("create_file", "status", status=403)
    with pytest.raises(RemoteRefusedError):
        await mount.write_file("work/a.txt", b"precious")
    assert stored(service, work) == []
    service.clear_faults()

    handle = await mount.open("work/a.txt", READ)
    await mount.fs.fsync(handle)
    await mount.close(handle)

    assert stored(service, work) == [b"precious"]


async def test_drain_sends_everything_that_is_left(
    mount: InProcessMount, service: InProcessService, work: str
) -> None:
    """Promise 15."""
    service.add_fault("create_file", "status", status=403)
    for name in ("a", "b"):
        with pytest.raises(RemoteRefusedError):
            await mount.write_file(f"work/{name}", name.encode())
    service.clear_faults()
    assert mount.fs.unsent_count() == 2

    left = await mount.fs.drain()

    assert left == 0
    assert sorted(stored(service, work)) == [b"a", b"b"]


async def test_bytes_written_after_the_last_flush_are_sent_at_release(
    mount: InProcessMount, service: InProcessService, work: str
) -> None:
    """Promise 12a: pages of a mapping come after close."""
    handle = await mount.create("work/a.txt")
    await mount.fs.flush(handle)
    await mount.fs.write(handle, 0, b"mapped")

    await mount.fs.release(handle)

    assert stored(service, work) == [b"mapped"]


async def test_a_failure_at_release_is_told_nobody_and_keeps_the_bytes(
    mount: InProcessMount, service: InProcessService
) -> None:
    """Promise 12a."""
    handle = await mount.create("work/a.txt")
    await mount.fs.flush(handle)
    service.add_fault("create_file", "status", status=403)
    await mount.fs.write(handle, 0, b"mapped")

    await mount.fs.release(handle)

    assert [row.path for row in mount.parts.journal.rows()] == [b"a.txt"]
    assert await mount.read_file("work/a.txt") == b"mapped"


async def test_a_failed_delete_of_the_replaced_file_is_recorded_and_stays_hidden(
    mount: InProcessMount, service: InProcessService, work: str
) -> None:
    """Promise 12: the new bytes are safe, which is what was asked."""
    await mount.write_file("work/a.txt", b"old")
    old_id = await mount.attribute("work/a.txt", "id")
    service.add_fault("delete_file", "status", status=403)

    await mount.write_file("work/a.txt", b"new")

    assert [
        (version.container_id, version.file_id) for version in mount.parts.journal.deletes()
    ] == [(work, old_id)]
    await mount.refresh("work")
    assert await mount.names("work") == ["a.txt"]
    assert await mount.read_file("work/a.txt") == b"new"


async def test_a_file_replaced_elsewhere_while_open_is_read_in_one_version(
    mount: InProcessMount, service: InProcessService, work: str
) -> None:
    """Promise 9."""
    first = service.plant(work, "/mnt/data/a.txt", b"first version")
    await mount.refresh("work")
    handle = await mount.open("work/a.txt")
    assert await mount.fs.read(handle, 0, 5) == b"first"
    inode = (await mount.stat("work/a.txt")).inode

    service.delete_file(work, first)
    service.plant(work, "/mnt/data/a.txt", b"SECOND VERSION")
    await mount.refresh("work")

    assert await mount.fs.read(handle, 5, 100) == b" version"
    assert await mount.read_file("work/a.txt") == b"SECOND VERSION"
    assert (await mount.stat("work/a.txt")).inode != inode
    await mount.close(handle)


async def test_closing_a_file_replaced_elsewhere_stores_ours_and_keeps_theirs(
    mount: InProcessMount, service: InProcessService, work: str
) -> None:
    """Promise 10."""
    first = service.plant(work, "/mnt/data/a.txt", b"first")
    await mount.refresh("work")
    handle = await mount.open("work/a.txt", WRITE)
    await mount.fs.write(handle, 0, b"OURS!")

    service.delete_file(work, first)
    service.plant(work, "/mnt/data/a.txt", b"theirs")
    await mount.refresh("work")
    await mount.close(handle)

    assert sorted(stored(service, work)) == [b"OURS!", b"theirs"]
    assert await mount.read_file("work/a.txt") == b"OURS!"
    await mount.refresh("work")
    shown = await mount.walk("work")
    assert sorted(filter(None, shown.values())) == [b"OURS!", b"theirs"]


async def test_writing_after_a_file_was_replaced_elsewhere_keeps_both(
    mount: InProcessMount, service: InProcessService, work: str
) -> None:
    """Promise 10: the name was lost before the first byte was written."""
    first = service.plant(work, "/mnt/data/a.txt", b"first")
    await mount.refresh("work")
    handle = await mount.open("work/a.txt", WRITE)
    assert await mount.fs.read(handle, 0, 5) == b"first"
    service.delete_file(work, first)
    service.plant(work, "/mnt/data/a.txt", b"theirs")
    await mount.refresh("work")

    await mount.fs.write(handle, 0, b"OURS!")
    await mount.close(handle)

    assert sorted(stored(service, work)) == [b"OURS!", b"theirs"]
    shown = await mount.walk("work")
    assert sorted(filter(None, shown.values())) == [b"OURS!", b"theirs"]
    assert shown["work/a.txt"] == b"OURS!"


async def test_a_file_deleted_elsewhere_while_written_is_stored_anew(
    mount: InProcessMount, service: InProcessService, work: str
) -> None:
    """Promise 10."""
    first = service.plant(work, "/mnt/data/a.txt", b"first")
    await mount.refresh("work")
    handle = await mount.open("work/a.txt", WRITE)
    await mount.fs.write(handle, 5, b" and more")
    service.delete_file(work, first)
    await mount.refresh("work")

    await mount.close(handle)

    assert stored(service, work) == [b"first and more"]
    assert await mount.read_file("work/a.txt") == b"first and more"


async def test_an_unlinked_open_file_reads_on_and_is_never_sent(
    mount: InProcessMount, service: InProcessService, work: str
) -> None:
    """Promise 17."""
    await mount.write_file("work/a.txt", b"bytes")
    handle = await mount.open("work/a.txt", WRITE)

    await mount.unlink("work/a.txt")
    assert await mount.fs.read(handle, 0, 100) == b"bytes"
    await mount.fs.write(handle, 0, b"BYTES")
    assert await mount.fs.read(handle, 0, 100) == b"BYTES"
    await mount.close(handle)

    assert stored(service, work) == []
    assert await mount.names("work") == []


async def test_unlinking_an_open_remote_file_fetches_its_bytes_first(
    mount: InProcessMount, service: InProcessService, work: str
) -> None:
    """Promise 17: they are gone from the service after."""
    service.plant(work, "/mnt/data/a.txt", b"only there")
    await mount.refresh("work")
    handle = await mount.open("work/a.txt")

    await mount.unlink("work/a.txt")

    assert await mount.fs.read(handle, 0, 100) == b"only there"
    await mount.close(handle)


async def test_a_refused_delete_gives_the_name_back(
    mount: InProcessMount, service: InProcessService
) -> None:
    await mount.write_file("work/a.txt", b"bytes")
    service.add_fault("delete_file", "status", status=403, count=1)

    with pytest.raises(RemoteRefusedError):
        await mount.unlink("work/a.txt")

    assert await mount.names("work") == ["a.txt"]
    assert await mount.read_file("work/a.txt") == b"bytes"
    await mount.unlink("work/a.txt")
    assert await mount.names("work") == []


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ({"action": "status", "status": 400}, RemoteInvalidError),
        ({"action": "status", "status": 413}, RemoteTooLargeError),
        ({"action": "status", "status": 503}, RemoteUnavailableError),
        (
            {
                "action": "status",
                "status": 429,
                "body": {"error": {"message": "no", "code": "insufficient_quota"}},
            },
            RemoteQuotaError,
        ),
    ],
)
async def test_close_says_why_an_upload_failed(
    mount: InProcessMount,
    service: InProcessService,
    fault: dict[str, object],
    error: type[Exception],
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The table of errors, as far as uploads go."""
    service.add_fault("create_file", str(fault.pop("action")), **fault)
    handle = await mount.create("work/a.txt")
    await mount.fs.write(handle, 0, b"x")

    with pytest.raises(error):
        await mount.close(handle)

    assert len(mount.parts.journal.rows()) == 1


async def test_an_upload_whose_answer_is_lost_is_stored_once(
    mount: InProcessMount, service: InProcessService, work: str
) -> None:
    service.add_fault("create_file", "reset", when="after", count=1)

    await mount.write_file("work/a.txt", b"once")

    assert stored(service, work) == [b"once"]
    await mount.refresh("work")
    assert await mount.names("work") == ["a.txt"]


async def test_a_write_past_the_largest_file_fails_at_once(
    service: InProcessService, state: Path, work: str
) -> None:
    """The table of errors: EFBIG, at write time where it is known."""
    settings = Settings(content=ContentConfig(file_bytes_max=10))
    async with mounted(service, state, settings) as mount:
        handle = await mount.create("work/a.txt")
        await mount.fs.write(handle, 0, b"0123456789")

        with pytest.raises(RemoteTooLargeError):
            await mount.fs.write(handle, 10, b"x")
        with pytest.raises(RemoteTooLargeError):
            await mount.fs.setattr(
                (await mount.stat("work/a.txt")).inode, AttributeChanges(size_bytes=11), handle
            )

        await mount.close(handle)
        assert stored(service, work) == [b"0123456789"]


async def test_a_full_spool_fails_the_write_and_not_the_file(
    service: InProcessService, state: Path, work: str
) -> None:
    """The table of errors: ENOSPC, after the clean cache was given up."""
    settings = Settings(content=ContentConfig(spool_bytes_max=64 * 1024))
    async with mounted(service, state, settings) as mount:
        await mount.write_file("work/cached", b"c" * 40_000)
        handle = await mount.create("work/a.txt")
        await mount.fs.write(handle, 0, b"a" * 50_000)

        with pytest.raises(LocalDiskFullError):
            await mount.fs.write(handle, 50_000, b"b" * 50_000)

        await mount.close(handle)
        assert await mount.read_file("work/a.txt") == b"a" * 50_000


async def test_a_container_that_expires_under_an_open_file_makes_it_stale(
    mount: InProcessMount, service: InProcessService
) -> None:
    """The table of errors: ESTALE; the write stays in the journal."""
    handle = await mount.create("work/a.txt")
    await mount.fs.write(handle, 0, b"too late")
    service.advance(3600)

    with pytest.raises(StaleHandleError):
        await mount.close(handle)

    assert [row.path for row in mount.parts.journal.rows()] == [b"a.txt"]


async def test_a_truncating_open_and_a_truncation_by_name_are_sent(
    mount: InProcessMount, service: InProcessService, work: str
) -> None:
    """Promise 17: a truncation without a handle has no close to wait for."""
    await mount.write_file("work/a.txt", b"0123456789")
    await mount.set("work/a.txt", AttributeChanges(size_bytes=4))
    assert stored(service, work) == [b"0123"]
    await mount.set("work/a.txt", AttributeChanges(size_bytes=6))
    assert stored(service, work) == [b"0123\0\0"]

    await mount.close(await mount.open("work/a.txt", TRUNCATE))

    assert stored(service, work) == [b""]
    assert (await mount.stat("work/a.txt")).size_bytes == 0


async def test_bytes_with_another_hash_than_promised_are_never_read(
    mount: InProcessMount,
    service: InProcessService,
    work: str,
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Promise 11: the hash in the name is another one than that of the bytes."""
    service.plant(work, f"/mnt/data/{'0' * 32}-a.txt", b"not these bytes", source="user")
    await mount.refresh("work")
    handle = await mount.open("work/a.txt")

    with pytest.raises(Exception, match="hash"):
        await mount.fs.read(handle, 0, 100)

    assert list(mount.stale_pages) == [(await mount.stat("work/a.txt")).inode]
    assert "hash" in await mount.attribute("work/a.txt", "error")
    await mount.close(handle)


async def test_a_length_that_no_listing_tells_is_learnt_at_open(
    mount: InProcessMount, service: InProcessService, work: str
) -> None:
    service.set_behaviour(null_bytes=True)
    service.plant(work, "/mnt/data/a.txt", b"twelve bytes")
    await mount.refresh("work")
    inode = (await mount.stat("work/a.txt")).inode
    assert (await mount.stat("work/a.txt")).size_bytes == 0

    opened = await mount.fs.open(inode, READ)

    assert opened.direct_io
    assert (await mount.fs.getattr(inode)).size_bytes == 12
    assert await mount.read_all(opened.handle) == b"twelve bytes"
    assert inode in mount.stale_pages
    await mount.refresh("work")
    await mount.close(opened.handle)


async def test_reading_a_file_twice_downloads_it_once(
    mount: InProcessMount, service: InProcessService, work: str
) -> None:
    service.plant(work, "/mnt/data/a.txt", b"bytes")
    await mount.refresh("work")
    service.reset_counters()

    assert await mount.read_file("work/a.txt") == b"bytes"
    assert await mount.read_file("work/a.txt") == b"bytes"

    assert Counter(service.counters())["file_content"] <= 1
    assert sum(service.counters().values()) == 1


async def test_a_file_deeper_than_listings_are_believed_is_refused_when_it_is_made(
    mount: InProcessMount, service: InProcessService, work: str
) -> None:
    """Promise 3: what no listing could show must not be stored."""
    path = "work"
    for _depth in range(DEPTH_MAX):
        path += "/d"
        await mount.mkdir(path)

    with pytest.raises(NameTooLongError):
        await mount.write_file(f"{path}/file", b"deep")
    await mount.write_file(f"{path.removesuffix('/d')}/file", b"deep")

    await mount.fs.setxattr(mount.parts.tree.root.inode, b"user.ctrfs.refresh", b"1")
    assert await mount.read_file(f"{path.removesuffix('/d')}/file") == b"deep"


async def test_unsent_bytes_are_within_reach_however_long_the_service_is_away(
    mount: InProcessMount,
    service: InProcessService,
    work: str,
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Promise 14."""
    await mount.mkdir("work/folder")
    service.add_fault("*", "status", status=403)
    with pytest.raises(RemoteRefusedError):
        await mount.write_file("work/folder/a.txt", b"precious")

    await trio.sleep(10 * TreeConfig().max_stale_s)

    assert await mount.read_file("work/folder/a.txt") == b"precious"


async def test_an_answer_that_counts_other_bytes_does_not_store_the_file_again_and_again(
    mount: InProcessMount,
    service: InProcessService,
    work: str,
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A server, or what stands before it, that cannot count is for a person to look at."""
    answer = {
        "id": "cfile_zz", "object": "container.file", "created_at": 1767225600, "bytes": 4,
        "container_id": work, "path": "/mnt/data/a", "source": "user",
    }  # fmt: skip
    service.add_fault("create_file", "status", status=200, body=answer, when="after")
    with pytest.raises(RemoteMiscountError):
        await mount.write_file("work/a", b"x")

    await trio.sleep(600)
    assert len(service.files(work)) == 1

    assert len(mount.parts.journal) == 1
    service.clear_faults()
    handle = await mount.open("work/a", READ)
    await mount.fs.fsync(handle)
    await mount.close(handle)
    assert stored(service, work) == [b"x"]
