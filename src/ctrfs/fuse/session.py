"""The one kernel session of this process: mount, serve, unmount.

pyfuse3 keeps its session in module variables, so there can be only one. ``mount.run`` enters
``kernel_session`` last and leaves it first.
"""

from __future__ import annotations

import logging
import os
import subprocess  # nosec B404  # to call umount
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final
from urllib.parse import quote

import msgspec
import pyfuse3

from ctrfs.errors import MountError
from ctrfs.fuse.device import unfrozen_reads
from ctrfs.fuse.invalidate import KernelNotifier
from ctrfs.fuse.operations import Operations

log = logging.getLogger(__name__)

SUBTYPE: Final = "ctrfs"
# Handlers that may wait at once. Each waiting read or lookup holds one, and a mount whose
# handlers all wait answers nobody, not even df; pyfuse3's default of 99 is one wide grep -r
# away. One that waits takes some 20 KiB.
_HANDLERS_MAX: Final = 4096
# Tasks that wait for the next request; more only cost memory.
_IDLE_HANDLERS_MAX: Final = 4
# How long to wait for the notifying thread before the session is given up instead of closed.
_NOTIFIER_TIMEOUT_S: Final = 5.0
_UNMOUNT_TIMEOUT_S: Final = 10.0


class KernelOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How the kernel shall mount."""

    source: str
    """What the mount table shows as the device."""
    read_only: bool = False
    allow_other: bool = False
    allow_root: bool = False
    no_exec: bool = False


class KernelSession:
    """A mounted file system that waits to be served."""

    def __init__(self) -> None:
        self._is_stopping = False
        self._is_serving = False

    @property
    def has_crashed(self) -> bool:
        """Whether serving was broken off by something else than an unmount or ``stop``."""
        return self._is_serving and not self._is_stopping

    async def serve(self) -> None:
        """Answer requests until the file system is unmounted or ``stop`` is called.

        Requests under way when the end comes are answered before this returns. Cancelling it
        leaves them without an answer until the session is closed; ``stop`` is the way out.
        """
        self._is_serving = True
        await pyfuse3.main(min_tasks=_IDLE_HANDLERS_MAX, max_tasks=_HANDLERS_MAX)
        self._is_serving = False

    def stop(self) -> None:
        """Take no more requests; ``serve`` returns once those under way are answered.

        Before and after serving there is nothing to stop, and no session to be told.
        """
        if self._is_serving and not self._is_stopping:
            self._is_stopping = True
            pyfuse3.terminate()


@contextmanager
def kernel_session(
    operations: Operations,
    mountpoint: Path,
    *,
    options: KernelOptions,
    notifier: KernelNotifier,
    abort: Callable[[], None],
) -> Iterator[KernelSession]:
    """Mount at ``mountpoint`` on entry; unmount, if nobody has, on exit.

    After a crash the mount stays, for the end of the process to turn it into one that answers
    ENOTCONN: programs must not find an empty directory, and write into it.

    Args:
        operations: What answers.
        mountpoint: Where.
        options: How.
        notifier: Tells the kernel of changes meanwhile.
        abort: Cuts the connection at the kernel, if this user may. A notification that waits
            there for a program, which waits for us, would keep process and program for ever:
            its thread holds the connection open.

    Raises:
        MountError: The kernel or ``fusermount3`` refused; the text says why.
    """
    _mount(operations, mountpoint, options)
    notifier.start()
    session = KernelSession()
    try:
        with unfrozen_reads():
            yield session
    finally:
        is_stuck = not notifier.close(timeout_s=_NOTIFIER_TIMEOUT_S)
        if is_stuck:
            log.warning("a kernel notification is stuck; cutting the connection")
            abort()
        if session.has_crashed:
            log.error("the mount at %s ends by a failure of its own", mountpoint)
        elif is_stuck:
            # Destroying the session would pull it away under the stuck thread.
            _force_unmount(mountpoint)
        else:
            pyfuse3.close(unmount=True)


def mount_option_texts(options: KernelOptions) -> set[str]:
    """Return the options in libfuse's words.

    ``default_permissions`` always: the kernel then checks the mode bits, and a mount open to
    other users is not open to their every wish.
    """
    # pyfuse3 takes ASCII only, and a comma would end the option.
    texts = {f"fsname={quote(options.source, safe='/:@~+ ')}", f"subtype={SUBTYPE}"}
    texts.add("default_permissions")
    if options.read_only:
        texts.add("ro")
    if options.allow_other:
        texts.add("allow_other")
    if options.allow_root:
        texts.add("allow_root")
    if options.no_exec:
        texts.add("noexec")
    return texts


def _mount(operations: Operations, mountpoint: Path, options: KernelOptions) -> None:
    words = ""
    try:
        with _captured_standard_error() as captured:
            try:
                pyfuse3.init(operations, str(mountpoint), mount_option_texts(options))
            finally:
                words = captured()
    except RuntimeError as error:
        reason = words.strip().splitlines()[-1] if words.strip() else str(error)
        raise MountError(f"cannot mount at {mountpoint}: {reason}") from error
    if words.strip():
        log.info("libfuse says: %s", words.strip())


@contextmanager
def _captured_standard_error() -> Iterator[Callable[[], str]]:
    """Catch what C code and child processes write to descriptor 2, where libfuse explains itself.

    The function that the block gets returns everything caught so far.
    """
    sys.stderr.flush()
    saved_fd = os.dup(2)
    with tempfile.TemporaryFile() as catcher:
        os.dup2(catcher.fileno(), 2)
        try:
            yield lambda: _content(catcher)
        finally:
            os.dup2(saved_fd, 2)
            os.close(saved_fd)


def _content(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")


def _force_unmount(mountpoint: Path) -> None:
    # Without helpers: ours would wait for the end of this very process. Force is what cuts the
    # connection where the control file system is not mounted.
    command = ["umount", "-i", "-f", "-l"] if os.geteuid() == 0 else ["fusermount3", "-u", "-z"]
    try:
        subprocess.run(  # noqa: S603  # nosec B603  # fixed words and our own mount point
            [*command, str(mountpoint)],
            check=False,
            capture_output=True,
            timeout=_UNMOUNT_TIMEOUT_S,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        log.warning("cannot unmount %s: %s", mountpoint, error)
