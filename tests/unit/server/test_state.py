"""Storage: what survives, what is swept, who may open it."""

from __future__ import annotations

import resource
import signal
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace

from ctrfs.errors import ConfigError
from ctrfs.server.records import ContainerRecord, FileRecord, NetworkPolicy
from ctrfs.server.state import ServiceState
from ctrfs.units import NS_PER_S

HOUR_NS = 3600 * NS_PER_S
CONTAINER = ContainerRecord(
    sequence=0,
    id="cntr_1",
    name="odd \ud800 name",
    created_at_ns=1,
    ready_at_ns=2,
    status="running",
    minutes=20,
    last_active_at_ns=3,
    memory_limit="4g",
    network_policy=NetworkPolicy(type="allowlist", allowed_domains=("a.example",)),
)


async def add_file(state: ServiceState, file_id: str, content: bytes, **facts: int) -> FileRecord:
    with state.blobs.new() as writer:
        writer.write(content)
        blob = await writer.commit()
    record = FileRecord(
        sequence=0,
        id=file_id,
        container_id=CONTAINER.id,
        path=f"/mnt/data/{file_id}",
        size_bytes=blob.size_bytes,
        source="user",
        created_at_s=facts.get("created_at_s", 0),
        listed_from_ns=facts.get("listed_from_ns", 0),
        blob=blob.name,
        digest=blob.digest,
    )
    return state.add_file(record)


@pytest.fixture
async def state(tmp_path: Path) -> AsyncIterator[ServiceState]:
    opened = ServiceState(tmp_path)
    opened.add_container(replace(CONTAINER))
    yield opened
    opened.close()


def page(state: ServiceState, after: str | None = None, *, limit: int = 10) -> list[str] | None:
    rows = state.page_of_files(CONTAINER.id, after=after, limit=limit, newest_first=False, now_ns=5)
    return None if rows is None else [row.id for row in rows]


async def test_containers_and_files_survive_a_restart(tmp_path: Path) -> None:
    first = ServiceState(tmp_path)
    first.add_container(replace(CONTAINER))
    added = await add_file(first, "f", b"abc")
    await first.flush()
    first.close()

    second = ServiceState(tmp_path)
    found = second.file(CONTAINER.id, "f")
    (container,) = second.containers()
    second.close()

    assert container == replace(CONTAINER, sequence=1)
    assert found is not None
    assert replace(found, sequence=0) == added
    assert (tmp_path / "blobs" / added.blob).read_bytes() == b"abc"


async def test_the_last_activity_survives_a_clean_end(tmp_path: Path) -> None:
    first = ServiceState(tmp_path)
    container = replace(CONTAINER)
    first.add_container(container)
    first.touch(container, 77)
    first.close()

    second = ServiceState(tmp_path)
    (found,) = second.containers()
    second.close()

    assert found.last_active_at_ns == 77


async def test_a_second_server_is_refused_in_one_line(state: ServiceState, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^another server uses the data directory .*$"):
        ServiceState(tmp_path)


async def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    ServiceState(tmp_path).close()
    database = sqlite3.connect(tmp_path / "service.sqlite")
    database.execute("PRAGMA user_version = 99")
    database.close()

    with pytest.raises(ConfigError, match="format 99"):
        ServiceState(tmp_path)


async def test_leftovers_of_a_crash_are_swept_at_the_start(tmp_path: Path) -> None:
    first = ServiceState(tmp_path)
    first.add_container(replace(CONTAINER))
    kept = await add_file(first, "kept", b"abc")
    lost = await add_file(first, "lost", b"def")
    first.close()
    blobs = tmp_path / "blobs"
    (blobs / "half.part").write_bytes(b"half an upload")
    (blobs / "without-a-row").write_bytes(b"renamed, and then the power went")
    (blobs / lost.blob).unlink()

    second = ServiceState(tmp_path)
    found = page(second)
    second.close()

    assert found == ["kept"]
    assert [path.name for path in blobs.iterdir()] == [kept.blob]


async def test_a_blob_that_is_not_committed_leaves_nothing(state: ServiceState) -> None:
    with state.blobs.new() as writer:
        writer.write(b"half")

    assert list(state.blobs.directory.iterdir()) == []


async def test_a_blob_of_many_pieces_is_whole(state: ServiceState) -> None:
    with state.blobs.new() as writer:
        for _ in range(5):
            writer.write(b"x" * 700_000)
        blob = await writer.commit()

    assert blob.size_bytes == 3_500_000
    assert state.blobs.path(blob.name).read_bytes() == b"x" * 3_500_000


async def test_files_stand_in_order_of_their_second_and_then_of_arrival(
    state: ServiceState,
) -> None:
    await add_file(state, "b", b"", created_at_s=2)
    await add_file(state, "a", b"", created_at_s=1)
    await add_file(state, "c", b"", created_at_s=2)

    assert page(state) == ["a", "b", "c"]
    assert page(state, "a", limit=1) == ["b"]
    assert page(state, "c") == []


async def test_a_walk_goes_on_after_a_row_that_was_removed(state: ServiceState) -> None:
    first = await add_file(state, "a", b"")
    await add_file(state, "b", b"")

    state.remove_file(first)

    assert page(state, "a") == ["b"]
    assert page(state, "never") is None


async def test_a_file_is_listed_from_its_time_on(state: ServiceState) -> None:
    await add_file(state, "later", b"", listed_from_ns=6)
    await add_file(state, "now", b"", listed_from_ns=5)

    assert page(state) == ["now"]


async def test_an_expired_container_keeps_its_row_and_loses_its_data(state: ServiceState) -> None:
    await add_file(state, "a", b"abc")
    (container,) = state.containers()

    state.expire(container)

    assert [each.status for each in state.containers()] == ["expired"]
    assert page(state) == []
    assert list(state.blobs.directory.iterdir()) == []


async def test_a_replaced_file_takes_its_blob_along_when_the_new_one_is_safe(
    state: ServiceState,
) -> None:
    old = await add_file(state, "a", b"old")
    new = await add_file(state, "a", b"new")

    assert page(state) == ["a"]
    assert {path.name for path in state.blobs.directory.iterdir()} == {old.blob, new.blob}
    await state.flush()
    assert [path.name for path in state.blobs.directory.iterdir()] == [new.blob]


async def test_the_row_of_a_removed_file_goes_when_no_walk_can_stand_at_it(
    state: ServiceState,
) -> None:
    for file_id in ("a", "b"):
        await add_file(state, file_id, b"")
    removed = state.file(CONTAINER.id, "a")
    assert removed is not None
    state.remove_file(removed)

    state.forget_removed(HOUR_NS)
    state.forget_removed(2 * HOUR_NS - 1)
    assert page(state, "a") == ["b"]
    state.forget_removed(2 * HOUR_NS)
    assert page(state, "a") is None
    assert page(state) == ["b"]


async def test_what_a_full_disk_keeps_from_expiring_expires_later(state: ServiceState) -> None:
    await add_file(state, "a", b"abc")
    (container,) = state.containers()
    with limited_writes(), pytest.raises(sqlite3.Error):
        state.expire(container)
    kept = (container.status, page(state))

    state.expire(container)

    assert kept == ("running", ["a"])
    assert container.status == "expired"


async def test_a_full_disk_does_not_keep_the_data_directory_locked(tmp_path: Path) -> None:
    full = ServiceState(tmp_path)
    full.add_container(replace(CONTAINER))
    (container,) = full.containers()
    full.touch(container, CONTAINER.last_active_at_ns + 1)
    with limited_writes():
        full.close()

    ServiceState(tmp_path).close()


@contextmanager
def limited_writes() -> Iterator[None]:
    """Let this process write to no file, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
