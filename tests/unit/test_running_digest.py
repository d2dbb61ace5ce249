from __future__ import annotations

import hashlib
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest
import trio
import trio.testing
from msgspec.structs import replace
from tests.unit.content.conftest import SMALL, store_over
from tests.unit.content.fake_service import FakeService

from ctrfs.content.open_file import OpenFile
from ctrfs.disk.spool import SpoolDirectory, SpoolFile
from ctrfs.errors import LocalDiskError, ShuttingDownError
from ctrfs.running_digest import RunningDigest
from ctrfs.tree.nodes import InodeNumber
from ctrfs.units import MIB

LONG = b"".join(bytes([number]) * MIB for number in range(12)) + b"end"
SHORT = bytes(range(256)) * 1_000
OTHERS = b"?" * MIB


class Tasks:
    """Starts tasks and counts them; ``is_over`` refuses, as the end of a mount does."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self.count = 0
        self.is_over = False

    def start_soon(self, run: Callable[[], Awaitable[None]]) -> None:
        if self.is_over:
            raise ShuttingDownError("the mount is ending")
        self.count += 1
        self._nursery.start_soon(run)


@pytest.fixture
def large_spool(tmp_path: Path) -> Iterator[SpoolDirectory]:
    (tmp_path / "large").mkdir()
    spool = SpoolDirectory(tmp_path / "large", bytes_max=256 * MIB)
    yield spool
    spool.check_invariants()
    spool.close()


@pytest.fixture
def file(large_spool: SpoolDirectory) -> SpoolFile:
    return large_spool.create()


@pytest.fixture
def tasks(nursery: trio.Nursery) -> Tasks:
    return Tasks(nursery)


def digest_of(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def bring(
    running: RunningDigest, file: SpoolFile, content: bytes, *, start: int = 0, size: int = MIB
) -> None:
    for position in range(start, len(content), size):
        piece = content[position : position + size]
        file.pwrite(position, piece)
        running.take(position, piece)


async def test_few_bytes_are_hashed_where_they_come_by(file: SpoolFile, tasks: Tasks) -> None:
    running = RunningDigest(file, start_soon=tasks.start_soon)

    bring(running, file, SHORT, size=1000)

    assert await running.finish(len(SHORT)) == digest_of(SHORT)
    assert tasks.count == 0


async def test_many_bytes_are_hashed_behind_who_brings_them(file: SpoolFile, tasks: Tasks) -> None:
    running = RunningDigest(file, start_soon=tasks.start_soon)

    bring(running, file, LONG)

    assert tasks.count == 1
    assert await running.finish(len(LONG)) == digest_of(LONG)


async def test_who_comes_late_finds_many_bytes_hashed_already(
    file: SpoolFile, tasks: Tasks
) -> None:
    running = RunningDigest(file, start_soon=tasks.start_soon)

    bring(running, file, LONG[: 10 * MIB])
    await trio.testing.wait_all_tasks_blocked()
    bring(running, file, LONG, start=10 * MIB)

    assert await running.finish(len(LONG)) == digest_of(LONG)


async def test_bytes_that_came_in_another_order_are_read_back_in_the_end(
    file: SpoolFile, tasks: Tasks
) -> None:
    running = RunningDigest(file, start_soon=tasks.start_soon)
    file.pwrite(9 * MIB, LONG[9 * MIB :])

    bring(running, file, LONG[: 9 * MIB])
    running.reach(len(LONG))

    assert await running.finish(len(LONG)) == digest_of(LONG)


@pytest.mark.parametrize("content", [SHORT, LONG], ids=["short", "long"])
async def test_at_the_end_of_a_mount_who_asks_looks_himself(
    file: SpoolFile, tasks: Tasks, content: bytes
) -> None:
    running = RunningDigest(file, start_soon=tasks.start_soon)
    tasks.is_over = True

    bring(running, file, content)

    assert await running.finish(len(content)) == digest_of(content)


async def test_bytes_that_the_disk_has_lost_fail_for_who_asks_and_for_nobody_else(
    file: SpoolFile, tasks: Tasks
) -> None:
    running = RunningDigest(file, start_soon=tasks.start_soon)
    bring(running, file, LONG[: 8 * MIB])
    file.truncate(2 * MIB)

    running.reach(12 * MIB)
    for _attempt in range(2):
        with pytest.raises(LocalDiskError):
            await running.finish(12 * MIB)

    file.pwrite(2 * MIB, LONG[2 * MIB :])
    assert await running.finish(len(LONG)) == digest_of(LONG)


class SlowBytes:
    """Bytes that are read once the gate is open; counts who reads at the same time."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self.gate = threading.Event()
        self.is_in = threading.Event()
        self._readers = 0
        self.most_readers = 0

    def pread(self, offset: int, size: int) -> bytes:
        self._readers += 1
        self.most_readers = max(self.most_readers, self._readers)
        self.is_in.set()
        assert self.gate.wait(10)
        self._readers -= 1
        return self._content[offset : offset + size]

    def pinned(self) -> AbstractContextManager[None]:
        return nullcontext()


async def test_bytes_that_come_while_somebody_waits_are_left_to_him(tasks: Tasks) -> None:
    source = SlowBytes(LONG)
    running = RunningDigest(source, start_soon=tasks.start_soon)
    digests: list[str] = []

    async def wait() -> None:
        digests.append(await running.finish(len(LONG)))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.to_thread.run_sync(source.is_in.wait, 10)
        for position in range(0, len(LONG), MIB):
            running.take(position, LONG[position : position + MIB])
        await trio.testing.wait_all_tasks_blocked()
        source.gate.set()

    assert digests == [digest_of(LONG)]
    assert source.most_readers == 1


async def test_who_is_cancelled_while_a_thread_hashes_does_not_go_on(tasks: Tasks) -> None:
    source = SlowBytes(LONG)
    running = RunningDigest(source, start_soon=tasks.start_soon)
    went_on: list[str] = []

    async def wait() -> None:
        went_on.append(await running.finish(2 * MIB))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.to_thread.run_sync(source.is_in.wait, 10)
        nursery.cancel_scope.cancel()
        source.gate.set()

    assert went_on == []
    assert await running.finish(len(LONG)) == digest_of(LONG)


async def test_where_no_task_can_be_started_all_is_hashed_where_it_comes_by(
    file: SpoolFile,
) -> None:
    running = RunningDigest(file, start_soon=None)

    bring(running, file, LONG)
    file.truncate(0)  # nobody reads it back

    assert await running.finish(len(LONG)) == digest_of(LONG)


async def test_a_file_that_is_deleted_meanwhile_is_let_go_once_the_thread_has_ended(
    file: SpoolFile, tasks: Tasks, large_spool: SpoolDirectory
) -> None:
    running = RunningDigest(file, start_soon=tasks.start_soon)

    bring(running, file, LONG)
    assert tasks.count == 1
    file.delete()
    await trio.testing.wait_all_tasks_blocked()

    assert large_spool.bytes_used == 0


async def as_it_is(_file: OpenFile) -> bytes:
    return LONG


async def with_other_bytes_in_the_middle(file: OpenFile) -> bytes:
    await file.write(3 * MIB + 1, OTHERS)
    return LONG[: 3 * MIB + 1] + OTHERS + LONG[4 * MIB + 1 :]


async def shorter(file: OpenFile) -> bytes:
    await file.truncate(9 * MIB)
    return LONG[: 9 * MIB]


async def longer_behind_a_hole(file: OpenFile) -> bytes:
    await file.write(len(LONG) + 5, b"behind")
    return LONG + bytes(5) + b"behind"


async def with_more_behind_it(file: OpenFile) -> bytes:
    await file.write(len(LONG), OTHERS)
    return LONG + OTHERS


async def shorter_and_with_more_behind_it(file: OpenFile) -> bytes:
    await file.truncate(9 * MIB)
    await file.write(9 * MIB, OTHERS)
    return LONG[: 9 * MIB] + OTHERS


async def emptied_and_written_anew(file: OpenFile) -> bytes:
    await file.truncate(0)
    await file.write(0, SHORT)
    return SHORT


async def sent_and_then_with_more_behind_it(file: OpenFile) -> bytes:
    async with file.sending() as outgoing:
        assert outgoing.digest == digest_of(LONG)
    await file.write(len(LONG), OTHERS)
    return LONG + OTHERS


@pytest.mark.parametrize(
    "change",
    [
        as_it_is,
        with_other_bytes_in_the_middle,
        shorter,
        longer_behind_a_hole,
        with_more_behind_it,
        shorter_and_with_more_behind_it,
        emptied_and_written_anew,
        sent_and_then_with_more_behind_it,
    ],
)
async def test_what_is_sent_has_the_digest_of_exactly_its_bytes(
    large_spool: SpoolDirectory,
    nursery: trio.Nursery,
    change: Callable[[OpenFile], Awaitable[bytes]],
) -> None:
    config = replace(SMALL, spool_bytes_max=256 * MIB, file_bytes_max=64 * MIB)
    store = store_over(large_spool, FakeService(), config)
    await nursery.start(store.run)
    file = store.create(InodeNumber(7))
    for position in range(0, len(LONG), 128 * 1024):
        await file.write(position, LONG[position : position + 128 * 1024])

    content = await change(file)
    async with file.sending() as outgoing:
        sent = b"".join(outgoing.body.open())

    assert sent == content
    assert outgoing.digest == digest_of(content)
