"""The names under which this program is a helper of mount(8) and umount(8), and where they lie."""

from __future__ import annotations

from pathlib import Path
from typing import Final

# The second of each is looked for where the type is that of the mount table: ``fuse.ctrfs``.
# Without it mount.fuse would be called, which knows only programs named by a file system.
MOUNT_HELPERS: Final = ("mount.ctrfs", "mount.fuse.ctrfs")
UMOUNT_HELPERS: Final = ("umount.ctrfs", "umount.fuse.ctrfs")
HELPERS: Final = (*MOUNT_HELPERS, *UMOUNT_HELPERS)

HELPER_DIRECTORY: Final = Path("/sbin")
"""Where mount(8) and umount(8) look first. Source: mount(8); FS_SEARCH_PATH of util-linux."""
