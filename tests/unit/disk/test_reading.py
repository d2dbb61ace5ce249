"""What a state directory keeps, read from outside: nothing written, nothing in the way."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from msgspec.structs import replace
from tests.unit.disk.clocks import StoppedClock

from ctrfs.disk.database import StateDatabase
from ctrfs.disk.facts import SOURCE_FACT, ServiceFacts
from ctrfs.disk.journal import FolderMoveRow, Journal, StoredVersion, UnsentRow
from ctrfs.disk.local_entries import LocalEntries, LocalFileRow
from ctrfs.disk.reading import (
    FolderMove,
    LocalOnlyFile,
    PendingDelete,
    SlotContents,
    UnsentFile,
    open_spool_file,
    read_slot,
    slots_below,
)
from ctrfs.disk.state_dir import StateDirectory
from ctrfs.errors import LocalDiskError

SPOOL_NAME = "0" * 32
VERSION = StoredVersion(
    container_id="cntr_1",
    file_id="cfile_1",
    stored_path="/mnt/data/old.png",
    created_at_s=1_700_000_000,
    size_bytes=3,
)
UNSENT = UnsentRow(
    key="7",
    container_id="cntr_1",
    container_name="analysis",
    path=b"plots/fig\xff.png",
    spool_name=SPOOL_NAME,
    size_bytes=3,
    digest="ab" * 16,
    replaces=(VERSION,),
    mtime_ns=400 * 10**18,
    mode=0o644,
    error="no route\nto host",
    since_s=1_700_000_000,
)
# As version 1 of the program made them: docs/durability.md, disk.database.
VERSION_1 = """
    CREATE TABLE unsent (
        key BLOB PRIMARY KEY, container_id BLOB NOT NULL, container_name BLOB NOT NULL,
        path BLOB NOT NULL, stored_name BLOB NOT NULL, spool_name TEXT NOT NULL,
        size_bytes INTEGER NOT NULL, digest TEXT NOT NULL, replaces BLOB NOT NULL,
        mtime_ns TEXT NOT NULL, mode INTEGER, error BLOB NOT NULL, since_s INTEGER NOT NULL);
    CREATE TABLE pending_delete (container_id BLOB NOT NULL, file_id BLOB NOT NULL);
    CREATE TABLE local_file (
        container_id BLOB NOT NULL, path BLOB NOT NULL, spool_name TEXT NOT NULL,
        size_bytes INTEGER NOT NULL, mtime_ns TEXT NOT NULL, mode INTEGER);
    CREATE TABLE fact (name TEXT PRIMARY KEY, value BLOB NOT NULL);
    INSERT INTO unsent VALUES (x'37', x'63', x'64', x'65', x'65', '00', 3, '', x'', '5', NULL,
        x'', 9);
    INSERT INTO pending_delete VALUES (x'63', x'66');
    PRAGMA user_version = 1;
"""


def fill(database: StateDatabase) -> None:
    journal = Journal(database)
    journal.put(UNSENT)
    journal.settle(deletes=[VERSION])
    journal.put_rmdir("cntr_2")
    journal.put_folder_move(
        FolderMoveRow(container_id="cntr_1", old_path=b"a", new_path=b"b", files=())
    )
    LocalEntries(database).put_file(
        LocalFileRow(
            container_id="cntr_1",
            path=b".x.swp",
            spool_name=SPOOL_NAME,
            size_bytes=4,
            mtime_ns=1,
            mode=None,
        )
    )
    ServiceFacts(database).set(SOURCE_FACT, "openai:")


def kept_in(slot: Path) -> SlotContents:
    """What ``fill`` puts into a slot."""
    return SlotContents(
        source="openai:",
        unsent=(
            UnsentFile(
                id="7",
                container_id="cntr_1",
                container_name="analysis",
                path=b"plots/fig\xff.png",
                spool_path=slot / "spool" / SPOOL_NAME,
                size_bytes=3,
                digest="ab" * 16,
                mtime_ns=400 * 10**18,
                mode=0o644,
                error="no route\nto host",
                since_s=1_700_000_000,
            ),
        ),
        deletes=(
            PendingDelete(
                container_id="cntr_1", file_id="cfile_1", stored_path="/mnt/data/old.png"
            ),
        ),
        folder_moves=(FolderMove(container_id="cntr_1", old_path=b"a", new_path=b"b"),),
        rmdirs=("cntr_2",),
        local_only=(
            LocalOnlyFile(
                container_id="cntr_1",
                path=b".x.swp",
                spool_path=slot / "spool" / SPOOL_NAME,
                size_bytes=4,
            ),
        ),
    )


def test_everything_is_read_while_a_mount_writes_and_after_it(tmp_path: Path) -> None:
    with StateDirectory.open(tmp_path, "openai:", clock=StoppedClock()) as state:
        fill(state.database)
        with state.database.transaction():
            Journal(state.database).note_error("7", "not committed yet")

            assert read_slot(state.path) == kept_in(state.path)
    files = sorted(state.path.iterdir())
    with_error = replace(kept_in(state.path).unsent[0], error="not committed yet")

    assert read_slot(state.path).unsent == (with_error,)
    assert sorted(state.path.iterdir()) == files
    assert slots_below(tmp_path) == [state.path]


def test_what_a_killed_mount_has_committed_is_read(tmp_path: Path) -> None:
    """The log of a database that nobody has closed is all that has the rows."""
    copy = tmp_path / "copy"
    with StateDirectory.open(tmp_path, "openai:", clock=StoppedClock()) as state:
        fill(state.database)
        copy.mkdir()
        for name in ("state.db", "state.db-wal"):
            (copy / name).write_bytes((state.path / name).read_bytes())

    assert read_slot(copy) == kept_in(copy)


def test_the_first_version_of_the_journal_is_read_as_it_is(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "state.db")) as connection:
        connection.executescript(VERSION_1)
    before = (tmp_path / "state.db").read_bytes()

    found = read_slot(tmp_path)

    assert [(row.id, row.container_name, row.path) for row in found.unsent] == [("7", "d", b"e")]
    assert [(row.file_id, row.stored_path) for row in found.deletes] == [("f", "")]
    assert found.source is None
    assert (tmp_path / "state.db").read_bytes() == before


def test_rows_that_make_no_sense_do_not_hide_the_others(tmp_path: Path) -> None:
    with StateDirectory.open(tmp_path, "openai:", clock=StoppedClock()) as state:
        fill(state.database)
        Journal(state.database).put(replace(UNSENT, key="8"))
        state.database.execute("UPDATE unsent SET mtime_ns = 'soon' WHERE key = ?", (b"8",))

        found = read_slot(state.path)

    assert [row.id for row in found.unsent] == ["7"]
    assert found.damaged_rows == 1


@pytest.mark.parametrize("content", [b"no database at all" * 100, b""])
def test_a_file_that_is_no_database_of_ours_gives_an_error_or_nothing(
    tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "state.db").write_bytes(content)

    if content:
        with pytest.raises(LocalDiskError, match="not a database"):
            read_slot(tmp_path)
    else:
        assert read_slot(tmp_path) == SlotContents(source=None)


def test_a_missing_slot_and_one_of_a_newer_version_are_refused(tmp_path: Path) -> None:
    with pytest.raises(LocalDiskError, match="unable to open"):
        read_slot(tmp_path / "none")

    with closing(sqlite3.connect(tmp_path / "state.db")) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(LocalDiskError, match="newer version"):
        read_slot(tmp_path)


def test_only_files_of_the_spool_are_opened(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"x")
    (tmp_path / SPOOL_NAME).symlink_to(tmp_path / "secret")

    with pytest.raises(LocalDiskError, match="not the name"):
        open_spool_file(tmp_path / "secret")
    with pytest.raises(LocalDiskError, match="symbolic links"):
        open_spool_file(tmp_path / SPOOL_NAME)
