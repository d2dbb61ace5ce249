"""Reads far from each other: parts where the server sends them, the whole where it does not."""

from __future__ import annotations

import dataclasses

import pytest
import trio
import trio.testing
from msgspec.structs import replace
from tests.unit.content.conftest import SMALL, Bench
from tests.unit.content.fake_service import Transfer, identity_of

from ctrfs.errors import HashMismatchError, RemoteUnavailableError
from ctrfs.tree.nodes import InodeNumber
from ctrfs.units import KIB, MIB

INODE = InodeNumber(7)
CONTENT = bytes(number * number % 251 for number in range(4000))
# The distances of real files, a thousand times smaller.
CONFIG = replace(SMALL, near_bytes=400, block_bytes_min=100)


def ranged(**fields: object) -> Transfer:
    return dataclasses.replace(
        Transfer(content=CONTENT, honours_range=True, piece_bytes=50),
        **fields,  # type: ignore[arg-type]
    )


async def test_a_far_read_does_not_wait_for_what_lies_before(bench: Bench) -> None:
    first = ranged(gate_at=500)
    bench.service.transfers = [first, ranged()]
    file = (await bench.start(CONFIG)).open(INODE, identity_of(CONTENT))
    await file.read(0, 10)

    assert await file.read(3030, 20) == CONTENT[3030:3050]
    assert bench.service.parts == [(0, None), (3000, 3100)]


async def test_a_read_a_little_ahead_waits_for_the_transfer_under_way(bench: Bench) -> None:
    first = ranged(gate_at=500)
    bench.service.transfers = [first]
    file = (await bench.start(CONFIG)).open(INODE, identity_of(CONTENT))
    await file.read(0, 10)
    await trio.testing.wait_all_tasks_blocked()
    first.gate.set()

    assert await file.read(800, 20) == CONTENT[800:820]
    assert bench.service.parts == [(0, None)]


async def test_the_first_read_may_be_far_from_the_start(bench: Bench) -> None:
    bench.service.transfers = [ranged()]
    file = (await bench.start(CONFIG)).open(INODE, identity_of(CONTENT))

    assert await file.read(3990, 100) == CONTENT[3990:]
    assert bench.service.parts == [(3900, 4000)]


async def test_a_server_without_parts_is_asked_for_one_once(bench: Bench) -> None:
    bench.service.transfers = [Transfer(content=CONTENT, piece_bytes=50)]
    store = await bench.start(CONFIG)

    assert await store.open(INODE, identity_of(CONTENT)).read(3000, 10) == CONTENT[3000:3010]
    other = store.open(InodeNumber(8), identity_of(CONTENT))
    assert await other.read(3000, 10) == CONTENT[3000:3010]

    assert bench.service.parts == [(3000, 3100), (0, None)]


async def test_a_small_file_comes_whole(bench: Bench) -> None:
    content = CONTENT[:400]
    bench.service.transfers = [ranged(content=content)]
    file = (await bench.start(CONFIG)).open(INODE, identity_of(content))

    assert await file.read(350, 10) == content[350:360]
    assert bench.service.parts == [(0, None)]


async def test_who_reads_on_behind_a_part_gets_larger_ones(bench: Bench) -> None:
    bench.service.transfers = [ranged()]
    file = (await bench.start(CONFIG)).open(INODE, identity_of(CONTENT))

    for offset in range(1000, 4000, 20):
        assert await file.read(offset, 20) == CONTENT[offset : offset + 20]

    assert bench.service.parts == [(1000, 1100), (1100, 1500), (1500, 3100), (3100, 4000)]


async def test_parts_and_what_lies_between_make_a_whole_that_is_checked(bench: Bench) -> None:
    bench.service.transfers = [ranged()]
    file = (await bench.start(CONFIG)).open(INODE, identity_of(CONTENT))
    for offset in (2000, 1000, 3000):
        await file.read(offset, 10)

    await file.complete()

    assert await file.read(0, 4000) == CONTENT
    assert file.is_complete
    assert bench.service.parts[-1] == (0, None)


async def test_nobody_gets_the_last_of_wrong_bytes_however_they_are_read(
    bench: Bench, autojump_clock: trio.testing.MockClock
) -> None:
    """Promise 11."""
    wrong = CONTENT[:2000] + b"?" + CONTENT[2001:]
    bench.service.transfers = [ranged(content=wrong)]
    file = (await bench.start(CONFIG)).open(INODE, identity_of(CONTENT))

    read = 0

    async def read_backwards() -> None:
        nonlocal read
        for offset in range(3980, -20, -20):
            read += len(await file.read(offset, 20))

    with pytest.raises(HashMismatchError):
        await read_backwards()
    assert read < len(CONTENT)


async def test_parts_are_asked_for_of_the_version_that_the_first_answer_named(
    bench: Bench,
) -> None:
    """Promise 9."""
    bench.service.transfers = [ranged(version='"one"')]
    file = (await bench.start(CONFIG)).open(INODE, identity_of(CONTENT, hashed=False))

    await file.read(1000, 10)
    await file.read(3000, 10)

    assert bench.service.parts == [(1000, 1100), (3000, 3100)]
    assert bench.service.versions == [None, '"one"']


async def test_without_hash_or_version_one_transfer_brings_what_follows_the_first_part(
    bench: Bench,
) -> None:
    """Promise 9."""
    bench.service.transfers = [ranged()]
    file = (await bench.start(CONFIG)).open(INODE, identity_of(CONTENT, hashed=False))

    await file.read(1000, 10)
    assert await file.read(3000, 10) == CONTENT[3000:3010]

    assert bench.service.parts == [(1000, 1100), (0, None)]


async def test_a_part_of_another_version_is_never_put_together_with_the_rest(
    bench: Bench, autojump_clock: trio.testing.MockClock
) -> None:
    """Promise 9."""
    newer = CONTENT[::-1]
    bench.service.transfers = [
        ranged(version='"one"'),
        ranged(content=newer, version='"two"', honours_range=False),
    ]
    file = (await bench.start(CONFIG)).open(INODE, identity_of(CONTENT, hashed=False))
    assert await file.read(1000, 10) == CONTENT[1000:1010]

    with pytest.raises(HashMismatchError):
        await file.read(3000, 10)


async def test_a_part_that_breaks_goes_on_where_it_stopped(
    bench: Bench, autojump_clock: trio.testing.MockClock
) -> None:
    broken = RemoteUnavailableError("connection reset")
    bench.service.transfers = [ranged(cut_at=3050, cut_error=broken), ranged()]
    file = (await bench.start(CONFIG)).open(INODE, identity_of(CONTENT))

    assert await file.read(3060, 10) == CONTENT[3060:3070]
    assert bench.service.parts == [(3000, 3100), (3050, 3100)]


async def test_a_part_that_fails_does_not_harm_other_readers(
    bench: Bench, autojump_clock: trio.testing.MockClock
) -> None:
    first = ranged(gate_at=500)
    refused = ranged(refusal=RemoteUnavailableError("busy"))
    bench.service.transfers = [first, refused, ranged()]
    file = (await bench.start(CONFIG)).open(INODE, identity_of(CONTENT))
    await file.read(0, 10)

    with pytest.raises(RemoteUnavailableError, match="busy"):
        await file.read(3000, 10)
    first.gate.set()

    assert await file.read(0, 4000) == CONTENT


async def test_a_wide_random_reader_has_a_limit_of_transfers(
    bench: Bench, autojump_clock: trio.testing.MockClock
) -> None:
    bench.service.transfers = [ranged(pause_s=0.25)]
    file = (await bench.start(CONFIG)).open(INODE, identity_of(CONTENT))
    most = 0

    async with trio.open_nursery() as readers:
        for offset in range(0, 4000, 100):
            readers.start_soon(file.read, offset, 10)
        while len(readers.child_tasks) > 0:
            await trio.sleep(0.1)
            most = max(most, bench.service.open_streams)

    assert 1 < most <= 8


async def test_a_slow_transfer_of_much_is_shared_by_several_connections(bench: Bench) -> None:
    # In real time: the whole is hashed in a thread.
    content = bytes(range(256)) * (128 * KIB)  # 32 MiB
    bench.spool._bytes_max = 2 * len(content)
    bench.service.transfers = [ranged(content=content, piece_bytes=256 * KIB, pause_s=0.02)]
    config = replace(SMALL, file_bytes_max=len(content), cache_bytes_max=0)
    store = await bench.start(config)
    file = store.open(INODE, identity_of(content))

    began_s = trio.current_time()
    await file.complete()

    assert 2 <= len(bench.service.parts) <= 6
    assert trio.current_time() - began_s < 128 * 0.02, "one connection would take longer"
    store.release(INODE)


def scattered(count: int, length: int) -> list[int]:
    """Return places all over a file, none of them near the one before."""
    return [number * 7919 * 4099 % (length - 10) for number in range(1, count + 1)]


async def read_here_and_there(bench: Bench, *, reads: int, room_bytes: int) -> None:
    """Read far places of 8 MiB, which take 0.64 s in one transfer, and 20 ms for a part."""
    content = bytes(range(256)) * (32 * KIB)
    bench.spool._bytes_max = room_bytes
    bench.service.transfers = [ranged(content=content, piece_bytes=256 * KIB, pause_s=0.02)]
    config = replace(SMALL, file_bytes_max=len(content), cache_bytes_max=0)
    config = replace(config, near_bytes=256 * KIB, block_bytes_min=16 * KIB)
    store = await bench.start(config)
    file = store.open(INODE, identity_of(content))
    for offset in scattered(reads, len(content)):
        assert await file.read(offset, 10) == content[offset : offset + 10]
    store.release(INODE)


def wholes(bench: Bench) -> list[int]:
    """Return which of the transfers, counted from 0, went to the end of the file."""
    return [number for number, (_start, end) in enumerate(bench.service.parts) if end is None]


async def test_who_reads_here_and_there_for_long_gets_the_rest_besides(
    bench: Bench, autojump_clock: trio.testing.MockClock
) -> None:
    await read_here_and_there(bench, reads=60, room_bytes=64 * MIB)

    assert len(wholes(bench)) == 1
    assert wholes(bench)[0] > 8


async def test_parts_beside_the_rest_that_is_on_its_way_are_small(
    bench: Bench, autojump_clock: trio.testing.MockClock
) -> None:
    await read_here_and_there(bench, reads=60, room_bytes=64 * MIB)

    (whole,) = wholes(bench)
    behind = [(end or 0) - start for start, end in bench.service.parts[whole + 1 :]]
    assert behind
    assert max(behind) <= 16 * KIB


async def test_who_looks_at_a_few_places_of_a_large_file_gets_no_more(
    bench: Bench, autojump_clock: trio.testing.MockClock
) -> None:
    await read_here_and_there(bench, reads=8, room_bytes=64 * MIB)

    assert wholes(bench) == []


async def test_a_disk_with_little_room_is_not_filled_with_what_nobody_asked_for(
    bench: Bench, autojump_clock: trio.testing.MockClock
) -> None:
    await read_here_and_there(bench, reads=60, room_bytes=12 * MIB)

    assert wholes(bench) == []
