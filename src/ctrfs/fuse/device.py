"""Keeps pyfuse3's read of the kernel's device from freezing the whole process.

pyfuse3 waits until the device is readable, then reads it, blocking and with the interpreter
locked. If the request is taken back in between, because the program that made it was killed,
the read waits for the next request, and with it every task and thread: downloads stop for
everybody until somebody touches the mount. Seen within seconds when programs are killed while
they look names up.

Two measures, neither of which pyfuse3 offers: look again right before the read, which leaves
some microseconds, and a timer whose signal ends a read that waits nevertheless; pyfuse3 takes
an interrupted read for "try again".

Source: ``_session_loop`` in pyfuse3 3.5's internal.pxi; fuse_dev_do_read in Linux, which is
interruptible.
"""

from __future__ import annotations

import select
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

import pyfuse3
import trio

# How long a read may wait for a request that is gone. It fires once after each burst of
# requests, to no effect, unless one is stuck.
_STUCK_AFTER_S: Final = 0.1


@contextmanager
def unfrozen_reads() -> Iterator[None]:
    """Apply both measures inside the block; only in the main thread, around the session.

    pyfuse3 looks ``trio`` up in its own module at each use, which is how its asyncio support
    works as well; so that is where the careful waiting is put.
    """
    earlier_handler = signal.signal(signal.SIGALRM, _do_nothing)
    variables = vars(pyfuse3)
    variables["trio"] = _TrioForPyfuse3()
    try:
        yield
    finally:
        variables["trio"] = trio
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, earlier_handler)


class _Lowlevel:
    """``trio.lowlevel`` with a ``wait_readable`` that looks twice."""

    async def wait_readable(self, fd: int) -> None:
        poller = select.poll()
        poller.register(fd, select.POLLIN)
        while True:
            await trio.lowlevel.wait_readable(fd)
            # Other tasks have run since the kernel said "readable": milliseconds, at times.
            if poller.poll(0):
                signal.setitimer(signal.ITIMER_REAL, _STUCK_AFTER_S)
                return

    def __getattr__(self, name: str) -> object:
        value: object = getattr(trio.lowlevel, name)
        return value


class _TrioForPyfuse3:
    """What pyfuse3 takes for ``trio``."""

    lowlevel = _Lowlevel()

    def __getattr__(self, name: str) -> object:
        value: object = getattr(trio, name)
        return value


def _do_nothing(_number: int, _frame: FrameType | None) -> None:
    """Take the signal; that it came has ended the read."""
