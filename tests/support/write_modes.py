"""The two ways in which a mount sends what is saved, and how a test waits for what comes later.

With ``write=through`` a close has sent the bytes (docs/semantics.md, promise 12); with
``write=back`` they follow a moment later (promise 13). A test that holds for both is marked
``both_write_modes``; its mounts are then made in either way. Where it compares with the service
it calls ``sync_directory`` or ``InProcessMount.sync`` first, which with ``write=through`` find
nothing to do.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from ctrfs.config import FileSystemConfig, WriteMode

WRITE_MODES: Final = tuple(WriteMode)


def options_of(mode: WriteMode) -> tuple[str, ...]:
    """Return the mount options that say so; none for what happens anyway."""
    return () if mode is FileSystemConfig().write_mode else (f"write={mode.value}",)


def sync_directory(directory: Path) -> None:
    """Return once the service has all that was closed or removed below; what ``sync DIR`` does.

    Raises:
        OSError: Something of it could not be sent.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
