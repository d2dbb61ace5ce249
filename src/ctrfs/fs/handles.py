"""Handle numbers, given to the kernel at open and opendir and taken back at release."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NewType

HandleNumber = NewType("HandleNumber", int)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedFile:
    """What the kernel needs to know of an open file."""

    handle: HandleNumber
    direct_io: bool
    """Keep the page cache out: the length is not known yet."""
    keep_cache: bool
    """Pages of an earlier open are still the content of this version."""
