"""The daemon's memory, which holds the key and files: kept out of core dumps and debuggers."""

from __future__ import annotations

import ctypes
import logging
import os
import resource
from typing import Final

log = logging.getLogger(__name__)

# Source: prctl(2), linux/prctl.h.
_PR_SET_DUMPABLE: Final = 4


def close_memory_to_others() -> None:
    """Let no core dump be written, and no other process of this user read our memory.

    /proc/PID/mem, environ, maps and fd then belong to root, and ptrace(2) needs its rights. What
    other users could never see stays as it is; ``stat`` and ``cmdline``, by which ``ctrfs umount``
    knows a daemon, stay readable. Ends with the next exec, so programs that we start are as usual.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        # Only a sandbox that forbids the call; the mount works without.
        log.warning("cannot close the memory to others: %s", os.strerror(ctypes.get_errno()))
