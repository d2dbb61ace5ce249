"""The tables of the state database: overlay, local entries, unsent files, facts."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from ctrfs.disk.database import StateDatabase, blob_from_text, text_from_blob
from ctrfs.disk.facts import ServiceFacts
from ctrfs.disk.journal import (
    FolderMoveRow,
    Journal,
    MovingFile,
    StoredVersion,
    UnsentRow,
)
from ctrfs.disk.local_entries import LocalEntries, LocalFileRow
from ctrfs.disk.overlay import Overlay, OverlayRow
from ctrfs.errors import LocalDiskError, LocalDiskFullError

FILE = LocalFileRow(
    container_id="cntr_1", path=b"a/b", spool_name="0" * 32, size_bytes=3, mtime_ns=5, mode=None
)
VERSION = StoredVersion(
    container_id="cntr_1",
    file_id="a,b\udcff",
    stored_path="/mnt/data/fig\n.png",
    created_at_s=1_700_000_000,
    size_bytes=3,
)
UNSENT = UnsentRow(
    key="7",
    container_id="cntr_1",
    container_name="analysis",
    path=b"plots/fig\xff.png",
    spool_name="0" * 32,
    size_bytes=3,
    digest="ab" * 16,
    replaces=(VERSION, replace(VERSION, file_id="", size_bytes=None)),
    mtime_ns=400 * 10**18,
    mode=0o644,
    error="no route\nto host",
    since_s=1_700_000_000,
)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[StateDatabase]:
    database = StateDatabase(tmp_path / "state.db")
    yield database
    database.close()


@given(st.text(st.characters()))
def test_any_text_survives_the_database(text: str) -> None:
    assert text_from_blob(blob_from_text(text)) == text


def test_an_overlay_row_is_found_again_by_container_and_key(database: StateDatabase) -> None:
    overlay = Overlay(database)
    row = OverlayRow(mtime_ns=-(10**20), mode=0o7777)

    overlay.put("cntr_1", "/plots\udcff", row)
    overlay.put("cntr_2", "/plots\udcff", OverlayRow())

    assert overlay.load("cntr_1") == {"/plots\udcff": row}
    assert overlay.load("cntr_2") == {"/plots\udcff": OverlayRow()}


def test_an_overlay_row_moves_over_the_one_that_was_there(database: StateDatabase) -> None:
    overlay = Overlay(database)
    overlay.put("cntr_1", "old", OverlayRow(mode=1))
    overlay.put("cntr_1", "new", OverlayRow(mode=2))

    overlay.move("cntr_1", "old", "new")
    overlay.move("cntr_1", "new", "new")

    assert overlay.load("cntr_1") == {"new": OverlayRow(mode=1)}


def test_moving_an_entry_without_overlay_leaves_its_new_name_without(
    database: StateDatabase,
) -> None:
    overlay = Overlay(database)
    overlay.put("cntr_1", "new", OverlayRow(mode=2))

    overlay.move("cntr_1", "old", "new")

    assert overlay.load("cntr_1") == {}


def test_the_overlay_forgets_the_rows_put_longest_ago(database: StateDatabase) -> None:
    overlay = Overlay(database, rows_max=10)
    for number in range(10):
        overlay.put("cntr_1", str(number), OverlayRow(mode=number))

    overlay.put("cntr_1", "0", OverlayRow(mode=0))
    for number in range(10, 19):
        overlay.put("cntr_1", str(number), OverlayRow(mode=number))

    kept = overlay.load("cntr_1")
    assert len(kept) == 10
    assert "0" in kept
    assert "1" not in kept


def test_dropping_a_container_drops_its_rows_only(database: StateDatabase) -> None:
    overlay = Overlay(database)
    local = LocalEntries(database)
    for container_id in ("cntr_1", "cntr_2"):
        overlay.put(container_id, "key", OverlayRow(mode=1))
        local.add_folder(container_id, b"a")
        local.put_file(replace(FILE, container_id=container_id))

    overlay.drop_container("cntr_1")
    local.drop_container("cntr_1")

    assert overlay.load("cntr_1") == {}
    assert overlay.load("cntr_2") == {"key": OverlayRow(mode=1)}
    assert local.folders("cntr_1") == []
    assert local.folders("cntr_2") == [b"a"]
    assert local.all_files() == [replace(FILE, container_id="cntr_2")]


def test_renaming_a_folder_takes_along_what_is_below_it_and_nothing_else(
    database: StateDatabase,
) -> None:
    local = LocalEntries(database)
    for path in (b"a", b"a/x", b"a/x/y", b"ab", b"b/a"):
        local.add_folder("cntr_1", path)
    for path in (b"a/f", b"a/x/f", b"abf", b"f"):
        local.put_file(replace(FILE, path=path))

    local.rename_folder("cntr_1", b"a", b"c/d")

    assert local.folders("cntr_1") == [b"ab", b"b/a", b"c/d", b"c/d/x", b"c/d/x/y"]
    assert [row.path for row in local.files("cntr_1")] == [b"abf", b"c/d/f", b"c/d/x/f", b"f"]


def test_renaming_a_folder_into_itself_twice_over_keeps_every_entry(
    database: StateDatabase,
) -> None:
    local = LocalEntries(database)
    for path in (b"a", b"a/a", b"a/a/a"):
        local.add_folder("cntr_1", path)

    local.rename_folder("cntr_1", b"a/a", b"a/b")

    assert local.folders("cntr_1") == [b"a", b"a/b", b"a/b/a"]


def test_a_local_file_is_put_and_removed(database: StateDatabase) -> None:
    local = LocalEntries(database)
    local.put_file(FILE)
    local.put_file(replace(FILE, size_bytes=9))
    assert local.files("cntr_1") == [replace(FILE, size_bytes=9)]

    local.remove_file("cntr_1", b"a/b")

    assert local.files("cntr_1") == []


def test_an_unsent_file_is_on_disk_when_put_returns(tmp_path: Path) -> None:
    database = StateDatabase(tmp_path / "state.db")
    other = StateDatabase(tmp_path / "state.db")

    Journal(database).put(UNSENT)
    Journal(database).settle(deletes=[VERSION])

    assert Journal(other).rows() == [UNSENT]
    assert Journal(other).deletes() == [VERSION]
    assert database.rows("PRAGMA synchronous")[0][0] == 1
    database.close()
    other.close()


def test_an_unsent_file_and_a_pending_delete_are_removed_once_done(
    database: StateDatabase,
) -> None:
    journal = Journal(database)
    journal.put(UNSENT)
    journal.put(replace(UNSENT, key="8", since_s=1))
    assert [row.key for row in journal.rows()] == ["8", "7"]

    journal.settle("7", deletes=[VERSION])
    journal.remove_delete(VERSION)

    assert [row.key for row in journal.rows()] == ["8"]
    assert journal.deletes() == []


def test_a_second_put_changes_all_of_a_row_but_since_when_it_is_there(
    database: StateDatabase,
) -> None:
    journal = Journal(database)
    journal.put(UNSENT)

    journal.put(replace(UNSENT, path=b"other", replaces=(), since_s=1_800_000_000))

    assert journal.rows() == [replace(UNSENT, path=b"other", replaces=())]


def test_files_below_a_renamed_folder_get_their_new_paths(database: StateDatabase) -> None:
    journal = Journal(database)
    journal.put(replace(UNSENT, key="1", path=b"a/b/c"))
    journal.put(replace(UNSENT, key="2", path=b"ab/c"))
    journal.put(replace(UNSENT, key="3", path=b"a/c", container_id="cntr_2"))

    journal.move_below("cntr_1", b"a", b"x/y")

    assert [row.path for row in journal.rows()] == [b"x/y/b/c", b"ab/c", b"a/c"]


def test_the_renaming_of_a_folder_is_remembered_with_all_its_files(
    database: StateDatabase,
) -> None:
    journal = Journal(database)
    move = FolderMoveRow(
        container_id="cntr_1",
        old_path=b"a\xff",
        new_path=b"b",
        files=(MovingFile(inner_path=b"in\xff/ner", version=VERSION),),
    )
    journal.put_folder_move(move)
    assert journal.folder_moves() == [move]

    journal.remove_folder_move("cntr_1", b"b")

    assert journal.folder_moves() == []


def test_steps_taken_together_are_undone_together(database: StateDatabase) -> None:
    journal = Journal(database)
    journal.put(UNSENT)

    with pytest.raises(LocalDiskError), journal.together():  # noqa: PT012  # what is tested
        journal.settle(UNSENT.key, deletes=[VERSION])
        LocalEntries(database).put_file(FILE)
        database.execute("INSERT INTO nowhere VALUES (1)")

    assert journal.rows() == [UNSENT]
    assert journal.deletes() == []
    assert LocalEntries(database).files("cntr_1") == []


def test_a_row_that_makes_no_sense_hides_no_other_and_keeps_its_bytes(
    database: StateDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    journal = Journal(database)
    journal.put(UNSENT)
    journal.put(replace(UNSENT, key="8", spool_name="1" * 32))
    database.execute("UPDATE unsent SET replaces = 'nonsense' WHERE spool_name = ?", ("1" * 32,))

    assert journal.rows() == [UNSENT]
    assert journal.spool_names() == {"0" * 32, "1" * 32}
    assert "cannot be read" in caplog.text


def test_the_journal_of_the_first_version_is_carried_over(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    with closing(sqlite3.connect(path)) as old:
        old.executescript(
            """CREATE TABLE unsent (
                key BLOB PRIMARY KEY, container_id BLOB NOT NULL, container_name BLOB NOT NULL,
                path BLOB NOT NULL, stored_name BLOB NOT NULL, spool_name TEXT NOT NULL,
                size_bytes INTEGER NOT NULL, digest TEXT NOT NULL, replaces BLOB NOT NULL,
                mtime_ns TEXT NOT NULL, mode INTEGER, error BLOB NOT NULL,
                since_s INTEGER NOT NULL) WITHOUT ROWID;
            CREATE TABLE pending_delete (container_id BLOB, file_id BLOB);
            INSERT INTO unsent VALUES (CAST('7' AS BLOB), CAST('cntr_1' AS BLOB),
                CAST('work' AS BLOB), CAST('a.txt' AS BLOB), CAST('a.txt' AS BLOB), 'spool', 3,
                'ab', CAST('' AS BLOB), '5', NULL, CAST('no route' AS BLOB), 9);
            PRAGMA user_version = 1;"""
        )
    database = StateDatabase(path)

    (row,) = Journal(database).rows()
    database.close()

    assert (row.key, row.path, row.spool_name, row.replaces) == ("7", b"a.txt", "spool", ())


def test_a_fact_is_remembered_and_replaced(database: StateDatabase) -> None:
    facts = ServiceFacts(database)
    assert facts.get("slash_mode") is None

    facts.set("slash_mode", "keep")
    facts.set("slash_mode", "encode")

    assert facts.get("slash_mode") == "encode"


def test_a_transaction_that_fails_changes_nothing(database: StateDatabase) -> None:
    facts = ServiceFacts(database)

    def change_and_fail() -> None:
        with database.transaction(durable=True):
            facts.set("a", "b")
            database.execute("no statement")

    with pytest.raises(LocalDiskError):
        change_and_fail()

    assert facts.get("a") is None


def test_a_full_disk_is_told_apart(database: StateDatabase) -> None:
    database.execute("PRAGMA max_page_count = 1")

    with pytest.raises(LocalDiskFullError):
        ServiceFacts(database).set("a", "b" * 1_000_000)
    assert ServiceFacts(database).get("a") is None


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state.db").write_bytes(b"not a database" * 100)

    with pytest.raises(LocalDiskError, match=r"state\.db"):
        StateDatabase(tmp_path / "state.db")


def test_a_database_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    database = StateDatabase(tmp_path / "state.db")
    database.execute("PRAGMA user_version = 99")
    database.close()

    with pytest.raises(LocalDiskError, match="newer"):
        StateDatabase(tmp_path / "state.db")
