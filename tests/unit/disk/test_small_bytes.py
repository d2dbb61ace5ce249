from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager
from hashlib import blake2b
from pathlib import Path

import pytest
from msgspec.structs import replace

from ctrfs.clock import SystemClock
from ctrfs.disk.database import StateDatabase
from ctrfs.disk.journal import Journal, UnsentRow
from ctrfs.disk.small_bytes import bring_back_small_bytes
from ctrfs.disk.state_dir import StateDirectory

CONTENT = b"some bytes that were closed"
NAME = "0123456789abcdef" * 2
ROW = UnsentRow(
    key="1",
    container_id="c",
    container_name="work",
    path=b"a.txt",
    spool_name=NAME,
    size_bytes=len(CONTENT),
    digest=blake2b(CONTENT, digest_size=16).hexdigest(),
    replaces=(),
    mtime_ns=1,
    mode=None,
    error="",
    since_s=1,
)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[StateDatabase]:
    database = StateDatabase(tmp_path / "state.db")
    yield database
    database.close()


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    spool = tmp_path / "spool"
    spool.mkdir()
    return spool


def small_bytes_in(database: StateDatabase) -> int:
    return len(database.rows("SELECT 1 FROM small_bytes"))


def keep(database: StateDatabase, row: UnsentRow, content: bytes) -> None:
    journal = Journal(database)
    with journal.together():
        journal.put(row)
        journal.put_bytes(row.key, content)


@pytest.mark.parametrize("left", [None, b"", CONTENT[:5], b"\0" * 100, CONTENT])
def test_what_a_power_cut_has_left_of_a_small_file_becomes_what_was_closed(
    database: StateDatabase, spool: Path, left: bytes | None
) -> None:
    keep(database, ROW, CONTENT)
    if left is not None:
        (spool / NAME).write_bytes(left)

    bring_back_small_bytes(database, spool)

    assert (spool / NAME).read_bytes() == CONTENT
    assert (spool / NAME).stat().st_mode & 0o077 == 0 or left is not None
    assert small_bytes_in(database) == 0


def test_bytes_of_an_earlier_record_never_take_the_place_of_later_ones(
    database: StateDatabase, spool: Path
) -> None:
    keep(database, ROW, CONTENT)
    later = b"longer bytes, synced in the spool" * 10
    (spool / NAME).write_bytes(later)
    digest = blake2b(later, digest_size=16).hexdigest()
    Journal(database).put(replace(ROW, digest=digest, size_bytes=len(later)))

    bring_back_small_bytes(database, spool)

    assert (spool / NAME).read_bytes() == later
    assert small_bytes_in(database) == 0


def test_a_name_that_no_spool_file_has_is_not_written_to(
    database: StateDatabase, spool: Path
) -> None:
    keep(database, replace(ROW, spool_name="../elsewhere"), CONTENT)

    bring_back_small_bytes(database, spool)

    assert not (spool.parent / "elsewhere").exists()


def test_bytes_go_with_their_record(database: StateDatabase) -> None:
    keep(database, ROW, CONTENT)

    Journal(database).settle(ROW.key)

    assert small_bytes_in(database) == 0


def test_a_database_of_the_version_before_gets_the_table(tmp_path: Path, spool: Path) -> None:
    path = tmp_path / "older.db"
    StateDatabase(path).close()
    older = sqlite3.connect(path)
    older.execute("DROP TABLE small_bytes")
    older.execute("PRAGMA user_version = 2")
    older.close()

    database = StateDatabase(path)
    keep(database, ROW, CONTENT)
    bring_back_small_bytes(database, spool)
    database.close()

    assert (spool / NAME).read_bytes() == CONTENT


def test_a_disk_that_refuses_leaves_the_bytes_in_the_database_and_lets_the_mount_begin(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def opened() -> AbstractContextManager[StateDirectory]:
        return StateDirectory.open(tmp_path / "ctrfs", "openai:", clock=SystemClock())

    with opened() as state:
        keep(state.database, ROW, CONTENT)
        (state.spool_path / NAME).mkdir()

    with opened() as state:
        assert small_bytes_in(state.database) == 1
        assert "stay in the database" in caplog.text
        (state.spool_path / NAME).rmdir()

    with opened() as state:
        assert (state.spool_path / NAME).read_bytes() == CONTENT
        assert small_bytes_in(state.database) == 0
