"""What every open file needs of the outside."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from ctrfs.api.protocol import ContainersApi
from ctrfs.clock import Clock
from ctrfs.config import ContentConfig
from ctrfs.content.habits import Habits
from ctrfs.disk.spool import SpoolDirectory
from ctrfs.running_digest import StartSoon
from ctrfs.tree.nodes import InodeNumber


class Surroundings(msgspec.Struct, frozen=True, kw_only=True):
    """One record for all files of a store."""

    api: ContainersApi
    clock: Clock
    config: ContentConfig
    spool: SpoolDirectory
    start_soon: StartSoon
    on_idle: Callable[[InodeNumber], None]
    """Called when a file has stopped to be unsent, or to be resident."""
    habits: Habits = msgspec.field(default_factory=Habits)
    on_change: Callable[[InodeNumber], None]
    """Called before the first byte of a change is written; must not wait."""
