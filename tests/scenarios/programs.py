"""Running the programs that people use, with a deadline, and typing into the interactive ones."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeAlias

import pytest
from tests.support.mounting import pause

Argument: TypeAlias = str | bytes | Path

PROGRAM_DEADLINE_S: Final = 90
# No settings of the person who runs the tests, no pager, and names that do not depend on them.
CALM: Final[Mapping[str, str]] = {
    "HOME": "/nonexistent",
    "LC_ALL": "C.UTF-8",
    "TERM": "xterm",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "A",
    "GIT_AUTHOR_EMAIL": "a@example.org",
    "GIT_COMMITTER_NAME": "A",
    "GIT_COMMITTER_EMAIL": "a@example.org",
}


def need(*programs: str) -> None:
    """Skip the test, visibly, where a program is not installed (scripts/test-packages.txt)."""
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")


def run(*command: Argument, cwd: Path, timeout_s: float = PROGRAM_DEADLINE_S) -> str:
    """Run a program to its end and return what it printed; fail with it if it fails."""
    ended = attempt(*command, cwd=cwd, timeout_s=timeout_s)
    text = ended.stdout.decode(errors="backslashreplace")
    assert ended.returncode == 0, (
        f"{command!r} ended with {ended.returncode}:\n{text}\n{ended.stderr.decode(errors='replace')}"
    )
    return text


def attempt(
    *command: Argument, cwd: Path, timeout_s: float = PROGRAM_DEADLINE_S
) -> subprocess.CompletedProcess[bytes]:
    """Run a program to its end, however that is."""
    need(os.fsdecode(command[0]))
    return subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, **CALM},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=timeout_s,
        check=False,
    )


class Terminal:
    """A terminal of its own with one program in it, read and typed into as a person would."""

    def __init__(self, socket: Path) -> None:
        self._tmux = ["tmux", "-S", str(socket), "-f", os.devnull]

    def open(self, *command: Argument, cwd: Path) -> None:
        words = [os.fsdecode(word) for word in command]
        environment = [f"{name}={value}" for name, value in CALM.items()]
        self._ask(
            *("new-session", "-d", "-s", "main", "-x", "100", "-y", "30", "-c", str(cwd)),
            *("env", *environment, *words),
        )

    def type(self, *keys: str) -> None:
        """Press keys by their tmux names: ``C-x``, ``Escape``, ``F5``, ``Enter``."""
        for key in keys:
            self._ask("send-keys", "-t", "main", key)
            pause(0.05)

    def write(self, text: str) -> None:
        """Type a text literally."""
        self._ask("send-keys", "-t", "main", "-l", text)

    def screen(self) -> str:
        return self._ask("capture-pane", "-p", "-t", "main")

    def wait_for(self, text: str, *, timeout_s: float = 20) -> None:
        deadline = time.monotonic() + timeout_s
        while text not in self.screen():
            assert time.monotonic() < deadline, f"no {text!r} on the screen:\n{self.screen()}"
            pause(0.05)

    def wait_for_the_end(self, *, timeout_s: float = 20) -> None:
        deadline = time.monotonic() + timeout_s
        while self._is_open():
            assert time.monotonic() < deadline, f"still running:\n{self.screen()}"
            pause(0.05)

    def close(self) -> None:
        subprocess.run([*self._tmux, "kill-server"], capture_output=True, timeout=10, check=False)

    def _is_open(self) -> bool:
        ended = subprocess.run(
            [*self._tmux, "has-session", "-t", "main"], capture_output=True, timeout=10, check=False
        )
        return ended.returncode == 0

    def _ask(self, *words: str) -> str:
        return subprocess.run(
            [*self._tmux, *words], capture_output=True, text=True, timeout=10, check=True
        ).stdout


@contextmanager
def terminal(directory: Path) -> Iterator[Terminal]:
    """Give a terminal that is gone afterwards."""
    need("tmux")
    opened = Terminal(directory / "tmux")
    try:
        yield opened
    finally:
        opened.close()
