"""A wall clock that jumps by years: what is counted in seconds runs on, only times look odd."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from tests.support.in_process import InProcessMount
from tests.support.service import InProcessService, TrioClock
from tests.support.trees import stored

from ctrfs.errors import RemoteError

YEAR_S = 365 * 24 * 3600
BOTH_WAYS = pytest.mark.parametrize("years", [10, -10])


def jump(mount: InProcessMount, *, years: int) -> None:
    clock = mount.parts.clock
    assert isinstance(clock, TrioClock)
    before_ns = clock.wall_ns()
    assert clock._start_s is not None
    clock._start_s -= years * YEAR_S
    assert (clock.wall_ns() - before_ns) // 10**9 == years * YEAR_S


@BOTH_WAYS
async def test_a_listing_stays_fresh_and_gets_old_as_if_no_clock_had_jumped(
    mount: InProcessMount,
    service: InProcessService,
    work: str,
    autojump_clock: trio.testing.MockClock,
    years: int,
) -> None:
    assert await mount.names("work") == []
    jump(mount, years=years)
    service.reset_counters()
    service.upload(work, "a.txt", b"a")
    service.reset_counters()

    assert await mount.names("work") == []
    assert service.counters().get("list_files", 0) == 0
    await trio.sleep(10)

    assert await mount.names("work") == ["a.txt"]


@BOTH_WAYS
async def test_files_are_saved_read_and_removed_after_the_clock_has_jumped(
    mount: InProcessMount,
    service: InProcessService,
    work: str,
    autojump_clock: trio.testing.MockClock,
    years: int,
) -> None:
    await mount.write_file("work/before.txt", b"before")
    jump(mount, years=years)

    await mount.write_file("work/after.txt", b"after")
    await mount.write_file("work/before.txt", b"changed")
    assert await mount.read_file("work/before.txt") == b"changed"
    await mount.unlink("work/after.txt")

    assert stored(service, "work") == {"before.txt": b"changed"}


@BOTH_WAYS
async def test_what_failed_to_be_sent_is_sent_in_the_background_though_the_clock_has_jumped(
    mount: InProcessMount,
    service: InProcessService,
    work: str,
    autojump_clock: trio.testing.MockClock,
    years: int,
) -> None:
    service.add_fault("create_file", "status", status=503, count=8)
    with pytest.raises(RemoteError):
        await mount.write_file("work/a.txt", b"a")
    jump(mount, years=years)

    await trio.sleep(600)

    assert stored(service, "work") == {"a.txt": b"a"}
