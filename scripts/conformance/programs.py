"""Programs that people use, at length: sqlite3 in two processes, rsync, tar, cp, an office suite."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Final

from scripts.conformance.arena import Arena, Ended, Judge
from scripts.conformance.results import Case, failed, passed
from tests.support.trees import contents, plant_tree, stored
from tests.support.write_modes import sync_directory

LIMIT_S: Final = 120
OFFICE_LIMIT_S: Final = 240
ADDITIONS: Final = 60
PROCESSES: Final = 2


def sqlite(arena: Arena) -> Iterator[Case]:
    """Let two processes add to one row, with each journal; nothing may be lost."""
    for journal in ("delete", "truncate", "persist", "wal"):
        path = arena.place / f"{journal}.db"
        with closing(sqlite3.connect(path)) as database:
            database.execute(f"PRAGMA journal_mode={journal}")
            database.execute("CREATE TABLE sums (value INTEGER)")
            database.execute("INSERT INTO sums VALUES (0)")
            database.commit()
        yield _two_writers(arena, path)
        yield arena.case(
            f"{journal}: the sum and the integrity",
            *("sqlite3", path, "PRAGMA integrity_check; SELECT value FROM sums;"),
            limit_s=LIMIT_S,
            judge=_expect(f"ok\n{PROCESSES * ADDITIONS}\n"),
        )
        yield arena.case(f"{journal}: vacuum", "sqlite3", path, "VACUUM;", limit_s=LIMIT_S)
    arena.mount.restart()
    for journal in ("delete", "wal"):
        yield arena.case(
            f"{journal}: the same after a remount",
            *("sqlite3", arena.place / f"{journal}.db"),
            "PRAGMA integrity_check; SELECT value FROM sums;",
            limit_s=LIMIT_S,
            judge=_expect(f"ok\n{PROCESSES * ADDITIONS}\n"),
        )


def copies(arena: Arena) -> Iterator[Case]:
    """Copy a tree in by rsync, cp and tar; each program's own comparison must find nothing."""
    tree = arena.outside / "tree"
    tree.mkdir()
    plant_tree(tree, files=150)
    place = arena.place
    nothing = _expect("")
    rsync = ("rsync", "-a", "--itemize-changes", f"{tree}/", place / "synced")
    yield arena.case("rsync", *rsync, limit_s=LIMIT_S)
    # The folders' times are this machine's: the second run has nothing to do, not even there.
    yield arena.case("rsync again", *rsync, limit_s=LIMIT_S, judge=nothing)
    yield arena.case("rsync by checksum", *rsync, "-c", limit_s=LIMIT_S, judge=nothing)
    yield _change_and_sync(arena, tree)
    yield arena.case("cp -a", "cp", "-a", tree, place / "copied", limit_s=LIMIT_S)
    yield arena.case("diff -r", "diff", "-r", tree, place / "copied", limit_s=LIMIT_S)
    archive = arena.outside / "tree.tar"
    yield arena.case("tar out of the mount", "tar", "cf", archive, "copied", limit_s=LIMIT_S)
    yield arena.case("tar --compare", "tar", "df", archive, limit_s=LIMIT_S, judge=nothing)
    extracted = arena.folder("extracted")
    yield arena.case("tar into it", "tar", "xpf", archive, "-C", extracted, limit_s=LIMIT_S)
    yield arena.case("tar in it", "tar", "czf", "inside.tgz", "extracted", limit_s=LIMIT_S)
    yield arena.case("tar from it", "tar", "tzf", "inside.tgz", limit_s=LIMIT_S)
    arena.mount.restart()
    yield arena.case("tar --compare after a remount", "tar", "df", archive, limit_s=LIMIT_S)
    yield arena.case("rsync after a remount", *rsync, limit_s=LIMIT_S, judge=_no_file_sent)
    yield arena.case("rm -r", "rm", "-r", "synced", "copied", limit_s=LIMIT_S)
    sync_directory(place)
    is_alike = stored(arena.service, place.name) == contents(place)
    name = "the service holds what is shown"
    yield passed(name) if is_alike else failed(name, "it does not")


def office(arena: Arena) -> Iterator[Case]:
    """Let LibreOffice convert a document that lies on the mount, there and back."""
    (arena.place / "words.txt").write_text("Some words of a page.\n" * 200)
    profile = f"-env:UserInstallation=file://{arena.outside / 'profile'}"
    for source, target in (
        ("words.txt", "odt:writer8"),
        ("words.odt", "docx:MS Word 2007 XML"),
        ("words.docx", "rtf:Rich Text Format"),
        ("words.rtf", "txt:Text"),
    ):
        made = arena.place / f"words.{target.partition(':')[0]}"
        yield arena.case(
            f"{source} to {made.name}",
            *("soffice", profile, "--headless", "--convert-to", target),
            *("--outdir", arena.place, arena.place / source),
            limit_s=OFFICE_LIMIT_S,
            judge=_expect_file(made),
        )
    name = "the words are still there"
    # The first text was replaced by the last step's.
    text = (arena.place / "words.txt").read_text(errors="replace")
    yield passed(name) if text.count("Some words") == 200 else failed(name, text[:200])


def add(path: Path, times: int) -> None:
    """Add 1 to the row, each time in a transaction; waits for others as sqlite does."""
    with closing(sqlite3.connect(path, timeout=60, isolation_level=None)) as database:
        for _ in range(times):
            database.execute("BEGIN IMMEDIATE")
            database.execute("UPDATE sums SET value = value + 1")
            database.execute("COMMIT")


def _two_writers(arena: Arena, path: Path) -> Case:
    command = (sys.executable, "-m", "scripts.conformance.programs", path, str(ADDITIONS))
    with ThreadPoolExecutor(PROCESSES) as pool:
        writers = [
            pool.submit(arena.run, *command, cwd=Path.cwd(), limit_s=LIMIT_S)
            for _ in range(PROCESSES)
        ]
        ended = [writer.result() for writer in writers]
    name = f"{path.stem}: {PROCESSES} processes, {ADDITIONS} transactions each"
    bad = [f"{each.code}: {each.words[-300:]}" for each in ended if each.code != 0]
    return failed(name, " and ".join(bad)) if bad else passed(name)


def _change_and_sync(arena: Arena, tree: Path) -> Case:
    """Change one file, delete another; rsync must send the one and delete the other."""
    changed, gone = sorted(path for path in tree.rglob("*") if path.is_file())[:2]
    changed.write_bytes(b"changed\n")
    gone.unlink()
    return arena.case(
        "rsync --delete",
        *("rsync", "-a", "--delete", "--itemize-changes", f"{tree}/", arena.place / "synced"),
        limit_s=LIMIT_S,
        judge=lambda ended: (
            None
            if f"{gone.name}\n" in ended.words and changed.name in ended.words
            else f"unexpected: {ended.words}"
        ),
    )


def _expect(words: str) -> Judge:
    return lambda ended: None if ended.words == words else f"said {ended.words[:300]!r}"


def _expect_file(made: Path) -> Judge:
    return lambda ended: None if made.exists() else ended.words[-300:]


def _no_file_sent(ended: Ended) -> str | None:
    sent = [line for line in ended.words.splitlines() if line.startswith((">f", "<f", "*del"))]
    return f"sent {sent}" if sent else None


if __name__ == "__main__":
    add(Path(sys.argv[1]), int(sys.argv[2]))
