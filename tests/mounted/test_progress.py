"""What a user sees while bytes are on their way: ``status --watch``, and ``umount`` that waits."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.support.mounting import EXIT_UNSENT, MakeMount, Mount, ctrfs, pause
from tests.support.service import ServiceProcess
from tests.support.trees import stored

pytestmark = pytest.mark.mounted

CONTENT = b"x" * 300_000


class Terminal:
    """A command on a terminal of its own."""

    def __init__(self, mount: Mount, *arguments: str | Path, columns: int, **extra: str) -> None:
        self._fd, inner = pty.openpty()
        fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        # Else Ctrl-C throws away what was not read yet: the end of one line, and the next's start.
        settings = termios.tcgetattr(inner)
        settings[3] |= termios.NOFLSH
        termios.tcsetattr(inner, termios.TCSANOW, settings)
        # Programs believe COLUMNS and LINES, if somebody has set them, more than the terminal.
        inherited = {
            name: value
            for name, value in mount.environment.items()
            if name not in {"COLUMNS", "LINES"}
        }
        self._process = subprocess.Popen(
            # With a controlling terminal, so that Ctrl-C becomes a signal.
            ["setsid", "--ctty", *ctrfs(*arguments)],
            env=inherited | {"TERM": "xterm"} | extra,
            stdin=inner,
            stdout=inner,
            stderr=inner,
        )
        os.close(inner)
        self.text = ""

    def read_until(self, *words: str, timeout_s: float = 20) -> None:
        """Collect what is written until all of ``words`` are there."""
        deadline_s = time.monotonic() + timeout_s
        while not all(word in self.text for word in words):
            assert self._read(deadline_s), self.text

    def press_ctrl_c(self) -> None:
        os.write(self._fd, b"\x03")

    def exit_code(self, *, timeout_s: float = 20) -> int:
        """Read to the end."""
        deadline_s = time.monotonic() + timeout_s
        while self._read(deadline_s):
            pass
        return self._process.wait(timeout_s)

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._fd)

    def _read(self, deadline_s: float) -> bool:
        ready, _, _ = select.select([self._fd], [], [], max(0, deadline_s - time.monotonic()))
        try:
            piece = os.read(self._fd, 65536) if ready else b""
        except OSError:  # the other side is closed
            return False
        self.text += piece.decode(errors="replace")
        return bool(piece)


@contextmanager
def terminal(
    mount: Mount, *arguments: str | Path, columns: int = 80, **extra: str
) -> Iterator[Terminal]:
    made = Terminal(mount, *arguments, columns=columns, **extra)
    try:
        yield made
    finally:
        made.end()


@pytest.fixture
def mount(service: ServiceProcess, make_mount: MakeMount) -> Mount:
    """A mount with one file that the service refused, and takes six seconds for from now on."""
    made = make_mount(service, options=("drain_timeout=60",))
    (made.point / "work").mkdir()
    service.add_fault("create_file", "status", status=400, count=1)
    with pytest.raises(OSError, match="Invalid argument"):
        (made.point / "work" / "a.bin").write_bytes(CONTENT)
    service.clear_faults()
    pause(1)  # the daemon writes twice a second how it stands
    return made


def begin_to_send(service: ServiceProcess, mount: Mount) -> None:
    """Leave a file on its way behind a mount that ends: for six seconds."""
    service.add_fault("create_file", "delay", seconds=6)
    subprocess.run(["umount", "-i", mount.point], check=True, timeout=20)
    pause(1)


def test_watching_as_json_shows_what_failed_and_ends_well_with_ctrl_c(mount: Mount) -> None:
    with subprocess.Popen(
        ctrfs("status", "--watch", "--json", mount.point),
        env=mount.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as watching:
        assert watching.stdout is not None
        value = json.loads(watching.stdout.readline())
        watching.send_signal(signal.SIGINT)
        _output, errors = watching.communicate(timeout=20)

    (seen,) = value["mounts"]
    assert (seen["mountpoint"], seen["state"]) == (str(mount.point), "mounted")
    assert (seen["progress"]["pending_files"], seen["progress"]["failed_files"]) == (1, 1)
    assert seen["reading"]["all_bytes"] == len(CONTENT)
    assert (watching.returncode, errors) == (0, b"")
    mount.stop()


@pytest.mark.parametrize("columns", [80, 40])
def test_a_watch_draws_no_line_wider_than_the_terminal_and_follows_to_the_end(
    service: ServiceProcess, mount: Mount, columns: int
) -> None:
    with terminal(mount, "status", "--watch", columns=columns) as watch:
        watch.read_until("0 of 1 file", "1 file could not be sent so far")
        begin_to_send(service, mount)
        watch.read_until("a.bin", "unanswered", "nothing is mounted")
        watch.press_ctrl_c()

        assert watch.exit_code() == 0
    lines = [line for line in watch.text.splitlines() if "\x1b" not in line]
    assert [line for line in lines if len(line) > columns] == []
    mount.stop()


def test_a_watch_without_colours_writes_none(mount: Mount) -> None:
    with terminal(mount, "status", "--watch", NO_COLOR="1") as watch:
        watch.read_until("1 file could not be sent so far")
        watch.press_ctrl_c()

        assert watch.exit_code() == 0
    assert "\x1b[3" not in watch.text
    mount.stop()


def test_a_watch_that_nobody_sees_writes_plain_lines(mount: Mount) -> None:
    with subprocess.Popen(
        ctrfs("status", "--watch"), env=mount.environment, stdout=subprocess.PIPE
    ) as watching:
        assert watching.stdout is not None
        line = watching.stdout.readline().decode()
        watching.send_signal(signal.SIGTERM)
        assert watching.wait(20) == 143

    assert line.startswith(f"openai: at {mount.point}  0 of 1 file, 0 B of 293.0 KiB")
    assert "1 file could not be sent so far: " in line
    mount.stop()


def test_watching_what_nobody_knows_fails_at_once(mount: Mount) -> None:
    ended = mount.run("status", "--watch", "/nowhere")

    assert ended.returncode == 1
    assert "nothing is known of /nowhere" in ended.stderr
    mount.stop()


def test_umount_on_a_terminal_shows_what_is_sent_and_takes_it_away_again(
    service: ServiceProcess, mount: Mount
) -> None:
    service.add_fault("create_file", "delay", seconds=5)
    with terminal(mount, "umount", mount.point) as umount:
        umount.read_until("unmounted; sending the rest of ", "a.bin", "293.0 KiB")

        assert umount.exit_code() == 0
    assert umount.text.rstrip().endswith("\x1b[2K"), "the bars are wiped off"
    assert stored(service, "work") == {"a.bin": CONTENT}
    mount.abandon()


def test_ctrl_c_ends_the_waiting_and_not_the_sending(service: ServiceProcess, mount: Mount) -> None:
    service.add_fault("create_file", "delay", seconds=6)
    with terminal(mount, "umount", mount.point) as umount:
        umount.read_until("a.bin")
        umount.press_ctrl_c()

        assert umount.exit_code() == 130
    assert f"process {mount.pid} is still sending" in umount.text
    assert stored(service, "work") == {}
    assert mount.wait() == 0
    assert stored(service, "work") == {"a.bin": CONTENT}
    mount.abandon()


def test_umount_after_ctrl_c_waits_again_and_shows_what_is_sent(
    service: ServiceProcess, mount: Mount
) -> None:
    service.add_fault("create_file", "delay", seconds=8)
    with terminal(mount, "umount", mount.point) as first:
        first.read_until("a.bin")
        first.press_ctrl_c()
        assert first.exit_code() == 130

    with terminal(mount, "umount", mount.point) as second:
        second.read_until("unmounted; sending the rest of ", "a.bin")

        assert second.exit_code() == 0
    assert stored(service, "work") == {"a.bin": CONTENT}
    assert mount.wait() == 0
    mount.abandon()


def test_umount_of_what_is_ending_tells_what_it_leaves(
    service: ServiceProcess, make_mount: MakeMount
) -> None:
    mount = make_mount(service, options=("drain_timeout=4",))
    (mount.point / "work").mkdir()
    service.add_fault("create_file", "status", status=400, count=1)
    with pytest.raises(OSError, match="Invalid argument"):
        (mount.point / "work" / "a.bin").write_bytes(CONTENT)
    service.add_fault("create_file", "stall")
    subprocess.run(["umount", "-i", mount.point], check=True, timeout=20)

    ended = mount.run("umount", mount.point)

    assert ended.returncode == EXIT_UNSENT, ended.stderr
    assert "1 file(s) are not sent: work/a.bin" in ended.stderr
    mount.abandon()


def test_a_quiet_umount_shows_nothing(service: ServiceProcess, mount: Mount) -> None:
    service.add_fault("create_file", "delay", seconds=4)
    with terminal(mount, "umount", "-q", mount.point) as umount:
        assert umount.exit_code() == 0
    assert umount.text == ""
    mount.abandon()


def test_umount_without_a_terminal_writes_a_line_now_and_then(
    service: ServiceProcess, mount: Mount
) -> None:
    service.add_fault("create_file", "delay", seconds=13)

    ended = mount.run("umount", mount.point)

    (line,) = ended.stderr.splitlines()
    assert line.startswith("ctrfs: sending the rest: 0 of 1 file, ")
    assert (ended.returncode, ended.stdout) == (0, "")
    mount.abandon()
