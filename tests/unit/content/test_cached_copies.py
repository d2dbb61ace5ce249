"""Files whose bytes lie in the cache when they are opened."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import pytest
import trio
import trio.testing
from msgspec.structs import replace
from tests.unit.content.conftest import SMALL, Bench, store_over
from tests.unit.content.fake_service import Transfer, digest_of, identity_of

from ctrfs.content.open_file import OpenFile
from ctrfs.content.store import ContentStore
from ctrfs.disk.block_sums import BLOCK_BYTES
from ctrfs.disk.spool import SpoolDirectory
from ctrfs.tree.nodes import InodeNumber
from ctrfs.units import KIB, MIB

INODE: Final = InodeNumber(7)
CONTENT: Final = bytes(range(251)) * 14_000  # three blocks and a half
LARGE: Final = replace(
    SMALL, spool_bytes_max=64 * MIB, cache_bytes_max=32 * MIB, file_bytes_max=16 * MIB,
    chunk_bytes=256 * KIB,
)  # fmt: skip


@pytest.fixture
def large(tmp_path: Path, nursery: trio.Nursery) -> Bench:
    (tmp_path / "large").mkdir()
    bench = Bench(SpoolDirectory(tmp_path / "large", bytes_max=LARGE.spool_bytes_max), nursery)
    bench.service.transfers = [Transfer(content=CONTENT, piece_bytes=64 * KIB)]
    return bench


def entries(bench: Bench) -> list[Path]:
    return list(bench.spool._path.with_name("large cache").iterdir())


async def until(is_true: Callable[[], bool]) -> None:
    """Wait for what a thread does."""
    with trio.fail_after(10):
        while not is_true():  # noqa: ASYNC110  # a thread sets no event
            await trio.sleep(0.001)


async def cached(bench: Bench) -> None:
    """Let a mount read the file and end."""
    async with trio.open_nursery() as owner:
        store = store_over(bench.spool, bench.service, LARGE)
        await owner.start(store.run)
        await store.open(INODE, identity_of(CONTENT)).complete()
        store.release(INODE)
        owner.cancel_scope.cancel()
    assert len(entries(bench)) == 1


def damage(bench: Bench, offset: int) -> None:
    (path,) = entries(bench)
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"damaged")


async def opened(bench: Bench) -> tuple[ContentStore, OpenFile]:
    store = await bench.start(LARGE)
    return store, store.open(INODE, identity_of(CONTENT))


async def test_a_later_mount_reads_without_asking_the_service(large: Bench) -> None:
    await cached(large)
    asked_before = list(large.service.offsets)

    _, file = await opened(large)

    assert await file.read(0, len(CONTENT)) == CONTENT
    assert large.service.offsets == asked_before


async def test_a_large_copy_is_summed_up_behind_the_close_and_found_meanwhile(large: Bench) -> None:
    store, file = await opened(large)
    await file.complete()

    store.release(INODE)
    assert entries(large) == []
    again = store.open(INODE, identity_of(CONTENT))

    assert again.is_complete
    store.release(INODE)
    await until(lambda: len(entries(large)) == 1)
    assert large.spool.bytes_used == 0
    assert large.service.offsets == [0]


async def test_a_copy_that_was_only_read_is_put_back_at_once(large: Bench) -> None:
    await cached(large)
    store, file = await opened(large)
    await file.read(0, 10)
    assert entries(large) == []

    store.release(INODE)

    assert len(entries(large)) == 1


async def test_a_file_that_is_opened_and_not_read_stays_where_it_is(large: Bench) -> None:
    await cached(large)
    store, file = await opened(large)

    assert file.size_bytes == len(CONTENT)
    assert len(entries(large)) == 1
    store.release(INODE)

    assert len(entries(large)) == 1


async def test_a_copy_of_another_digest_than_the_listing_promises_is_not_shown(
    large: Bench,
) -> None:
    await cached(large)
    other = CONTENT[::-1]
    large.service.transfers = [Transfer(content=other, piece_bytes=MIB)]
    store = await large.start(LARGE)

    file = store.open(INODE, identity_of(other))

    assert await file.read(0, 100) == other[:100]


@pytest.mark.parametrize("offset", [0, BLOCK_BYTES + 5, len(CONTENT) - 8])
async def test_a_damaged_block_is_fetched_again_and_never_shown(large: Bench, offset: int) -> None:
    await cached(large)
    damage(large, offset)
    _, file = await opened(large)

    shown = [await file.read(start, 128 * KIB) for start in range(0, len(CONTENT), 128 * KIB)]

    assert b"".join(shown) == CONTENT
    assert large.service.offsets == [0, offset - offset % BLOCK_BYTES]


async def write_a_byte(file: OpenFile) -> None:
    await file.write(3, b"x")


async def cut_a_byte_off(file: OpenFile) -> None:
    await file.truncate(len(CONTENT) - 1)


async def test_a_damaged_block_of_a_part_of_a_file_without_a_hash_is_fetched_again(
    large: Bench,
) -> None:
    """All of the file is brought then, and compared with what is there."""
    identity = replace(identity_of(CONTENT), digest=None)
    async with trio.open_nursery() as owner:
        store = store_over(large.spool, large.service, LARGE)
        await owner.start(store.run)
        await store.open(INODE, identity).read(0, 2 * BLOCK_BYTES + 1)
        store.release(INODE)
        owner.cancel_scope.cancel()
    damage(large, 10)
    store = await large.start(LARGE)
    file = store.open(INODE, identity)

    assert await file.read(3 * BLOCK_BYTES, 100) == CONTENT[3 * BLOCK_BYTES :][:100]
    assert await file.read(0, len(CONTENT)) == CONTENT


@pytest.mark.parametrize("change", [write_a_byte, cut_a_byte_off])
async def test_damage_far_from_a_change_is_not_sent_with_it(
    large: Bench, change: Callable[[OpenFile], Awaitable[None]]
) -> None:
    await cached(large)
    damage(large, 2 * BLOCK_BYTES + 5)
    _, file = await opened(large)

    await change(file)

    async with file.sending() as outgoing:
        sent = b"".join(outgoing.body.open())
    model = bytearray(CONTENT)
    if change is write_a_byte:
        model[3:4] = b"x"
    else:
        del model[-1:]
    assert sent == model


async def test_a_damaged_copy_is_not_sent_under_another_name(large: Bench) -> None:
    await cached(large)
    damage(large, 2 * BLOCK_BYTES + 5)
    _, file = await opened(large)

    async with file.sending() as outgoing:
        assert b"".join(outgoing.body.open()) == CONTENT
        assert outgoing.digest == digest_of(CONTENT)


async def test_writers_at_once_into_a_cached_copy_do_not_take_each_other_for_damage(
    large: Bench,
) -> None:
    await cached(large)
    _, file = await opened(large)

    async with trio.open_nursery() as writers:
        for number in range(20):
            writers.start_soon(file.write, number * 150_000, b"written")

    model = bytearray(CONTENT)
    for number in range(20):
        model[number * 150_000 : number * 150_000 + 7] = b"written"
    assert await file.read(0, len(CONTENT)) == model
    assert large.service.offsets == [0]


async def test_emptying_a_damaged_copy_needs_no_byte_of_it(large: Bench) -> None:
    await cached(large)
    damage(large, 5)
    _, file = await opened(large)

    await file.truncate(0)

    assert await file.read(0, 10) == b""
    assert large.service.offsets == [0]


async def test_a_changed_file_is_cached_as_what_it_became(large: Bench) -> None:
    await cached(large)
    store, file = await opened(large)
    await file.write(BLOCK_BYTES, b"changed")
    changed = CONTENT[:BLOCK_BYTES] + b"changed" + CONTENT[BLOCK_BYTES + 7 :]
    identity = replace(identity_of(changed), created_at_s=2)
    async with file.sending() as outgoing:
        outgoing.settle(identity)
    store.release(INODE)
    await until(lambda: len(entries(large)) == 1)

    again = store.open(InodeNumber(8), identity)

    assert await again.read(0, len(changed)) == changed
    assert large.service.offsets == [0]


async def test_unsent_bytes_never_enter_the_cache(large: Bench) -> None:
    async with trio.open_nursery() as owner:
        store = store_over(large.spool, large.service, LARGE)
        await owner.start(store.run)
        unsent = store.create(INODE)
        await unsent.write(0, CONTENT)
        store.release(INODE)
        local = store.create(InodeNumber(8))
        await local.write(0, CONTENT)
        local.is_resident = True
        store.release(InodeNumber(8))
        owner.cancel_scope.cancel()

    assert entries(large) == []


async def test_a_discarded_file_leaves_no_copy(large: Bench) -> None:
    await cached(large)
    store, _ = await opened(large)

    store.discard(INODE, identity_of(CONTENT))
    store.release(INODE)
    await cached(large)
    store.discard(INODE, identity_of(CONTENT))

    assert entries(large) == []
    assert large.spool.bytes_used == 0


async def test_a_full_spool_takes_back_what_waits_for_the_cache(large: Bench) -> None:
    store, file = await opened(large)
    await file.complete()
    store.release(INODE)

    assert store.bytes_used > 0
    large.spool._make_room(LARGE.spool_bytes_max)

    assert store.bytes_used == 0
    await trio.testing.wait_all_tasks_blocked()
    assert not store.open(INODE, identity_of(CONTENT)).is_complete


async def test_the_cache_is_kept_within_its_limit_while_mounted(large: Bench) -> None:
    large.service.transfers = [Transfer(content=CONTENT, piece_bytes=MIB)] * 4
    config = replace(LARGE, cache_bytes_max=2 * len(CONTENT) + MIB)
    store = await large.start(config)
    for number in range(4):
        identity = replace(identity_of(CONTENT), created_at_s=number)
        await store.open(InodeNumber(number), identity).complete()
        store.release(InodeNumber(number))
        await until(lambda: large.spool.bytes_used == 0)

    await until(lambda: len(entries(large)) <= 2)
    assert store.open(INODE, replace(identity_of(CONTENT), created_at_s=3)).is_complete
