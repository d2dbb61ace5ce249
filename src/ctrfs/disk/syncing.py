"""Making names survive a power cut, as ``fsync`` of a file does its bytes."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def sync_directory(path: Path) -> None:
    """Return when the disk holds the names in the directory at ``path``; may take long.

    Raises:
        OSError: It is no directory, or the disk failed us.
    """
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_directories(path: Path, *, mode: int = 0o777) -> None:
    """Make the directory ``path`` and those above it that are missing; all survive a power cut.

    Waits for the disk only where something was made: a few ms for each.

    Args:
        path: Harmless if it is there.
        mode: Of ``path`` itself; the others get what the umask leaves.

    Raises:
        OSError: Something else is there, or the disk failed us.
    """
    try:
        path.mkdir(mode=mode)
    except FileNotFoundError:
        if path.parent == path:
            raise
        make_directories(path.parent)
        path.mkdir(mode=mode, exist_ok=True)
    except OSError:
        if not path.is_dir():
            raise
        return
    with suppress(PermissionError):  # one may make a directory where one may not look
        sync_directory(path.parent)
