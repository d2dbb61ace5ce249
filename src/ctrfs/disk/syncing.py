"""Making names survive a power cut, as ``fsync`` of a file does its bytes."""

from __future__ import annotations

import os
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
