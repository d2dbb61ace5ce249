"""The end of a mount while the service does not answer: nothing is lost, nothing hangs."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from tests.support.mounting import EXIT_UNSENT, MakeMount, Mount, fuse_mounts, pause
from tests.support.service import ServiceProcess
from tests.support.trees import stored
from tests.support.trying import errno_and_seconds_of, works_within

pytestmark = pytest.mark.mounted


def test_bytes_that_cannot_be_sent_before_the_deadline_outlive_the_mount(
    service: ServiceProcess, make_mount: MakeMount
) -> None:
    """Promise 14."""
    mount = make_mount(service, options=("drain_timeout=1",))
    (mount.point / "work").mkdir()
    service.add_fault("create_file", "stall")
    with subprocess.Popen(
        ["dd", f"of={mount.point}/work/a.txt", "status=none"], stdin=subprocess.PIPE
    ) as writer:
        assert writer.stdin is not None
        writer.stdin.write(b"precious")
        writer.stdin.close()
        pause(1)
        daemon = mount.pid

        os.kill(daemon, signal.SIGTERM)

        assert writer.wait(20) != 0
    mount.abandon()
    service.clear_faults()
    service.add_fault("create_file", "status", status=400)
    mount.options = ()  # with time for looking whether the upload had arrived after all
    mount.start()
    (line,) = (mount.point / ".ctrfs" / "pending").read_text().splitlines()
    row = json.loads(line)
    assert (row["container"], row["path"], row["bytes"]) == ("work", "a.txt", 8)
    assert Path(row["local"]).read_bytes() == b"precious"
    service.clear_faults()
    mount.stop()
    assert stored(service, "work") == {"a.txt": b"precious"}


def test_a_signal_while_the_last_bytes_are_being_sent_does_not_cut_them_off(
    service: ServiceProcess, make_mount: MakeMount
) -> None:
    mount = make_mount(service, options=("drain_timeout=15",))
    (mount.point / "work").mkdir()
    service.add_fault("create_file", "status", status=400, count=1)
    with pytest.raises(OSError, match="Invalid argument"):
        (mount.point / "work" / "a.txt").write_bytes(b"precious")
    service.add_fault("create_file", "delay", seconds=3)
    daemon = mount.pid
    subprocess.run(["umount", mount.point], check=True, timeout=20)
    pause(1)

    os.kill(daemon, signal.SIGTERM)
    mount.stop()

    (row,) = service.files(str(service.containers()[0]["id"]))
    assert str(row["path"]).endswith("-a.txt")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_with_64_and_one_line_that_names_what_is_left(
    service: ServiceProcess, make_mount: MakeMount, number: signal.Signals
) -> None:
    """Promise 15."""
    mount = make_mount(service, options=("drain_timeout=2",))
    (mount.point / "work").mkdir()
    service.add_fault("create_file", "status", status=400)
    for name in ("a.txt", "b.txt"):
        with pytest.raises(OSError, match="Invalid argument"):
            (mount.point / "work" / name).write_bytes(b"precious")

    assert mount.exit_code_after(number, timeout_s=20) == EXIT_UNSENT

    (line,) = [line for line in mount.log_text().splitlines() if "is unmounted" in line]
    assert "2 file(s) are not sent: work/a.txt, work/b.txt; their bytes are in " in line
    assert str(mount.home) in line
    assert mount.point not in fuse_mounts()
    mount.abandon()


def test_a_signal_with_nothing_left_ends_with_0(
    service: ServiceProcess, make_mount: MakeMount
) -> None:
    mount = make_mount(service)
    (mount.point / "work").mkdir()
    (mount.point / "work" / "a.txt").write_bytes(b"sent")

    assert mount.exit_code_after(signal.SIGTERM, timeout_s=20) == 0

    assert mount.point not in fuse_mounts()


def test_a_second_signal_leaves_at_once_and_the_next_mount_sends_what_was_left(
    service: ServiceProcess, make_mount: MakeMount
) -> None:
    mount = make_mount(service, options=("drain_timeout=120",))
    (mount.point / "work").mkdir()
    service.add_fault("create_file", "stall")
    with subprocess.Popen(
        ["dd", f"of={mount.point}/work/a.txt", "status=none"],
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as writer:
        assert writer.stdin is not None
        writer.stdin.write(b"precious")
        writer.stdin.close()
        pause(1)
        os.kill(mount.pid, signal.SIGTERM)
        pause(1)

        assert mount.exit_code_after(signal.SIGTERM, timeout_s=15) == EXIT_UNSENT

        assert writer.wait(20) != 0
    mount.abandon()
    service.clear_faults()
    mount.start()
    assert works_within((mount.point / "work" / "a.txt").stat, 10)
    assert (mount.point / "work" / "a.txt").read_bytes() == b"precious"
    mount.stop()
    assert stored(service, "work") == {"a.txt": b"precious"}


@pytest.mark.skipif(os.geteuid() != 0, reason="without root sysfs has to cut the connection")
def test_a_notification_that_is_stuck_at_the_end_keeps_neither_program_nor_daemon(
    tmp_path: Path,
) -> None:
    """The program's lookup is not read any more, and the notification waits for the program."""
    command: list[str | Path] = [sys.executable, "-m", "tests.support.stuck_session", tmp_path]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as daemon:
        assert daemon.stdout is not None
        program_pid = int(daemon.stdout.readline().split()[-1])
        try:
            words, _ = daemon.communicate(timeout=30)
        finally:
            with suppress(ProcessLookupError):
                os.kill(program_pid, signal.SIGKILL)  # frees both

    assert words == "program ended with 1\n"
    assert tmp_path not in fuse_mounts()


def test_umount_waits_for_the_newer_mount_of_a_place_though_the_older_has_ended_since(
    service: ServiceProcess, make_mount: MakeMount
) -> None:
    """Promise 15."""
    service.create_container("work")
    service.add_fault("create_file", "delay", seconds=8)
    older = make_mount(service, options=("write=back",))
    (older.point / "work" / "a.txt").write_bytes(b"of the older")
    assert older.run("umount", older.point, "--timeout", "1").returncode == EXIT_UNSENT
    with Mount(older.point.parent, service=service, options=("write=back",)) as newer:
        (newer.point / "work" / "b.txt").write_bytes(b"of the newer")
        os.kill(older.pid, signal.SIGTERM)
        pause(1)
        assert older.exit_code_after(signal.SIGTERM, timeout_s=15) == EXIT_UNSENT

        ended = newer.run("umount", newer.point, "--timeout", "1")

        assert ended.returncode == EXIT_UNSENT
        assert f"process {newer.pid} is still sending" in ended.stderr
        again = newer.run("umount", newer.point)
        assert again.returncode == 0, again.stderr
    assert stored(service, "work")["b.txt"] == b"of the newer"


def test_a_killed_daemon_under_load_leaves_enotconn_and_the_next_mount_clears_it(
    service: ServiceProcess, make_mount: MakeMount
) -> None:
    """Promise 16."""
    mount = make_mount(service)
    work = mount.point / "work"
    work.mkdir()
    (work / "sent.txt").write_bytes(b"acknowledged")
    busy = [
        subprocess.Popen(
            ["sh", "-c", f"while :; do echo {number} >{work}/{number} && cat {work}/*; done"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        for number in range(8)
    ]
    open_fd = os.open(work / "open.txt", os.O_RDWR | os.O_CREAT)
    os.write(open_fd, b"not closed")
    pause(2)

    mount.kill()

    try:
        for call in (
            partial(os.statvfs, mount.point),
            (work / "never seen").stat,
            (work / "sent.txt").read_bytes,
            partial(os.fsync, open_fd),
        ):
            assert errno_and_seconds_of(call)[0] in {errno.ENOTCONN, errno.ECONNABORTED}
        mount.start()
    finally:
        for process in busy:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(20)
        with suppress(OSError):
            os.close(open_fd)
    assert (work / "sent.txt").read_bytes() == b"acknowledged"
    mount.stop(may_leave_bytes=True)
