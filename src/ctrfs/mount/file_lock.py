"""Locks between processes: a file that one of them at a time holds, and that ends with it."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Self


class FileLock:
    """A held lock; leaving its ``with`` block, or ``release``, lets it go.

    After a fork both processes hold it: it is free when both have let it go or have ended.
    """

    def __init__(self, fd: int | None) -> None:
        """Take ownership of ``fd``, which is locked; None: where nothing can be locked."""
        self._fd = fd

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()

    def release(self) -> None:
        """Let this process's share of the lock go; a second time does nothing."""
        if self._fd is not None:
            fd, self._fd = self._fd, None
            # Closed, not unlocked: that would take the lock from the other one after a fork.
            os.close(fd)


def try_lock(path: Path) -> FileLock | None:
    """Lock the file ``path``, made if missing; None if another process holds it.

    The file stays: who removed it would let a third process lock another of the same name.

    Raises:
        OSError: The file cannot be opened.
    """
    try:
        return _locked(path, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return None


def wait_for_lock(path: Path) -> FileLock:
    """Lock the file ``path``, made if missing; block while another process holds it.

    Only for locks that are held for some calls to the local disk.

    Raises:
        OSError: The file cannot be opened.
    """
    return _locked(path, fcntl.LOCK_EX)


def _locked(path: Path, operation: int) -> FileLock:
    fd = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(fd, operation)
    except BaseException:
        os.close(fd)
        raise
    return FileLock(fd)
