"""A service that falls silent: what is known answers at once, the rest in a stated time.

Promise 24 of docs/semantics.md. A proxy that forwards nothing stands before the service: the
worst of all failures, as nothing is refused and nothing ends by itself.
"""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from tests.support.mounting import MakeMount, Mount, exit_code_of, pause
from tests.support.proxy import Mode, Proxy
from tests.support.service import ServiceProcess
from tests.support.trees import stored
from tests.support.trying import errno_and_seconds_of, works_within

pytestmark = [pytest.mark.mounted, pytest.mark.alone]

CALL_S = 3
STALL_S = 3
# The options that make a deadline short; a fresh listing stays fresh for the whole test.
SHORT = (f"timeout={CALL_S}", f"stall_timeout={STALL_S}", "ttl=60")
# For a process on a busy machine to start and end.
MARGIN_S = 8
AT_ONCE_S = 2.0
CONTENT = b"a" * 5000
# The service is looked for again this often, and on a busy machine.
RECOVERY_S = 30


@pytest.fixture
def proxy(service: ServiceProcess) -> Iterator[Proxy]:
    with Proxy(service) as opened:
        yield opened


@pytest.fixture
def mount(service: ServiceProcess, proxy: Proxy, make_mount: MakeMount) -> Mount:
    """A mount through the proxy; ``known`` is listed, ``unknown`` never was."""
    known = service.create_container("known")
    service.create_container("unknown")
    service.upload(known, "a.txt", CONTENT)
    made = make_mount(proxy, options=SHORT)
    assert names_in(made.point / "known") == ["a.txt"]
    return made


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def seconds_of(*command: str | Path, exit_code: int | None = 0) -> float:
    began = time.monotonic()
    assert exit_code_of(*command, timeout_s=CALL_S + STALL_S + 2 * MARGIN_S) == exit_code
    return time.monotonic() - began


def test_what_is_known_answers_at_once_while_the_service_is_silent(
    mount: Mount, proxy: Proxy
) -> None:
    """Promise 24."""
    proxy.set(Mode.BLACK_HOLE)

    assert seconds_of("df", mount.point) < AT_ONCE_S
    assert seconds_of("ls", "-l", mount.point / "known") < AT_ONCE_S
    assert seconds_of("stat", mount.point / "known" / "a.txt") < AT_ONCE_S
    assert seconds_of("test", "-r", mount.point / "known" / "a.txt") < AT_ONCE_S
    assert seconds_of("cat", mount.point / ".ctrfs" / "status") < AT_ONCE_S
    assert seconds_of("test", "-e", mount.point / "known" / "absent", exit_code=1) < AT_ONCE_S


def test_what_is_known_answers_at_once_while_hundreds_wait_for_a_silent_service(
    mount: Mount, proxy: Proxy, service: ServiceProcess
) -> None:
    many = service.create_container("many")
    for number in range(100):
        service.upload(many, f"{number}", b"content")
    assert mount.run("refresh", mount.point).returncode == 0
    assert len(names_in(mount.point / "many")) == 100
    proxy.set(Mode.BLACK_HOLE)
    waiting = [
        subprocess.Popen(["cat", mount.point / "many" / f"{number}"], stderr=subprocess.DEVNULL)
        for number in range(100)
    ] + [
        subprocess.Popen(
            ["stat", mount.point / "unknown" / f"{number}"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for number in range(100)
    ]
    pause(0.5)

    assert seconds_of("df", mount.point) < AT_ONCE_S
    assert seconds_of("ls", "-l", mount.point / "known") < AT_ONCE_S
    assert {process.wait(CALL_S + STALL_S + 2 * MARGIN_S) for process in waiting} == {1}


def test_a_lookup_ends_by_the_deadline_while_the_service_is_silent(
    mount: Mount, proxy: Proxy
) -> None:
    """Promise 24."""
    proxy.set(Mode.BLACK_HOLE)

    number, seconds = errno_and_seconds_of((mount.point / "unknown" / "b.txt").stat)

    assert number in {errno.ETIMEDOUT, errno.EIO}
    assert seconds < CALL_S + MARGIN_S


def test_each_change_of_names_ends_by_the_deadline_while_the_service_is_silent(
    mount: Mount, proxy: Proxy
) -> None:
    """Promise 24."""
    proxy.set(Mode.BLACK_HOLE)

    changes: list[Callable[[], object]] = [
        (mount.point / "new").mkdir,
        (mount.point / "known").rmdir,
        (mount.point / "known" / "a.txt").unlink,
        partial((mount.point / "known" / "a.txt").rename, mount.point / "known" / "b.txt"),
    ]
    for change in changes:
        number, seconds = errno_and_seconds_of(change)
        assert number in {errno.ETIMEDOUT, errno.EIO}, change
        assert seconds < CALL_S + STALL_S + MARGIN_S, change
    proxy.set(Mode.PASS)
    assert works_within(lambda: list((mount.point / "unknown").iterdir()), RECOVERY_S)
    assert names_in(mount.point / "known") == ["a.txt"]


def test_a_read_ends_by_the_stall_rule_while_the_service_is_silent(
    mount: Mount, proxy: Proxy
) -> None:
    proxy.set(Mode.BLACK_HOLE)

    number, seconds = errno_and_seconds_of((mount.point / "known" / "a.txt").read_bytes)

    assert number in {errno.ETIMEDOUT, errno.EIO}
    assert seconds < STALL_S + MARGIN_S


def test_a_killed_reader_is_gone_within_the_deadline(mount: Mount, proxy: Proxy) -> None:
    """Promise 24."""
    proxy.set(Mode.BLACK_HOLE)
    reader = subprocess.Popen(["cat", mount.point / "known" / "a.txt"], stderr=subprocess.DEVNULL)
    pause(0.5)

    reader.send_signal(signal.SIGKILL)

    assert reader.wait(STALL_S + MARGIN_S) == -signal.SIGKILL


def test_a_save_ends_by_the_stall_rule_and_is_sent_once_the_service_speaks_again(
    mount: Mount, proxy: Proxy, service: ServiceProcess
) -> None:
    proxy.set(Mode.BLACK_HOLE)
    began = time.monotonic()
    fd = os.open(mount.point / "known" / "new.txt", os.O_WRONLY | os.O_CREAT)
    os.write(fd, b"precious")
    with pytest.raises(OSError, match=r"timed out|Input/output"):
        os.fsync(fd)
    assert time.monotonic() - began < STALL_S + 2 * MARGIN_S
    proxy.set(Mode.PASS)

    assert works_within(lambda: os.fsync(fd), RECOVERY_S)

    os.close(fd)
    assert stored(service, "known") == {"a.txt": CONTENT, "new.txt": b"precious"}


def test_the_mount_recovers_without_a_remount_once_the_service_speaks_again(
    mount: Mount, proxy: Proxy
) -> None:
    proxy.set(Mode.BLACK_HOLE)
    errno_and_seconds_of((mount.point / "unknown" / "b.txt").stat)
    errno_and_seconds_of((mount.point / "known" / "a.txt").read_bytes)

    proxy.set(Mode.PASS)

    assert works_within(lambda: list((mount.point / "unknown").iterdir()), RECOVERY_S)
    assert (mount.point / "known" / "a.txt").read_bytes() == CONTENT
