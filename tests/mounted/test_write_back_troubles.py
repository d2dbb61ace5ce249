"""write=back while the service is gone or refuses, across kills, and at the end of a mount."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest
from tests.support.mounting import EXIT_UNSENT, MakeMount, Mount, exit_code_of, fuse_mounts
from tests.support.proxy import Mode, Proxy
from tests.support.service import ServiceProcess
from tests.support.trees import contents, plant_tree, stored
from tests.support.trying import comes_true, works_within
from tests.support.write_modes import sync_directory

from ctrfs.config import WriteMode

pytestmark = [
    pytest.mark.mounted,
    pytest.mark.parametrize("write_mode", [WriteMode.BACK], indirect=True, ids=["write=back"]),
]

CALL_S: Final = 4
LIMITS: Final = (f"timeout={CALL_S}", f"stall_timeout={CALL_S}", "transfer_timeout=12", "ttl=120")
# For a process on a busy machine to start and end; and until the service is asked again.
MARGIN_S: Final = 8
RECOVERY_S: Final = 40
ALL_WAYS = pytest.mark.parametrize("way", [Mode.REFUSE, Mode.RESET, Mode.BLACK_HOLE])


@pytest.fixture
def proxy(service: ServiceProcess) -> Iterator[Proxy]:
    with Proxy(service) as opened:
        yield opened


@pytest.fixture
def mount(service: ServiceProcess, proxy: Proxy, make_mount: MakeMount) -> Mount:
    """A mount through the proxy with one container, which is listed."""
    service.create_container("work")
    made = make_mount(proxy, options=LIMITS)
    assert list((made.point / "work").iterdir()) == []
    return made


@contextmanager
def refused_uploads(service: ServiceProcess) -> Iterator[None]:
    service.add_fault("create_file", "status", status=403)
    yield
    service.clear_faults()


def answers(mount: Mount) -> bool:
    """Tell whether the mount thinks that the service does."""
    status = json.loads((mount.point / ".ctrfs" / "status").read_text())
    return bool(status["service"]["is_answering"])


@ALL_WAYS
def test_a_close_returns_while_the_service_is_gone_and_the_bytes_arrive_later(
    mount: Mount, proxy: Proxy, service: ServiceProcess, way: Mode
) -> None:
    """Promise 13."""
    path = mount.point / "work" / "a.txt"
    proxy.set(way)

    began = time.monotonic()
    path.write_bytes(b"precious")

    assert time.monotonic() - began < CALL_S
    assert path.read_bytes() == b"precious"
    assert stored(service, "work") == {}
    proxy.set(Mode.PASS)
    assert works_within(lambda: sync_directory(mount.point), RECOVERY_S)
    assert stored(service, "work") == {"a.txt": b"precious"}


def test_a_whole_tree_is_copied_renamed_and_pruned_while_the_service_is_gone(
    mount: Mount, proxy: Proxy, service: ServiceProcess, outside: Path
) -> None:
    """Promise 13."""
    plant_tree(outside, files=12)
    place = mount.point / "work"
    proxy.set(Mode.REFUSE)

    subprocess.run(["cp", "-r", f"{outside}/.", place], check=True, timeout=60)
    for folder in (outside, place):
        (folder / "file-0.bin").rename(folder / "renamed.bin")
        (folder / "file-4.bin").unlink()
    assert contents(place) == contents(outside)

    proxy.set(Mode.PASS)
    assert works_within(lambda: sync_directory(mount.point), RECOVERY_S)
    assert stored(service, "work") == contents(outside)


def test_an_unmount_asks_a_service_that_was_given_up_and_is_back(
    mount: Mount, proxy: Proxy, service: ServiceProcess
) -> None:
    """Promises 14 and 15: other calls are refused without asking for some seconds more."""
    proxy.set(Mode.REFUSE)
    for number in range(20):
        (mount.point / "work" / f"{number}.txt").write_bytes(b"precious")
    assert comes_true(lambda: not answers(mount), RECOVERY_S)
    proxy.set(Mode.PASS)

    mount.stop()

    assert stored(service, "work") == {f"{number}.txt": b"precious" for number in range(20)}


def test_an_fsync_of_the_file_tells_that_the_service_does_not_take_it(
    mount: Mount, service: ServiceProcess
) -> None:
    """Promise 13."""
    path = mount.point / "work" / "a.txt"
    with refused_uploads(service):
        path.write_bytes(b"closed")
        with path.open("r+b") as file:
            with pytest.raises(PermissionError):
                os.fsync(file.fileno())

    assert path.read_bytes() == b"closed"
    sync_directory(mount.point)
    assert stored(service, "work") == {"a.txt": b"closed"}


def test_an_fsync_of_the_file_ends_in_time_while_the_service_is_silent(
    mount: Mount, proxy: Proxy
) -> None:
    """Promises 13 and 24."""
    path = mount.point / "work" / "a.txt"
    proxy.set(Mode.BLACK_HOLE)
    path.write_bytes(b"closed")

    exit_code = exit_code_of("sync", path, timeout_s=12 + MARGIN_S)

    assert exit_code == 1
    proxy.set(Mode.PASS)
    assert works_within(lambda: sync_directory(mount.point), RECOVERY_S)


def test_an_fsync_of_a_directory_waits_for_all_that_is_pending_inside(
    mount: Mount, service: ServiceProcess
) -> None:
    """Promise 13."""
    place = mount.point / "work"
    (place / "gone").write_bytes(b"gone")
    sync_directory(place)
    (place / "deep/deeper").mkdir(parents=True)
    for number in range(30):
        (place / "deep/deeper" / f"{number}").write_bytes(b"%d" % number)
    (place / "gone").unlink()
    service.add_fault("create_file", "delay", seconds=0.3)

    sync_directory(place)

    assert stored(service, "work") == {
        f"deep/deeper/{number}": b"%d" % number for number in range(30)
    }


def test_an_fsync_of_a_directory_tells_what_failed_and_sends_the_rest(
    mount: Mount, service: ServiceProcess
) -> None:
    """Promise 13."""
    place = mount.point / "work"
    service.add_fault("create_file", "status", status=403, count=1)
    for number in range(5):
        (place / f"{number}").write_bytes(b"%d" % number)

    with pytest.raises(PermissionError):
        sync_directory(place)

    assert len(stored(service, "work")) == 4
    sync_directory(place)
    assert len(stored(service, "work")) == 5


def test_what_was_closed_survives_a_kill_and_is_sent_by_the_next_mount(
    mount: Mount, proxy: Proxy, service: ServiceProcess, outside: Path
) -> None:
    """Promises 13 and 14."""
    plant_tree(outside, files=12)
    place = mount.point / "work"
    proxy.set(Mode.REFUSE)
    subprocess.run(["cp", "-r", f"{outside}/.", place], check=True, timeout=60)
    mount.kill()
    assert stored(service, "work") == {}

    proxy.set(Mode.PASS)
    mount.start()

    assert contents(place) == contents(outside)
    assert works_within(lambda: sync_directory(mount.point), RECOVERY_S)
    assert stored(service, "work") == contents(outside)


def test_what_was_closed_at_the_moment_of_a_kill_is_sent_by_the_next_mount(
    mount: Mount, service: ServiceProcess
) -> None:
    """Promises 13 and 14."""
    place = mount.point / "work"
    for number in range(5):
        (place / f"{number}").write_bytes(b"%d" % number)
        mount.kill()
        mount.start()

    sync_directory(mount.point)
    assert stored(service, "work") == {f"{number}": b"%d" % number for number in range(5)}


def test_what_was_removed_renamed_and_replaced_survives_a_kill(
    mount: Mount, service: ServiceProcess
) -> None:
    """Promises 13 and 14."""
    place = mount.point / "work"
    for name in ("removed", "renamed", "replaced"):
        (place / name).write_bytes(name.encode())
    sync_directory(place)
    (place / "removed").unlink()
    (place / "renamed").rename(place / "new name")
    (place / "draft").write_bytes(b"draft")
    (place / "draft").rename(place / "replaced")
    expected = {"new name": b"renamed", "replaced": b"draft"}
    mount.kill()

    mount.start()

    assert contents(place) == expected
    sync_directory(mount.point)
    assert stored(service, "work") == expected


def test_an_umount_sends_all_that_was_put_off(
    mount: Mount, service: ServiceProcess, outside: Path
) -> None:
    """Promises 13 and 15."""
    plant_tree(outside)
    place = mount.point / "work"
    (place / "gone").write_bytes(b"gone")
    sync_directory(place)
    subprocess.run(["cp", "-r", f"{outside}/.", place], check=True, timeout=60)
    (place / "gone").unlink()
    expected = contents(outside)

    ended = mount.run("umount", mount.point, timeout_s=60)

    assert ended.returncode == 0, ended.stderr
    assert mount.wait() == 0
    assert mount.point not in fuse_mounts()
    assert stored(service, "work") == expected


def test_an_umount_with_drain_timeout_over_says_what_is_left_by_its_exit_code(
    service: ServiceProcess, proxy: Proxy, make_mount: MakeMount
) -> None:
    """Promises 13 to 15."""
    service.create_container("work")
    mount = make_mount(proxy, options=(*LIMITS, "drain_timeout=3"))
    assert list((mount.point / "work").iterdir()) == []
    proxy.set(Mode.BLACK_HOLE)
    (mount.point / "work" / "a.txt").write_bytes(b"precious")

    began = time.monotonic()
    ended = mount.run("umount", mount.point, timeout_s=60)

    assert ended.returncode == EXIT_UNSENT, ended.stderr
    assert "a.txt" in ended.stderr + ended.stdout + mount.log_text()
    assert time.monotonic() - began < 3 + CALL_S + 2 * MARGIN_S
    assert mount.wait() == EXIT_UNSENT
    proxy.set(Mode.PASS)
    mount.start()
    assert (mount.point / "work" / "a.txt").read_bytes() == b"precious"
    assert works_within(lambda: sync_directory(mount.point), RECOVERY_S)
    assert stored(service, "work") == {"a.txt": b"precious"}


def test_files_are_closed_at_once_and_a_slow_service_gets_many_of_them_at_a_time(
    mount: Mount, service: ServiceProcess
) -> None:
    service.add_fault("create_file", "delay", seconds=0.2)
    place = mount.point / "work"

    began = time.monotonic()
    for number in range(150):
        (place / f"{number}").write_bytes(b"%d" % number)
    sync_directory(place)
    took_s = time.monotonic() - began

    assert len(stored(service, "work")) == 150
    # One after another they would take half a minute.
    assert took_s < 20
