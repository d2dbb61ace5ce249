"""The processes of the load: started, stopped, and what they report."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from scripts.soak.api_user import KEY_VARIABLE, URL_VARIABLE
from scripts.soak.ledger import Ledger
from tests.support.mounting import Service

# An operation under way may wait for the longest timeouts of the mount, several times over.
STOP_DEADLINE_S: Final = 150.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What one process did."""

    kind: str
    done: dict[str, int]
    failed: dict[str, int]
    wrong: list[str]
    ledger: Ledger


class Worker:
    """One process of the load, with a directory outside the mount."""

    def __init__(self, kind: str, container: Path, directory: Path, *, service: Service) -> None:
        self.kind = kind
        self._outside = directory / kind
        self._outside.mkdir()
        self._log = (self._outside / "log").open("wb")
        seed = str(sum(kind.encode()))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "scripts.soak.workers", kind, container, self._outside, seed],
            env={**os.environ, URL_VARIABLE: service.base_url, KEY_VARIABLE: service.key},
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
        )

    @property
    def commits(self) -> list[str]:
        """The commits that git acknowledged, for the kind that makes some."""
        path = self._outside / "commits"
        return path.read_text().split() if path.exists() else []

    def ask_to_stop(self) -> None:
        """Let it end after the round under way."""
        (self._outside / "stop").touch()

    def report(self) -> Report | str:
        """Wait for its end; return its report, or a sentence that says why there is none."""
        try:
            code = self._process.wait(STOP_DEADLINE_S)
        except subprocess.TimeoutExpired:
            return f"{self.kind} hangs: it did not stop within {STOP_DEADLINE_S:.0f} s"
        finally:
            self._log.close()
        if code != 0:
            log = (self._outside / "log").read_text(errors="replace")[-2000:]
            return f"{self.kind} ended with {code}: {log}"
        told = json.loads((self._outside / "report.json").read_text())
        return Report(
            kind=self.kind,
            done=told["done"],
            failed=told["failed"],
            wrong=told["wrong"],
            ledger=Ledger.from_json(json.dumps(told["ledger"])),
        )

    def kill(self) -> None:
        """End it at once; one that the kernel holds goes when the mount is aborted."""
        self._process.kill()
