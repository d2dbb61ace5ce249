"""A line in the table of mount(8), without which umount(8) would not call our helper.

umount(8) finds a helper by the type of the mount. To root it takes a short cut: it asks the file
system, which can only say ``fuse``, so that ``umount.fuse.ctrfs`` is not looked for. It looks
into the mount table of the kernel, where ``fuse.ctrfs`` stands, if its own table (/run/mount/utab)
has a line for the place; and ``helper=ctrfs`` in that line names ``umount.ctrfs``.
Ordinary users, and systemd's ``umount -c``, do not take the short cut. Before util-linux 2.40,
mount(8) adds nothing to a line that a helper has written, so that ``x-…`` of a mount without
``_netdev`` is missing there; nothing that we know of needs it.
Source: libmount 2.38 to 2.41, ``lookup_umount_fs_by_statfs``, ``prepare_helper_from_option``.
"""

from __future__ import annotations

import logging
import os
import subprocess  # nosec B404  # to call mount
from pathlib import Path
from typing import Final

from ctrfs.mount.helper_names import HELPER_DIRECTORY, UMOUNT_HELPERS
from ctrfs.mount.mountinfo import FILE_SYSTEM_TYPE

log = logging.getLogger(__name__)

_OPTION: Final = "helper=ctrfs"
_TIMEOUT_S: Final = 5.0


def tell_umount(source: str, mountpoint: Path) -> None:
    """Have umount(8) call our helper for a mount that stands, where there is one and we are root.

    Waits some milliseconds for mount(8). A failure changes nothing but that umount(8) returns
    before everything is sent.
    """
    if os.geteuid() != 0 or not (HELPER_DIRECTORY / UMOUNT_HELPERS[0]).exists():
        return
    # A mount that is only pretended writes the line: libfuse does the same for /etc/mtab.
    command = ["mount", "-i", "-f", "-c", "-t", FILE_SYSTEM_TYPE, "-o", _OPTION, "--"]
    try:
        done = subprocess.run(  # noqa: S603  # nosec B603  # fixed words, a source and a path
            [*command, source, str(mountpoint)],
            check=False,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        log.debug("umount will not wait for %s: %s", mountpoint, error)
        return
    if done.returncode != 0:
        log.debug("umount will not wait for %s: %s", mountpoint, done.stderr.strip())
