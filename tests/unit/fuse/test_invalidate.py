from __future__ import annotations

import errno
import threading
from collections.abc import Iterator
from functools import partial

import pytest
import trio

from ctrfs.fuse.invalidate import KernelNotifier
from ctrfs.tree.nodes import InodeNumber

ROOT = InodeNumber(1)


class Kernel:
    """Takes notifications; waits in each while ``gate`` is closed."""

    def __init__(self) -> None:
        self.told: list[object] = []
        self.gate = threading.Event()
        self.gate.set()
        self.is_in = threading.Event()
        self.failure: OSError | None = None

    def entry(self, parent: InodeNumber, name: bytes) -> None:
        self._take((parent, name))

    def inode(self, inode: InodeNumber) -> None:
        self._take(inode)

    def _take(self, subject: object) -> None:
        self.is_in.set()
        self.gate.wait(10)
        self.told.append(subject)
        if self.failure is not None:
            raise self.failure


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    made = Kernel()
    yield made
    made.gate.set()


def notifier_for(kernel: Kernel, *, pending_max: int = 100) -> KernelNotifier:
    return KernelNotifier(pending_max=pending_max, send_entry=kernel.entry, send_inode=kernel.inode)


def wait_until_sent(notifier: KernelNotifier, count: int) -> None:
    waiting = threading.Event()
    for _ in range(500):
        counts = notifier.counts()
        if counts.sent + counts.unknown + counts.failed >= count:
            return
        waiting.wait(0.01)
    raise AssertionError(notifier.counts())


def test_entries_and_inodes_are_told_in_order(kernel: Kernel) -> None:
    notifier = notifier_for(kernel)
    notifier.entries_changed([(ROOT, b"a"), (ROOT, b"b")])
    notifier.inode_changed(InodeNumber(7))

    notifier.start()
    wait_until_sent(notifier, 3)

    assert kernel.told == [(ROOT, b"a"), (ROOT, b"b"), 7]
    assert notifier.close(timeout_s=5)


def test_the_caller_does_not_wait_for_a_kernel_that_waits(kernel: Kernel) -> None:
    kernel.gate.clear()
    notifier = notifier_for(kernel)
    notifier.start()
    notifier.inode_changed(InodeNumber(1))
    assert kernel.is_in.wait(5)

    notifier.inode_changed(InodeNumber(2))

    assert notifier.counts().pending == 1
    kernel.gate.set()
    assert notifier.close(timeout_s=5)


def test_what_is_asked_twice_is_sent_once(kernel: Kernel) -> None:
    notifier = notifier_for(kernel)
    for _ in range(3):
        notifier.entries_changed([(ROOT, b"a")])

    assert notifier.counts().pending == 1


def test_a_full_queue_drops_the_oldest(kernel: Kernel) -> None:
    notifier = notifier_for(kernel, pending_max=2)

    notifier.entries_changed([(ROOT, b"a"), (ROOT, b"b"), (ROOT, b"c")])
    notifier.start()
    wait_until_sent(notifier, 2)

    assert kernel.told == [(ROOT, b"b"), (ROOT, b"c")]
    assert notifier.counts().dropped == 1
    assert notifier.close(timeout_s=5)


@pytest.mark.parametrize("number", [errno.ENOENT, errno.ENOTCONN])
def test_a_kernel_that_refuses_does_not_end_the_thread(kernel: Kernel, number: int) -> None:
    kernel.failure = OSError(number, "refused")
    notifier = notifier_for(kernel)
    notifier.start()
    notifier.inode_changed(InodeNumber(1))
    notifier.inode_changed(InodeNumber(2))

    wait_until_sent(notifier, 2)

    assert notifier.close(timeout_s=5)
    assert kernel.told == [1, 2]


def test_closing_gives_up_on_a_thread_that_is_stuck_in_the_kernel(kernel: Kernel) -> None:
    kernel.gate.clear()
    notifier = notifier_for(kernel)
    notifier.start()
    notifier.inode_changed(InodeNumber(1))
    assert kernel.is_in.wait(5)

    assert not notifier.close(timeout_s=0.05)

    kernel.gate.set()
    assert notifier.close(timeout_s=5)


def test_who_waits_goes_on_once_the_kernel_has_been_told(kernel: Kernel) -> None:
    kernel.gate.clear()
    notifier = notifier_for(kernel)
    notifier.start()
    notifier.inode_changed(InodeNumber(1))
    # Not pending any more, but not done either.
    assert kernel.is_in.wait(5)

    async def wait() -> None:
        assert not await notifier.wait_until_sent(timeout_s=0.05)
        kernel.gate.set()
        assert await notifier.wait_until_sent(timeout_s=5)

    trio.run(wait)
    assert kernel.told == [1]
    assert notifier.close(timeout_s=5)


def test_nobody_waits_for_a_notifier_that_has_nothing_to_tell(kernel: Kernel) -> None:
    notifier = notifier_for(kernel)
    notifier.start()

    assert trio.run(partial(notifier.wait_until_sent, timeout_s=0))
    assert notifier.close(timeout_s=5)


def test_after_the_end_nothing_is_taken(kernel: Kernel) -> None:
    notifier = notifier_for(kernel)
    assert notifier.close(timeout_s=1)

    notifier.inode_changed(InodeNumber(1))

    assert notifier.counts().pending == 0
