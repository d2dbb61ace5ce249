"""Which process serves which mount point: how ``ctrfs umount`` finds whom to wait for.

A record is written when the mount is ready. Its daemon adds, as its last act, whether all
bytes were sent; ``ctrfs umount`` reads that and takes the record away.

A daemon that goes on sending after the unmount can find a newer mount at its place. The record
is that one's then, and stays so whatever the older does: its slot alone tells what it left.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import select
from pathlib import Path
from typing import Final

import msgspec
from msgspec.structs import asdict, replace

from ctrfs.disk.syncing import make_directories
from ctrfs.errors import MountError
from ctrfs.mount.file_lock import FileLock, try_lock, wait_for_lock
from ctrfs.ownership import complaint_about_directory

log = logging.getLogger(__name__)

_DIRECTORY: Final = "mounts"
# Where in /proc/PID/stat, counted behind the command name, the start time stands.
# Source: proc_pid_stat(5), field 22, of which the command name is the second.
_START_FIELD: Final = 19
# A process that has ended and that its parent has not asked about yet.
_ENDED_STATES: Final = frozenset({"Z", "X", "x"})


class MountRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one mount."""

    mountpoint: str
    source: str
    pid: int
    started_ticks: int
    """With the pid, names one process for good: pids are used again."""
    state_path: str
    log_file: str
    has_ended: bool = False
    unsent_files: int = 0
    """After the end: files whose bytes still wait in ``state_path``."""


class MountRecords:
    """The records below one directory, a file for each mount point."""

    def __init__(self, base: Path) -> None:
        self._directory = base / _DIRECTORY

    def write(self, record: MountRecord) -> None:
        """Store ``record`` in place of an older one of its mount point."""
        with self._sole_writer():
            self._replace(record)

    def write_end(self, record: MountRecord) -> None:
        """Store how a mount has ended, but leave the record of a newer one at its place."""
        with self._sole_writer():
            stored = self.read(Path(record.mountpoint))
            if stored is None or is_same_mount(stored, record):
                self._replace(record)

    def _replace(self, record: MountRecord) -> None:
        path = self._path(record.mountpoint)
        draft = path.with_suffix(f".{os.getpid()}")
        draft.unlink(missing_ok=True)
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "w", encoding="utf-8", errors="surrogateescape") as file:
            json.dump(asdict(record), file)
        draft.replace(path)

    def read(self, mountpoint: Path) -> MountRecord | None:
        """Return what is stored for ``mountpoint``, or None; what cannot be read counts as none."""
        return _read(self._path(str(mountpoint))) if self._is_ours() else None

    def read_all(self) -> list[MountRecord]:
        """Return all records by mount point, those of mounts that have ended too."""
        found = [_read(path) for path in self._directory.glob("*.json") if self._is_ours()]
        return sorted(
            (each for each in found if each is not None), key=lambda each: each.mountpoint
        )

    def remove(self, record: MountRecord) -> None:
        """Forget the mount of ``record``, but leave the record of a newer one at its place."""
        with self._sole_writer():
            stored = self.read(Path(record.mountpoint))
            if stored is not None and is_same_mount(stored, record):
                self._path(record.mountpoint).unlink(missing_ok=True)

    def claim(self, mountpoint: Path) -> FileLock:
        """Keep other mounts from starting at ``mountpoint`` until the claim is released.

        Raises:
            MountError: Another process is mounting there.
        """
        try:
            self._prepare()
            claim = try_lock(self._path(str(mountpoint)).with_suffix(".lock"))
        except OSError as error:
            # As with the record: a mount can do without.
            log.warning("cannot lock the mount point %s: %s", mountpoint, error)
            return FileLock(None)
        if claim is None:
            raise MountError(f"{mountpoint} is being mounted by another process")
        return claim

    def _sole_writer(self) -> FileLock:
        """Keep other writers out: none comes between the look at a record and its change.

        Raises:
            OSError: The directory cannot be made, or what is there is not ours.
        """
        self._prepare()
        try:
            return wait_for_lock(self._directory / "writing.lock")
        except OSError as error:
            # As with the claim: where nothing can be locked, records are still worth having.
            log.warning("cannot lock the records of mounts: %s", error)
            return FileLock(None)

    def _prepare(self) -> None:
        """Make the directory.

        Raises:
            OSError: It cannot be made, or what is there is not ours.
        """
        make_directories(self._directory, mode=0o700)
        complaint = complaint_about_directory(self._directory.lstat())
        if complaint is not None:
            raise PermissionError(errno.EPERM, f"it {complaint}", str(self._directory))

    def _is_ours(self) -> bool:
        """Whether nobody else can have written what is there."""
        try:
            return complaint_about_directory(self._directory.lstat()) is None
        except OSError:
            return False

    def _path(self, mountpoint: str) -> Path:
        digest = hashlib.blake2b(os.fsencode(mountpoint), digest_size=16).hexdigest()
        return self._directory / f"{digest}.json"


def record_of_this_process(
    *, mountpoint: Path, source: str, state_path: Path, log_file: Path | None
) -> MountRecord:
    """Return the record of a mount that this process serves."""
    return MountRecord(
        mountpoint=str(mountpoint),
        source=source,
        pid=os.getpid(),
        started_ticks=_started_ticks(os.getpid()) or 0,
        state_path=str(state_path),
        log_file=str(log_file or ""),
    )


def ended(record: MountRecord, *, unsent_files: int) -> MountRecord:
    """Return ``record`` with how its mount ended."""
    return replace(record, has_ended=True, unsent_files=unsent_files)


def is_same_mount(one: MountRecord, other: MountRecord) -> bool:
    """Whether one process wrote both records of a mount point, be it at different times."""
    return (one.pid, one.started_ticks) == (other.pid, other.started_ticks)


def is_alive(record: MountRecord) -> bool:
    """Whether the process of ``record`` still runs, be it only to send the rest."""
    return _started_ticks(record.pid) == record.started_ticks


def wait_for_end(record: MountRecord, *, timeout_s: float) -> bool:
    """Block until the process of ``record`` has ended; return False if it has not in time."""
    try:
        fd = os.pidfd_open(record.pid)
    except ProcessLookupError:
        return True
    try:
        # Looked at after the descriptor stands for the process: no other can take its place now.
        if _started_ticks(record.pid) != record.started_ticks:
            return True
        poller = select.poll()
        poller.register(fd, select.POLLIN)
        return bool(poller.poll(timeout_s * 1000))
    finally:
        os.close(fd)


def _started_ticks(pid: int) -> int | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text("ascii", errors="replace")
    except OSError:
        return None
    # The command name may hold spaces and parentheses; the last one closes it.
    state, *fields = text.rpartition(")")[2].split()
    if state in _ENDED_STATES:
        return None
    return int(fields[_START_FIELD - 1])


def _read(path: Path) -> MountRecord | None:
    try:
        return _record_from(json.loads(path.read_text("utf-8", errors="surrogateescape")))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _record_from(values: dict[str, object]) -> MountRecord:
    numbers = {name: int(str(values[name])) for name in ("pid", "started_ticks", "unsent_files")}
    return MountRecord(
        mountpoint=str(values["mountpoint"]),
        source=str(values["source"]),
        state_path=str(values["state_path"]),
        log_file=str(values["log_file"]),
        has_ended=values["has_ended"] is True,
        pid=numbers["pid"],
        started_ticks=numbers["started_ticks"],
        unsent_files=numbers["unsent_files"],
    )
