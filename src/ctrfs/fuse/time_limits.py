"""How long a request of the kernel may take before it is answered, whatever happens.

pyfuse3 cannot interrupt a request, so a program that waits for one cannot be killed until it
is answered. Two limits, one inside the other. By the first, calls to the service and waits for
locks end by themselves, with errors of their own and nothing half done. The second, some
seconds later, cancels whatever still waits: it should never be needed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import msgspec
import trio

from ctrfs import deadlines
from ctrfs.errors import RemoteStalledError

# For what ends by itself at its limit to undo and to record what it has to.
GRACE_S: Final = 5.0

# What may wait for file bytes to come or to go; ``open`` where it cuts a file that is just
# being sent, or where only a download tells the length; ``fsyncdir`` for all of a directory.
_MOVING_BYTES: Final = frozenset(
    {
        "open",
        "read",
        "write",
        "setattr",
        "flush",
        "fsync",
        "fsyncdir",
        "release",
        "unlink",
        "rename",
        "mknod",
    }
)


class TimeLimits(msgspec.Struct, frozen=True, kw_only=True):
    """The limits by kind of request.

    The wait for a listing of many pages has a limit of its own, ``TreeConfig.listing_wait_max_s``,
    as it may go on for much longer than one call.
    """

    metadata_s: float = 30.0
    """For all calls of a request that moves no file bytes, and its waits for locks."""
    listing_s: float = 300.0
    """For the wait for a listing, within such a request."""
    transfer_s: float = 600.0
    """For a request that moves file bytes, each of which must go on (the stall rule)."""

    @contextmanager
    def applied(self, operation: str) -> Iterator[None]:
        """Hold the handler called ``operation``, in the block, to its limits.

        Raises:
            RemoteStalledError: It was cancelled at the second limit.
        """
        limit_s, last_s = self._of(operation)
        with deadlines.within(limit_s), trio.move_on_after(last_s) as patience:
            yield
        if patience.cancelled_caught:
            raise RemoteStalledError(f"{operation} was given up after {last_s:g} s")

    def _of(self, operation: str) -> tuple[float, float]:
        if operation in _MOVING_BYTES:
            return self.transfer_s, self.transfer_s + GRACE_S
        return self.metadata_s, max(self.metadata_s, self.listing_s) + GRACE_S
