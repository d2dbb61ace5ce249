"""The judge of the crash tests must itself tell right from wrong."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from tests.crash.ledger import Kind, Ledger, Operation, World
from tests.crash.worker import content_of

SAVE = Operation(kind=Kind.SAVE, path="w/a", seed=1, size=10)
RENAME = Operation(kind=Kind.RENAME, path="w/a", to="w/b")
OLD: World = {"w": None, "w/a": b"a", "w/b": b"b"}


def ledger_of(tmp_path: Path, lines: str, *operations: Operation) -> Ledger:
    ledger = Ledger(worlds=[OLD])
    record = tmp_path / "ledger"
    record.write_text(lines)
    ledger.read(record, operations)
    return ledger


def test_what_was_acknowledged_must_be_there(tmp_path: Path) -> None:
    ledger = ledger_of(tmp_path, "begin 0\ndone 0\n", SAVE)

    assert ledger.possible() == [{**OLD, "w/a": content_of(1, 10)}]


def test_what_was_in_flight_is_old_or_new_and_never_half(tmp_path: Path) -> None:
    ledger = ledger_of(tmp_path, "begin 0\n", SAVE)

    assert ledger.possible() == [OLD, {**OLD, "w/a": content_of(1, 10)}]


def test_a_rename_in_flight_leaves_neither_both_names_nor_none(tmp_path: Path) -> None:
    ledger = ledger_of(tmp_path, "begin 0\n", RENAME)

    assert ledger.possible() == [OLD, {"w": None, "w/b": b"a"}]


def test_what_failed_may_have_happened(tmp_path: Path) -> None:
    ledger = ledger_of(tmp_path, f"begin 0\nfailed 0 {errno.EIO}\n", SAVE)

    assert len(ledger.possible()) == 2


def test_what_can_only_fail_changes_nothing(tmp_path: Path) -> None:
    unlink = Operation(kind=Kind.UNLINK, path="w/missing")
    ledger = ledger_of(tmp_path, f"begin 0\nfailed 0 {errno.ENOENT}\n", unlink)

    assert ledger.possible() == [OLD]


def test_a_success_that_nothing_explains_is_told(tmp_path: Path) -> None:
    unlink = Operation(kind=Kind.UNLINK, path="w/missing")

    with pytest.raises(AssertionError, match="no possible state"):
        ledger_of(tmp_path, "begin 0\ndone 0\n", unlink)


def test_each_file_of_a_copied_tree_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "one").write_bytes(b"1")
    (source / "two").write_bytes(b"2")
    copy = Operation(kind=Kind.COPY_TREE, path=str(source), to="w/tree")
    ledger = ledger_of(tmp_path, "begin 0\n", copy)

    new = [{path: world[path] for path in world if path not in OLD} for world in ledger.possible()]
    folder: World = {"w/tree": None}
    one: World = {"w/tree/one": b"1"}
    two: World = {"w/tree/two": b"2"}
    assert len(new) == 5
    for expected in ({}, folder, {**folder, **one}, {**folder, **two}, {**folder, **one, **two}):
        assert expected in new
