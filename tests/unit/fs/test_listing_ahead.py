"""Listings are fetched ahead of a program that enters one container after another."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
import trio.testing
from tests.support.in_process import InProcessMount, Settings, mounted
from tests.support.service import InProcessService

from ctrfs.config import FileSystemConfig, ReadAheadConfig, TreeConfig
from ctrfs.fs.listing_ahead import WINDOW_AT_START

ROUND_TRIP_S = 1.0
CONTAINERS = 40
NAMES = [f"c{number:02}" for number in range(CONTAINERS)]
ONE_MOMENT = Settings(tree=TreeConfig(ttl_s=1800, max_stale_s=1800))


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[InProcessService]:
    """A service that takes a second a request, with many containers of one file."""
    with InProcessService(tmp_path / "service", round_trip_s=ROUND_TRIP_S) as opened:
        for name in NAMES:
            container_id = opened.create_container(name)
            opened.plant(container_id, "/mnt/data/a.txt", name.encode())
        opened.reset_counters()
        yield opened


def listings(service: InProcessService) -> int:
    return service.counters().get("list_files", 0)


async def enter(mount: InProcessMount, *names: str) -> None:
    for name in names:
        assert await mount.names(name) == ["a.txt"]


async def test_entering_one_container_fetches_one_listing(
    service: InProcessService, state: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with mounted(service, state, ONE_MOMENT) as mount:
        await mount.names()
        await enter(mount, NAMES[0])
        await trio.sleep(10)

        assert listings(service) == 1


async def test_a_walk_over_all_containers_costs_one_request_each_and_a_fraction_of_the_time(
    service: InProcessService, state: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with mounted(service, state, ONE_MOMENT) as mount:
        await mount.names()
        began_s = trio.current_time()
        await enter(mount, *NAMES)

        assert listings(service) == CONTAINERS
        assert trio.current_time() - began_s <= 7 * ROUND_TRIP_S


async def test_a_walk_that_stops_has_fetched_no_more_listings_than_its_window(
    service: InProcessService, state: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with mounted(service, state, ONE_MOMENT) as mount:
        await mount.names()
        await enter(mount, NAMES[0], NAMES[1])
        await trio.sleep(60)

        assert listings(service) == 2 + WINDOW_AT_START


async def test_containers_entered_in_no_order_are_listed_one_by_one(
    service: InProcessService, state: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with mounted(service, state, ONE_MOMENT) as mount:
        await mount.names()
        inodes = {name: (await mount.stat(name)).inode for name in NAMES}
        by_inode = sorted(NAMES, key=inodes.__getitem__)
        # Neither by name nor by the inode numbers, which chance gives, does one follow another.
        chosen = [NAMES[20]]
        for name in (NAMES[index] for index in (3, 30, 11, 17, 35, 8)):
            if by_inode.index(name) != by_inode.index(chosen[-1]) + 1:
                chosen.append(name)
        await enter(mount, *chosen)
        await trio.sleep(10)

        assert listings(service) == len(chosen)


async def test_two_neighbours_named_without_reading_the_root_are_no_walk(
    service: InProcessService, state: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with mounted(service, state, ONE_MOMENT) as mount:
        await enter(mount, NAMES[0], NAMES[1])
        await trio.sleep(10)
        assert listings(service) == 2

        await enter(mount, NAMES[2])
        await trio.sleep(10)
        assert listings(service) == 3 + WINDOW_AT_START


async def test_a_slow_walk_fetches_only_what_it_reaches_before_that_gets_old(
    service: InProcessService, state: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with mounted(service, state, Settings(tree=TreeConfig(ttl_s=10))) as mount:
        await mount.names()
        for name in NAMES[:4]:
            await trio.sleep(2)
            await mount.stat(f"{name}/a.txt")
        await trio.sleep(4)

        assert listings(service) <= 4 + 2


async def test_a_service_that_fails_gets_no_listings_that_nobody_waits_for(
    service: InProcessService, state: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with mounted(service, state, ONE_MOMENT) as mount:
        await mount.names()
        await enter(mount, NAMES[0])
        service.add_fault("list_files", "status", status=503, count=40)
        with trio.move_on_after(20):
            await mount.names(NAMES[1])
        await trio.sleep(40)

        # The one that was asked for is tried again; those ahead are asked for once at most.
        assert listings(service) <= 1 + 7 + WINDOW_AT_START


async def test_a_container_changed_here_after_its_listing_came_shows_the_change(
    service: InProcessService, state: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with mounted(service, state, ONE_MOMENT) as mount:
        await mount.names()
        await enter(mount, NAMES[0], NAMES[1])
        await mount.write_file(f"{NAMES[3]}/b.txt", b"new")
        await trio.sleep(10)

        assert await mount.names(NAMES[3]) == ["a.txt", "b.txt"]


async def test_without_read_ahead_each_container_is_waited_for(
    service: InProcessService, state: Path, autojump_clock: trio.testing.MockClock
) -> None:
    files = FileSystemConfig(read_ahead=ReadAheadConfig(files_max=0))
    settings = Settings(tree=ONE_MOMENT.tree, files=files)
    async with mounted(service, state, settings) as mount:
        await mount.names()
        began_s = trio.current_time()
        await enter(mount, *NAMES[:10])

        assert trio.current_time() - began_s >= 10 * ROUND_TRIP_S


async def test_reading_the_files_of_one_container_after_another_reads_ahead_across_them(
    service: InProcessService, state: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with mounted(service, state, ONE_MOMENT) as mount:
        await mount.names()
        began_s = trio.current_time()
        for name in NAMES:
            await enter(mount, name)
            assert await mount.read_file(f"{name}/a.txt") == name.encode()

        assert service.counters()["file_content"] == CONTAINERS
        assert trio.current_time() - began_s <= 16 * ROUND_TRIP_S
