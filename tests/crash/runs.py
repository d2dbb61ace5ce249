"""Work on a mount that dies, and the comparison with the ledger when it has come back."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.crash.cases import LOCAL_SUFFIX
from tests.crash.ledger import Ledger, Operation, World, run_list
from tests.support.crashing import CrashingMount
from tests.support.mounting import pause
from tests.support.service import ServiceProcess
from tests.support.trees import stored

WORKER: Final = Path(__file__).parent / "worker.py"
WORK_DEADLINE_S: Final = 60.0
LOG_EXCERPT: Final = 6000
WALKS_MAX: Final = 5
# What a container is shown as beside an older one of its name.
_YOUNGER: Final = re.compile(r"~cntr_[0-9a-f]+$")


class ViolationError(AssertionError):
    """What was promised is not there."""


@dataclass(slots=True, kw_only=True)
class Run:
    """Work under one tag on one mount, and the comparison afterwards.

    Attributes:
        tag: Begins the names of all containers of this run, and of no other's.
        directory: Where the run keeps its papers; on a local disk.
        ledger: What may be true.
        is_after_a_power_cut: Whether what no disk was asked to keep may be gone.
    """

    service: ServiceProcess
    mount: CrashingMount
    tag: str
    directory: Path
    ledger: Ledger = field(default_factory=Ledger)
    is_after_a_power_cut: bool = False
    _works: int = 0

    def begin(self, operations: Sequence[Operation]) -> Worker:
        """Start working; ``Worker.finish`` takes the outcome into the ledger."""
        self._works += 1
        name = f"{self.tag}-{self._works}"
        record = self.directory / f"{name}.ledger"
        listed = run_list(self.directory / f"{name}.json", operations)
        command: list[str | Path] = [
            sys.executable,
            "-SPE",
            WORKER,
            self.mount.point,
            record,
            listed,
        ]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        return Worker(operations=operations, record=record, process=process)

    def work(self, operations: Sequence[Operation]) -> None:
        """Carry out operations, until the end or until the mount is gone."""
        self.begin(operations).finish(self.ledger)

    def check(self) -> World:
        """Compare a mount that has come back with what must be there; return what is there.

        Raises:
            ViolationError: The promise that was broken, and the log.
        """
        try:
            seen = self._checked(self.ledger.possible())
        except (AssertionError, TimeoutError, OSError) as error:
            error.add_note(f"in flight: {self.ledger.in_flight}, failed: {self.ledger.failed}")
            error.add_note(f"log of {self.tag}:\n{self.mount.log_text()[-LOG_EXCERPT:]}")
            raise
        self.ledger.settle(seen)
        return seen

    def go_on(self) -> None:
        """Leave what was in flight open, and work on while the replay may still be under way."""
        self.ledger.worlds = self.ledger.possible()
        self.ledger.in_flight, self.ledger.failed, self.ledger.failed_in = [], [], {}

    def clean_up(self) -> None:
        """Delete the containers of this run, so that the next has the listing to itself."""
        for row in self.service.containers():
            if str(row["name"]).startswith(self.tag + "-"):
                self.service.delete_container(str(row["id"]))

    def _checked(self, possible: Sequence[World]) -> World:
        self._check_at_once(possible)
        self.mount.await_nothing_pending()
        # Containers that the replay has deleted may be listed until the listing is old.
        os.setxattr(self.mount.point, "user.ctrfs.refresh", b"1")
        seen = seen_at(self.mount.point, self.tag)
        world = self._explained(seen, possible)
        self._check_service(world)
        return seen

    def _check_at_once(self, possible: Sequence[World]) -> None:
        """What a user sees before the replay is over: each file old or new, and none missing."""
        seen = seen_at(self.mount.point, self.tag)
        certain = set.intersection(*(set(_files(world)) for world in possible))
        for path in certain:
            contents = {world[path] for world in possible}
            if path not in seen or seen[path] not in contents:
                raise ViolationError(f"{path} at once after the start: {_short(seen, path)}")

    def _explained(self, seen: World, possible: Sequence[World]) -> World:
        """Return the world that is seen."""
        for world in possible:
            if self._comparable(world) == self._comparable(seen):
                return world
        differences = "; or ".join(_difference(world, seen) for world in possible[:4])
        raise ViolationError(
            f"{len(possible)} states are possible, and none is seen: {differences}"
        )

    def _comparable(self, world: World) -> World:
        # A folder without files is known to this machine only, by a commit that does not wait
        # for the disk: docs/semantics.md, promise 5.
        return _without_empty_folders(world) if self.is_after_a_power_cut else world

    def _check_service(self, world: World) -> None:
        """Raise unless the service has exactly what is shown, each name once."""
        names = [str(row["name"]) for row in self.service.containers()]
        ours = sorted(name for name in names if name.startswith(self.tag + "-"))
        expected = sorted(path.removesuffix("~") for path in world if "/" not in path)
        if ours != expected:
            raise ViolationError(f"containers on the service: {ours}, shown: {expected}")
        if len(set(ours)) < len(ours):
            return  # of one name: one of them is the stray that the world has, and empty
        there = {
            f"{name}/{path}": content
            for name in ours
            for path, content in stored(self.service, name).items()
        }
        shown = {
            path: content for path, content in _files(world).items() if not is_local_only(path)
        }
        if there != shown:
            raise ViolationError(f"on the service: {_difference(shown, there)}")


@dataclass(slots=True, kw_only=True)
class Worker:
    """A process that works on a mount."""

    operations: Sequence[Operation]
    record: Path
    process: subprocess.Popen[bytes]

    def await_begin(self) -> None:
        """Return when the process has begun to work, or has ended.

        Raises:
            TimeoutError: It does neither.
        """
        deadline = time.monotonic() + WORK_DEADLINE_S
        while not self.record.exists() and self.process.poll() is None:
            if time.monotonic() > deadline:
                raise TimeoutError("the worker does not begin")
            pause(0.01)

    def finish(self, ledger: Ledger) -> None:
        """Wait for the process, and take what it did into ``ledger``."""
        exit_code = self.process.wait(WORK_DEADLINE_S)
        assert exit_code in {0, 3}, f"the worker ended with {exit_code}"
        ledger.read(self.record, self.operations)


def is_local_only(path: str) -> bool:
    return path.endswith(LOCAL_SUFFIX)


def seen_at(top: Path, tag: str) -> World:
    """Return what a walk through a mount sees of the containers of one run."""
    for _ in range(WALKS_MAX):
        # What was in flight may come or go during the walk.
        try:
            return _walked(top, tag)
        except OSError as error:
            if error.errno not in {errno.ENOENT, errno.ESTALE}:
                raise
    return _walked(top, tag)


def _walked(top: Path, tag: str) -> World:
    seen: dict[str, bytes | None] = {}
    for container in sorted(top.iterdir()):
        if not container.name.startswith(tag + "-"):
            continue
        seen[_YOUNGER.sub("~", container.name)] = None
        for folder, folders, files in os.walk(container, onerror=_raise):
            for name in folders:
                seen[str((Path(folder) / name).relative_to(top))] = None
            for name in files:
                path = Path(folder) / name
                seen[str(path.relative_to(top))] = path.read_bytes()
    return seen


def _raise(error: OSError) -> None:
    raise error


def _files(world: World) -> dict[str, bytes]:
    return {path: content for path, content in world.items() if content is not None}


def _without_empty_folders(world: World) -> World:
    return {
        path: content
        for path, content in world.items()
        if content is not None
        or "/" not in path
        or any(each.startswith(path + "/") for each in _files(world))
    }


def _difference(expected: World, seen: World) -> str:
    parts = [f"missing {path}" for path in sorted(expected.keys() - seen.keys())]
    parts += [
        f"stray {path} {_short(seen, path)}" for path in sorted(seen.keys() - expected.keys())
    ]
    parts += [
        f"altered {path}: {_short(expected, path)} became {_short(seen, path)}"
        for path in sorted(expected.keys() & seen.keys())
        if expected[path] != seen[path]
    ]
    return ", ".join(parts) or "no difference"


def _short(world: World, path: str) -> str:
    if path not in world:
        return "missing"
    content = world[path]
    return "a folder" if content is None else f"{len(content)} bytes {content[:4].hex()}"
