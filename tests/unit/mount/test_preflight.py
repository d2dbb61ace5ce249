from __future__ import annotations

from pathlib import Path

import pytest

from ctrfs.errors import MountError
from ctrfs.mount.preflight import our_mount, prepare_mountpoint, resolve_mountpoint, unmount


def test_a_mount_point_is_named_as_the_mount_table_will_name_it(tmp_path: Path) -> None:
    (tmp_path / "real" / "point").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "alias").symlink_to(tmp_path / "real" / "point")

    assert resolve_mountpoint(f"{tmp_path}/link/./point/") == tmp_path / "real" / "point"
    assert resolve_mountpoint(f"{tmp_path}/alias") == tmp_path / "real" / "point"


def test_a_missing_mount_point_is_told_apart(tmp_path: Path) -> None:
    with pytest.raises(MountError, match="no such directory; create it first"):
        prepare_mountpoint(tmp_path / "none", nonempty=False)
    with pytest.raises(MountError, match="no such directory"):
        resolve_mountpoint(f"{tmp_path}/none/point")


def test_a_file_is_no_mount_point(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(MountError, match="is not a directory"):
        prepare_mountpoint(tmp_path / "file", nonempty=False)


def test_a_directory_with_files_is_covered_only_on_demand(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(MountError, match="not empty"):
        prepare_mountpoint(tmp_path, nonempty=False)
    prepare_mountpoint(tmp_path, nonempty=True)


def test_only_a_mount_of_ours_is_unmounted(tmp_path: Path) -> None:
    with pytest.raises(MountError, match="is not mounted"):
        our_mount(tmp_path)
    with pytest.raises(MountError, match="not one of ctrfs"):
        our_mount(Path("/proc"))


def test_a_refused_unmount_says_why(tmp_path: Path) -> None:
    with pytest.raises(MountError, match=f"cannot unmount {tmp_path}"):
        unmount(tmp_path)
