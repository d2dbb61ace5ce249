"""Tells the kernel that something it keeps is no longer true.

A notification waits inside the kernel while a lookup, create or rename in the same directory
is pending. Sent from the trio thread it would therefore wait for a request that only the trio
thread can answer, for good, and beyond the reach of SIGKILL. So all of them are sent by one
thread that does nothing else. Whoever waits for it does so for a limited time, and in a request
that holds no lock of the kernel.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Final, TypeAlias

import msgspec
import pyfuse3
import trio

from ctrfs.tree.nodes import InodeNumber

log = logging.getLogger(__name__)

# A listing of the largest container that can be used changes some thousand names at once.
# What does not fit is dropped, oldest first: the kernel then keeps it until its time-out.
_PENDING_MAX: Final = 20_000

_Entry: TypeAlias = tuple[InodeNumber, bytes]


class NotifierCounts(msgspec.Struct, frozen=True, kw_only=True):
    """What the notifier has done so far."""

    pending: int
    sent: int
    unknown: int
    """The kernel did not have the entry: nothing was out of date."""
    failed: int
    dropped: int
    """Pushed out of a full queue."""


class KernelNotifier:
    """A queue of notifications and the thread that sends them.

    Owner: ``mount.run`` makes, starts and closes it. The other methods may be called from the
    trio thread at any time, also before ``start`` and after ``close``.

    Invariant: everything shared with the thread is touched only under ``_changed``, which is
    never held during a notification.
    """

    def __init__(
        self,
        *,
        pending_max: int = _PENDING_MAX,
        send_entry: Callable[[InodeNumber, bytes], None] = pyfuse3.invalidate_entry,
        send_inode: Callable[[InodeNumber], None] = pyfuse3.invalidate_inode,
    ) -> None:
        self._pending_max = pending_max
        self._send_entry = send_entry
        self._send_inode = send_inode
        self._changed = threading.Condition()
        # Ordered, without duplicates: asking twice before it is sent is asking once.
        self._pending: OrderedDict[_Entry | InodeNumber, None] = OrderedDict()
        self._is_closed = False
        self._is_sending = False
        self._sent = 0
        self._unknown = 0
        self._failed = 0
        self._dropped = 0
        # A daemon thread: one that is stuck in the kernel must not keep the process alive.
        self._thread = threading.Thread(target=self._run, name="kernel notifier", daemon=True)

    def start(self) -> None:
        """Start sending; once, after the kernel session exists."""
        self._thread.start()

    def entries_changed(self, entries: Iterable[_Entry]) -> None:
        """Have the kernel forget what these names stand for: removed, replaced or new."""
        self._add(entries)

    def inode_changed(self, inode: InodeNumber) -> None:
        """Have the kernel forget the attributes and the cached bytes of an inode."""
        self._add([inode])

    async def wait_until_sent(self, *, timeout_s: float) -> bool:
        """Wait until the kernel has been told of everything so far; return whether it has.

        Waits for the thread, and so for the kernel, up to ``timeout_s``; may be cancelled.
        """
        return await trio.to_thread.run_sync(
            self._wait_until_sent, timeout_s, abandon_on_cancel=True
        )

    def counts(self) -> NotifierCounts:
        """Return what has been done so far."""
        with self._changed:
            return NotifierCounts(
                pending=len(self._pending),
                sent=self._sent,
                unknown=self._unknown,
                failed=self._failed,
                dropped=self._dropped,
            )

    def close(self, *, timeout_s: float) -> bool:
        """Drop what is pending and end the thread; return whether it has ended.

        Blocks for up to ``timeout_s``. A thread that is stuck in the kernel is left behind:
        the session must then not be destroyed under it.
        """
        with self._changed:
            self._is_closed = True
            self._pending.clear()
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _add(self, subjects: Iterable[_Entry | InodeNumber]) -> None:
        with self._changed:
            if self._is_closed:
                return
            for subject in subjects:
                self._pending[subject] = None
            while len(self._pending) > self._pending_max:
                self._pending.popitem(last=False)
                self._dropped += 1
            self._changed.notify_all()

    def _wait_until_sent(self, timeout_s: float) -> bool:
        with self._changed:
            return self._changed.wait_for(
                lambda: not self._pending and not self._is_sending, timeout_s
            )

    def _run(self) -> None:
        while (subject := self._take()) is not None:
            try:
                self._send(subject)
            except FileNotFoundError:
                self._unknown += 1
            except OSError as error:
                # ENOTCONN and the like while the mount ends; the time-outs do the rest.
                self._failed += 1
                log.debug("notification of %r failed: %s", subject, error)
            else:
                self._sent += 1

    def _take(self) -> _Entry | InodeNumber | None:
        """Return what is to be sent next; the one before counts as sent."""
        with self._changed:
            self._is_sending = False
            if not self._pending:
                self._changed.notify_all()
            while not self._pending and not self._is_closed:
                self._changed.wait()
            if self._is_closed:
                return None
            self._is_sending = True
            return self._pending.popitem(last=False)[0]

    def _send(self, subject: _Entry | InodeNumber) -> None:
        if isinstance(subject, tuple):
            self._send_entry(*subject)
        else:
            self._send_inode(subject)
