"""What sysfs has of our mount: how far the kernel reads ahead, and the way to cut it off.

libfuse has no options for either that pyfuse3 passes on; sysfs has, for root alone. Without
them everything works, in smaller steps, so that a refusal is not worth a line in the log.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from pathlib import Path
from typing import Final

from ctrfs.mount.mountinfo import mount_at
from ctrfs.units import KIB, MIB

log = logging.getLogger(__name__)

# Requests then come as 1 MiB, the most that FUSE takes at once: an eighth of the messages, and
# a cold sequential read from memory went from 1.6 to 2.2 GB/s. Linux's own value is 128 KiB.
READ_AHEAD_BYTES: Final = 1 * MIB
# Reads ahead that the kernel has under way at once, over all files; 12 by itself.
_BACKGROUND_MAX: Final = 64
_SYS: Final = Path("/sys")


def tune_kernel(mountpoint: Path, *, sys: Path = _SYS) -> None:
    """Widen the kernel's windows for the mount at ``mountpoint``, as far as it lets us.

    Only once the kernel has our answer to FUSE_INIT, which sets both to its own values.
    Source: process_init_reply in fs/fuse/inode.c of Linux.

    Args:
        mountpoint: Absolute, without links.
        sys: Where sysfs is.
    """
    with suppress(OSError):
        mount = mount_at(mountpoint)
        if mount is None:
            return
        connection = mount.device.partition(":")[2]
        _write(sys / "class/bdi" / mount.device / "read_ahead_kb", READ_AHEAD_BYTES // KIB)
        limits = sys / "fs/fuse/connections" / connection
        _write(limits / "max_background", _BACKGROUND_MAX)
        # Above this the kernel holds programs up; its own value is three quarters, too.
        _write(limits / "congestion_threshold", _BACKGROUND_MAX * 3 // 4)


def abort_connection(mountpoint: Path, *, sys: Path = _SYS) -> None:
    """Have every request at the mount end with ECONNABORTED; nothing if sysfs does not let us.

    Asks the mount itself nothing. Source: fuse.rst of Linux, "Control filesystem".
    """
    with suppress(OSError):
        mount = mount_at(mountpoint)
        if mount is not None:
            connection = mount.device.partition(":")[2]
            _write(sys / "fs/fuse/connections" / connection / "abort", 1)


def _write(setting: Path, value: int) -> None:
    try:
        setting.write_text(f"{value}\n")
    except OSError as error:
        log.debug("%s stays as it is: %s", setting, error)
