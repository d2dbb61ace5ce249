"""Editors save what was typed and leave nothing else behind."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.scenarios.programs import need, run, terminal
from tests.support.trees import contents

pytestmark = pytest.mark.both_write_modes


def test_vim_in_ex_mode_edits_and_writes(place: Path) -> None:
    (place / "text.txt").write_bytes(b"one\ntwo\n")
    run("vim", "-u", "NONE", "-es", "-c", "%s/two/three/", "-c", "wq", "text.txt", cwd=place)

    assert contents(place) == {"text.txt": b"one\nthree\n"}


def test_vim_saves_what_is_typed_into_an_old_and_a_new_file(place: Path, outside: Path) -> None:
    need("vim")
    (place / "text.txt").write_bytes(b"one\n")

    for name in ("text.txt", "new.txt"):
        with terminal(outside) as screen:
            screen.open("vim", "-u", "NONE", "-N", name, cwd=place)
            screen.wait_for(name)
            screen.write("ityped ")
            screen.wait_for("typed")
            screen.type("Escape")
            screen.write(":wq")
            screen.type("Enter")
            screen.wait_for_the_end()

    assert contents(place) == {"text.txt": b"typed one\n", "new.txt": b"typed \n"}


def test_vim_with_backups_writes_by_rename(place: Path) -> None:
    (place / "text.txt").write_bytes(b"one\n")
    run(
        *("vim", "-u", "NONE", "-es", "-c", "set backup writebackup backupcopy=no backupskip="),
        *("-c", "s/one/two/", "-c", "wq", "text.txt"),
        cwd=place,
    )

    assert contents(place) == {"text.txt": b"two\n", "text.txt~": b"one\n"}


def test_nano_saves_what_is_typed(place: Path, outside: Path) -> None:
    need("nano")
    (place / "text.txt").write_bytes(b"one\n")

    with terminal(outside) as screen:
        screen.open("nano", "-I", "text.txt", cwd=place)
        screen.wait_for("one")
        screen.write("typed ")
        screen.wait_for("typed")
        screen.type("C-o")
        screen.wait_for("Write")
        screen.type("Enter")
        screen.wait_for("Wrote")
        screen.type("C-x")
        screen.wait_for_the_end()

    assert contents(place) == {"text.txt": b"typed one\n"}


def test_emacs_saves_and_keeps_its_backup(place: Path) -> None:
    (place / "text.txt").write_bytes(b"one\n")
    # Without the predicate emacs keeps no backup of anything under /tmp.
    script = '(progn (setq backup-enable-predicate (lambda (_) t)) (find-file "text.txt")'
    script += '(insert "typed ") (save-buffer))'
    run("emacs", "-Q", "--batch", "--eval", script, cwd=place)

    assert contents(place) == {"text.txt": b"typed one\n", "text.txt~": b"one\n"}


def test_sed_edits_in_place(place: Path) -> None:
    (place / "text.txt").write_bytes(b"one\ntwo\n")
    run("sed", "-i", "s/two/three/", "text.txt", cwd=place)
    run("sed", "-i", "$d", "text.txt", cwd=place)

    assert contents(place) == {"text.txt": b"one\n"}


def test_a_desktop_editor_saves_through_its_temporary_file(place: Path) -> None:
    (place / "text.txt").write_bytes(b"old")
    temporary = place / ".goutputstream-X7F2A0"
    temporary.write_bytes(b"new")
    temporary.rename(place / "text.txt")

    assert contents(place) == {"text.txt": b"new"}


def test_midnight_commander_copies_a_file(place: Path, outside: Path) -> None:
    need("mc")
    (outside / "from").mkdir()
    (outside / "from/picked.bin").write_bytes(b"picked" * 1000)

    with terminal(outside) as screen:
        screen.open("mc", "--nosubshell", "-d", outside / "from", place, cwd=outside)
        screen.wait_for("picked.bin")
        screen.type("Down", "F5")
        screen.wait_for("to:")
        screen.type("Enter")
        screen.wait_for("picked.bin")
        screen.type("F10")
        screen.wait_for_the_end()

    assert contents(place) == {"picked.bin": b"picked" * 1000}
