"""Who has the newest bytes of a file, and how that may change.

    CLEAN    the bytes are those of ``identity``, whether here already or not
    DIRTY    changed here; the service lacks them
    SENDING  an upload reads them; they hold still
    FAILED   the service lacks them, and the last attempt to send them failed

Reading is allowed in every state. A change waits while the file is SENDING.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final


class FileState(enum.Enum):
    """Who has the newest bytes of a file."""

    CLEAN = "clean"
    DIRTY = "dirty"
    SENDING = "sending"
    FAILED = "failed"


TRANSITIONS: Final[Mapping[FileState, frozenset[FileState]]] = {
    FileState.CLEAN: frozenset({FileState.DIRTY, FileState.SENDING}),
    FileState.DIRTY: frozenset({FileState.SENDING}),
    # Back to DIRTY, or to FAILED, when an upload is given up without a verdict.
    FileState.SENDING: frozenset({FileState.CLEAN, FileState.DIRTY, FileState.FAILED}),
    FileState.FAILED: frozenset({FileState.DIRTY, FileState.SENDING}),
}
