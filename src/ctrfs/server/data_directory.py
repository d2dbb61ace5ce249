"""The directory of the service's data: whose it is, and that one process has it at a time."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Final

from ctrfs.errors import ConfigError
from ctrfs.ownership import complaint_about_directory, complaint_about_file

DATABASE: Final = "service.sqlite"


def check_places(directory: Path) -> None:
    """Refuse a data directory in which others could lead us elsewhere.

    Raises:
        ConfigError: It is theirs, everybody can write it, or it holds links.
    """
    # Its own path may hold links: they are the user's business.
    complaints = {directory: complaint_about_directory(directory.stat())}
    if (blobs := directory / "blobs").is_symlink() or blobs.exists():
        complaints[blobs] = complaint_about_directory(blobs.lstat())
    for end in ("", "-wal", "-shm", "-journal"):
        file = directory / (DATABASE + end)
        if file.is_symlink() or file.exists():
            complaints[file] = complaint_about_file(file.lstat())
    for path, complaint in complaints.items():
        if complaint is not None:
            raise ConfigError(f"{path} {complaint}")


def private_file(path: Path) -> int:
    """Return a descriptor of a file that others cannot read, made if it is missing."""
    return os.open(path, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def locked(directory: Path) -> int:
    """Return a descriptor that keeps other servers out until it is closed.

    Raises:
        ConfigError: Another one is in.
    """
    fd = private_file(directory / "lock")
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise ConfigError(f"another server uses the data directory {directory}") from None
    return fd
