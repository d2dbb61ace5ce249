"""``python -m scripts.bench``: ctrfs and its peers side by side, on the same bytes in one run.

Prints tables, and writes all samples as JSON. The modes take turns within each run, so that
what else the machine does strikes all of them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from scripts.bench import curl
from scripts.bench.arena import Arena, line_to, settle
from scripts.bench.corpus import MIB, Corpus
from scripts.bench.modes import ALL, CURL, Mode
from scripts.bench.report import REAL, Results, requests_table, table
from scripts.bench.servers import API, Servers
from scripts.bench.tasks import OURS, TASKS
from tests.support.mounting import why_mounts_are_impossible

GIANT_BYTES: Final = 1024 * MIB
LARGE_BYTES: Final = 256 * MIB
# Source: docs/api-notes.md, measured from outside.
REAL_TIMES_S: Final = {
    "list_containers": 1.5,
    "list_files": 1.5,
    "file_content": 1.2,
    "create_file": 0.9,
    "create_container": 1.4,
    "delete_file": 1.4,
    "delete_container": 1.4,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what was asked for, print the tables, write the JSON; return the exit code."""
    given = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    why_not = why_mounts_are_impossible()
    if why_not is not None:
        print(why_not, file=sys.stderr)
        return 1
    modes = [mode for mode in ALL if not given.peers or mode.name in given.peers]
    results = Results()
    with tempfile.TemporaryDirectory(prefix="ctrfs-bench-") as directory:
        top = Path(directory)
        print("writing the files that are measured", file=sys.stderr)
        corpus = Corpus(top / "corpus", giant_bytes=given.giant, large_bytes=given.large)
        if "growth" in given.tasks:
            corpus.add_growth()
        (top / "servers").mkdir()
        servers = Servers(top / "servers", corpus)
        try:
            servers.start({mode.server for mode in modes} | {API})
            for kind, why in servers.missing.items():
                results.failures.append(f"no server {kind}: {why}")
            for profile in given.rtt:
                some = modes if profile != REAL else [mode for mode in modes if mode.is_ours]
                with_curl = profile != REAL and (not given.peers or CURL in given.peers)
                run = Run(results=results, servers=servers, corpus=corpus, top=top, profile=profile)
                with _times_of(profile, servers):
                    for number in range(given.runs if profile != REAL else 1):
                        # Who comes first pays for memory that the machine has to find anew.
                        first = number % max(1, len(some))
                        turns = [*some[first:], *some[:first]]
                        run.carry_out(given.tasks, turns, with_curl=with_curl)
                        # A long run that is ended must not have been for nothing.
                        given.json.write_text(_json_text(results))
        except KeyboardInterrupt:
            results.failures.append("ended before all was measured")
        finally:
            servers.close()
    names = [mode.name for mode in modes] + [CURL]
    ours = frozenset(mode.name for mode in modes if mode.is_ours)
    lines = table(results, names, ours)
    lines += requests_table(results)
    lines += [f"- {failure}" for failure in dict.fromkeys(results.failures)]
    print("\n".join(lines))
    given.json.write_text(_json_text(results))
    return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One round of all tasks and modes in one profile."""

    results: Results
    servers: Servers
    corpus: Corpus
    top: Path
    profile: str

    @property
    def round_trip_s(self) -> float:
        """How long the line makes a round trip."""
        return 0.0 if self.profile == REAL else int(self.profile) / 1000

    def carry_out(self, tasks: Sequence[str], modes: Sequence[Mode], *, with_curl: bool) -> None:
        """Let the modes take turns at each task."""
        for task in tasks:
            for mode in modes:
                if mode.server not in self.servers.running or not mode.is_installed:
                    self.results.failures.append(f"{mode.name}: not installed, or without a server")
                elif (not mode.only or task in mode.only) and (mode.is_ours or task not in OURS):
                    self._measure(task, mode)
            if with_curl:
                self._measure_curl(task)

    def _measure(self, task: str, mode: Mode) -> None:
        key = f"{self.profile} ms, {task}, {mode.name}"
        print(key, file=sys.stderr)
        with line_to(self.servers, mode.server, self.round_trip_s) as port:
            arena = Arena(
                mode=mode,
                servers=self.servers,
                corpus=self.corpus,
                directory=self.top / f"at-{mode.name}",
                port=port,
            )
            arena.directory.mkdir(exist_ok=True)
            try:
                if mode.is_ours and self.servers.service is not None:
                    self.servers.service.set_behaviour(ranges=mode.has_ranges)
                arena.count_from_zero()
                TASKS[task](arena, partial(self._record, mode.name))
            except Exception as error:  # noqa: BLE001  # one that fails must not stop the rest
                self.results.failures.append(f"{key}: {error}")
            finally:
                arena.stop()
            if mode.is_ours:
                self.results.requests[key] = arena.requests()

    def _measure_curl(self, task: str) -> None:
        with line_to(self.servers, API, self.round_trip_s) as port:
            settle()
            try:
                if self.servers.service is not None:
                    self.servers.service.set_behaviour(ranges=True)
                curl.measure(task, self.servers, self.corpus, port, partial(self._record, CURL))
            except (OSError, subprocess.SubprocessError) as error:
                self.results.failures.append(f"{self.profile} ms, {task}, curl: {error}")

    def _record(self, mode: str, figure: str, value: float) -> None:
        self.results.add(self.profile, figure, mode, value)


@contextmanager
def _times_of(profile: str, servers: Servers) -> Iterator[None]:
    """Let each call take as long as on the real service, inside the block, if that is meant."""
    service = servers.service
    if profile != REAL or service is None:
        yield
        return
    for route, seconds in REAL_TIMES_S.items():
        service.add_fault(route, "delay", seconds=seconds)
    try:
        yield
    finally:
        service.clear_faults()


def _words(text: str) -> list[str]:
    return [word for word in text.split(",") if word]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--tasks", type=_words, default=list(TASKS), help=", ".join(TASKS))
    parser.add_argument(
        "--rtt", type=_words, default=["0", "20", REAL], help="round trips in ms, or real"
    )
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--peers", type=_words, default=[], help=", ".join(m.name for m in ALL))
    parser.add_argument("--large", type=int, default=LARGE_BYTES, help="bytes of what is read")
    parser.add_argument("--giant", type=int, default=GIANT_BYTES, help="bytes of the biggest file")
    parser.add_argument("--json", type=Path, default=Path("bench-results.json"))
    return parser


def _json_text(results: Results) -> str:
    return json.dumps(_as_json(results), indent=1) + "\n"


def _as_json(results: Results) -> dict[str, object]:
    return {
        "when": time.strftime("%Y-%m-%d %H:%M:%S"),
        "processors": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "samples": [
            {"profile": profile, "figure": figure, "mode": mode, "values": values}
            for (profile, figure, mode), values in results.samples.items()
        ],
        "requests": results.requests,
        "failures": results.failures,
    }


if __name__ == "__main__":
    sys.exit(main())
