"""Where log lines go: stderr in the foreground, a private rotating file in the background."""

from __future__ import annotations

import io
import logging
import logging.handlers
import os
import sys
from pathlib import Path
from typing import Final

from typing_extensions import override

from ctrfs.errors import ConfigError
from ctrfs.units import MIB

# Ten days of a busy mount at INFO; old files are dropped, so that no disk fills up.
_FILE_BYTES_MAX: Final = 10 * MIB
_OLD_FILES: Final = 3
_FORMAT: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class _PrivateRotatingHandler(logging.handlers.RotatingFileHandler):
    """A log file that only its owner can read: lines name files and directories."""

    @override
    def _open(self) -> io.TextIOWrapper:
        fd = os.open(self.baseFilename, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        return os.fdopen(fd, "a", encoding="utf-8", errors="backslashreplace")


def log_to_file(path: Path, *, level: str) -> None:
    """Send all log lines to ``path``.

    Raises:
        ConfigError: It cannot be written.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handler = _PrivateRotatingHandler(path, maxBytes=_FILE_BYTES_MAX, backupCount=_OLD_FILES)
    except OSError as error:
        raise ConfigError(f"cannot write the log file {path}: {error.strerror}") from error
    _install(handler, level=level)


def log_to_standard_error(*, level: str) -> None:
    """Send all log lines to stderr."""
    _install(logging.StreamHandler(sys.stderr), level=level)


def _install(handler: logging.Handler, *, level: str) -> None:
    handler.setFormatter(logging.Formatter(_FORMAT))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("ctrfs").setLevel(level.upper())
