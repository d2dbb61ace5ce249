"""The mounts and the service of ``machines`` and ``world`` once more, real ones in real time."""

from __future__ import annotations

import errno
import os
import sqlite3
import stat
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Final, TypeVar

from tests.model.machines import Shown, View
from tests.model.operations import Fault
from tests.model.reference import Row
from tests.model.world import FAULTS
from tests.support.mounting import Mount, pause
from tests.support.service import ServiceProcess

from ctrfs.server.records import RUNNING

T = TypeVar("T")

# The kernel is told to forget from a thread, a moment after the file system knows.
NOTICE_S: Final = 0.2
# Whatever failed is tried again after 5 s for the first time; the breaker closes as fast.
SETTLING_AFTER_FAULTS_S: Final = (16.0, 12.0)
READ_MAX: Final = 1 << 20


class RealMachine:
    """A mount of the kernel, served by a process of its own. Waits block: nothing else runs."""

    def __init__(self, mount: Mount, service: ServiceProcess) -> None:
        self._mount = mount
        self._service = service
        self._descriptors: set[int] = set()

    def _at(self, path: str) -> Path:
        return self._mount.point / path

    async def start(self) -> None:
        """Mount; what a start makes of an ill service is tested elsewhere."""
        self._service.clear_faults()
        self._mount.start()

    async def stop(self) -> None:
        """Unmount."""
        self._mount.stop(may_leave_bytes=True)

    async def kill(self) -> None:
        """Kill the daemon, and clear away its dead mount."""
        self._mount.kill()
        self._mount.abandon()
        while self._descriptors:
            with suppress(OSError):  # nobody answers any more
                os.close(self._descriptors.pop())

    async def open(self, path: str, *, makes: bool = False, empties: bool = False) -> int:
        """Do open(2)."""
        flags = os.O_RDWR | (os.O_CREAT if makes else 0) | (os.O_TRUNC if empties else 0)
        descriptor = os.open(self._at(path), flags, 0o644)
        self._descriptors.add(descriptor)
        return descriptor

    async def inode(self, descriptor: int) -> int:
        """Return which file it is."""
        return os.fstat(descriptor).st_ino

    async def read(self, descriptor: int) -> bytes:
        """Read all."""
        return os.pread(descriptor, READ_MAX, 0)

    async def write(self, descriptor: int, offset: int, content: bytes) -> None:
        """Do pwrite(2)."""
        assert os.pwrite(descriptor, content, offset) == len(content)

    async def truncate(self, descriptor: int, size: int) -> None:
        """Do ftruncate(2)."""
        os.ftruncate(descriptor, size)

    async def sync(self, descriptor: int) -> None:
        """Do fsync(2)."""
        os.fsync(descriptor)

    async def close(self, descriptor: int) -> None:
        """Do close(2)."""
        self._descriptors.discard(descriptor)
        os.close(descriptor)

    async def is_folder(self, path: str) -> bool:
        """Do stat(2)."""
        return stat.S_ISDIR(self._at(path).stat().st_mode)

    async def names(self, path: str) -> list[str]:
        """Do readdir(3)."""
        return sorted(each.name for each in self._at(path).iterdir())

    async def unlink(self, path: str) -> None:
        """Do unlink(2)."""
        self._at(path).unlink()

    async def rename(self, old: str, new: str) -> None:
        """Do rename(2)."""
        self._at(old).rename(self._at(new))

    async def mkdir(self, path: str) -> None:
        """Do mkdir(2)."""
        self._at(path).mkdir()

    async def rmdir(self, path: str) -> None:
        """Do rmdir(2)."""
        self._at(path).rmdir()

    async def refresh(self, path: str) -> None:
        """Set ``user.ctrfs.refresh``."""
        os.setxattr(self._at(path), "user.ctrfs.refresh", b"1")
        pause(NOTICE_S)

    async def view(self, container: str) -> View | None:
        """Return what a walk finds."""
        top = self._at(container)
        try:
            container_id = os.getxattr(top, "user.ctrfs.id").decode()
            files: dict[str, Shown] = {}
            folders: set[str] = set()
            for above, names_of_folders, names_of_files in os.walk(top, onerror=_raise):
                at = Path(above)
                folders |= {str((at / name).relative_to(top)) for name in names_of_folders}
                for name in names_of_files:
                    path = at / name
                    shown = Shown(path.stat().st_ino, _id_of(path))
                    files[str(path.relative_to(top))] = shown
        except (FileNotFoundError, NotADirectoryError):
            return None
        return View(container_id, files, frozenset(folders))


def _raise(error: OSError) -> None:
    raise error


def _id_of(path: Path) -> str | None:
    try:
        return os.getxattr(path, "user.ctrfs.id").decode()
    except OSError as error:
        if error.errno == errno.ENODATA:
            return None
        raise


class RealRecords:
    """Reads the data directory of a service that runs, and asks it nothing."""

    def __init__(self, data: Path) -> None:
        self._data = data

    def containers(self) -> dict[str, str]:
        """See ``Records``."""
        rows = self._rows(
            "SELECT id, name FROM containers WHERE status = ? ORDER BY sequence", RUNNING
        )
        return {str(row[0]): bytes(row[1]).decode() for row in rows}

    def rows(self, container_id: str) -> list[Row]:
        """See ``Records``."""
        rows = self._rows(
            "SELECT id, path, source, blob FROM files WHERE container_id = ? AND NOT is_removed"
            " ORDER BY created_at_s, sequence",
            container_id,
        )
        blobs = self._data / "blobs"
        return [
            Row(str(row[0]), bytes(row[1]).decode(), str(row[2]), (blobs / row[3]).read_bytes())
            for row in rows
        ]

    def _rows(self, query: str, value: str) -> list[tuple[str, bytes, str, str]]:
        address = f"file:{self._data}/service.sqlite?mode=ro"
        with closing(sqlite3.connect(address, uri=True)) as database:
            return database.execute(query, (value,)).fetchall()


class RealWorld:
    """A service process, and time as it passes for everybody."""

    def __init__(self, service: ServiceProcess) -> None:
        self._service = service
        self._was_ill = False
        self.records = RealRecords(service.data)
        self.has_faults = False

    @property
    def now_s(self) -> float:
        """The present reading."""
        return time.monotonic()

    @property
    def settling_s(self) -> Sequence[float]:
        """See ``World``."""
        return SETTLING_AFTER_FAULTS_S if self._was_ill else (0.0,)

    async def run(self, work: Callable[[], Awaitable[T]]) -> T:
        """Carry out one call."""
        return await work()

    async def pass_(self, seconds: float) -> None:
        """Wait."""
        pause(seconds)

    def plant(self, container_id: str, path: str, content: bytes) -> None:
        """Put a file where code in the container would."""
        self.mend()
        self._service.plant(container_id, path, content)

    def upload(self, container_id: str, path: str, content: bytes) -> None:
        """Upload a file through the API."""
        self.mend()
        self._service.upload(container_id, path, content)

    def delete(self, container_id: str, file_id: str) -> None:
        """Delete a file through the API."""
        self.mend()
        self._service.delete_file(container_id, file_id)

    def delete_container(self, container_id: str) -> None:
        """Delete a container through the API."""
        self.mend()
        self._service.delete_container(container_id)

    def fail(self, fault: Fault) -> None:
        """Let requests fail from now on; it is not known here when they no longer do."""
        if fault.kind != "stall":  # takes a minute
            self._service.add_fault(fault.route, count=fault.count, **FAULTS[fault.kind])  # type: ignore[arg-type]  # the action is a text
            self._was_ill = self.has_faults = True

    def mend(self) -> None:
        """Let no request fail; the test's own would meet the faults, too."""
        self._service.clear_faults()
