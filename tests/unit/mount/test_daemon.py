"""The handshake between parent and daemon, with real processes.

Each program runs in an interpreter of its own: forking the one that runs the tests would
duplicate its threads and its output.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

PARENT = """
import os, sys, time
from ctrfs.mount.daemon import Readiness, StartReport, run_in_background

def child(readiness: Readiness) -> int:
    {child}
    return 0

report = run_in_background(child, start_timeout_s={timeout_s})
print(report.exit_code, report.message)
"""


def run_parent(child: str, *, timeout_s: float = 20.0) -> str:
    program = PARENT.format(child=child, timeout_s=timeout_s)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stderr == ""
    return done.stdout.strip()


def wait_until_ended(pid: int) -> None:
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.02)  # noqa: TID251  # waits for another process
    assert not Path(f"/proc/{pid}").exists()


def test_the_parent_returns_when_the_child_is_ready_and_the_child_lives_on(tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    child = (
        "readiness.tell(StartReport(exit_code=0, message='here'));"
        f"time.sleep(0.5); open({str(mark)!r}, 'w').write(str(os.getpid()))"
    )

    assert run_parent(child) == "0 here"
    assert not mark.exists()
    deadline = time.monotonic() + 10
    while not mark.exists() and time.monotonic() < deadline:
        time.sleep(0.02)  # noqa: TID251  # waits for another process
    wait_until_ended(int(mark.read_text() or "0"))


def test_a_failure_reaches_the_parent_in_one_line_with_its_exit_code() -> None:
    child = "readiness.tell(StartReport(exit_code=32, message='no /dev/fuse: ü'))"

    assert run_parent(child) == "32 no /dev/fuse: ü"


def test_a_child_that_dies_silently_is_a_failure() -> None:
    assert run_parent("os._exit(7)") == "32 the daemon ended before it was ready"


def test_a_child_that_raises_is_a_failure() -> None:
    assert run_parent("raise SystemExit(3)") == "32 the daemon ended before it was ready"


def test_a_child_that_never_gets_ready_is_ended(tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    child = f"open({str(mark)!r}, 'w').write(str(os.getpid())); time.sleep(60)"

    assert run_parent(child, timeout_s=0.5) == "32 the mount was not ready after 0 s"
    wait_until_ended(int(mark.read_text()))


def test_the_daemon_has_its_own_session_and_no_terminal(tmp_path: Path) -> None:
    mark = tmp_path / "facts"
    child = (
        "facts = [os.getsid(0) != os.getpid(), os.getcwd(), "
        "[os.readlink(f'/proc/self/fd/{fd}') for fd in range(3)]];"
        f"open({str(mark)!r}, 'w').write(repr(facts));"
        "readiness.tell(StartReport(exit_code=0))"
    )

    run_parent(child)

    assert mark.read_text() == "[True, '/', ['/dev/null', '/dev/null', '/dev/null']]"


def test_telling_twice_or_after_the_parent_is_gone_does_nothing() -> None:
    child = "readiness.tell(StartReport(exit_code=0)); readiness.tell(StartReport(exit_code=32))"

    assert run_parent(child) == "0"


# The processor goes to the daemon for so long that it is at work before the command is.
SLOW_FORK = """
import os, time
fork = os.fork
def slow_fork():
    pid = fork()
    time.sleep(1 if pid else 0)
    return pid
os.fork = slow_fork
"""


@pytest.mark.parametrize("before", ["", SLOW_FORK], ids=["waiting", "before it waits"])
@pytest.mark.parametrize(
    ("number", "exit_code"), [(signal.SIGINT, -signal.SIGINT), (signal.SIGTERM, 143)]
)
def test_ending_the_command_while_it_waits_ends_the_daemon(
    tmp_path: Path, number: signal.Signals, exit_code: int, before: str
) -> None:
    mark = tmp_path / "pid"
    child = f"open({str(mark)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    program = before + PARENT.format(child=child, timeout_s=50)
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as parent:
        deadline = time.monotonic() + 10
        while not (mark.exists() and mark.read_text()) and time.monotonic() < deadline:
            time.sleep(0.02)  # noqa: TID251  # waits for another process
        parent.send_signal(number)
        parent.communicate(timeout=10)

    assert parent.returncode == exit_code
    wait_until_ended(int(mark.read_text()))
