"""Mounts whose daemon dies at a named point, and what a power cut leaves of their state.

The daemon is the ordinary program with a listener at ``ctrfs.failpoints``; how the two talk is
told in ``tests/crash/daemon.py``.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.support.mounting import Mount, MountFailedError, Service, pause

DAEMON: Final = Path(__file__).parent.parent / "crash" / "daemon.py"
DEATH_DEADLINE_S: Final = 20.0
PENDING_DEADLINE_S: Final = 25.0
_IMAGE_BYTES: Final = 48 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Death:
    """Where a daemon is to die."""

    point: str
    nth: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerCut:
    """What a power cut leaves of a state directory beside what was synced.

    What was synced is there for certain: the bytes of each spool file as they were when fsync
    of the file and of its directory had returned, and the database with its log as they were
    when a commit with ``synchronous=FULL`` had returned (SQLite then has synced the log, which
    holds all commits so far, and syncs the database in each checkpoint, inside the commit).
    Nothing else must be there: not the lock, the format file, spool files that nobody synced,
    later bytes, later commits. So the state directory is replaced by copies that the daemon
    made at just these moments. That is as pessimistic as a disk may be, and more than ext4 is,
    whose fsync of any file brings the names of all others with it.

    But what was not synced may be there all the same, hence the fields. One thing is not shown:
    a file that is written by one thread while another syncs it is copied a little later than
    it was synced, so that the copy may hold too much. The operations of the tests do not write
    while they wait for a close or fsync.
    """

    keeps_commits: bool = False
    """Commits that did not wait for the disk have reached it."""
    keeps_deletes: bool = False
    """Spool files that were deleted are gone; without it they are back."""


class CrashingMount(Mount):
    """A mount that dies on request.

    Args:
        directory: Of the mount alone: mount point, home, log.
        service: What it mounts.
        options: Mount options.
        state_home: Where the state directory is, if not in the home of this mount: to share it
            with another mount, or to have it on a disk of its own.
        modes: Switches of the daemon's listener, ``CRASHING_SHADOW`` or ``CRASHING_SHUTDOWN``.
    """

    def __init__(
        self,
        directory: Path,
        *,
        service: Service,
        options: Sequence[str] = (),
        state_home: Path | None = None,
        modes: Sequence[str] = (),
    ) -> None:
        self._talk = directory / "crash"
        self.state_home = state_home or directory / "home" / "state"
        self.state_base = self.state_home / "ctrfs"
        environment: Mapping[str, str] = {
            "CRASHING_DIRECTORY": str(self._talk),
            "CRASHING_STATE": str(self.state_base),
            "XDG_STATE_HOME": str(self.state_home),
        } | dict.fromkeys(modes, "1")
        super().__init__(directory, service=service, options=options, environment=environment)
        self._talk.mkdir(exist_ok=True)
        self.program = [sys.executable, "-P", DAEMON]

    def arm(self, death: Death) -> None:
        """Have the daemon die there; passes from now on count, in this life or the next."""
        draft = self._talk / "plan.draft"
        draft.write_text(f"{death.point} {death.nth}")
        draft.replace(self._talk / "plan")

    def disarm(self) -> None:
        """Let the daemon live."""
        (self._talk / "plan").unlink(missing_ok=True)

    def passed(self) -> list[str]:
        """Return the names of all points that were passed so far, in order."""
        path = self._talk / "passed"
        return [line.partition("\t")[0] for line in path.read_text().splitlines()]

    def start_until_death(self) -> None:
        """Start a daemon that was armed, and return when it has died: before or after it serves.

        Raises:
            TimeoutError: It lives.
        """
        with suppress(MountFailedError):
            self.start()
        self.await_death()

    def await_death(self) -> None:
        """Return when the daemon has died of SIGKILL; the dead mount point stays.

        Raises:
            TimeoutError: It lives.
        """
        assert self._daemon is not None, "the mount was not started"
        try:
            exit_code = self._daemon.wait(DEATH_DEADLINE_S)
        except subprocess.TimeoutExpired:
            raise TimeoutError("the daemon did not die: the point was not passed") from None
        self._daemon = None
        assert exit_code == -signal.SIGKILL, f"ended with {exit_code}\n{self.log_text()}"

    def end(self) -> int:
        """End the daemon as an administrator would, and return its exit code.

        Cheaper than ``stop``, which starts a command for it.
        """
        assert self._daemon is not None, "the mount was not started"
        self._daemon.send_signal(signal.SIGTERM)
        exit_code = self._daemon.wait(DEATH_DEADLINE_S)
        self._daemon = None
        return exit_code

    def pending(self) -> str:
        """Return what the mount says to be still to do."""
        return (self.point / ".ctrfs" / "pending").read_text()

    def await_nothing_pending(self, *, within_s: float = PENDING_DEADLINE_S) -> None:
        """Return when the mount says that nothing is left to do.

        Raises:
            TimeoutError: Something is left.
        """
        deadline = time.monotonic() + within_s
        while left := self.pending():
            if time.monotonic() > deadline:
                raise TimeoutError(f"still pending:\n{left}\n{self.log_text()[-6000:]}")
            pause(0.05)

    def drop_caches(self) -> None:
        """Delete what may be lost without loss: the clean copies of files."""
        shutil.rmtree(self.home / "cache", ignore_errors=True)

    def cut_power(self, cut: PowerCut) -> None:
        """Leave of the state directory what ``cut`` says; the daemon is dead.

        The mount was made with the mode ``CRASHING_SHADOW``.
        """
        shadow = self._talk / "shadow"
        remains = self._talk / "remains"
        for slot in {path.parent for path in shadow.rglob("database")}:
            live = self.state_base / slot.relative_to(shadow)
            kept = remains / slot.relative_to(shadow)
            kept.mkdir(parents=True, mode=0o700)
            databases = live if cut.keeps_commits else slot / "database"
            for name in ("state.db", "state.db-wal"):
                if (databases / name).exists():
                    shutil.copyfile(databases / name, kept / name)
            (kept / "spool").mkdir(mode=0o700)
            for path in (slot / "spool").glob("*[0-9a-f]"):
                if not cut.keeps_deletes or (live / "spool" / path.name).exists():
                    shutil.copyfile(path, kept / "spool" / path.name)
        shutil.rmtree(self.state_base)
        shutil.rmtree(shadow)
        if remains.exists():
            for folder, folders, _files in os.walk(remains):
                for name in (".", *folders):
                    (Path(folder) / name).chmod(0o700)
            shutil.copytree(remains, self.state_base)
            # The next cut finds what was on the disk from the start, if nothing is synced again.
            _copy_to_shadow(remains, shadow)
            shutil.rmtree(remains)


def _copy_to_shadow(remains: Path, shadow: Path) -> None:
    for database in remains.rglob("state.db"):
        slot = shadow / database.parent.relative_to(remains)
        (slot / "database-0").mkdir(parents=True)
        for path in database.parent.glob("state.db*"):
            shutil.copyfile(path, slot / "database-0" / path.name)
        (slot / "database").symlink_to("database-0")
        shutil.copytree(database.parent / "spool", slot / "spool")


class Disk:
    """A small ext4 disk of its own, whose power can be cut: a file, mounted through a loop device.

    Attributes:
        path: Where it is mounted.
    """

    def __init__(self, directory: Path) -> None:
        self._image = directory / "disk.img"
        self.path = directory / "disk"

    def attach(self) -> None:
        """Mount it, as after the power has come back: the journal of ext4 is replayed."""
        _run("mount", "-o", "loop", self._image, self.path)

    def detach(self) -> None:
        """Unmount it; after a shutdown nothing is written that was not on the disk."""
        _run("umount", self.path)

    @classmethod
    @contextmanager
    def made(cls, directory: Path) -> Iterator[Disk]:
        """Provide a new, empty disk, attached, in ``directory``.

        Raises:
            OSError: It cannot be made or mounted here; the text says why.
        """
        disk = cls(directory)
        disk.path.mkdir(parents=True)
        with disk._image.open("xb") as image:
            image.truncate(_IMAGE_BYTES)
        _run("mkfs.ext4", "-q", disk._image)
        disk.attach()
        try:
            yield disk
        finally:
            subprocess.run(["umount", "-l", disk.path], capture_output=True, check=False)


def _run(*command: str | Path) -> None:
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode != 0:
        raise OSError(f"{command[0]}: {ended.stderr.strip()}")
