"""Containers of many files, and accounts of many containers: a page of 100 rows takes a second."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
import trio.testing
from tests.support.in_process import InProcessMount, mounted
from tests.support.service import InProcessService

CALL_S = 1.0
MANY = 2000
PAGES = 20
# The first page, 18 of which 8 are under way at once, and the end.
RELISTED_WITHIN_S = 5.0


def fill(service: InProcessService, container_id: str) -> None:
    for number in range(MANY):
        service.plant(container_id, f"/mnt/data/{number:04}")
    service.transport.round_trip_s = CALL_S


async def timed_names(mount: InProcessMount, path: str) -> tuple[list[str], float]:
    start_s = trio.current_time()
    names = await mount.names(path)
    return names, trio.current_time() - start_s


async def test_listing_a_large_container_again_asks_for_its_pages_at_once(
    mount: InProcessMount,
    service: InProcessService,
    work: str,
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The same requests as one after another, and no row less; promise 8."""
    fill(service, work)
    names, first_s = await timed_names(mount, "work")
    assert len(names) == MANY
    assert first_s == pytest.approx(PAGES * CALL_S)

    service.reset_counters()
    await trio.sleep(100)
    again, second_s = await timed_names(mount, "work")

    assert again == names
    assert service.counters()["list_files"] == PAGES
    assert second_s <= RELISTED_WITHIN_S


async def test_what_others_change_in_a_large_container_is_seen_in_the_next_listing(
    mount: InProcessMount,
    service: InProcessService,
    work: str,
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Promise 8."""
    fill(service, work)
    before = await mount.names("work")
    rows = {str(row["path"]).rpartition("/")[2]: str(row["id"]) for row in service.files(work)}
    gone = [name for name in before if name.endswith(("99", "50")) or name.startswith("07")]
    for name in gone:
        service.delete_file(work, rows[name])
    service.plant(work, "/mnt/data/late")

    await trio.sleep(100)
    after, took_s = await timed_names(mount, "work")

    assert after == sorted({*before, "late"} - set(gone))
    assert took_s <= RELISTED_WITHIN_S


async def test_the_next_mount_asks_for_all_pages_of_containers_at_once(
    service: InProcessService, state: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """Expired containers stay listed for months."""
    for number in range(MANY):
        service.create_container(f"{number:04}")
    async with mounted(service, state) as mount:
        names = await mount.names()
    service.transport.round_trip_s = CALL_S
    service.reset_counters()

    start_s = trio.current_time()
    async with mounted(service, state) as mount:
        took_s = trio.current_time() - start_s
        assert await mount.names() == names

    assert len(names) == MANY
    assert service.counters()["list_containers"] == PAGES
    assert took_s <= RELISTED_WITHIN_S
