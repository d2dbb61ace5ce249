"""A machine that lets the daemon down: a clear errno or carried on; the mount lives."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.mounting import MakeMount, Mount, exit_code_of
from tests.support.service import ServiceProcess
from tests.support.trees import stored

pytestmark = pytest.mark.mounted

MIB = 1024 * 1024
# Nothing waits for the network in these tests.
SOON_S = 10
# All that a local failure may be called.
LOCAL = {errno.EIO, errno.ENOSPC, errno.EROFS, errno.ENFILE, errno.EMFILE, errno.ENOMEM}


@pytest.fixture
def work(service: ServiceProcess) -> str:
    made = service.create_container("work")
    service.upload(made, "old.txt", b"old bytes")
    return made


def limit(mount: Mount, which: int, most: int | None) -> None:
    """Give the daemon less, as an administrator can while it runs; None: all again."""
    _, hard = resource.prlimit(mount.pid, which)
    resource.prlimit(mount.pid, which, (hard if most is None else most, hard))


def state_of(mount: Mount) -> Path:
    (found,) = (mount.home / "state" / "ctrfs").glob("*/0")
    return found


def test_out_of_descriptors_open_files_fail_and_all_else_goes_on(
    service: ServiceProcess, make_mount: MakeMount, work: str
) -> None:
    mount = make_mount(service)
    assert (mount.point / "work" / "old.txt").read_bytes() == b"old bytes"
    held = len(list(Path(f"/proc/{mount.pid}/fd").iterdir()))
    limit(mount, resource.RLIMIT_NOFILE, held + 2)
    fds: list[int] = []
    failures: set[int] = set()

    for number in range(40):
        try:
            fd = os.open(mount.point / "work" / f"new{number}", os.O_RDWR | os.O_CREAT)
        except OSError as error:
            failures.add(error.errno or 0)
            continue
        fds.append(fd)
        try:
            os.write(fd, b"bytes")
        except OSError as error:
            failures.add(error.errno or 0)

    assert failures <= LOCAL
    assert exit_code_of("df", mount.point, timeout_s=SOON_S) == 0
    assert exit_code_of("ls", mount.point / "work", timeout_s=SOON_S) == 0
    limit(mount, resource.RLIMIT_NOFILE, None)
    for fd in fds:
        try:
            os.close(fd)
        except OSError as error:
            failures.add(error.errno or 0)
    assert failures <= LOCAL
    (mount.point / "work" / "after.txt").write_bytes(b"after")
    assert stored(service, "work")["after.txt"] == b"after"


def test_out_of_memory_a_read_fails_or_works_and_the_mount_lives_or_ends_by_itself(
    service: ServiceProcess, make_mount: MakeMount, work: str
) -> None:
    service.upload(work, "big.bin", bytes(40 * MIB))
    mount = make_mount(service)
    assert (mount.point / "work" / "old.txt").read_bytes() == b"old bytes"
    size = int(Path(f"/proc/{mount.pid}/statm").read_text().split()[0]) * os.sysconf("SC_PAGESIZE")
    limit(mount, resource.RLIMIT_AS, size + 12 * MIB)  # a request is a MiB, and so are its copies

    ended = exit_code_of("cat", mount.point / "work" / "big.bin", timeout_s=30)

    assert ended in {0, 1}
    answers = exit_code_of("df", mount.point, timeout_s=SOON_S) == 0
    if not answers:
        # A new handler takes a MiB inside libfuse, a new thread its stack: where the machine has
        # neither, the daemon cannot go on. It must not hang, and the next one must.
        assert mount.wait() != 0
        assert "ends by a failure of its own" in mount.log_text()
        mount.abandon()
        mount.start()
    else:
        limit(mount, resource.RLIMIT_AS, None)
    assert (mount.point / "work" / "big.bin").read_bytes() == bytes(40 * MIB)


@pytest.fixture
def read_only_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("only root can mount a tmpfs")
    point = tmp_path / "disk"
    point.mkdir()
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64m,mode=0700", "ctrfs-test", point], check=True
    )
    yield point
    subprocess.run(["umount", "-l", point], check=True)


def test_a_read_only_state_directory_is_refused_at_the_start_in_one_line(
    service: ServiceProcess, make_mount: MakeMount, work: str, read_only_disk: Path
) -> None:
    subprocess.run(["mount", "-o", "remount,ro", read_only_disk], check=True)
    mount = make_mount(service)

    other = mount.home.parent / "other"
    other.mkdir()
    ended = mount.run("mount", "openai:", other, "-o", f"state_dir={read_only_disk}")

    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert "ead-only" in line


def test_a_state_directory_deleted_under_a_mount_hangs_nothing(
    service: ServiceProcess, make_mount: MakeMount, work: str
) -> None:
    mount = make_mount(service)
    assert (mount.point / "work" / "old.txt").read_bytes() == b"old bytes"

    shutil.rmtree(state_of(mount), ignore_errors=True)

    command = f"echo new > {mount.point}/work/new.txt; sync {mount.point}/work/new.txt"
    ended = exit_code_of("sh", "-c", command, timeout_s=SOON_S)
    assert ended is not None
    assert exit_code_of("ls", "-l", mount.point / "work", timeout_s=SOON_S) == 0
    assert exit_code_of("df", mount.point, timeout_s=SOON_S) == 0
    if ended == 0:
        assert stored(service, "work")["new.txt"] == b"new\n"
    code = exit_code_of(
        sys.executable, "-m", "ctrfs", "umount", mount.point,
        timeout_s=30, environment=mount.environment,
    )  # fmt: skip
    assert code in {0, 64}
    mount.abandon()
