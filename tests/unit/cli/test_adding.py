"""Which files stand behind the paths that a user names."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ctrfs.cli.adding import files_below


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """A folder that everybody may enter: pytest's own are private."""
    with tempfile.TemporaryDirectory(prefix="ctrfs-public-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


def test_a_folder_gives_its_files_with_its_own_name_before_them(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "in").mkdir(parents=True)
    (folder / "in" / "b").touch()
    (folder / "a").touch()

    assert files_below(folder) == [
        (folder / "a", "folder/a"),
        (folder / "in" / "b", "folder/in/b"),
    ]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become nobody")
def test_a_folder_that_cannot_be_read_is_a_failure(public_folder: Path) -> None:
    """Asked as nobody, as nothing is closed to root."""
    (public_folder / "secret").mkdir(mode=0o700)
    os.seteuid(65534)
    try:
        with pytest.raises(PermissionError, match="secret"):
            files_below(public_folder)
    finally:
        os.seteuid(0)
