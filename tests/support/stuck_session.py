"""A daemon whose last notification waits for a program that waits for the daemon.

``python -m tests.support.stuck_session MOUNTPOINT``; says the pid of the program, and how that
ended.
"""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pyfuse3
import trio
from typing_extensions import override

from ctrfs.fuse.invalidate import KernelNotifier
from ctrfs.fuse.session import KernelOptions, kernel_session
from ctrfs.tree.nodes import ROOT_INODE

if TYPE_CHECKING:
    from ctrfs.fuse.operations import Operations


class EmptyDirectory(pyfuse3.Operations):
    """Answers at once, and knows no name."""

    @override
    def init(self) -> None:
        """Nothing."""

    @override
    async def getattr(
        self, inode: int, ctx: pyfuse3.RequestContext | None = None
    ) -> pyfuse3.EntryAttributes:
        attributes = pyfuse3.EntryAttributes()
        attributes.st_ino, attributes.st_nlink = inode, 2
        attributes.st_mode = stat.S_IFDIR | 0o755
        attributes.attr_timeout = attributes.entry_timeout = 1000
        return attributes

    @override
    async def lookup(
        self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext | None = None
    ) -> pyfuse3.EntryAttributes:
        raise pyfuse3.FUSEError(errno.ENOENT)


def say(words: str) -> None:
    """Tell whoever has started this."""
    sys.stdout.write(f"{words}\n")
    sys.stdout.flush()


async def main(mountpoint: Path) -> None:
    """Stop with a program's lookup unread, then tell the kernel of a change in its directory."""
    notifier = KernelNotifier()
    operations: Operations = EmptyDirectory()  # type: ignore[assignment]  # as far as this goes
    with kernel_session(
        operations,
        mountpoint,
        options=KernelOptions(source="stuck"),
        notifier=notifier,
        abort=lambda: None,  # as where the control file system is not mounted
    ) as session:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(session.serve)
            await trio.to_thread.run_sync(os.stat, mountpoint)
            session.stop()
            program = subprocess.Popen(["touch", mountpoint / "new"], stderr=subprocess.DEVNULL)  # noqa: ASYNC220
            say(f"program {program.pid}")
            await trio.sleep(0.5)
            notifier.entries_changed([(ROOT_INODE, b"other")])
            await trio.sleep(0.5)
    exit_code = await trio.to_thread.run_sync(program.wait)
    say(f"program ended with {exit_code}")


if __name__ == "__main__":
    trio.run(main, Path(sys.argv[1]))
