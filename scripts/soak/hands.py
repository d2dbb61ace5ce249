"""File operations that write down in a ledger what they did, or may have done.

An operation that fails is counted, not raised: with faults switched on the mount may say EIO.
What it may never do is to show something that the ledger does not allow; that is ``wrong``.
"""

from __future__ import annotations

import errno
import os
import random
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from scripts.soak.ledger import ABSENT, Ledger, digest_of

EMPTY: Final = digest_of(b"")
WRONG_MAX: Final = 20
PROGRAM_DEADLINE_S: Final = 300


class Hands:
    """Works in one container and remembers.

    Attributes:
        top: The container's directory.
        outside: A directory of this process's own on the local disk.
        chance: Where its choices come from.
        ledger: What the container's files may hold.
        done: How many operations of each kind succeeded.
        failed: How many ended with each errno, or with a program's exit code.
        wrong: What was seen and must not be.
    """

    def __init__(self, top: Path, outside: Path, *, seed: int) -> None:
        self.top = top
        self.outside = outside
        self.chance = random.Random(seed)  # noqa: S311  # repeatable on purpose
        self.ledger = Ledger()
        self.done: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self.wrong: list[str] = []

    def content(self, *, bytes_max: int) -> bytes:
        """Return new bytes, often short ones."""
        return self.chance.randbytes(self.chance.choice([0, 1, 300, bytes_max // 3, bytes_max]))

    def put(self, path: str, content: bytes, *, syncs: bool = False) -> bool:
        """Write a whole file; return whether the mount acknowledged it."""
        with self._attempt("write") as attempt:
            with (self.top / path).open("wb") as file:
                file.write(content)
                if syncs:
                    file.flush()
                    os.fsync(file.fileno())
        return self._note(attempt, path, digest_of(content), EMPTY)

    def patch(self, path: str, *, offset: int, piece: bytes, keeps_bytes: int | None) -> bool:
        """Write ``piece`` at ``offset`` and cut the file to ``keeps_bytes`` (None: do not)."""
        outcomes: list[str] = []
        with self._attempt("patch") as attempt:
            with (self.top / path).open("r+b", buffering=0) as file:
                content = bytearray(_read_all(file.fileno()))
                self._judge(path, digest_of(content))
                if piece:  # a write of nothing does not make a file longer
                    content.extend(bytes(max(0, offset - len(content))))
                    content[offset : offset + len(piece)] = piece
                outcomes.append(digest_of(content))
                os.pwrite(file.fileno(), piece, offset)
                if keeps_bytes is not None:
                    del content[keeps_bytes:]
                    content.extend(bytes(keeps_bytes - len(content)))
                    outcomes.append(digest_of(content))
                    os.ftruncate(file.fileno(), keeps_bytes)
        self._judge_absence(attempt, path)
        if not outcomes:
            return False
        return self._note(attempt, path, *reversed(outcomes))

    def check(self, path: str) -> None:
        """Read a file and compare it with the ledger."""
        with self._attempt("read") as attempt:
            self._judge(path, digest_of((self.top / path).read_bytes()))
        self._judge_absence(attempt, path)

    def rename(self, path: str, other: str) -> bool:
        """Rename a file, over another one if there is one."""
        with self._attempt("rename") as attempt:
            (self.top / path).rename(self.top / other)
        self._judge_absence(attempt, path)
        if attempt:
            self.ledger.doubt_move(path, other)
        else:
            self.ledger.move(path, other)
        return not attempt

    def delete(self, path: str) -> bool:
        """Delete a file."""
        with self._attempt("delete") as attempt:
            (self.top / path).unlink()
        self._judge_absence(attempt, path)
        return self._note(attempt, path, ABSENT)

    def run(self, name: str, *command: str | Path, cwd: Path | None = None) -> str | None:
        """Run a program; return what it printed, or None if it failed."""
        environment = {**os.environ, "LC_ALL": "C.UTF-8", "GIT_CONFIG_NOSYSTEM": "1"}
        ended = subprocess.run(
            command,
            cwd=cwd or self.outside,
            env=environment | {"HOME": str(self.outside)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PROGRAM_DEADLINE_S,
            check=False,
        )
        if ended.returncode == 0:
            self.done[name] += 1
            return ended.stdout.decode(errors="replace")
        self.failed[f"{name}: exit {ended.returncode}"] += 1
        return None

    def complain(self, sentence: str) -> None:
        """Write down something that must not have happened; the first ones will do."""
        if len(self.wrong) < WRONG_MAX:
            self.wrong.append(f"{time.strftime('%H:%M:%S')} {sentence}")

    def _judge(self, path: str, seen: str | None) -> None:
        if not self.ledger.may_hold(path, seen):
            answers = self.ledger.acceptable(path)
            self.complain(f"{path} holds {seen or 'nothing'} instead of {answers}")

    def _judge_absence(self, attempt: list[str], path: str) -> None:
        """A failure that says "no such file" is an answer too, and may be a wrong one."""
        if "ENOENT" in attempt:
            self._judge(path, ABSENT)

    def _note(self, attempt: list[str], path: str, answer: str | None, *others: str) -> bool:
        """Write down what a path holds: the first answer, or after a failure any of them."""
        if attempt:
            self.ledger.doubt(path, answer, *others)
        else:
            self.ledger.settle(path, answer)
        return not attempt

    @contextmanager
    def _attempt(self, name: str) -> Iterator[list[str]]:
        """Count how the body ends; the list yielded holds the errno's name if it fails."""
        failures: list[str] = []
        try:
            yield failures
        except FileNotFoundError:  # whether that may be is for the ledger to say
            failures.append("ENOENT")
            self.done[f"{name}: no such file"] += 1
        except OSError as error:
            failures.append(errno.errorcode.get(error.errno or 0, "?"))
            self.failed[f"{name}: {failures[0]}"] += 1
        else:
            self.done[name] += 1


def _read_all(descriptor: int) -> bytes:
    pieces = []
    while piece := os.read(descriptor, 1 << 20):
        pieces.append(piece)
    return b"".join(pieces)
