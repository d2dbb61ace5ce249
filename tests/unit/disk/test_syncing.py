"""Directories that a power cut does not take."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from ctrfs.disk.syncing import make_directories


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The inodes of what was synced; only a power cut would show it otherwise."""
    inodes: list[int] = []

    def fsync(fd: int) -> None:
        inodes.append(os.fstat(fd).st_ino)

    monkeypatch.setattr(os, "fsync", fsync)
    return inodes


def test_each_directory_that_got_a_name_is_synced(tmp_path: Path, synced: list[int]) -> None:
    make_directories(tmp_path / "a" / "b", mode=0o700)

    assert synced == [tmp_path.stat().st_ino, (tmp_path / "a").stat().st_ino]
    assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o700


def test_directories_that_are_there_cost_no_wait_for_the_disk(
    tmp_path: Path, synced: list[int]
) -> None:
    make_directories(tmp_path)

    assert synced == []


def test_a_file_in_the_place_of_a_directory_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("mine")

    with pytest.raises(FileExistsError):
        make_directories(tmp_path / "a")
    with pytest.raises(NotADirectoryError):
        make_directories(tmp_path / "a" / "b")
