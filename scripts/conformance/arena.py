"""A mount for one suite, served by a process of its own, over a service of its own.

Commands run with a time limit. One that does not end in time has its mount aborted, since a
process that waits for a dead file system cannot be killed, and the suite gets a new one.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeAlias

from scripts.conformance.results import Case, failed, passed
from tests.support.mounting import Mount, MountFailedError, MountHungError, pause
from tests.support.service import TEST_KEY, ServiceProcess

# What is shown of a program's last words.
WORDS_BYTES_MAX: Final = 1200
DYING_S: Final = 5.0
# Programs of packages for administrators are not on everybody's path.
PATH: Final = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a program ended; ``code`` is None if it had to be ended."""

    code: int | None
    words: str


Judge: TypeAlias = Callable[[Ended], str | None]


class Arena:
    """The directory on the mount in which a suite works; a context manager.

    Attributes:
        outside: A directory on the local disk.
    """

    def __init__(self, name: str, *, options: Sequence[str] = ()) -> None:
        self._stack = ExitStack()
        self._name = name
        self._options = tuple(options)

    def __enter__(self) -> Self:
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="ctrfs-conf-")))
        self.service = self._stack.enter_context(
            ServiceProcess(environment={"CTRFS_SERVER_API_KEY": TEST_KEY})
        )
        self.outside = folder / "outside"
        self.outside.mkdir()
        self.mount = Mount(folder, service=self.service, options=self._options)
        self._stack.callback(self.mount.abandon)
        try:
            self.mount.start()
            self.place.mkdir()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    @property
    def place(self) -> Path:
        """The container that the suite works in."""
        return self.mount.point / self._name

    def folder(self, name: str) -> Path:
        """Make a folder in it for one case."""
        made = self.place / name
        made.mkdir()
        return made

    def run(
        self,
        *command: str | Path,
        cwd: Path | None = None,
        limit_s: float,
        environment: Mapping[str, str] | None = None,
    ) -> Ended:
        """Run a program to its end or to its limit; a mount that hangs is replaced."""
        with tempfile.TemporaryFile(dir=self.outside) as output:
            process = subprocess.Popen(
                command,
                cwd=cwd or self.place,
                env={**os.environ, "LC_ALL": "C.UTF-8", "PATH": PATH, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            code = self._wait(process, limit_s)
            output.seek(0)
            words = output.read().decode(errors="replace")
        return Ended(code=code, words=words)

    def case(
        self,
        name: str,
        *command: str | Path,
        cwd: Path | None = None,
        limit_s: float,
        judge: Judge = lambda _: None,
    ) -> Case:
        """Run a program; it passes if it ends with 0 and ``judge`` finds nothing to say."""
        return judged(name, self.run(*command, cwd=cwd, limit_s=limit_s), judge, limit_s=limit_s)

    def last_cases(self) -> list[Case]:
        """Unmount, and return how that went and whether the daemon's log shows a bug."""
        cases = []
        try:
            self.mount.stop()
            cases.append(passed("clean unmount"))
        except (MountFailedError, MountHungError) as error:
            cases.append(failed("clean unmount", str(error)[:WORDS_BYTES_MAX]))
        log = self.mount.log_text()
        place = log.find("Traceback")
        name = "no traceback in the daemon's log"
        cases.append(passed(name) if place < 0 else failed(name, log[place:][:WORDS_BYTES_MAX]))
        return cases

    def _wait(self, process: subprocess.Popen[bytes], limit_s: float) -> int | None:
        try:
            return process.wait(limit_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
        pause(DYING_S)
        if process.poll() is None or not self.mount.is_serving:
            # Held in an unanswered request: only the abort frees it.
            self.mount.abandon()
            process.wait()
            self.mount.start()
        return None


def judged(name: str, ended: Ended, judge: Judge, *, limit_s: float) -> Case:
    """Return the case of a program that ended."""
    if ended.code is None:
        return failed(name, f"did not end within {limit_s:.0f} s: {last_words(ended.words)}")
    if ended.code != 0:
        return failed(name, f"exit code {ended.code}: {last_words(ended.words)}")
    complaint = judge(ended)
    return failed(name, complaint) if complaint else passed(name)


def last_words(text: str) -> str:
    """Return the end of what a program printed, on one line."""
    return " | ".join(text[-WORDS_BYTES_MAX:].strip().splitlines())
