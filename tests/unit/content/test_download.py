from __future__ import annotations

from pathlib import Path

import pytest
import trio
import trio.testing
from msgspec.structs import replace
from tests.unit.content.conftest import SMALL, Bench
from tests.unit.content.fake_service import Transfer, identity_of

from ctrfs.config import ContentConfig
from ctrfs.disk.spool import SpoolDirectory
from ctrfs.errors import (
    ContainerExpiredError,
    CtrfsError,
    HashMismatchError,
    LocalDiskFullError,
    RemoteNotFoundError,
    RemoteProtocolError,
    RemoteStalledError,
    RemoteUnavailableError,
    ShuttingDownError,
    StaleHandleError,
    TruncatedContentError,
)
from ctrfs.tree.nodes import InodeNumber
from ctrfs.units import KIB, MIB

INODE = InodeNumber(7)
CONTENT = bytes(range(95))
WRONG = CONTENT[:60] + b"?" + CONTENT[61:]
WRONG_AT_THE_END = CONTENT[:92] + b"?" + CONTENT[93:]


def broken() -> RemoteUnavailableError:
    return RemoteUnavailableError("connection reset")


async def test_opening_a_file_sends_nothing(bench: Bench) -> None:
    store = await bench.start()

    store.open(INODE, identity_of(CONTENT))
    await trio.testing.wait_all_tasks_blocked()

    assert bench.service.offsets == []


async def test_the_first_bytes_are_read_before_the_last_have_come(bench: Bench) -> None:
    transfer = Transfer(content=CONTENT, gate_at=50)
    bench.service.transfers = [transfer]
    file = (await bench.start()).open(INODE, identity_of(CONTENT))

    first = await file.read(0, 20)
    assert (first, file.is_complete) == (CONTENT[:20], False)
    transfer.gate.set()

    assert await file.read(0, 1000) == CONTENT
    assert file.is_complete


async def test_sixteen_readers_share_one_download(bench: Bench) -> None:
    bench.service.transfers = [Transfer(content=CONTENT)]
    file = (await bench.start()).open(INODE, identity_of(CONTENT))
    results: list[bytes] = []

    async def reader(offset: int) -> None:
        results.append(await file.read(offset, 10))

    async with trio.open_nursery() as readers:
        for number in range(16):
            readers.start_soon(reader, number * 6)

    assert sorted(results) == [CONTENT[number * 6 : number * 6 + 10] for number in range(16)]
    assert bench.service.offsets == [0]


async def test_reading_a_file_of_known_emptiness_or_past_its_end_sends_nothing(
    bench: Bench,
) -> None:
    store = await bench.start()
    empty = store.open(INODE, identity_of(b""))
    file = store.open(InodeNumber(8), identity_of(CONTENT))

    assert await empty.read(0, 10) == b""
    assert await file.read(95, 10) == b""
    assert bench.service.offsets == []


async def test_the_length_is_learnt_from_the_answer(bench: Bench) -> None:
    transfer = Transfer(content=CONTENT, gate_at=0)
    bench.service.transfers = [transfer]
    file = (await bench.start()).open(INODE, identity_of(CONTENT, sized=False))
    assert file.size_bytes is None

    assert await file.learn_size() == 95
    transfer.gate.set()
    assert await file.read(90, 10) == CONTENT[90:]


async def test_the_length_is_learnt_at_the_end_if_nothing_tells_it_before(bench: Bench) -> None:
    bench.service.transfers = [Transfer(content=CONTENT, announces=False)]
    file = (await bench.start()).open(INODE, identity_of(CONTENT, sized=False))

    assert await file.learn_size() == 95
    assert await file.read(0, 1000) == CONTENT


@pytest.mark.parametrize("honours_range", [True, False])
async def test_a_broken_transfer_goes_on_from_where_it_stopped(
    bench: Bench, autojump_clock: trio.testing.MockClock, honours_range: bool
) -> None:
    bench.service.transfers = [
        Transfer(content=CONTENT, cut_at=50, cut_error=broken()),
        Transfer(content=CONTENT, honours_range=honours_range),
    ]
    file = (await bench.start()).open(INODE, identity_of(CONTENT))

    assert await file.read(0, 1000) == CONTENT
    assert bench.service.offsets == [0, 50]


async def test_a_transfer_that_breaks_too_often_fails_and_the_next_read_goes_on(
    bench: Bench, autojump_clock: trio.testing.MockClock
) -> None:
    bench.service.transfers = [
        Transfer(content=CONTENT, cut_at=30, cut_error=broken()),
        Transfer(content=CONTENT, cut_at=30, cut_error=broken()),
        Transfer(content=CONTENT, cut_at=50, cut_error=broken()),
        Transfer(content=CONTENT, honours_range=True),
    ]
    file = (await bench.start()).open(INODE, identity_of(CONTENT))

    with pytest.raises(RemoteUnavailableError, match="reset"):
        await file.complete()

    assert await file.read(0, 1000) == CONTENT
    assert bench.service.offsets == [0, 30, 30, 50]


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Transfer(content=WRONG), HashMismatchError),
        (Transfer(content=CONTENT[:90]), TruncatedContentError),
        (Transfer(content=CONTENT[:90], announces=False), TruncatedContentError),
        (Transfer(content=CONTENT, cut_at=50), TruncatedContentError),
        (Transfer(content=CONTENT + b"x"), TruncatedContentError),
        (Transfer(content=CONTENT + b"x", announces=False), TruncatedContentError),
    ],
    ids=["hash", "short", "short-unannounced", "ends-early", "long", "long-unannounced"],
)
async def test_no_reader_reaches_the_end_of_wrong_content(
    bench: Bench,
    autojump_clock: trio.testing.MockClock,
    answer: Transfer,
    error: type[CtrfsError],
) -> None:
    bench.service.transfers = [answer]
    file = (await bench.start()).open(INODE, identity_of(CONTENT))

    with pytest.raises(error):
        await file.read(90, 5)

    assert bench.service.offsets == [0, 0, 0]
    assert not file.is_complete


async def test_content_that_is_right_the_second_time_is_read(
    bench: Bench, autojump_clock: trio.testing.MockClock
) -> None:
    bench.service.transfers = [Transfer(content=WRONG_AT_THE_END), Transfer(content=CONTENT)]
    file = (await bench.start()).open(INODE, identity_of(CONTENT))

    assert await file.read(0, 1000) == CONTENT
    assert bench.service.offsets == [0, 0]


async def test_a_second_pass_must_agree_with_what_readers_were_given(
    bench: Bench, autojump_clock: trio.testing.MockClock
) -> None:
    transfer = Transfer(content=WRONG, gate_at=90)
    bench.service.transfers = [transfer, Transfer(content=CONTENT)]
    file = (await bench.start()).open(INODE, identity_of(CONTENT))
    assert await file.read(55, 10) == WRONG[55:65]
    transfer.gate.set()

    with pytest.raises(HashMismatchError, match="differ"):
        await file.complete()

    # Afterwards nothing of the first pass is left: a new read begins afresh.
    assert await file.read(0, 1000) == CONTENT


async def test_a_download_of_which_no_byte_comes_stalls_each_of_its_readers(
    bench: Bench, autojump_clock: trio.testing.MockClock
) -> None:
    transfer = Transfer(content=CONTENT, gate_at=50)
    bench.service.transfers = [transfer]
    file = (await bench.start()).open(INODE, identity_of(CONTENT))
    began_s = trio.current_time()

    with pytest.raises(RemoteStalledError):
        await file.read(60, 10)

    assert trio.current_time() - began_s == pytest.approx(60, abs=1)
    transfer.gate.set()
    await trio.sleep(1)
    assert await file.read(60, 10) == CONTENT[60:70]
    assert bench.service.offsets == [0, 50]


async def test_waiting_for_a_turn_behind_others_is_no_silence(
    bench: Bench, autojump_clock: trio.testing.MockClock
) -> None:
    bench.service.queue_s = 300.0
    bench.service.transfers = [Transfer(content=CONTENT)]
    file = (await bench.start()).open(INODE, identity_of(CONTENT))

    assert await file.read(60, 10) == CONTENT[60:70]


async def test_the_time_after_the_turn_counts(
    bench: Bench, autojump_clock: trio.testing.MockClock
) -> None:
    bench.service.queue_s = 300.0
    bench.service.transfers = [Transfer(content=CONTENT, gate_at=50)]
    file = (await bench.start()).open(INODE, identity_of(CONTENT))

    with pytest.raises(RemoteStalledError):
        await file.read(60, 10)
    assert trio.current_time() == pytest.approx(360, abs=1)


async def test_readers_who_wait_for_one_page_do_not_wait_one_after_another(
    bench: Bench, autojump_clock: trio.testing.MockClock
) -> None:
    """The kernel sends the read of the second once that of the first has failed."""
    bench.service.transfers = [Transfer(content=CONTENT, gate_at=50) for _again in range(9)]
    file = (await bench.start()).open(INODE, identity_of(CONTENT))

    for _reader in range(20):
        with pytest.raises(RemoteStalledError):
            await file.read(60, 10)
        await trio.sleep(0.01)

    assert trio.current_time() == pytest.approx(60, abs=2)


async def test_a_drip_holds_no_reader_longer_than_silence(
    bench: Bench, autojump_clock: trio.testing.MockClock
) -> None:
    bench.service.transfers = [Transfer(content=bytes(300), piece_bytes=1, pause_s=50.0)]
    file = (await bench.start()).open(INODE, identity_of(bytes(300)))

    with pytest.raises(RemoteStalledError, match="hardly a byte"):
        await file.read(200, 10)

    assert trio.current_time() == pytest.approx(60, abs=1)


async def test_a_drip_is_given_up_for_another_connection(
    bench: Bench, autojump_clock: trio.testing.MockClock
) -> None:
    bench.service.transfers = [
        Transfer(content=CONTENT, piece_bytes=1, pause_s=50.0),
        Transfer(content=CONTENT, honours_range=True),
    ]
    file = (await bench.start()).open(INODE, identity_of(CONTENT))
    with pytest.raises(RemoteStalledError):
        await file.read(90, 5)

    await trio.sleep(1)
    assert await file.read(0, 1000) == CONTENT
    assert bench.service.offsets == [0, 1]
    assert bench.service.open_streams == 0


async def test_a_drip_that_nobody_waits_for_ends(
    bench: Bench, autojump_clock: trio.testing.MockClock
) -> None:
    bench.service.transfers = [Transfer(content=CONTENT, piece_bytes=1, pause_s=50.0)]
    file = (await bench.start()).open(INODE, identity_of(CONTENT))
    with pytest.raises(RemoteStalledError):
        await file.read(90, 5)

    await trio.sleep(3 * 61)

    assert bench.service.open_streams == 0
    assert len(bench.service.offsets) == 3


async def test_a_reader_far_ahead_waits_as_long_as_bytes_come(
    bench: Bench, autojump_clock: trio.testing.MockClock
) -> None:
    content = bytes(range(256)) * 160
    bench.service.transfers = [Transfer(content=content, piece_bytes=4 * KIB, pause_s=2.0)]
    store = await bench.start(replace(SMALL, stall_timeout_s=4.0))
    file = store.open(INODE, identity_of(content))

    assert await file.read(len(content) - 5, 5) == content[-5:]
    assert trio.current_time() == pytest.approx(20, abs=0.1)


async def test_a_read_ends_at_the_limit_of_a_transfer_however_much_comes(
    bench: Bench, autojump_clock: trio.testing.MockClock
) -> None:
    content = bytes(range(256)) * 160
    bench.service.transfers = [Transfer(content=content, piece_bytes=4 * KIB, pause_s=2.0)]
    store = await bench.start(replace(SMALL, stall_timeout_s=4.0, transfer_timeout_s=15.0))
    file = store.open(INODE, identity_of(content))

    with pytest.raises(RemoteStalledError, match="within 15 s"):
        await file.read(40_000, 5)

    assert trio.current_time() == pytest.approx(15, abs=0.1)
    # The download itself goes on, for who waits anew.
    assert await file.read(40_000, 5) == content[40_000:40_005]
    assert bench.service.offsets == [0]


async def test_a_line_that_breaks_every_mib_brings_a_large_file(
    tmp_path: Path, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    content = bytes(range(256)) * 4 * KIB * 6  # 6 MiB
    (tmp_path / "large").mkdir()
    bench = Bench(SpoolDirectory(tmp_path / "large", bytes_max=16 * MIB), nursery)
    bench.service.transfers = [
        Transfer(
            content=content,
            piece_bytes=64 * KIB,
            honours_range=True,
            cut_at=cut_at,
            cut_error=broken(),
        )
        for cut_at in range(MIB, len(content) + 1, MIB)
    ]
    store = await bench.start(replace(SMALL, file_bytes_max=16 * MIB))
    file = store.open(INODE, identity_of(content))

    await file.complete()

    assert await file.read(len(content) - 5, 5) == content[-5:]
    assert bench.service.offsets == [number * MIB for number in range(6)]
    store.release(INODE)
    bench.spool.close()


@pytest.mark.parametrize("refusal", [RemoteNotFoundError("gone"), ContainerExpiredError("over")])
async def test_a_file_that_is_gone_is_a_stale_handle(bench: Bench, refusal: CtrfsError) -> None:
    bench.service.transfers = [Transfer(refusal=refusal)]
    file = (await bench.start()).open(INODE, identity_of(CONTENT))

    with pytest.raises(StaleHandleError) as caught:
        await file.read(0, 10)

    assert caught.value.__cause__ is refusal


async def test_a_refusal_is_not_asked_for_again_but_by_the_next_reader(bench: Bench) -> None:
    bench.service.transfers = [Transfer(refusal=broken()), Transfer(content=CONTENT)]
    file = (await bench.start()).open(INODE, identity_of(CONTENT))

    with pytest.raises(RemoteUnavailableError):
        await file.read(0, 10)
    assert bench.service.offsets == [0]

    assert await file.read(0, 10) == CONTENT[:10]


async def test_an_answer_from_beyond_what_was_asked_for_is_refused(
    bench: Bench, autojump_clock: trio.testing.MockClock
) -> None:
    bench.service.transfers = [Transfer(content=CONTENT, starts_late_by=7)]
    store = await bench.start()

    with pytest.raises(RemoteProtocolError):
        await store.open(INODE, identity_of(CONTENT)).read(0, 10)


async def test_cancelling_a_reader_leaves_the_download_to_the_others(bench: Bench) -> None:
    transfer = Transfer(content=CONTENT, gate_at=50)
    bench.service.transfers = [transfer]
    file = (await bench.start()).open(INODE, identity_of(CONTENT))
    async with trio.open_nursery() as impatient:
        impatient.start_soon(file.read, 60, 10)
        await trio.testing.wait_all_tasks_blocked()
        impatient.cancel_scope.cancel()

    transfer.gate.set()

    assert await file.read(60, 10) == CONTENT[60:70]
    assert bench.service.offsets == [0]


async def test_the_download_ends_with_its_last_holder_and_its_bytes_are_kept(
    bench: Bench,
) -> None:
    bench.service.transfers = [Transfer(content=CONTENT, gate_at=50)]
    store = await bench.start()
    file = store.open(INODE, identity_of(CONTENT))
    await file.read(0, 10)
    assert bench.service.open_streams == 1

    store.release(INODE)
    await trio.testing.wait_all_tasks_blocked()

    assert bench.service.open_streams == 0
    assert store.get(INODE) is None
    assert await store.open(INODE, identity_of(CONTENT)).read(0, 10) == CONTENT[:10]
    assert bench.service.offsets == [0]


async def test_a_download_without_room_fails_its_readers(bench: Bench) -> None:
    content = bytes(80 * KIB)
    bench.service.transfers = [Transfer(content=content, piece_bytes=8 * KIB)]
    store = await bench.start()
    file = store.open(INODE, identity_of(content))

    with pytest.raises(LocalDiskFullError):
        await file.complete()

    store.release(INODE)
    assert store.bytes_used == 0


async def test_readers_learn_that_the_mount_is_ending(bench: Bench) -> None:
    bench.service.transfers = [Transfer(content=CONTENT, gate_at=50)]
    async with trio.open_nursery() as readers:
        async with trio.open_nursery() as owner:
            store = await Bench.start(_with(bench, owner))
            file = store.open(INODE, identity_of(CONTENT))

            async def reader() -> None:
                with pytest.raises(ShuttingDownError):
                    await file.complete()

            readers.start_soon(reader)
            await trio.testing.wait_all_tasks_blocked()
            owner.cancel_scope.cancel()


async def test_a_large_chunk_holds_a_small_file_back_until_it_is_checked(bench: Bench) -> None:
    transfer = Transfer(content=CONTENT, gate_at=90)
    bench.service.transfers = [transfer]
    store = await bench.start(ContentConfig(chunk_bytes=256 * KIB))
    file = store.open(INODE, identity_of(CONTENT))
    seen: list[bytes] = []

    async def reader() -> None:
        seen.append(await file.read(0, 1))

    async with trio.open_nursery() as readers:
        readers.start_soon(reader)
        await trio.testing.wait_all_tasks_blocked()
        assert seen == []
        transfer.gate.set()
    assert seen == [CONTENT[:1]]


def _with(bench: Bench, nursery: trio.Nursery) -> Bench:
    other = Bench(bench.spool, nursery)
    other.service = bench.service
    return other
