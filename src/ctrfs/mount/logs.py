"""Where log lines go: stderr in the foreground, a private rotating file in the background."""

from __future__ import annotations

import errno
import io
import logging
import logging.handlers
import os
import stat
import sys
from pathlib import Path
from typing import Final

from typing_extensions import override

from ctrfs.errors import ConfigError
from ctrfs.ownership import complaint_about_file, has_other_names
from ctrfs.units import MIB

# Ten days of a busy mount at INFO; old files are dropped, so that no disk fills up.
_FILE_BYTES_MAX: Final = 10 * MIB
_OLD_FILES: Final = 3
_FORMAT: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class _PrivateRotatingHandler(logging.handlers.RotatingFileHandler):
    """A log file that only its owner can read: lines name files and directories."""

    @override
    def _open(self) -> io.TextIOWrapper:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        # Without waiting, lest a pipe that nobody reads hold the mount up.
        fd = os.open(self.baseFilename, flags | os.O_NONBLOCK, 0o600)
        complaint = _complaint(os.fstat(fd))
        if complaint is not None:
            os.close(fd)
            raise PermissionError(errno.EPERM, f"it {complaint}", self.baseFilename)
        return os.fdopen(fd, "a", encoding="utf-8", errors="backslashreplace")


def log_to_file(path: Path, *, level: str) -> None:
    """Send all log lines to ``path``, in a directory that there is.

    Raises:
        ConfigError: It cannot be written.
    """
    try:
        _check_parent(path.parent)
        handler = _PrivateRotatingHandler(path, maxBytes=_FILE_BYTES_MAX, backupCount=_OLD_FILES)
    except OSError as error:
        raise ConfigError(f"cannot write the log file {path}: {error.strerror}") from error
    _install(handler, level=level)


def _complaint(facts: os.stat_result) -> str | None:
    """Return why log lines must not go to an open file, or None."""
    if stat.S_ISCHR(facts.st_mode):
        return None  # /dev/null, say, by the user's wish
    if has_other_names(facts):
        return "has a second name"
    return complaint_about_file(facts)


def _check_parent(path: Path) -> None:
    """Raise PermissionError if another user could lead the log elsewhere.

    Root's directories are fine; a link counts by who made it and by where it leads.
    """
    for facts in (path.lstat(), path.stat()):
        if facts.st_uid not in {0, os.geteuid()}:
            raise PermissionError(errno.EPERM, "its directory belongs to another user", str(path))


def log_to_standard_error(*, level: str) -> None:
    """Send all log lines to stderr."""
    _install(logging.StreamHandler(sys.stderr), level=level)


def _install(handler: logging.Handler, *, level: str) -> None:
    handler.setFormatter(logging.Formatter(_FORMAT))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("ctrfs").setLevel(level.upper())
