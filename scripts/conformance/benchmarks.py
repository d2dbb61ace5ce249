"""Old benchmarks of file systems, run for what they find wrong, not for their figures."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

from scripts.conformance.arena import Arena, Ended
from scripts.conformance.results import Case, skipped

LIMIT_S: Final = 180
# How fs_mark syncs: fs_mark -h.
SYNC_METHODS: Final[Mapping[int, str]] = {
    0: "no sync",
    1: "fsync before close",
    2: "sync once after all",
    3: "fsync each after all, opened again",
    4: "fsync in reverse order",
    5: "sync and fsync in reverse order",
    6: "sync and fsync each, opened again",
}
BONNIE: Final[Mapping[str, tuple[str, ...]]] = {
    "big file": ("-s", "64", "-r", "32", "-n", "0", "-f"),
    "big file, synced": ("-s", "32", "-r", "16", "-n", "0", "-f", "-b"),
    "many empty files": ("-s", "0", "-n", "1"),
    "many small files in folders": ("-s", "0", "-n", "1:3000:0:4"),
}


def dbench(arena: Arena) -> Iterator[Case]:
    """Play the calls of a file server's clients: one client, then four at once."""
    for clients in (1, 4):
        folder = arena.folder(f"clients {clients}")
        yield arena.case(
            f"{clients} clients",
            *("dbench", "-D", str(folder), "-t", "12", "--skip-cleanup", str(clients)),
            cwd=arena.outside,
            limit_s=LIMIT_S,
            judge=_dbench_complaint,
        )


def bonnie(arena: Arena) -> Iterator[Case]:
    """Write, rewrite and read a big file; create, stat and delete many in both orders."""
    for name, options in BONNIE.items():
        folder = arena.folder(name)
        yield arena.case(
            name,
            *("bonnie++", "-d", str(folder), "-u", "root", "-q", *options),
            cwd=arena.outside,
            limit_s=LIMIT_S,
        )
    yield skipped(
        "big file by single bytes",
        "one write(2) a byte, 20 million of them, each of which is a message to the daemon",
    )


def postmark(arena: Arena) -> Iterator[Case]:
    """Play a mail server: short files created, read, appended to and deleted."""
    for name, buffered in {"buffered": "true", "raw": "false"}.items():
        script = arena.outside / f"postmark {name}"
        folder = arena.folder(f"mail-{name}")
        script.write_text(
            f"set location {folder}\nset number 200\nset transactions 1000\n"
            f"set size 100 20000\nset subdirectories 5\nset seed 7\n"
            f"set buffering {buffered}\nrun\nquit\n"
        )
        yield arena.case(
            name,
            *("postmark", script),
            cwd=arena.outside,
            limit_s=LIMIT_S,
            judge=_postmark_complaint,
        )


def fs_mark(arena: Arena) -> Iterator[Case]:
    """Write many files by two threads, with each way of syncing."""
    for number, name in SYNC_METHODS.items():
        # Relative, since fs_mark takes no more than 40 bytes of a path.
        folder = arena.folder(f"method{number}").name
        yield arena.case(
            name,
            *("fs_mark", "-d", folder, "-n", "100", "-s", "10240", "-t", "2", "-S", str(number)),
            limit_s=LIMIT_S,
        )


def _dbench_complaint(ended: Ended) -> str | None:
    """Return what dbench says of calls that ended otherwise than in its recording."""
    lines = [line for line in ended.words.splitlines() if "ERROR" in line or "failed" in line]
    if lines:
        return " | ".join(lines[:5])
    return None if re.search(r"^Throughput [1-9]", ended.words, re.MULTILINE) else "did nothing"


def _postmark_complaint(ended: Ended) -> str | None:
    """Postmark ends with 0 even where it could not write: its words tell."""
    if "Error" in ended.words or "Data:" not in ended.words:
        return ended.words[-500:]
    return None
