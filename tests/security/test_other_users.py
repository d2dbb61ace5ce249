"""What another user of this machine can do to a mount, its files and its daemon."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.mounting import Mount
from tests.support.service import ServiceProcess

pytestmark = [
    pytest.mark.mounted,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user"),
    pytest.mark.skipif(shutil.which("setpriv") is None, reason="no setpriv to act as another user"),
]
OTHER_USER = "65534"


@pytest.fixture
def everybodys_folder() -> Iterator[Path]:
    """A folder that every user can reach, unlike that of a test."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def mounted(folder: Path, service: ServiceProcess, *options: str) -> Mount:
    mount = Mount(folder, service=service, options=options)
    mount.start()
    (mount.point / "box").mkdir()
    (mount.point / "box" / "file").write_bytes(b"secret")
    return mount


def as_another_user(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["setpriv", f"--reuid={OTHER_USER}", f"--regid={OTHER_USER}", "--clear-groups", *command],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env={"PATH": os.defpath, "LC_ALL": "C"},
        cwd="/",
    )


def test_without_allow_other_another_user_sees_nothing_of_a_mount(
    everybodys_folder: Path, service: ServiceProcess
) -> None:
    mount = mounted(everybodys_folder, service, "umask=000")
    try:
        for command in (["ls", "."], ["cat", "box/file"], ["cat", ".ctrfs/status"], ["touch", "x"]):
            done = as_another_user(command[0], mount.point / command[1])
            assert done.returncode != 0, command
            assert "Permission denied" in done.stderr
            assert "secret" not in done.stdout
        mount.stop()
    finally:
        mount.abandon()


def test_with_allow_other_the_kernel_holds_another_user_to_the_modes(
    everybodys_folder: Path, service: ServiceProcess
) -> None:
    mount = mounted(everybodys_folder, service, "allow_other", "umask=077")
    try:
        before = service.counters()
        commands: list[list[str | Path]] = [
            ["ls", mount.point],
            ["cat", mount.point / "box" / "file"],
            ["rm", "-f", mount.point / "box" / "file"],
            ["mkdir", mount.point / "theirs"],
            ["mv", mount.point / "box", mount.point / "moved"],
            ["cat", mount.point / ".ctrfs" / "pending"],
        ]
        for command in commands:
            done = as_another_user(*command)
            assert done.returncode != 0, command
            assert "Permission denied" in done.stderr
            assert "secret" not in done.stdout
        assert service.counters() == before
        assert (mount.point / "box" / "file").read_bytes() == b"secret"
        mount.stop()
    finally:
        mount.abandon()


def test_with_allow_other_and_open_modes_another_user_can_read_and_not_write(
    everybodys_folder: Path, service: ServiceProcess
) -> None:
    """The other way round: it is the modes that decide, and not the option alone."""
    mount = mounted(everybodys_folder, service, "allow_other", "umask=022")
    try:
        read = as_another_user("cat", mount.point / "box" / "file")
        written = as_another_user("touch", mount.point / "box" / "new")

        assert read.stdout == "secret"
        assert "Permission denied" in written.stderr
        mount.stop()
    finally:
        mount.abandon()


@pytest.mark.parametrize("options", [(), ("allow_other",), ("ro",)])
def test_every_mount_lets_the_kernel_check_permissions(
    everybodys_folder: Path, service: ServiceProcess, options: tuple[str, ...]
) -> None:
    service.create_container("box")
    mount = Mount(everybodys_folder, service=service, options=options)
    mount.start()
    try:
        [line] = [
            line
            for line in Path("/proc/self/mountinfo").read_text().splitlines()
            if f" {mount.point} " in line
        ]

        words = line.split(" - ")
        assert "default_permissions" in words[1].split()[2].split(",")
        assert {"nosuid", "nodev"} <= set(words[0].split()[5].split(","))
        mount.stop()
    finally:
        mount.abandon()


def test_another_user_reads_nothing_of_the_daemon_and_its_state(
    everybodys_folder: Path, service: ServiceProcess
) -> None:
    mount = mounted(everybodys_folder, service)
    try:
        state = next((mount.home / "state" / "ctrfs").rglob("state.db"))
        for path in (
            f"/proc/{mount.pid}/environ",
            f"/proc/{mount.pid}/mem",
            state,
            state.parent / "spool",
        ):
            done = as_another_user("head", "-c", "1", path)
            assert done.returncode != 0
            assert "Permission denied" in done.stderr
        mount.stop()
    finally:
        mount.abandon()
