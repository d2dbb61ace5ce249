"""What can be known to go wrong before the kernel is asked, each in one line for the user."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess  # nosec B404  # to call umount
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from ctrfs.errors import MountError
from ctrfs.mount.mountinfo import Mount, current_mounts, is_dead, mount_at

FUSE_DEVICE: Final = Path("/dev/fuse")
FUSE_CONFIG: Final = Path("/etc/fuse.conf")
FUSERMOUNT: Final = "fusermount3"
_UNMOUNT_TIMEOUT_S: Final = 15.0
# How many of those who use a mount are named.
_NAMED_MAX: Final = 5


def resolve_mountpoint(text: str) -> Path:
    """Return the mount point as the mount table will name it: absolute, without links.

    A mount at the end of the path is not asked, so this works on one that is dead or hangs.
    """
    given = Path(os.path.abspath(Path(text)))  # noqa: PTH100  # the last part stays as it is
    try:
        parent = given.parent.resolve(strict=True)
    except OSError as error:
        raise MountError(f"mount point {text}: {_reason(error)}") from error
    whole = parent / given.name
    if mount_at(whole) is not None:
        return whole
    return whole.resolve() if _is_link(whole) else whole


def prepare_mountpoint(mountpoint: Path, *, nonempty: bool) -> None:
    """Make sure that ``mountpoint`` can be mounted on; clear a dead mount of ours first.

    Raises:
        MountError: It cannot; the text is for the user.
    """
    mount = mount_at(mountpoint)
    if mount is not None and mount.is_ours:
        if not is_dead(mount):
            raise MountError(f"{mountpoint} is already mounted ({mount.source})")
        unmount(mountpoint, lazily=True)
    elif mount is not None and is_dead(mount):
        raise MountError(
            f"{mountpoint} holds a dead {mount.file_system_type} mount: unmount it first"
        )
    _check_directory(mountpoint, nonempty=nonempty)


def check_mountpoint(mountpoint: Path, *, nonempty: bool) -> None:
    """Make sure that ``mountpoint`` could be mounted on, and change nothing.

    Raises:
        MountError: It could not; the text is for the user.
    """
    mount = mount_at(mountpoint)
    if mount is None or not mount.is_ours or not is_dead(mount):
        prepare_mountpoint(mountpoint, nonempty=nonempty)


def check_fuse(*, allow_other: bool) -> None:
    """Make sure that this user can mount a FUSE file system here.

    Raises:
        MountError: Something is missing; the text says what to do.
    """
    problem = fuse_problem() or (allow_other_problem() if allow_other else None)
    if problem is not None:
        raise MountError(problem)


def fuse_problem() -> str | None:
    """Return what keeps this user from mounting, or None."""
    if not FUSE_DEVICE.exists():
        return (
            f"no {FUSE_DEVICE}: load the kernel module (modprobe fuse), or start the container "
            "with --device /dev/fuse --cap-add SYS_ADMIN"
        )
    # fusermount3 opens the device with the rights of who calls it, so all users need them.
    if not os.access(FUSE_DEVICE, os.R_OK | os.W_OK):
        return f"no permission to use {FUSE_DEVICE}"
    if os.geteuid() != 0 and shutil.which(FUSERMOUNT) is None:
        return f"no {FUSERMOUNT}: install fuse3"
    return None


def allow_other_problem() -> str | None:
    """Return why ``allow_other`` cannot be used by this user, or None."""
    if os.geteuid() == 0:
        return None
    try:
        lines = FUSE_CONFIG.read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    if any(line.strip() == "user_allow_other" for line in lines):
        return None
    return f"allow_other needs the line user_allow_other in {FUSE_CONFIG}"


def unmount(mountpoint: Path, *, lazily: bool = False, settings: Sequence[str] = ()) -> None:
    """Unmount through the system's own tool.

    Args:
        mountpoint: Where.
        lazily: Also if it is in use, or if nobody answers for it any more.
        settings: Further ones of umount(8); only root's tool has them.

    Raises:
        MountError: It stays mounted; the text says why.
    """
    if os.geteuid() == 0 and shutil.which("umount") is not None:
        # Without helpers: one of ours may be what called us.
        command = ["umount", "-i", *(["-l"] if lazily else []), *settings]
    else:
        command = [FUSERMOUNT, "-u", *(["-z"] if lazily else [])]
    try:
        done = subprocess.run(  # noqa: S603  # nosec B603  # fixed words and a path
            [*command, "--", str(mountpoint)],
            check=False,
            capture_output=True,
            text=True,
            timeout=_UNMOUNT_TIMEOUT_S,
        )
    except FileNotFoundError as error:
        raise MountError(f"no {command[0]}: install fuse3 or util-linux") from error
    except subprocess.TimeoutExpired as error:
        raise MountError(f"{command[0]} {mountpoint} does not come back") from error
    if done.returncode != 0:
        words = (done.stderr or done.stdout).strip().splitlines()
        reason = words[-1].strip() if words else f"{command[0]} ended with {done.returncode}"
        if "busy" in reason:
            reason = f"in use by {_users_of(mountpoint)}; end it, or change its working directory"
        raise MountError(f"cannot unmount {mountpoint}: {reason}")


def _users_of(mountpoint: Path) -> str:
    """Return in words who has something open in a mount, or his working directory.

    As far as /proc shows it to us: it answers by itself, and no mount is asked. No names: a
    process gives itself any, also one that controls a terminal.
    """
    place = f"{mountpoint}/"

    def is_inside(link: str) -> bool:
        with suppress(OSError):  # closed meanwhile
            return f"{os.readlink(link)}/".startswith(place)  # noqa: PTH115  # text
        return False

    found = []
    for pid in filter(str.isdecimal, os.listdir("/proc")):  # noqa: PTH208  # names
        with suppress(OSError):  # ended meanwhile, or not ours to look at
            fds = (f"fd/{fd}" for fd in os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208  # names
            if any(is_inside(f"/proc/{pid}/{name}") for name in ("cwd", *fds)):
                found.append(pid)
    if not found:
        return "a program"
    return f"process{'es' if len(found) > 1 else ''} {', '.join(found[:_NAMED_MAX])}"


def our_mount(mountpoint: Path) -> Mount:
    """Return the mount of ours at ``mountpoint``.

    Raises:
        MountError: There is none.
    """
    mounts = current_mounts()
    mount = mount_at(mountpoint, mounts)
    if mount is None:
        around = [each for each in mounts if each.is_ours and each.mountpoint in mountpoint.parents]
        where = f": it lies in the mount at {around[-1].mountpoint}" if around else ""
        raise MountError(f"{mountpoint} is not mounted{where}")
    if not mount.is_ours:
        raise MountError(f"{mountpoint} is a {mount.file_system_type} mount, not one of ctrfs")
    return mount


def _check_directory(mountpoint: Path, *, nonempty: bool) -> None:
    try:
        facts = mountpoint.stat()
        if not stat.S_ISDIR(facts.st_mode):
            raise MountError(f"mount point {mountpoint} is not a directory")
        if not nonempty and any(mountpoint.iterdir()):
            raise MountError(
                f"mount point {mountpoint} is not empty; its files would be hidden while mounted "
                "(allow it with -o nonempty)"
            )
    except OSError as error:
        raise MountError(f"mount point {mountpoint}: {_reason(error)}") from error
    if os.geteuid() != 0 and not os.access(mountpoint, os.W_OK):
        raise MountError(f"mount point {mountpoint}: no permission to write there")


def _is_link(path: Path) -> bool:
    try:
        return path.is_symlink()
    except OSError:
        return False  # a dead mount answers nothing, and is no link


def _reason(error: OSError) -> str:
    if error.errno == errno.ENOENT:
        return "no such directory; create it first"
    return (error.strerror or str(error)).lower()
