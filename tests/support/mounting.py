"""A real mount, served by a process of its own, that a test may let hang, kill or lose.

Nothing here touches the mount point from this process before it is known to answer, and
whatever hangs is ended by aborting the kernel's connection: a process that waits for a dead
file system cannot even be killed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Protocol, Self

from tests.support.service import ServiceProcess

# Scenarios can be run in plain folders: what fails there is the scenario's own mistake.
IS_LOCAL: Final = os.environ.get("CTRFS_SCENARIOS_ON") == "local"
START_DEADLINE_S: Final = 20.0
STOP_DEADLINE_S: Final = 30.0
POLL_S: Final = 0.02
# What ctrfs ends with when some bytes are not on the service.
EXIT_UNSENT: Final = 64
# Variables of the person who runs the tests that would change what a mount does.
FOREIGN_VARIABLES: Final = ("OPENAI_", "CTRFS_", "XDG_", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


class Service(Protocol):
    """What a mount must know of a service: where it is and its key."""

    @property
    def base_url(self) -> str: ...

    @property
    def key(self) -> str: ...


class MountFailedError(Exception):
    """The daemon ended before the mount answered; the text holds its log."""


class MountHungError(Exception):
    """The mount did not answer within a deadline; the text holds the daemon's log and stack."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mounted:
    """One line of the mount table."""

    point: Path
    kind: str
    source: str
    minor: int


def fuse_mounts() -> dict[Path, Mounted]:
    """Return the FUSE mounts of this machine by mount point; asks no file system."""
    found: dict[Path, Mounted] = {}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, after = (part.split() for part in line.split(" - ", maxsplit=1))
        if after[0].startswith("fuse") and after[0] != "fusectl":
            point = Path(_unescaped(before[4]))
            minor = int(before[2].partition(":")[2])
            found[point] = Mounted(point=point, kind=after[0], source=after[1], minor=minor)
    return found


def why_mounts_are_impossible() -> str | None:
    """Return what this machine lacks for a mount, or None."""
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC))
    except OSError:
        return "no /dev/fuse"
    if not any((Path(folder) / "fusermount3").exists() for folder in os.get_exec_path()):
        return "no fusermount3"
    return None


def abort(mounted: Mounted) -> None:
    """Break the kernel's connection, which ends whatever waits for it, and drop the mount."""
    switch = Path(f"/sys/fs/fuse/connections/{mounted.minor}/abort")
    if switch.exists():
        switch.write_text("1")
    # Without fusectl mounted, a forced unmount is what aborts the connection.
    subprocess.run(["umount", "-f", mounted.point], capture_output=True, timeout=10, check=False)
    subprocess.run(["umount", "-l", mounted.point], capture_output=True, timeout=10, check=False)


def pause(seconds: float) -> None:
    """Let other processes work; for tests of real processes only."""
    threading.Event().wait(seconds)


def finishes(*command: str | Path, timeout_s: float) -> bool:
    """Whether the command ends with 0 in time; one that hangs is left to the abort."""
    return exit_code_of(*command, timeout_s=timeout_s) == 0


def exit_code_of(
    *command: str | Path,
    timeout_s: float,
    environment: Mapping[str, str] | None = None,
    output: BinaryIO | int = subprocess.DEVNULL,
) -> int | None:
    """Return how the command ended; None if it did not in time and is left to the abort."""
    child = subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output
    )
    try:
        return child.wait(timeout_s)
    except subprocess.TimeoutExpired:
        child.kill()
        # A child that the kernel holds in an unanswered request outlives its kill; whoever
        # aborts the connection frees it, and this thread takes its exit status.
        threading.Thread(target=child.wait, name="Trio thread of a hung child", daemon=True).start()
        return None


class Mount:
    """One mount point and the daemons that serve it, one after another.

    Invariant: at most one daemon runs; ``stop`` or ``abandon`` leaves nothing mounted.
    """

    def __init__(
        self,
        directory: Path,
        *,
        service: Service | None,
        source: str = "openai:",
        options: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.point = directory / "mnt"
        self.home = directory / "home"
        self.source = source
        self.options = tuple(options)
        self.program = ctrfs()
        self.log_path = directory / "daemon.log"
        self.environment = environment_for(self.home, service=service) | dict(environment or {})
        self._daemon: subprocess.Popen[bytes] | None = None
        self.home.mkdir(parents=True, exist_ok=True)
        self.point.mkdir(exist_ok=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None:
            self.stop()
        else:
            self._stop_after_a_failure(error)

    @property
    def pid(self) -> int:
        """The process that serves the mount."""
        assert self._daemon is not None, "the mount was not started"
        return self._daemon.pid

    @property
    def is_serving(self) -> bool:
        """Whether the daemon lives and the mount answers within two seconds."""
        return (
            self._daemon is not None
            and self._daemon.poll() is None
            and self.point in fuse_mounts()
            # Of the file system, not of its root, whose attributes the kernel may remember; and
            # of ours, not of the one below: a dead mount may just have been cleared away.
            and finishes(
                "sh", "-c", '[ "$(stat -f -c %T "$0")" = fuseblk ]', self.point, timeout_s=2
            )
        )

    def log_text(self) -> str:
        """Return what all daemons of this mount point have logged."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def start(self) -> None:
        """Mount; returns when the root answers.

        Raises:
            MountFailedError: The daemon ended first.
            MountHungError: The root did not answer in time; nothing is left behind.
        """
        options = ["-o", ",".join(self.options)] if self.options else []
        with self.log_path.open("ab") as log:
            self._daemon = subprocess.Popen(
                [*self.program, "mount", self.source, self.point, *options, "--foreground"],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_DEADLINE_S
        while time.monotonic() < deadline:
            if self._daemon.poll() is not None:
                raise MountFailedError(f"exit code {self._daemon.returncode}\n{self.log_text()}")
            if self.is_serving:
                return
            pause(POLL_S)
        raise MountHungError(self._end_and_describe("the root did not answer"))

    def stop(self, *, may_leave_bytes: bool = False) -> None:
        """Unmount as a user would, and wait for the daemon to end well.

        Args:
            may_leave_bytes: Whether the service has refused bytes, which then stay unsent.

        Raises:
            MountFailedError: The command or the daemon ended with a failure.
            MountHungError: One of them did not end in time; nothing is left behind.
        """
        assert self._daemon is not None, "the mount was not started"
        fine = {0, EXIT_UNSENT} if may_leave_bytes else {0}
        ends: dict[str, int | None] = {}
        if self.point in fuse_mounts():
            with self.log_path.open("ab") as log:
                ends["ctrfs umount"] = exit_code_of(
                    *ctrfs("umount", self.point, "--timeout", "20"),
                    timeout_s=STOP_DEADLINE_S,
                    environment=self.environment,
                    output=log,
                )
        try:
            ends["the daemon"] = self._daemon.wait(STOP_DEADLINE_S)
        except subprocess.TimeoutExpired:
            ends["the daemon"] = None
        if None in ends.values() or self.point in fuse_mounts():
            raise MountHungError(self._end_and_describe(f"did not unmount: {ends}"))
        self._daemon = None
        if not fine.issuperset(ends.values()):
            raise MountFailedError(f"ended with {ends}\n{self.log_text()}")

    def restart(self) -> None:
        """Unmount and mount again: what another day would find."""
        self.stop()
        self.start()

    def exit_code_after(self, number: signal.Signals, *, timeout_s: float) -> int:
        """Send the daemon a signal, and return how it ended.

        Raises:
            subprocess.TimeoutExpired: It did not end in time.
        """
        assert self._daemon is not None, "the mount was not started"
        self._daemon.send_signal(number)
        code = self._daemon.wait(timeout_s)
        self._daemon = None
        return code

    def wait(self) -> int:
        """Wait for a daemon that was told to end, and return its exit code.

        Raises:
            subprocess.TimeoutExpired: It did not end in time.
        """
        assert self._daemon is not None, "the mount was not started"
        code = self._daemon.wait(STOP_DEADLINE_S)
        self._daemon = None
        return code

    def kill(self) -> None:
        """End the daemon with SIGKILL, as a power cut would; the dead mount point stays."""
        assert self._daemon is not None, "the mount was not started"
        self._daemon.kill()
        self._daemon.wait()
        self._daemon = None

    def abandon(self) -> None:
        """Leave nothing behind, whatever state the mount is in."""
        if self._daemon is not None:
            self._daemon.kill()
        mounted = fuse_mounts().get(self.point)
        if mounted is not None:
            abort(mounted)
        if self._daemon is not None:
            self._daemon.wait()
            self._daemon = None

    def run(
        self, *arguments: str | Path, timeout_s: float = 30
    ) -> subprocess.CompletedProcess[str]:
        """Run a ``ctrfs`` command in this mount's environment and return how it ended."""
        return run_ctrfs(*arguments, environment=self.environment, timeout_s=timeout_s)

    def _stop_after_a_failure(self, error: BaseException | None) -> None:
        """Clean up without hiding why the test failed; show the daemon's last words."""
        if error is not None:
            error.add_note(f"log of the mount's daemon:\n{self.log_text()[-8000:]}")
        self.abandon()

    def _end_and_describe(self, what: str) -> str:
        stack = self._stack()
        self.abandon()
        return f"{what}\n--- kernel stacks\n{stack}\n--- log\n{self.log_text()[-16000:]}"

    def _stack(self) -> str:
        """Return where the daemon's threads wait; its Python stacks go to its log."""
        if self._daemon is None or self._daemon.poll() is not None:
            return "the daemon is gone"
        stacks = []
        for task in Path(f"/proc/{self._daemon.pid}/task").iterdir():
            try:
                stacks.append(f"{task.name}: {(task / 'stack').read_text()}")
            except OSError:  # ended meanwhile, or not ours to read
                continue
        # faulthandler, switched on in the environment, writes all Python stacks on SIGABRT.
        self._daemon.send_signal(signal.SIGABRT)
        pause(0.5)
        return "\n".join(stacks)


class MakeMount(Protocol):
    """Mounts a service, unmounted again when the test ends."""

    def __call__(
        self,
        service: Service | None,
        *,
        source: str = "openai:",
        options: Sequence[str] = (),
    ) -> Mount: ...


class Kept:
    """What outlives a test on purpose: what a whole session shares."""

    def __init__(self) -> None:
        self.pids: set[int] = set()
        self.points: set[Path] = set()
        self.descriptors: set[str] = set()


class SharedMount:
    """The mount that independent tests share, made anew after a test that broke it."""

    def __init__(
        self, service: ServiceProcess, directory: Path, kept: Kept, *, options: Sequence[str] = ()
    ) -> None:
        self.service = service
        self._mount = Mount(directory, service=service, options=options)
        self._kept = kept

    def alive(self) -> Mount:
        """Return the mount, which answers."""
        if not self._mount.is_serving:
            self._mount.abandon()
            self._mount.start()
            self._kept.pids.add(self._mount.pid)
            self._kept.points.add(self._mount.point)
        return self._mount

    def close(self) -> None:
        if self._mount.is_serving:
            self._mount.stop()
        self._mount.abandon()


def ctrfs(*arguments: str | Path) -> list[str | Path]:
    """Return the command line of the program under test."""
    return [sys.executable, "-m", "ctrfs", *arguments]


def run_ctrfs(
    *arguments: str | Path, environment: Mapping[str, str], timeout_s: float = 30
) -> subprocess.CompletedProcess[str]:
    """Run a ``ctrfs`` command to its end and return what it said."""
    return subprocess.run(
        ctrfs(*arguments),
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def environment_for(home: Path, *, service: Service | None) -> dict[str, str]:
    """Return an environment in which ctrfs finds nothing of the person who runs the tests."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.upper().startswith(FOREIGN_VARIABLES)
    }
    homes = {
        f"XDG_{kind}_HOME": str(home / kind.lower())
        for kind in ("STATE", "CACHE", "DATA", "CONFIG")
    }
    reached = (
        {"OPENAI_BASE_URL": service.base_url, "OPENAI_API_KEY": service.key} if service else {}
    )
    return kept | homes | reached | {"HOME": str(home), "PYTHONFAULTHANDLER": "1"}


def _unescaped(field: str) -> str:
    """Undo the octal escapes of the mount table."""
    return field.encode("latin-1").decode("unicode_escape")
