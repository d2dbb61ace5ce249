"""The local system's own failures in our words: the one table for disk and SQLite errors."""

from __future__ import annotations

import errno
import sqlite3
from typing import Final

from ctrfs.errors import LocalDiskError, LocalDiskFullError

FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


def error_from_os_error(error: OSError, what: str) -> LocalDiskError:
    """Return the error for a failed system call; ``what`` says what was being done."""
    text = f"cannot {what}: {error.strerror or error}"
    return LocalDiskFullError(text) if error.errno in FULL else LocalDiskError(text)


def error_from_sqlite_error(error: sqlite3.Error, what: str) -> LocalDiskError:
    """Return the error for a failed statement; ``what`` says what was being done."""
    # SQLite quotes what it cannot read, lines and all.
    text = f"cannot {what}: {' '.join(str(error).split())}"
    is_full = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
    return LocalDiskFullError(text) if is_full else LocalDiskError(text)
