"""What a mount that has ended leaves unsent, in one line for its user."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from ctrfs.api.redaction import escaped
from ctrfs.disk.reading import read_slot
from ctrfs.errors import LocalDiskError
from ctrfs.mount.records import MountRecord

# How many files a message names before it only counts.
_NAMED_MAX: Final = 5


def shown_path(path: bytes) -> str:
    """Return a path of the journal as text."""
    return path.decode("utf-8", "backslashreplace")


def unsent_line(record: MountRecord, *, least: int = 0) -> str | None:
    """Return what a user must know of the bytes that an ended mount has left, or None.

    Args:
        record: Of the mount.
        least: How many files its daemon says there are, should they not be readable.
    """
    slot = Path(record.state_path)
    try:
        unsent = read_slot(slot).unsent
    except LocalDiskError:
        unsent = ()
    count = max(len(unsent), least)
    if not count:
        return None
    # Goes to a terminal and to the log, and names come from elsewhere.
    names = [
        escaped(f"{each.container_name}/{shown_path(each.path)}") for each in unsent[:_NAMED_MAX]
    ]
    if names and count > len(names):
        names.append(f"{count - len(names)} more")
    which = f": {', '.join(names)}" if names else ""
    return (
        f"{count} file(s) are not sent{which}; their bytes are in {slot}: mount {record.source} "
        "again to send them, or see ctrfs status and ctrfs recover"
    )
