from __future__ import annotations

import pytest

from ctrfs.cli.output import local_time, print_json, print_table, printable


def test_a_name_cannot_control_the_terminal() -> None:
    assert printable("a\x1b[31m\nb\u202e") == "a\\x1b[31m\\nb\\u202e"


def test_a_table_shows_names_as_they_are_and_whole(capsys: pytest.CaptureFixture[str]) -> None:
    long_name = "n" * 300

    print_table(["NAME", "ID"], [["[red]x[/red]", "1"], [long_name, "2"]])

    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["NAME", "ID"]
    assert lines[1].split() == ["[red]x[/red]", "1"]
    assert lines[2].split() == [long_name, "2"]


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_row_is_one_line_however_narrow_the_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *, is_terminal: bool
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("TTY_COMPATIBLE", "1" if is_terminal else "0")
    row = ["analysis", "cntr_" + "0" * 48, "running", "ü漢" * 30]

    print_table(["NAME", "ID", "STATUS", "NOTE"], [row])

    assert [line.split() for line in capsys.readouterr().out.splitlines()][1:] == [row]


def test_json_is_one_array(capsys: pytest.CaptureFixture[str]) -> None:
    print_json([{"name": "ü", "bytes": None}])

    assert capsys.readouterr().out == '[\n  {\n    "name": "\\u00fc",\n    "bytes": null\n  }\n]\n'


def test_a_time_beyond_all_calendars_is_shown_as_a_number() -> None:
    assert local_time(10**18) == str(10**18)
