from __future__ import annotations

from pathlib import Path

from ctrfs.mount.kernel_tuning import abort_connection, tune_kernel


def fake_sysfs(root: Path, device: str) -> None:
    (root / "class/bdi" / device).mkdir(parents=True)
    (root / "fs/fuse/connections" / device.partition(":")[2]).mkdir(parents=True)


def device_of_proc() -> str:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split(" ")
        if fields[4] == "/proc":
            return fields[2]
    raise AssertionError("no /proc")


def test_the_windows_of_a_mount_are_widened(tmp_path: Path) -> None:
    device = device_of_proc()
    fake_sysfs(tmp_path, device)

    tune_kernel(Path("/proc"), sys=tmp_path)

    connection = tmp_path / "fs/fuse/connections" / device.partition(":")[2]
    assert (tmp_path / "class/bdi" / device / "read_ahead_kb").read_text() == "1024\n"
    assert (connection / "max_background").read_text() == "64\n"
    assert (connection / "congestion_threshold").read_text() == "48\n"


def test_a_connection_is_cut_by_its_number(tmp_path: Path) -> None:
    device = device_of_proc()
    fake_sysfs(tmp_path, device)

    abort_connection(Path("/proc"), sys=tmp_path)

    connection = tmp_path / "fs/fuse/connections" / device.partition(":")[2]
    assert (connection / "abort").read_text() == "1\n"


def test_a_system_that_lets_nobody_widen_them_is_left_as_it_is(tmp_path: Path) -> None:
    tune_kernel(Path("/proc"), sys=tmp_path)

    assert list(tmp_path.iterdir()) == []


def test_what_is_no_mount_is_left_as_it_is(tmp_path: Path) -> None:
    tune_kernel(tmp_path, sys=tmp_path)

    assert list(tmp_path.iterdir()) == []
