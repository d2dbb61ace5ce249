"""Named points of a change at which a test may end the process, or look.

What survives a crash depends on the exact place; a place that a test cannot name is one that
nobody has tried. Without a listener ``reached`` does nothing, and ctrfs itself never installs
one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

Listener: TypeAlias = Callable[[str, str], None]

# In the order in which a change passes them; docs/durability.md says what each leaves behind.
FAILPOINTS: Final[tuple[str, ...]] = (
    # disk: also called from threads; the detail is a path
    "spool.synced",
    "database.committed",
    # with write=back: a file is closed, or gets another name, and is going to be sent
    "close.kept",
    "rename.kept",
    # a file's bytes go to the service; the detail is the path in the container
    "save.digested",
    "save.intended",
    "save.stored",
    "save.bound",
    "save.deleted",
    "save.settled",
    # a file is deleted
    "unlink.intended",
    "unlink.deleted",
    "unlink.settled",
    # a stored file gets another name
    "rename.intended",
    "rename.stored",
    "rename.bound",
    "rename.settled",
    # a folder gets another name
    "folder.intended",
    "folder.copied",
    "folder.moved",
    "folder.settled",
    # a container is deleted, or replaced by one of another name
    "rmdir.intended",
    "rmdir.deleted",
    "rmdir.settled",
    "container.created",
    "container.replaced",
    # a file that never leaves this machine
    "local.synced",
    "local.kept",
    # what an earlier mount left
    "takeover.linked",
    "takeover.recorded",
    "takeover.released",
    "replay.restored",
)

_listener: Listener | None = None


def install(listener: Listener | None) -> None:
    """Have ``listener`` called with name and detail at each point, or with None nobody.

    It may be called from any thread, must not wait for this process, and may end it.
    """
    global _listener  # noqa: PLW0603  # one process, one listener: that is the point
    _listener = listener


def reached(name: str, detail: str = "") -> None:
    """Say that the point ``name`` has been reached; costs nothing without a listener."""
    if _listener is not None:
        assert name in FAILPOINTS, f"unknown failpoint {name}"
        _listener(name, detail)
