"""The program under test, with a listener at its failpoints that tells, keeps and kills.

Run as a file by ``tests.support.crashing``, with the arguments of ``ctrfs``. The directory named
by ``CRASHING_DIRECTORY`` is how a test talks to it:

    plan      "POINT NTH": die when POINT is passed for the NTH time since that was written
    passed    one line for each point that was passed: name, tab, detail
    shadow/   with ``CRASHING_SHADOW``: what the disk is known to hold of the state directory
              named by ``CRASHING_STATE``; see ``tests.support.crashing.PowerCut``

With ``CRASHING_SHUTDOWN`` the file system of the state directory is shut down before the
process dies, so that nothing reaches its disk which was not there.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import struct
import threading
from pathlib import Path
from typing import Final

from ctrfs import failpoints
from ctrfs.cli.main import main

# Source: Linux, fs/ext4/ext4.h: _IOR('X', 125, __u32), and the flag that leaves even the journal
# of the file system as it is on the disk.
EXT4_IOC_SHUTDOWN: Final = 0x8004587D
EXT4_GOING_FLAGS_NOLOGFLUSH: Final = 2


class Listener:
    """Called at each failpoint, from any thread."""

    def __init__(self, directory: Path, state: Path) -> None:
        self._plan_path = directory / "plan"
        self._shadow = directory / "shadow" if "CRASHING_SHADOW" in os.environ else None
        self._state = state
        self._passed_fd = os.open(
            directory / "passed", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600
        )
        self._lock = threading.Lock()
        self._plan = ""
        self._passes = 0
        self._copies = 0
        # Never closed: closing any descriptor of a database would drop the locks that SQLite
        # holds on it in this process.
        self._database_fds: dict[Path, int] = {}

    def __call__(self, name: str, detail: str) -> None:
        """Write the passing down, keep what is synced now, and die if it is time to."""
        with self._lock:
            os.write(self._passed_fd, f"{name}\t{detail!r}\n".encode())
            if self._shadow is not None and name == "spool.synced":
                self._keep_spool_file(self._shadow, Path(detail))
            elif self._shadow is not None and name == "database.committed":
                self._keep_database(self._shadow, Path(detail))
            if self._is_due(name):
                self._die()

    def _is_due(self, name: str) -> bool:
        plan = self._plan_path.read_text() if self._plan_path.exists() else ""
        if plan != self._plan:
            self._plan, self._passes = plan, 0
        point, _, nth = plan.partition(" ")
        if point != name:
            return False
        self._passes += 1
        return self._passes == int(nth)

    def _die(self) -> None:
        if "CRASHING_SHUTDOWN" in os.environ:
            fd = os.open(self._state, os.O_RDONLY | os.O_DIRECTORY)
            fcntl.ioctl(fd, EXT4_IOC_SHUTDOWN, struct.pack("I", EXT4_GOING_FLAGS_NOLOGFLUSH))
        os.kill(os.getpid(), signal.SIGKILL)

    def _keep_spool_file(self, shadow: Path, path: Path) -> None:
        kept = shadow / path.relative_to(self._state)
        kept.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():  # unlinked while it was synced
            kept.unlink(missing_ok=True)
            return
        draft = kept.with_name(kept.name + ".draft")
        shutil.copyfile(path, draft)
        draft.replace(kept)

    def _keep_database(self, shadow: Path, path: Path) -> None:
        """Copy database and log as a pair: the link to a new pair is set in one step."""
        slot = shadow / path.relative_to(self._state).parent
        self._copies += 1
        pair = slot / f"database-{os.getpid()}-{self._copies}"
        pair.mkdir(parents=True)
        for each in (path, path.with_name(path.name + "-wal")):
            if each.exists():
                (pair / each.name).write_bytes(self._database_bytes(each))
        link = slot / "database"
        draft = slot / "database.draft"
        draft.unlink(missing_ok=True)
        draft.symlink_to(pair.name)
        before = link.resolve() if link.is_symlink() else None
        draft.replace(link)
        if before is not None:
            shutil.rmtree(before)

    def _database_bytes(self, path: Path) -> bytes:
        if path not in self._database_fds:
            self._database_fds[path] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        fd = self._database_fds[path]
        return os.pread(fd, os.fstat(fd).st_size, 0)


if __name__ == "__main__":
    failpoints.install(
        Listener(Path(os.environ["CRASHING_DIRECTORY"]), Path(os.environ["CRASHING_STATE"]))
    )
    main()
