from __future__ import annotations

import ctypes
import errno
import os
import select
import signal
from collections.abc import Iterator

import pyfuse3
import pytest
import trio
import trio.testing

from ctrfs.fuse.device import unfrozen_reads

LIBC = ctypes.CDLL(None, use_errno=True)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for fd in ends:
        os.close(fd)


async def wait_as_pyfuse3_does(fd: int) -> None:
    await vars(pyfuse3)["trio"].lowlevel.wait_readable(fd)


async def test_a_read_of_what_was_taken_back_is_interrupted(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    with unfrozen_reads():
        os.write(writing, b"x")
        await wait_as_pyfuse3_does(reading)
        os.read(reading, 1)

        # Blocking, with no retry: what libfuse does, and Python's own read would not show.
        answer = LIBC.read(reading, ctypes.create_string_buffer(1), 1)

    assert answer == -1
    assert ctypes.get_errno() == errno.EINTR


async def test_the_device_is_readable_when_the_wait_returns(pipe: tuple[int, int]) -> None:
    """A second task takes the byte in the same round; which of the two runs first is random."""
    reading, writing = pipe
    second = os.dup(reading)
    poller = select.poll()
    poller.register(reading, select.POLLIN)
    seen: list[bool] = []

    async def take() -> None:
        await trio.lowlevel.wait_readable(second)
        if poller.poll(0):
            os.read(second, 1)

    async def look() -> None:
        await wait_as_pyfuse3_does(reading)
        seen.append(bool(poller.poll(0)))

    with unfrozen_reads():
        for _ in range(50):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(look)
                nursery.start_soon(take)
                await trio.testing.wait_all_tasks_blocked()
                os.write(writing, b"x")
                await trio.testing.wait_all_tasks_blocked(0.001)
                nursery.cancel_scope.cancel()
            if poller.poll(0):
                os.read(reading, 1)
    os.close(second)

    assert seen
    assert all(seen)


def test_afterwards_everything_is_as_before() -> None:
    before = signal.getsignal(signal.SIGALRM)

    with unfrozen_reads():
        assert vars(pyfuse3)["trio"] is not trio

    assert vars(pyfuse3)["trio"] is trio
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
