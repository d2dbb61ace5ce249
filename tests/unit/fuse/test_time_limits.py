"""By when a request of the kernel is answered, on trio's own clock."""

from __future__ import annotations

import errno

import pytest
import trio
import trio.testing

from ctrfs import deadlines
from ctrfs.errors import RemoteStalledError
from ctrfs.fuse.errno_map import errno_for
from ctrfs.fuse.time_limits import GRACE_S, TimeLimits

LIMITS = TimeLimits(metadata_s=30, listing_s=300, transfer_s=600)


@pytest.mark.parametrize(
    ("operation", "seconds"), [("lookup", 30), ("mkdir", 30), ("flush", 600), ("read", 600)]
)
async def test_calls_of_a_request_have_the_time_of_its_kind(
    autojump_clock: trio.testing.MockClock, operation: str, seconds: float
) -> None:
    with LIMITS.applied(operation):
        assert deadlines.remaining_s() == seconds


@pytest.mark.parametrize(
    ("operation", "last_s"), [("lookup", 300), ("create", 300), ("write", 600)]
)
async def test_a_request_that_waits_for_ever_is_answered_with_a_timeout(
    autojump_clock: trio.testing.MockClock, operation: str, last_s: float
) -> None:
    began_s = trio.current_time()

    with pytest.raises(RemoteStalledError, match=operation) as caught:
        with LIMITS.applied(operation):
            await trio.sleep_forever()

    assert trio.current_time() - began_s == last_s + GRACE_S
    assert errno_for(caught.value) == errno.ETIMEDOUT


async def test_the_end_of_the_mount_is_not_taken_for_a_timeout(
    autojump_clock: trio.testing.MockClock,
) -> None:
    with trio.move_on_after(1) as ending:
        with LIMITS.applied("read"):
            await trio.sleep_forever()

    assert ending.cancelled_caught
