"""Makes the import of the HTTP library quick; to be called before anything imports it."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Final

# httpx loads rich and pygments for a command line of its own that nobody here calls: a tenth of
# the time from ``ctrfs mount`` to the first ``ls``. It does without where that part is missing.
# Source: httpx/__init__.py, 0.28.
_CONSOLE: Final = "httpx._main"


def leave_out_console() -> None:
    """Let httpx be imported without its command line."""
    sys.modules.setdefault(_CONSOLE, ModuleType(_CONSOLE))
