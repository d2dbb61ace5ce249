"""Where things of this user lie: state, logs, the local service's data. XDG, mode 0700."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import platformdirs

from ctrfs.disk.syncing import make_directories
from ctrfs.errors import ConfigError
from ctrfs.ownership import complaint_about_directory

_NAME: Final = "ctrfs"


def state_base() -> Path:
    """Return the directory below which each source has its state."""
    return platformdirs.user_state_path(_NAME)


def local_data_directory() -> Path:
    """Return where the service of ``local:`` keeps its data."""
    return platformdirs.user_data_path(_NAME) / "server"


def make_private_directory(path: Path) -> Path:
    """Make sure that ``path`` is a directory; a new one is for this user alone.

    Raises:
        ConfigError: It cannot be made, is another user's, or can be written by everybody.
    """
    try:
        make_directories(path, mode=0o700)
        complaint = complaint_about_directory(path.stat())
    except OSError as error:
        raise ConfigError(f"cannot make the directory {path}: {error.strerror}") from error
    if complaint is not None:
        raise ConfigError(f"{path} {complaint}")
    if not os.access(path, os.W_OK | os.X_OK):
        raise ConfigError(f"no permission to write in {path}")
    return path
