from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from tests.unit.disk.clocks import StoppedClock

from ctrfs.disk.overlay import Overlay, OverlayRow
from ctrfs.disk.state_dir import StateDirectory, directory_name, slot_paths
from ctrfs.errors import LocalDiskError, MountError

SOURCE = "openai:https://api.openai.com/v1 key 1a2b"


def test_the_directories_and_files_are_for_their_owner_only(tmp_path: Path) -> None:
    with StateDirectory.open(tmp_path / "ctrfs", SOURCE, clock=StoppedClock()) as state:
        made = [state.path.parent, state.path, *state.path.iterdir()]

        assert {stat.S_IMODE(path.stat().st_mode) & 0o077 for path in made} == {0}
        assert state.path == tmp_path / "ctrfs" / directory_name(SOURCE) / "0"
        assert state.spool_path.is_dir()


def test_the_names_of_all_directories_that_lead_to_the_bytes_are_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes that are synced below a name which is not go with it in a power cut."""
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.fstat(fd).st_ino))

    with StateDirectory.open(tmp_path / "ctrfs", SOURCE, clock=StoppedClock()) as state:
        above = list(state.spool_path.relative_to(tmp_path).parents)
        assert {(tmp_path / path).stat().st_ino for path in above} == set(synced)

    synced.clear()
    with StateDirectory.open(tmp_path / "ctrfs", SOURCE, clock=StoppedClock()):
        assert synced == []


def test_a_mount_alone_finds_what_the_last_one_left(tmp_path: Path) -> None:
    with StateDirectory.open(tmp_path, SOURCE, clock=StoppedClock()) as state:
        Overlay(state.database).put("cntr_1", "cfile_1", OverlayRow(mode=0o600))

    with StateDirectory.open(tmp_path, SOURCE, clock=StoppedClock()) as state:
        assert state.slot == 0
        assert Overlay(state.database).load("cntr_1") == {"cfile_1": OverlayRow(mode=0o600)}


def test_two_mounts_of_one_source_live_side_by_side(tmp_path: Path) -> None:
    with (
        StateDirectory.open(tmp_path, SOURCE, clock=StoppedClock()) as first,
        StateDirectory.open(tmp_path, SOURCE, clock=StoppedClock()) as second,
    ):
        assert (first.slot, second.slot) == (0, 1)
        assert first.path.parent == second.path.parent
    assert slot_paths(tmp_path, SOURCE) == [first.path, second.path]


def test_a_given_slot_is_taken_only_while_nobody_holds_it(tmp_path: Path) -> None:
    with StateDirectory.open(tmp_path, SOURCE, clock=StoppedClock()) as state:
        Overlay(state.database).put("cntr_1", "cfile_1", OverlayRow(mode=0o600))
        path = state.path

        with (
            pytest.raises(MountError, match="in use by a mount"),
            StateDirectory.open_slot(path, clock=StoppedClock()),
        ):
            pass
    with StateDirectory.open_slot(path, clock=StoppedClock()) as state:
        assert Overlay(state.database).load("cntr_1") == {"cfile_1": OverlayRow(mode=0o600)}
        with StateDirectory.open(tmp_path, SOURCE, clock=StoppedClock()) as beside:
            assert (state.slot, beside.slot) == (0, 1)


def test_a_slot_that_was_never_used_is_not_made(tmp_path: Path) -> None:
    with (
        pytest.raises(LocalDiskError, match="No such file"),
        StateDirectory.open_slot(tmp_path / "0", clock=StoppedClock()),
    ):
        pass

    assert list(tmp_path.iterdir()) == []


def test_a_slot_is_free_again_when_its_mount_failed(tmp_path: Path) -> None:
    with (
        pytest.raises(ZeroDivisionError),
        StateDirectory.open(tmp_path, SOURCE, clock=StoppedClock()),
    ):
        raise ZeroDivisionError

    with StateDirectory.open(tmp_path, SOURCE, clock=StoppedClock()) as state:
        assert state.slot == 0


def test_other_sources_have_other_directories() -> None:
    names = {directory_name(text) for text in ("openai: a", "openai:/a", "", "..", "é" * 300)}

    assert len(names) == 5
    assert all("/" not in name and len(name.encode()) < 100 for name in names)


@pytest.mark.parametrize("mode", [0o750, 0o707, 0o770])
def test_a_directory_open_to_others_is_refused(tmp_path: Path, mode: int) -> None:
    (tmp_path / directory_name(SOURCE)).mkdir()
    (tmp_path / directory_name(SOURCE)).chmod(mode)

    with pytest.raises(MountError, match="others"):
        _open(tmp_path)


def test_a_base_that_others_can_write_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o770)

    with pytest.raises(MountError, match="written by others"):
        _open(tmp_path)


def test_a_directory_of_someone_else_is_refused(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a directory away")
    home = tmp_path / directory_name(SOURCE)
    home.mkdir(mode=0o700)
    os.chown(home, 12345, 12345)

    with pytest.raises(MountError, match="another user"):
        _open(tmp_path)


@pytest.mark.parametrize("linked", ["", directory_name(SOURCE), directory_name(SOURCE) + "/0"])
def test_a_link_in_place_of_a_directory_is_refused(tmp_path: Path, linked: str) -> None:
    target = tmp_path / "elsewhere"
    target.mkdir(mode=0o700)
    base = tmp_path / "base"
    link = base / linked
    for directory in reversed([parent for parent in link.parents if parent.is_relative_to(base)]):
        directory.mkdir(mode=0o700)
    link.symlink_to(target)

    with pytest.raises(MountError, match="link"):
        _open(base)
    assert list(target.iterdir()) == []


def test_a_directory_of_a_newer_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    with StateDirectory.open(tmp_path, SOURCE, clock=StoppedClock()) as state:
        (state.path / "format").write_text("2\n")

    with pytest.raises(MountError, match="newer version"):
        _open(tmp_path)
    assert (state.path / "format").read_text() == "2\n"


def _open(base: Path) -> None:
    with StateDirectory.open(base, SOURCE, clock=StoppedClock()):
        pass
