"""Processes of a run: each in a session of its own, ended by its id, never left behind."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from tests.support.mounting import pause

_POLL_S: Final = 0.002
_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
_END_S: Final = 5.0
# Programs of packages for administrators are not on everybody's path.
_PATH: Final = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


class NotStartedError(RuntimeError):
    """A program ended, or did not get ready in time; the text holds its last words."""


class Program:
    """A program that runs until it is ended."""

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        log: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                env=dict(environment) if environment is not None else None,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The process, which leads a session of its own."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def wait_until(self, is_ready: Callable[[], bool], *, within_s: float) -> None:
        """Wait until it is ready.

        Raises:
            NotStartedError: It ended first, or took longer.
        """
        deadline_s = time.monotonic() + within_s
        while not is_ready():
            if not self.is_alive:
                raise NotStartedError(f"exit code {self._process.returncode}: {self.last_words()}")
            if time.monotonic() > deadline_s:
                raise NotStartedError(f"not ready within {within_s:g} s: {self.last_words()}")
            pause(_POLL_S)

    def wait_for_end(self, within_s: float) -> bool:
        """Whether it ends by itself in time."""
        try:
            self._process.wait(within_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def end(self) -> None:
        """End it and what it has started; harmless when repeated."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            if not self.is_alive:
                break
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)
            self.wait_for_end(_END_S)
        # What it started may outlive it.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def last_words(self) -> str:
        """Return the end of what it printed, on one line."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return " | ".join(text[-600:].strip().splitlines())


def found(program: str) -> str | None:
    """Return the path of a program, or None if it is not installed."""
    return shutil.which(program, path=_PATH)


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def listens(port: int) -> bool:
    """Whether somebody takes connections on a port of 127.0.0.1."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def family(pid: int) -> list[int]:
    """Return a process and all that it started, directly or not."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                children.setdefault(int(fields[1]), []).append(int(entry.name))
    members, unseen = [], [pid]
    while unseen:
        member = unseen.pop()
        members.append(member)
        unseen += children.get(member, [])
    return members


def cpu_s(pid: int) -> float:
    """Return the processor time used so far by a process and what it started, in seconds."""
    ticks = 0
    for member in family(pid):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{member}/stat").read_text().rpartition(")")[2].split()
            ticks += sum(int(field) for field in fields[11:15])
    return ticks / _TICKS_PER_S


def memory_mib(pid: int, *, most: bool) -> float:
    """Return the resident memory of a process and what it started: now, or the most so far."""
    kib = 0
    for member in family(pid):
        with contextlib.suppress(OSError):
            fields = dict(
                line.split(":", 1)
                for line in Path(f"/proc/{member}/status").read_text().splitlines()
            )
            kib += int(fields["VmHWM" if most else "VmRSS"].split()[0])
    return kib / 1024
