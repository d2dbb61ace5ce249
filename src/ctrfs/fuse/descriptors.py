"""Which files other processes have open, as far as /proc shows it to us."""

from __future__ import annotations

import os
from pathlib import Path


class Descriptors:
    """Looks into other processes for descriptors of files on one mount.

    Not async on purpose: /proc answers from memory, some 20 microseconds for ten descriptors,
    and reading a link there asks no file system, least of all ours.
    """

    def __init__(self, mountpoint: Path) -> None:
        self._mountpoint = os.fsencode(mountpoint)

    def holds_open(self, pid: int, path: bytes) -> bool:
        """Tell whether process ``pid`` has a descriptor of the file at ``path`` below the mount.

        False also where nobody can tell: another user's process, one that sees the mount under
        another path, one that is gone.
        """
        wanted = self._mountpoint + b"/" + path
        directory = f"/proc/{pid}/fd".encode()
        try:
            return any(_target(directory, name) == wanted for name in os.listdir(directory))  # noqa: PTH208  # names as bytes
        except OSError:
            return False


def _target(directory: bytes, name: bytes) -> bytes:
    try:
        return os.readlink(directory + b"/" + name)  # noqa: PTH115  # bytes
    except OSError:
        return b""  # closed since the directory was read
