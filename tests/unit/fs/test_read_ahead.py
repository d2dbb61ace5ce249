"""Files are fetched ahead of a program that walks over them, and of no other."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import trio
import trio.testing
from tests.support.in_process import TRUNCATE, WRITE, InProcessMount, Settings, mounted
from tests.support.service import InProcessService

from ctrfs.config import ContentConfig, FileSystemConfig, ReadAheadConfig, TreeConfig
from ctrfs.errors import RemoteError
from ctrfs.fs.read_ahead import WINDOW_AT_START
from ctrfs.tree.nodes import File
from ctrfs.units import KIB, MIB

# The service's time for one request, and half an hour in which listings stay fresh.
ROUND_TRIP_S = 1.0
ONE_MOMENT = TreeConfig(ttl_s=1800, max_stale_s=1800)


def content_of(path: str, size: int = 500) -> bytes:
    return (path.encode() * size)[:size]


class World:
    """A mount whose service takes a second a request, with files ``c/00`` to ``c/99``."""

    def __init__(self, service: InProcessService, mount: InProcessMount) -> None:
        self.service = service
        self.mount = mount

    @property
    def downloads(self) -> int:
        return self.service.counters().get("file_content", 0)

    async def quiet(self) -> None:
        """Wait until nothing is under way any more, but no walk has become idle."""
        await trio.sleep(5 * ROUND_TRIP_S)

    async def read(self, *paths: str) -> None:
        for path in paths:
            assert await self.mount.read_file(path) == content_of(path)


def number(n: int) -> str:
    return f"c/{n:02}"


@pytest.fixture
def service(tmp_path: Path) -> Iterator[InProcessService]:
    with InProcessService(tmp_path / "service", round_trip_s=ROUND_TRIP_S) as opened:
        yield opened


def plant(service: InProcessService, container: str, names: list[str], size: int = 500) -> str:
    container_id = service.create_container(container)
    for name in names:
        service.plant(container_id, f"/mnt/data/{name}", content_of(f"{container}/{name}", size))
    return container_id


@pytest.fixture
async def world(service: InProcessService, state: Path) -> AsyncIterator[World]:
    plant(service, "c", [f"{n:02}" for n in range(100)])
    async with mounted(service, state, Settings(tree=ONE_MOMENT)) as mount:
        await mount.names("c")
        service.reset_counters()
        yield World(service, mount)


async def test_a_lone_read_fetches_one_file(
    world: World, autojump_clock: trio.testing.MockClock
) -> None:
    await world.read(number(7))
    await world.quiet()

    assert world.downloads == 1


async def test_a_walk_costs_one_request_a_file_and_a_fraction_of_the_time(
    world: World, autojump_clock: trio.testing.MockClock
) -> None:
    began_s = trio.current_time()
    await world.read(*map(number, range(100)))

    assert world.downloads == 100
    # Two alone, then more and more, then thirteen at once.
    assert trio.current_time() - began_s <= 14 * ROUND_TRIP_S


async def test_from_the_second_file_on_four_are_fetched_ahead(
    world: World, autojump_clock: trio.testing.MockClock
) -> None:
    await world.read(number(0), number(1))
    await world.quiet()

    assert world.downloads == 2 + WINDOW_AT_START


async def test_the_window_doubles_while_the_walk_passes_over_it(
    world: World, autojump_clock: trio.testing.MockClock
) -> None:
    await world.read(*map(number, range(2 + WINDOW_AT_START)))
    await world.quiet()

    assert world.downloads == 2 + WINDOW_AT_START + 2 * WINDOW_AT_START


async def test_no_more_is_fetched_than_the_window_holds_when_a_walk_stops(
    service: InProcessService, state: Path, autojump_clock: trio.testing.MockClock
) -> None:
    plant(service, "c", [f"{n:03}" for n in range(200)])
    files = FileSystemConfig(read_ahead=ReadAheadConfig(files_max=20))
    async with mounted(service, state, Settings(tree=ONE_MOMENT, files=files)) as mount:
        world = World(service, mount)
        await mount.names("c")
        await world.read(*(f"c/{n:03}" for n in range(50)))
        await trio.sleep(60)

        assert 50 + 20 // 2 <= world.downloads <= 50 + 20


async def test_files_are_fetched_again_in_one_go_once_half_of_them_are_left(
    service: InProcessService, state: Path, autojump_clock: trio.testing.MockClock
) -> None:
    plant(service, "c", [f"{n:03}" for n in range(200)])
    files = FileSystemConfig(read_ahead=ReadAheadConfig(files_max=20))
    async with mounted(service, state, Settings(tree=ONE_MOMENT, files=files)) as mount:
        world = World(service, mount)
        await mount.names("c")
        counts: list[int] = []
        for number in range(100):
            await world.read(f"c/{number:03}")
            await world.quiet()
            counts.append(world.downloads)

        steps = [after - before for before, after in pairwise(counts[40:]) if after != before]
        assert set(steps) == {10}


async def test_files_that_a_walk_leaves_out_do_not_count_as_being_ahead_of_it(
    service: InProcessService, state: Path, autojump_clock: trio.testing.MockClock
) -> None:
    plant(service, "c", [f"{n:03}" for n in range(100)])
    files = FileSystemConfig(read_ahead=ReadAheadConfig(files_max=16))
    async with mounted(service, state, Settings(tree=ONE_MOMENT, files=files)) as mount:
        world = World(service, mount)
        await mount.names("c")
        position = 0
        while position < 30 or world.downloads < position + 16:  # the window has just been filled
            await world.read(f"c/{position:03}")
            await world.quiet()
            position += 1

        await world.read(*(f"c/{position + step:03}" for step in (10, 11, 12)))
        await world.quiet()

        assert world.downloads > position + 16


async def test_what_is_still_in_the_queue_when_a_walk_stops_is_never_asked_for(
    world: World, autojump_clock: trio.testing.MockClock
) -> None:
    await world.read(*map(number, range(34)))
    begun = world.downloads
    world.service.add_fault("file_content", "stall", seconds=30)
    await trio.sleep(60)

    assert world.downloads <= begun + 13 < 34 + 36


async def test_files_read_in_no_order_are_fetched_one_by_one(
    world: World, autojump_clock: trio.testing.MockClock
) -> None:
    inodes = {n: (await world.mount.stat(number(n))).inode for n in range(100)}
    by_inode = sorted(inodes, key=inodes.__getitem__)
    # Neither by name nor by the inode numbers, which chance gives, does one follow another.
    order = [50]
    for n in (3, 97, 12, 60, 33, 71, 24):
        if by_inode.index(n) != by_inode.index(order[-1]) + 1:
            order.append(n)
    chosen = [number(n) for n in order]
    await world.read(*chosen)
    await world.quiet()

    assert world.downloads == len(chosen)


async def test_a_walk_by_inode_number_is_seen(
    world: World, autojump_clock: trio.testing.MockClock
) -> None:
    inodes = {path: (await world.mount.stat(path)).inode for path in map(number, range(100))}
    paths = sorted(inodes, key=inodes.__getitem__)
    began_s = trio.current_time()
    await world.read(*paths)

    assert world.downloads == 100
    assert trio.current_time() - began_s <= 16 * ROUND_TRIP_S


async def test_looking_at_every_file_without_reading_fetches_nothing(
    world: World, autojump_clock: trio.testing.MockClock
) -> None:
    for n in range(100):
        await world.mount.stat(number(n))
        await world.mount.close(await world.mount.open(number(n)))
    await world.quiet()

    assert world.downloads == 0


async def test_two_neighbours_named_without_reading_the_folder_are_no_walk(
    service: InProcessService, state: Path, autojump_clock: trio.testing.MockClock
) -> None:
    plant(service, "c", ["a", "b", "c", "d", "e"])
    async with mounted(service, state, Settings(tree=ONE_MOMENT)) as mount:
        world = World(service, mount)
        await world.read("c/a", "c/b")
        await world.quiet()
        assert world.downloads == 2

        await world.read("c/c")
        await world.quiet()
        assert world.downloads == 5


async def test_files_that_are_here_or_too_large_are_passed_over(
    service: InProcessService, state: Path, autojump_clock: trio.testing.MockClock
) -> None:
    container_id = plant(service, "c", ["a", "b", "d", "f"])
    service.plant(container_id, "/mnt/data/e", content_of("c/e", 5 * MIB))
    async with mounted(service, state, Settings(tree=ONE_MOMENT)) as mount:
        world = World(service, mount)
        await mount.names("c")
        await mount.write_file("c/c", content_of("c/c"))
        # Opened for writing, too, it is no step of a walk, such as one by inode numbers.
        handle = await mount.open("c/d", WRITE)
        assert await mount.fs.read(handle, 0, 1000) == content_of("c/d")
        await mount.close(handle)
        service.reset_counters()
        await world.read("c/a", "c/b")
        await world.quiet()

        assert world.downloads == 3  # a, b and, ahead, f
        await world.read("c/c", "c/d")
        assert await mount.read_file("c/e") == content_of("c/e", 5 * MIB)
        await world.read("c/f")
        assert world.downloads == 4


async def test_the_bytes_that_wait_to_be_opened_are_bounded(
    service: InProcessService, state: Path, autojump_clock: trio.testing.MockClock
) -> None:
    names = [f"{n:02}" for n in range(40)]
    plant(service, "c", names, size=10 * KIB)
    files = FileSystemConfig(read_ahead=ReadAheadConfig(bytes_max=50 * KIB))
    async with mounted(service, state, Settings(tree=ONE_MOMENT, files=files)) as mount:
        await mount.names("c")
        for name in names[:20]:
            assert await mount.read_file(f"c/{name}") == content_of(f"c/{name}", 10 * KIB)
        await trio.sleep(5)

        assert service.counters()["file_content"] == 20 + 5


async def test_without_a_cache_a_walk_still_fetches_each_file_once(
    service: InProcessService, state: Path, autojump_clock: trio.testing.MockClock
) -> None:
    plant(service, "c", [f"{n:02}" for n in range(40)])
    content = ContentConfig(cache_bytes_max=0)
    async with mounted(service, state, Settings(tree=ONE_MOMENT, content=content)) as mount:
        world = World(service, mount)
        await mount.names("c")
        began_s = trio.current_time()
        await world.read(*map(number, range(40)))

        assert world.downloads == 40
        assert trio.current_time() - began_s <= 10 * ROUND_TRIP_S


async def test_a_walk_that_is_switched_off_fetches_one_file_after_another(
    service: InProcessService, state: Path, autojump_clock: trio.testing.MockClock
) -> None:
    plant(service, "c", [f"{n:02}" for n in range(10)])
    files = FileSystemConfig(read_ahead=ReadAheadConfig(files_max=0))
    async with mounted(service, state, Settings(tree=ONE_MOMENT, files=files)) as mount:
        await mount.names("c")
        began_s = trio.current_time()
        await World(service, mount).read(*map(number, range(10)))

        assert trio.current_time() - began_s >= 10 * ROUND_TRIP_S


async def test_an_open_during_the_fetch_joins_it(
    world: World, autojump_clock: trio.testing.MockClock
) -> None:
    await world.read(number(0))
    handle = await world.mount.open(number(1))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.mount.fs.read, handle, 0, 4096)
        await trio.sleep(ROUND_TRIP_S / 2)
        joined = await world.mount.open(number(3))
        assert await world.mount.read_all(joined) == content_of(number(3))
    await world.mount.close(handle)
    await world.mount.close(joined)

    await world.quiet()
    assert world.downloads == 2 + WINDOW_AT_START + 2


async def test_a_reader_that_gives_up_leaves_the_fetch_to_the_next(
    world: World, autojump_clock: trio.testing.MockClock
) -> None:
    await world.read(number(0), number(1))
    handle = await world.mount.open(number(4))
    with trio.move_on_after(ROUND_TRIP_S / 4):
        await world.mount.fs.read(handle, 0, 4096)
    assert await world.mount.read_all(handle) == content_of(number(4))
    await world.mount.close(handle)
    await world.quiet()

    assert world.downloads <= 2 + WINDOW_AT_START + 3


@pytest.mark.parametrize("when", ["under way", "here"])
async def test_a_file_replaced_elsewhere_during_its_fetch_shows_its_new_bytes(
    world: World, when: str, autojump_clock: trio.testing.MockClock
) -> None:
    await world.read(number(0), number(1))
    if when == "here":
        await world.quiet()
    container_id = str(world.service.containers()[0]["id"])
    world.service.plant(container_id, "/mnt/data/02", b"new")
    await world.mount.refresh("c")

    assert await world.mount.read_file(number(2)) == b"new"


async def test_a_file_replaced_elsewhere_under_its_id_after_its_fetch_shows_its_new_bytes(
    service: InProcessService, state: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """The id gives the new version the number of the old one, whose bytes wait to be opened."""
    service.set_behaviour(ids="path", hash_prefix=False)
    container_id = plant(service, "c", [f"{n:02}" for n in range(20)])
    async with mounted(service, state, Settings(tree=ONE_MOMENT)) as mount:
        world = World(service, mount)
        await mount.names("c")
        await world.read(number(0), number(1))
        await world.quiet()
        service.advance(60)
        service.upload(container_id, "03", b"new bytes")
        await mount.refresh("c")

        assert await mount.read_file(number(3)) == b"new bytes"


async def test_a_file_changed_here_during_its_fetch_has_our_bytes(
    world: World, autojump_clock: trio.testing.MockClock
) -> None:
    await world.read(number(0), number(1))
    handle = await world.mount.open(number(2), TRUNCATE)
    await world.mount.fs.write(handle, 0, b"ours")
    await world.mount.close(handle)
    await world.quiet()

    assert await world.mount.read_file(number(2)) == b"ours"
    await world.read(number(3), number(4))


async def test_a_file_removed_or_renamed_during_its_fetch_is_gone_or_has_its_bytes(
    world: World, autojump_clock: trio.testing.MockClock
) -> None:
    await world.read(number(0), number(1))
    await world.mount.unlink(number(2))
    await world.mount.rename(number(3), "c/renamed")
    await world.quiet()

    assert not await world.mount.exists(number(2))
    assert await world.mount.read_file("c/renamed") == content_of(number(3))


async def test_bytes_that_come_damaged_ahead_are_never_shown(
    world: World, autojump_clock: trio.testing.MockClock
) -> None:
    await world.read(number(0))
    handle = await world.mount.open(number(1))
    world.service.add_fault("file_content", "wrong-length", delta=-3, nth=3, count=1)
    assert await world.mount.read_all(handle) == content_of(number(1))
    await world.mount.close(handle)
    await world.quiet()

    await world.read(*map(number, range(2, 20)))


async def test_a_service_that_fails_gets_no_requests_that_nobody_waits_for(
    world: World, autojump_clock: trio.testing.MockClock
) -> None:
    await world.read(number(0))
    world.service.add_fault("file_content", "status", status=503, nth=2)
    await world.read(number(1))
    world.service.clear_faults()
    world.service.add_fault("file_content", "status", status=503)
    begun = world.downloads
    await world.quiet()
    # Those that were begun together, once each: none is repeated, and no others follow.
    quiet = world.downloads
    assert quiet <= begun + WINDOW_AT_START

    with pytest.raises(RemoteError):
        await world.mount.read_file(number(50))
    asked = world.downloads - quiet
    with pytest.raises(RemoteError):
        await world.mount.read_file(number(51))
    assert world.downloads <= quiet + 2 * asked


async def test_a_reader_who_joins_a_fetch_that_fails_gets_its_bytes_all_the_same(
    world: World, autojump_clock: trio.testing.MockClock
) -> None:
    await world.read(number(0))
    world.service.add_fault("file_content", "status", status=503, nth=3, count=1)
    await world.read(*map(number, range(1, 20)))


async def test_the_end_of_the_mount_cancels_what_is_fetched_ahead_at_once(
    world: World, autojump_clock: trio.testing.MockClock
) -> None:
    await world.read(number(0), number(1))
    began_s = trio.current_time()
    world.mount.fs.read_ahead.stop()
    await world.read(number(3))

    assert trio.current_time() - began_s <= ROUND_TRIP_S
    assert world.mount.parts.store.get((await world.mount.stat(number(2))).inode) is None
    world.mount.check_invariants()


async def test_a_walk_that_ends_in_the_moment_in_which_it_began_ends_nothing_else(
    world: World, autojump_clock: trio.testing.MockClock
) -> None:
    children = world.mount.parts.namespace.tree.root.children[b"c"].children  # type: ignore[union-attr]  # a folder
    read_ahead = world.mount.fs.read_ahead
    for name in (b"00", b"01"):
        file = children[name]
        assert isinstance(file, File)
        read_ahead.opened(file)
        read_ahead.reading(file, is_here=False)
    read_ahead.stop()
    await world.quiet()

    await world.read(number(3))


async def test_what_nobody_has_opened_goes_to_the_cache_when_the_walk_is_over(
    world: World, autojump_clock: trio.testing.MockClock
) -> None:
    await world.read(number(0), number(1))
    await trio.sleep(30)
    assert world.mount.parts.store.get((await world.mount.stat(number(2))).inode) is None

    before = world.downloads
    await world.read(*map(number, range(2, 2 + WINDOW_AT_START)))
    assert world.downloads == before


async def test_readers_side_by_side_are_one_walk(
    world: World, autojump_clock: trio.testing.MockClock
) -> None:
    began_s = trio.current_time()
    limiter = trio.CapacityLimiter(4)

    async def read(path: str) -> None:
        async with limiter:
            await world.read(path)

    async with trio.open_nursery() as nursery:
        for n in range(100):
            nursery.start_soon(read, number(n))
            await trio.lowlevel.checkpoint()

    assert world.downloads == 100
    assert trio.current_time() - began_s <= 14 * ROUND_TRIP_S


async def test_whoever_needs_a_file_whose_fetch_still_waits_goes_before_those_ahead(
    world: World, autojump_clock: trio.testing.MockClock
) -> None:
    await world.read(*map(number, range(30)))
    handle = await world.mount.open(number(60), WRITE)
    began_s = trio.current_time()
    await world.mount.fs.write(handle, 0, b"X")

    # One round trip for a place, one for the bytes: thirty others were in the queue before.
    assert trio.current_time() - began_s <= 2 * ROUND_TRIP_S
    await world.mount.close(handle)
    assert await world.mount.read_file(number(60)) == b"X" + content_of(number(60))[1:]
