from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.content.conftest import Bench, store_over
from tests.unit.content.fake_service import (
    FakeService,
    StoppedClock,
    Transfer,
    digest_of,
    identity_of,
)

from ctrfs.api.models import FileId
from ctrfs.config import ContentConfig
from ctrfs.content.file_state import TRANSITIONS, FileState
from ctrfs.content.open_file import OpenFile
from ctrfs.disk.spool import SpoolDirectory
from ctrfs.errors import (
    LocalDiskFullError,
    RemoteBusyError,
    RemoteTooLargeError,
    RemoteUnavailableError,
)
from ctrfs.tree.nodes import InodeNumber
from ctrfs.units import GIB, KIB, MIB

INODE = InodeNumber(7)
CONTENT = bytes(range(95))
SENT = identity_of(b"sent", file_id=FileId("cfile_2"))


async def test_a_write_completes_the_download_first(bench: Bench) -> None:
    bench.service.transfers = [Transfer(content=CONTENT)]
    file = (await bench.start()).open(INODE, identity_of(CONTENT))

    await file.write(50, b"new")

    assert await file.read(45, 10) == CONTENT[45:50] + b"new" + CONTENT[53:55]
    assert file.state is FileState.DIRTY
    assert file.dirty_since_ns == StoppedClock().wall_ns()


async def test_truncating_to_nothing_cancels_the_download(bench: Bench) -> None:
    bench.service.transfers = [Transfer(content=CONTENT, gate_at=50)]
    file = (await bench.start()).open(INODE, identity_of(CONTENT))
    seen: list[bytes] = []

    async def reader() -> None:
        seen.append(await file.read(60, 10))

    async with trio.open_nursery() as readers:
        readers.start_soon(reader)
        await trio.testing.wait_all_tasks_blocked()
        await file.truncate(0)
    await trio.testing.wait_all_tasks_blocked()

    assert seen == [b""]
    assert bench.service.open_streams == 0
    assert (file.size_bytes, file.state) == (0, FileState.DIRTY)


async def test_truncating_to_nothing_needs_no_download(bench: Bench) -> None:
    file = (await bench.start()).open(INODE, identity_of(CONTENT, sized=False))

    await file.truncate(0)
    await file.write(3, b"x")

    assert await file.read(0, 10) == b"\0\0\0x"
    assert bench.service.offsets == []


async def test_truncating_to_the_present_length_changes_nothing(bench: Bench) -> None:
    file = (await bench.start()).open(INODE, identity_of(CONTENT))

    await file.truncate(95)

    assert file.state is FileState.CLEAN
    assert bench.service.offsets == []


async def test_a_file_larger_than_the_service_takes_is_refused_when_it_is_written(
    bench: Bench,
) -> None:
    file = (await bench.start()).create(INODE)

    with pytest.raises(RemoteTooLargeError):
        await file.write(48 * KIB, b"x")
    with pytest.raises(RemoteTooLargeError):
        await file.truncate(1024 * GIB)

    assert file.size_bytes == 0


async def test_a_file_of_the_service_that_is_too_large_is_not_sent_again(bench: Bench) -> None:
    bench.service.transfers = [Transfer(content=CONTENT)]
    store = await bench.start(ContentConfig(file_bytes_max=94))
    file = store.open(INODE, identity_of(CONTENT))

    with pytest.raises(RemoteTooLargeError):
        await _send(file, lambda: None)

    assert (file.state, bench.service.offsets) == (FileState.CLEAN, [])


async def test_a_write_without_room_is_an_error_and_leaves_the_rest(bench: Bench) -> None:
    store = await bench.start(ContentConfig(file_bytes_max=MIB))
    file = store.create(INODE)
    await file.write(0, b"kept")

    with pytest.raises(LocalDiskFullError):
        await file.write(4, bytes(100 * KIB))

    assert (file.size_bytes, await file.read(0, 100)) == (4, b"kept")


async def test_a_sent_file_is_clean_under_its_new_identity(bench: Bench) -> None:
    file = (await bench.start()).create(INODE)
    await file.write(0, b"sent")

    async with file.sending() as outgoing:
        assert file.state is FileState.SENDING
        assert (outgoing.size_bytes, outgoing.digest) == (4, digest_of(b"sent"))
        assert b"".join(outgoing.body.open()) == b"sent"
        outgoing.settle(SENT)

    assert (file.state, file.identity, file.is_unsent) == (FileState.CLEAN, SENT, False)


async def test_a_failed_upload_is_remembered_until_one_succeeds(bench: Bench) -> None:
    file = (await bench.start()).create(INODE)
    error = RemoteBusyError("too many requests")

    with pytest.raises(RemoteBusyError):
        await _send(file, lambda: _raise(error))
    assert (file.state, file.last_error) == (FileState.FAILED, error)

    async with file.sending() as outgoing:
        outgoing.settle(SENT)
    assert (file.state, file.last_error) == (FileState.CLEAN, None)


async def test_a_clean_file_whose_upload_fails_stays_clean(bench: Bench) -> None:
    bench.service.transfers = [Transfer(content=CONTENT)]
    file = (await bench.start()).open(INODE, identity_of(CONTENT))

    with pytest.raises(RemoteBusyError):
        await _send(file, lambda: _raise(RemoteBusyError("too many requests")))

    assert (file.state, file.last_error) == (FileState.CLEAN, None)


@pytest.mark.parametrize("is_hashed", [True, False])
@pytest.mark.parametrize("content", [b"", b"new", b"n" * 200])
async def test_what_was_written_outlives_a_download_that_ends_behind_a_truncation(
    bench: Bench, autojump_clock: trio.testing.MockClock, content: bytes, is_hashed: bool
) -> None:
    """All bytes of the old content are here, and its connection is still being closed."""
    old = bytes(range(95))
    bench.service = FakeService(Transfer(content=old))
    bench.service.closing_s = 0.5
    file = (await bench.start()).open(INODE, identity_of(old, hashed=is_hashed))
    await file.read(0, 10)
    await trio.sleep(0.1)

    await file.truncate(0)
    await file.write(0, content)
    await trio.sleep(10)

    assert await file.read(0, 1000) == content
    async with file.sending() as outgoing:
        assert outgoing.digest == identity_of(content).digest
        assert b"".join(outgoing.body.open()) == content


async def test_an_upload_that_is_cancelled_or_left_open_changes_nothing(bench: Bench) -> None:
    file = (await bench.start()).create(INODE)

    with trio.CancelScope() as scope:
        async with file.sending():
            scope.cancel()
            await trio.lowlevel.checkpoint()
    assert file.state is FileState.DIRTY

    async with file.sending():
        pass
    assert file.state is FileState.DIRTY


async def test_writers_wait_for_an_upload_and_readers_do_not(bench: Bench) -> None:
    file = (await bench.start()).create(INODE)
    await file.write(0, b"before")

    async with trio.open_nursery() as writers:
        async with file.sending() as outgoing:
            writers.start_soon(file.write, 0, b"after!")
            await trio.testing.wait_all_tasks_blocked()
            writers.start_soon(file.truncate, 2)
            await trio.testing.wait_all_tasks_blocked()
            assert await file.read(0, 10) == b"before"
            assert b"".join(outgoing.body.open()) == b"before"
            outgoing.settle(SENT)

    assert await file.read(0, 10) == b"af"
    assert file.state is FileState.DIRTY


async def test_two_uploads_of_one_file_wait_for_each_other(bench: Bench) -> None:
    file = (await bench.start()).create(INODE)
    under_way = 0

    async def upload() -> None:
        nonlocal under_way
        async with file.sending():
            under_way += 1
            await trio.testing.wait_all_tasks_blocked()
            assert under_way == 1
            under_way -= 1

    async with trio.open_nursery() as uploads:
        uploads.start_soon(upload)
        uploads.start_soon(upload)


async def test_the_digest_of_a_large_file_is_made_in_a_thread(tmp_path: Path) -> None:
    content = bytes(range(256)) * 8192
    (tmp_path / "large").mkdir()
    spool = SpoolDirectory(tmp_path / "large", bytes_max=GIB)
    file = store_over(spool, FakeService(), ContentConfig()).create(INODE)
    await file.write(0, content)

    async with file.sending() as outgoing:
        assert outgoing.digest == digest_of(content)
    spool.close()


async def test_synced_bytes_are_found_by_their_spool_name(bench: Bench) -> None:
    file = (await bench.start()).create(INODE)
    await file.write(0, b"bytes")

    await file.sync_to_disk()

    path = bench.spool._path / file.spool_name
    assert path.read_bytes() == b"bytes"


def test_every_state_can_be_left_and_only_sending_ends_clean() -> None:
    assert TRANSITIONS.keys() == set(FileState)
    assert all(TRANSITIONS.values())
    into_clean = {state for state, after in TRANSITIONS.items() if FileState.CLEAN in after}
    assert into_clean == {FileState.SENDING}


async def _send(file: OpenFile, act: Callable[[], None]) -> None:
    async with file.sending():
        act()


def _raise(error: Exception) -> None:
    raise error


class Actor:
    """One of several programs that use the same file, checked against one bytearray.

    The file and the model change in the same step: nothing runs between the last line of an
    operation and the line after its await.
    """

    def __init__(self, file: OpenFile, model: bytearray) -> None:
        self._file = file
        self._model = model

    async def run(self, steps: list[tuple[str, int, int]]) -> None:
        for kind, first, second in steps:
            with contextlib.suppress(RemoteUnavailableError):
                await getattr(self, kind)(first, second)
            self._file.check_invariants()

    async def pause(self, count: int, _second: int) -> None:
        for _ in range(count):
            await trio.lowlevel.checkpoint()

    async def write(self, offset: int, size: int) -> None:
        data = bytes([offset % 251]) * (size + 1)
        await self._file.write(offset, data)
        self._model.extend(bytes(max(0, offset - len(self._model))))
        self._model[offset : offset + len(data)] = data

    async def truncate(self, size: int, keep: int) -> None:
        size = size if keep > 20 else 0
        await self._file.truncate(size)
        del self._model[size:]
        self._model.extend(bytes(size - len(self._model)))

    async def read(self, offset: int, size: int) -> None:
        seen = await self._file.read(offset, size)
        assert seen == self._model[offset : offset + size]

    async def send(self, count: int, outcome: int) -> None:
        with trio.CancelScope() as scope:
            async with self._file.sending() as outgoing:
                still = bytes(self._model)
                assert outgoing.digest == digest_of(still)
                await self.pause(count, 0)
                assert b"".join(outgoing.body.open()) == still == self._model
                if outcome % 4 == 0:
                    outgoing.settle(identity_of(still))
                elif outcome % 4 == 1:
                    raise RemoteUnavailableError("upload failed")
                elif outcome % 4 == 2:
                    scope.cancel()
                    await trio.lowlevel.checkpoint()


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["pause", "write", "truncate", "read", "send"]),
        st.integers(0, 120),
        st.integers(0, 40),
    ),
    max_size=8,
)


@settings(max_examples=150, deadline=None)
@given(
    scripts=st.lists(STEPS, min_size=1, max_size=4),
    cuts=st.lists(st.integers(0, 95), max_size=4),
    sized=st.booleans(),
    ranges=st.booleans(),
)
def test_any_interleaving_of_readers_writers_and_uploads_agrees_with_a_plain_byte_array(
    scripts: list[list[tuple[str, int, int]]], cuts: list[int], sized: bool, ranges: bool
) -> None:
    async def scenario() -> None:
        broken = RemoteUnavailableError("cut")
        service = FakeService(
            *(Transfer(content=CONTENT, cut_at=cut, cut_error=broken) for cut in cuts),
            Transfer(content=CONTENT, honours_range=ranges),
        )
        (Path(directory) / "spool").mkdir(exist_ok=True)
        spool = SpoolDirectory(Path(directory) / "spool", bytes_max=MIB)
        store = store_over(spool, service)
        async with trio.open_nursery() as nursery:
            await nursery.start(store.run)
            file = store.open(INODE, identity_of(CONTENT, sized=sized))
            model = bytearray(CONTENT)
            async with trio.open_nursery() as actors:
                for script in scripts:
                    actors.start_soon(Actor(file, model).run, script)
            await Actor(file, model).run([("read", 0, 1000), ("pause", 50, 0)])
            store.check_invariants()
            store.release(INODE)
            store.check_invariants()
            spool.check_invariants()
            nursery.cancel_scope.cancel()
        assert service.open_streams == 0
        spool.close()
        spool.sweep(set())

    with tempfile.TemporaryDirectory() as directory:
        trio.run(scenario, clock=trio.testing.MockClock(autojump_threshold=0))
