"""What a mount is asked from outside: to look at the service again, to give up unsent bytes."""

from __future__ import annotations

import contextlib
import errno
import os
from typing import Final

from ctrfs.errors import MountError
from ctrfs.mount.mountinfo import current_mounts

_REFRESH: Final = "user.ctrfs.refresh"
_DISCARD: Final = "user.ctrfs.discard"
_NOT_OURS: Final = "not in a mount of ctrfs"
_REASONS: Final = {
    errno.EOPNOTSUPP: _NOT_OURS,
    errno.ENOENT: "no such file or directory",
    errno.ENOTCONN: "the mount's daemon is gone; mount it again",
    errno.EIO: "the service failed; ctrfs doctor tells more",
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
        os.setxattr(path, _REFRESH, b"1")
        _wait_until_the_kernel_knows(path)
    except OSError as error:
        reason = _REASONS.get(error.errno or 0) or error.strerror or str(error)
        raise MountError(f"{path}: {reason}") from error


def _wait_until_the_kernel_knows(path: str) -> None:
    """Return once no old name of the folder can be opened any more.

    Setting the attribute holds the folder's lock in the kernel, so that its names can be
    forgotten only afterwards; getting it holds none, and waits for that.
    """
    with contextlib.suppress(OSError):  # it has no value; or the entry is gone, as was asked
        os.getxattr(path, _REFRESH)


def discard_in_mount(mountpoint: str, unsent_id: str) -> None:
    """Have the mount at ``mountpoint`` forget unsent bytes, by the id that its journal gives.

    Raises:
        MountError: It has none of that id any more, or does not answer as it should.
    """
    try:
        os.setxattr(mountpoint, _DISCARD, unsent_id.encode("utf-8", "surrogateescape"))
    except OSError as error:
        if error.errno == errno.EINVAL:
            raise MountError("it has been sent in the meantime") from error
        raise MountError(f"{mountpoint}: {error.strerror}") from error


def _is_ours(device: int) -> bool:
    name = f"{os.major(device)}:{os.minor(device)}"
    return any(mount.is_ours and mount.device == name for mount in current_mounts())
