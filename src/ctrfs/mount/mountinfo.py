"""The mount table of this process, and which of its mounts are ours and which are dead."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path
from typing import Final

import msgspec

_TABLE: Final = Path("/proc/self/mountinfo")
_OCTAL: Final = re.compile(rb"\\([0-3][0-7]{2})")
FILE_SYSTEM_TYPE: Final = "fuse.ctrfs"


class Mount(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the table."""

    mountpoint: Path
    file_system_type: str
    source: str
    device: str
    """``major:minor``. The minor number is the name of the FUSE connection in sysfs."""

    @property
    def is_ours(self) -> bool:
        """Whether some ctrfs made it."""
        return self.file_system_type == FILE_SYSTEM_TYPE


def parse_mountinfo(table: bytes) -> list[Mount]:
    """Return the mounts of a table, in its order; lines of another shape are left out.

    Source: proc_pid_mountinfo(5): ``id parent major:minor root mountpoint options [fields…] -
    type source super-options``, with space, tab, newline and backslash as octal escapes.
    """
    mounts = []
    # Not splitlines: the kernel escapes only the newline, and a name may hold a carriage return.
    for line in table.split(b"\n"):
        head, has_separator, tail = line.partition(b" - ")
        fields, kind = head.split(b" "), tail.split(b" ")
        if not has_separator or len(fields) < 6 or len(kind) < 2:
            continue
        mounts.append(
            Mount(
                mountpoint=Path(_text(fields[4])),
                file_system_type=_text(kind[0]),
                source=_text(kind[1]),
                device=_text(fields[2]),
            )
        )
    return mounts


def current_mounts() -> list[Mount]:
    """Return what is mounted now, as this process sees it; asks no file system."""
    return parse_mountinfo(_TABLE.read_bytes())


def mount_at(mountpoint: Path, mounts: list[Mount] | None = None) -> Mount | None:
    """Return the topmost mount at exactly ``mountpoint``, an absolute path without links."""
    found = None
    for mount in current_mounts() if mounts is None else mounts:
        if mount.mountpoint == mountpoint:
            found = mount  # later lines lie on top of earlier ones
    return found


def is_dead(mount: Mount) -> bool:
    """Whether the daemon behind a FUSE mount is gone; asks the file system itself."""
    try:
        # Not stat: the kernel may answer that out of its cache long after the daemon's end.
        os.statvfs(mount.mountpoint)
    except OSError as error:
        return error.errno in {errno.ENOTCONN, errno.ECONNABORTED}
    return False


def _text(field: bytes) -> str:
    return os.fsdecode(_OCTAL.sub(lambda match: bytes([int(match[1], 8)]), field))
