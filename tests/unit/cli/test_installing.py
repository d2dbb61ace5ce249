from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from ctrfs.cli.installing import install_helpers
from ctrfs.mount.helper_names import HELPERS


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@pytest.fixture
def program(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program of our name that lies where only its owner can change it."""
    made = folder / "bin" / "ctrfs"
    made.parent.mkdir()
    made.write_text("#!/bin/sh\n")
    made.chmod(0o755)
    monkeypatch.setattr(sys, "argv", [str(made)])
    return made


def install(directory: Path, *words: str) -> Result:
    return CliRunner().invoke(install_helpers, ["--directory", str(directory), *words])


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root's programs may be linked")


@needs_root
def test_each_name_becomes_a_link_and_a_second_run_changes_nothing(
    folder: Path, program: Path
) -> None:
    for _ in range(2):
        done = install(folder)

        assert done.exit_code == 0, done.output
        assert {each.name: each.readlink() for each in folder.iterdir() if each.is_symlink()} == (
            dict.fromkeys(HELPERS, program)
        )


@needs_root
def test_the_help_names_every_link() -> None:
    result = CliRunner().invoke(install_helpers, ["--help"])

    assert [name for name in HELPERS if f" {name}" not in result.output] == []


def test_links_of_an_older_installation_are_replaced(folder: Path, program: Path) -> None:
    (folder / HELPERS[0]).symlink_to("/gone/ctrfs")

    assert install(folder).exit_code == 0

    assert (folder / HELPERS[0]).readlink() == program


@needs_root
def test_links_are_removed_again_also_when_the_program_is_gone(folder: Path, program: Path) -> None:
    install(folder)
    program.unlink()

    assert install(folder, "--remove").exit_code == 0

    assert [each.name for each in folder.iterdir()] == ["bin"]


@needs_root
@pytest.mark.parametrize("words", [[], ["--remove"]])
def test_what_somebody_else_has_put_there_is_left_alone(
    folder: Path, program: Path, words: list[str]
) -> None:
    (folder / HELPERS[1]).write_text("of a package")
    (folder / HELPERS[2]).symlink_to("/usr/bin/other")

    done = install(folder, *words)

    assert "is not a link to ctrfs" in str(done.exception)
    assert (folder / HELPERS[1]).read_text() == "of a package"
    assert not (folder / HELPERS[0]).is_symlink()


@needs_root
def test_a_program_that_another_user_could_change_is_not_linked(
    folder: Path, program: Path
) -> None:
    program.parent.chmod(0o777)
    assert f"{program.parent} can be changed by others" in str(install(folder).exception)

    program.parent.chmod(0o755)
    os.chown(program, 65534, -1)
    assert f"{program} can be changed by others" in str(install(folder).exception)
    assert not (folder / HELPERS[0]).is_symlink()
