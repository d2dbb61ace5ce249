"""A damaged state directory: a clear error or rows that make sense, and nothing is deleted."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.unit.disk.clocks import StoppedClock

from ctrfs.disk.facts import ServiceFacts
from ctrfs.disk.journal import Journal, UnsentRow
from ctrfs.disk.local_entries import LocalEntries
from ctrfs.disk.overlay import Overlay
from ctrfs.disk.reading import read_slot
from ctrfs.disk.spool import SpoolDirectory
from ctrfs.disk.state_dir import StateDirectory
from ctrfs.disk.takeover import take_over_free_slots
from ctrfs.errors import LocalDiskError, MountError

FUZZ = settings.get_profile("fuzz")
SOURCE = "openai: https://api.openai.com/v1"
COLUMNS = {
    "unsent": ["key", "container_id", "container_name", "path", "spool_name", "size_bytes", "digest", "replaces", "mtime_ns", "mode", "error", "since_s"],
    "pending_delete": ["container_id", "file_id", "stored_path", "created_at_s", "size_bytes"],
    "folder_move": ["container_id", "new_path", "old_path", "files"],
    "pending_rmdir": ["container_id"],
    "local_file": ["container_id", "path", "spool_name", "size_bytes", "mtime_ns", "mode"],
    "local_folder": ["container_id", "path"],
    "overlay": ["sequence", "container_id", "key", "mtime_ns", "mode"],
    "fact": ["name", "value"],
}  # fmt: skip
values = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.binary(max_size=12),
    st.text(st.characters(codec="utf-8"), max_size=12),
    st.sampled_from(
        ["[]", "[[]]", "{}", '[["a","b","c",1,2]]', "[" * 5000, "1e999", "9" * 5000, "../../etc"]
    ),
    st.sampled_from(
        ["..", "a\0b", "/etc/passwd", "0" * 32, b"\xff\xfe", b"../..", b"\xed\xa0\x80"]
    ),
)
planted_rows = st.sampled_from(sorted(COLUMNS)).flatmap(
    lambda table: st.tuples(st.just(table), st.tuples(*(values for _ in COLUMNS[table])))
)


@contextmanager
def left_behind(*, bytes_kept: bytes = b"precious") -> Iterator[Path]:
    """Provide a base directory in which an earlier mount has left one unsent file."""
    with tempfile.TemporaryDirectory() as scratch:
        base = Path(scratch) / "base"
        with opened(base) as state:
            spool = SpoolDirectory(state.spool_path, bytes_max=1 << 20)
            file = spool.create()
            file.pwrite(0, bytes_kept)
            Journal(state.database).put(unsent(file.name, len(bytes_kept)))
            spool.close()
        yield base
        kept = [path.read_bytes() for path in base.rglob("*") if path.parent.name == "spool"]
        assert bytes_kept in kept


def unsent(spool_name: str, size_bytes: int) -> UnsentRow:
    return UnsentRow(
        key="k",
        container_id="cntr_1",
        container_name="box",
        path=b"file",
        spool_name=spool_name,
        size_bytes=size_bytes,
        digest="",
        replaces=(),
        mtime_ns=1,
        mode=None,
        error="",
        since_s=1,
    )


@contextmanager
def opened(base: Path) -> Iterator[StateDirectory]:
    with StateDirectory.open(base, SOURCE, clock=StoppedClock()) as state:
        yield state


def read_everything(state: StateDirectory) -> None:
    """Read each table as a mount does."""
    journal = Journal(state.database)
    for row in journal.rows():
        assert isinstance(row.path, bytes)
        assert isinstance(row.size_bytes, int)
    journal.deletes()
    journal.folder_moves()
    journal.rmdirs()
    journal.spool_names()
    entries = LocalEntries(state.database)
    entries.all_files()
    entries.folders("cntr_1")
    Overlay(state.database).load("cntr_1")
    ServiceFacts(state.database).get("a")


def plant(path: Path, rows: list[tuple[str, tuple[object, ...]]]) -> None:
    """Write rows as no mount would, keys and constraints permitting."""
    connection = sqlite3.connect(path, isolation_level=None)
    for table, row in rows:
        marks = ", ".join("?" * len(row))
        names = ", ".join(COLUMNS[table])
        try:
            connection.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", row)  # noqa: S608  # our own names
        except sqlite3.Error:
            continue
    connection.close()


@settings(FUZZ)
@given(st.lists(planted_rows, max_size=4))
@example([("local_file", (b"cntr_1", b"f", "a\0b", 1, "1", None))])
@example([("local_file", (b"cntr_1", b"f", "..", 1, "no number", None))])
@example([("overlay", (1, b"cntr_1", b"f", "9" * 5000, None))])
def test_rows_that_no_mount_wrote_cost_no_bytes(
    rows: list[tuple[str, tuple[object, ...]]],
) -> None:
    with left_behind() as base:
        [slot] = base.glob("*/0")
        plant(slot / "state.db", rows)

        for act in (lambda: read_slot(slot), lambda: open_and_read(base)):
            try:
                act()
            except (LocalDiskError, MountError) as error:
                assert "\n" not in str(error)


def open_and_read(base: Path) -> None:
    with opened(base) as state:
        read_everything(state)


@settings(FUZZ)
@given(st.lists(planted_rows, max_size=3))
@example([("local_file", (b"cntr_1", b"f", "a\0b", 1, "1", None))])
def test_a_mount_beside_takes_over_damaged_rows_or_leaves_them(
    rows: list[tuple[str, tuple[object, ...]]],
) -> None:
    with left_behind() as base:
        [slot] = base.glob("*/0")
        plant(slot / "state.db", rows)
        slot.rename(slot.with_name("1"))

        try:
            with opened(base) as state:
                take_over_free_slots(state, clock=StoppedClock())
                read_everything(state)
        except (LocalDiskError, MountError) as error:
            assert "\n" not in str(error)


@settings(FUZZ)
@given(st.binary(max_size=300), st.integers(0, 8192), st.booleans())
@example(b"", 0, True)
@example(b"not a database at all", 0, True)
@example(b"SQLite format 3\0", 0, True)
@example(b"\xc2\x80", 3279, False)  # a column has another name
@example(b"'", 3434, False)  # what SQLite quotes of it has lines
def test_a_damaged_database_file_is_a_clear_error_and_stays(
    damage: bytes, offset: int, is_cut: bool
) -> None:
    with left_behind() as base:
        [slot] = base.glob("*/0")
        path = slot / "state.db"
        content = path.read_bytes()
        rest = b"" if is_cut else content[offset + len(damage) :]
        path.write_bytes(content[:offset] + damage + rest)

        for act in (lambda: read_slot(slot), lambda: open_and_read(base)):
            try:
                act()
            except (LocalDiskError, MountError) as error:
                assert "\n" not in str(error)
        assert path.exists()


@settings(FUZZ)
@given(st.binary(max_size=80))
@example(b"\xff")
@example("²".encode())
@example(b"9" * 70)
@example(b"-1")
def test_a_damaged_format_file_is_a_clear_error(content: bytes) -> None:
    with left_behind() as base:
        [slot] = base.glob("*/0")
        (slot / "format").write_bytes(content)

        try:
            open_and_read(base)
        except (LocalDiskError, MountError) as error:
            assert "\n" not in str(error)
