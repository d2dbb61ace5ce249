"""Asking a mount, from outside, to look at the service again."""

from __future__ import annotations

import errno
import os
from typing import Final

from ctrfs.errors import MountError
from ctrfs.mount.mountinfo import current_mounts

_ATTRIBUTE: Final = "user.ctrfs.refresh"
_NOT_OURS: Final = "not in a mount of ctrfs"
_REASONS: Final = {
    errno.EOPNOTSUPP: _NOT_OURS,
    errno.ENOENT: "no such file or directory",
    errno.ENOTCONN: "the mount's daemon is gone; mount it again",
}


def refresh_path(path: str) -> None:
    """Return once the mount has asked the service what is at ``path``.

    Raises:
        MountError: ``path`` is in no mount of ours, or the service did not answer.
    """
    try:
        # Other file systems would keep the attribute as one of the user's own.
        if not _is_ours(os.lstat(path).st_dev):
            raise MountError(f"{path}: {_NOT_OURS}")
        os.setxattr(path, _ATTRIBUTE, b"1")
    except OSError as error:
        reason = _REASONS.get(error.errno or 0) or error.strerror or str(error)
        raise MountError(f"{path}: {reason}") from error


def _is_ours(device: int) -> bool:
    name = f"{os.major(device)}:{os.minor(device)}"
    return any(mount.is_ours and mount.device == name for mount in current_mounts())
