"""sqlite3 works on the mount with each of its journals."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from tests.scenarios.programs import run

pytestmark = pytest.mark.both_write_modes

ROWS = 300


@pytest.mark.parametrize("journal", ["delete", "truncate", "wal"])
def test_a_database_survives_commits_rollbacks_and_reopening(place: Path, journal: str) -> None:
    path = place / "rows.db"
    with closing(sqlite3.connect(path)) as database:
        database.execute(f"PRAGMA journal_mode={journal}")
        database.execute("CREATE TABLE numbers (value INTEGER PRIMARY KEY, text TEXT)")
        with database:
            database.executemany(
                "INSERT INTO numbers VALUES (?, ?)", [(n, f"row {n}" * 20) for n in range(ROWS)]
            )
        database.execute("DELETE FROM numbers")
        database.rollback()

    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert database.execute("SELECT count(*) FROM numbers").fetchone() == (ROWS,)
        with database:
            database.execute("UPDATE numbers SET text = 'changed' WHERE value % 2 = 0")
        database.execute("VACUUM")

    query = "PRAGMA integrity_check; SELECT count(*) FROM numbers WHERE text = 'changed';"
    assert run("sqlite3", path, query, cwd=place).split() == ["ok", str(ROWS // 2)]


def test_a_second_process_sees_the_rows_of_an_open_database(place: Path) -> None:
    path = place / "shared.db"
    with closing(sqlite3.connect(path)) as database:
        with database:
            database.execute("CREATE TABLE numbers (value INTEGER)")
            database.execute("INSERT INTO numbers VALUES (1)")

        assert run("sqlite3", path, "SELECT sum(value) FROM numbers;", cwd=place).strip() == "1"
        run("sqlite3", path, "INSERT INTO numbers VALUES (10);", cwd=place)
        assert database.execute("SELECT sum(value) FROM numbers").fetchone() == (11,)
