"""One client at a time, mounted over one server, through a line of a given round trip."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from scripts.bench.corpus import Corpus
from scripts.bench.line import Line
from scripts.bench.modes import Mode, Place
from scripts.bench.processes import Program
from scripts.bench.servers import Servers
from tests.support.mounting import abort, fuse_mounts
from tests.support.service import TEST_KEY

START_S: Final = 60.0
STOP_S: Final = 60.0


@dataclass(kw_only=True)
class Arena:
    """Where one mode is measured at one round trip.

    Attributes:
        port: Of the line before the mode's server, or of the server itself.
        program: The client, while it runs.
        started_s: When that was started, by ``time.perf_counter``.
    """

    mode: Mode
    servers: Servers
    corpus: Corpus
    directory: Path
    port: int
    program: Program | None = field(default=None, init=False)
    started_s: float = field(default=0.0, init=False)

    @property
    def point(self) -> Path:
        """The mount point."""
        return self.directory / "mnt"

    @property
    def home(self) -> Path:
        """Where the client keeps what it caches."""
        return self.directory / "home"

    @property
    def folder(self) -> str:
        """A folder that no other mode writes to."""
        return f"w-{self.mode.name}"

    @contextmanager
    def mounted(self, *, is_cold: bool = True) -> Iterator[Path]:
        """Mount inside the block: with empty caches, or with those of the mount before."""
        self.start(is_cold=is_cold)
        try:
            yield self.point
        finally:
            self.stop()

    def start(self, *, is_cold: bool) -> None:
        """Mount; returns when the root is a mount point."""
        if is_cold:
            shutil.rmtree(self.home, ignore_errors=True)
        self.home.mkdir(parents=True, exist_ok=True)
        self.point.mkdir(parents=True, exist_ok=True)
        settle()
        place = Place(
            point=self.point,
            home=self.home,
            port=self.port,
            served=self.directory.parent / "servers" / "folder",
            keys=self.servers.keys,
            key=TEST_KEY,
        )
        call = self.mode.call(place)
        self.started_s = time.perf_counter()
        self.program = Program(
            call.command, log=self.directory / "client.log", environment=call.environment
        )
        self.program.wait_until(lambda: os.path.ismount(self.point), within_s=START_S)

    def stop(self) -> None:
        """Unmount as a user would, and wait for what is still sent."""
        program, self.program = self.program, None
        if program is None:
            return
        subprocess.run(
            ["fusermount3", "-u", self.point], check=False, capture_output=True, timeout=STOP_S
        )
        if not program.wait_for_end(STOP_S):
            program.end()
        left = fuse_mounts().get(self.point)
        if left is not None:
            abort(left)
            subprocess.run(["fusermount3", "-u", "-z", self.point], check=False, timeout=STOP_S)

    def requests(self) -> dict[str, int]:
        """Return what the service has counted since ``count_from_zero``; for ctrfs only."""
        service = self.servers.service
        if not self.mode.is_ours or service is None:
            return {}
        return {name: count for name, count in service.counters().items() if count}

    def count_from_zero(self) -> None:
        """Forget the requests so far."""
        if self.mode.is_ours and self.servers.service is not None:
            self.servers.service.reset_counters()


@contextmanager
def line_to(servers: Servers, kind: str, round_trip_s: float) -> Iterator[int]:
    """Yield the port behind which a server answers with that round trip."""
    port = servers.running[kind].port
    if round_trip_s == 0:
        yield port
        return
    line = Line([port], round_trip_s=round_trip_s)
    try:
        yield line.ports[port]
    finally:
        line.close()


def settle() -> None:
    """Have the disk done with what was written before.

    What is in memory stays there: a new mount has no pages of its own, and a server or a program
    that has to be read from the disk first would be measured by who comes first.
    """
    subprocess.run(["sync"], check=False, timeout=60)
