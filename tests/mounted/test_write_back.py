"""write=back through a real mount: docs/semantics.md, promise 13."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from tests.support.mounting import EXIT_UNSENT, MakeMount, Mount, pause
from tests.support.service import ServiceProcess
from tests.support.trees import contents, plant_tree, stored

pytestmark = pytest.mark.mounted

# Nothing is listed anew while a test counts requests.
BACK = ("write=back", "ttl=300", "max_stale=300")


@pytest.fixture
def back(service: ServiceProcess, make_mount: MakeMount) -> Mount:
    """A mount with one empty container ``work`` that it has listed."""
    mount = make_mount(service, options=BACK)
    (mount.point / "work").mkdir()
    assert list((mount.point / "work").iterdir()) == []
    service.reset_counters()
    return mount


def requests(service: ServiceProcess) -> dict[str, int]:
    return {name: count for name, count in service.counters().items() if count}


def sync(path: Path) -> None:
    """Do what ``sync PATH`` does; it raises what the file system answers."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def test_closes_return_while_the_service_is_silent_and_fsync_tells_what_is_wrong(
    back: Mount, service: ServiceProcess
) -> None:
    """Promise 13."""
    service.add_fault("create_file", "status", status=403)
    began_s = time.monotonic()
    for number in range(20):
        (back.point / "work" / f"{number}").write_bytes(b"%d" % number)
    assert time.monotonic() - began_s < 10
    with pytest.raises(PermissionError):
        sync(back.point / "work" / "3")
    with pytest.raises(PermissionError):
        sync(back.point / "work")
    assert (back.point / "work" / "3").read_bytes() == b"3"

    service.clear_faults()
    sync(back.point / "work")
    assert stored(service, "work") == {f"{number}": b"%d" % number for number in range(20)}


def test_a_tree_is_copied_and_synced_with_one_request_a_file(
    back: Mount, service: ServiceProcess, tmp_path: Path
) -> None:
    """Promise 13."""
    plant_tree(tmp_path / "tree", files=40)
    shutil.copytree(tmp_path / "tree", back.point / "work" / "tree")
    subprocess.run(["sync", back.point / "work"], check=True, timeout=60)
    count = sum(1 for path in (tmp_path / "tree").rglob("*") if path.is_file())
    assert requests(service)["create_file"] == count
    wanted = {f"tree/{name}": content for name, content in contents(tmp_path / "tree").items()}
    assert stored(service, "work") == wanted


def test_rm_r_of_a_container_is_one_listing_and_one_deletion(
    back: Mount, service: ServiceProcess
) -> None:
    """Promise 13."""
    for number in range(50):
        (back.point / "work" / f"{number}").write_bytes(b"%d" % number)
    sync(back.point / "work")
    service.reset_counters()
    subprocess.run(["rm", "-r", back.point / "work"], check=True, timeout=60)
    back.stop()
    assert requests(service) == {"list_files": 1, "delete_container": 1}


def test_what_was_closed_before_a_kill_is_sent_by_the_next_mount(
    back: Mount, service: ServiceProcess
) -> None:
    """Promise 13."""
    (back.point / "work" / "old").write_bytes(b"old")
    sync(back.point / "work")
    (back.point / "work" / "a").write_bytes(b"bytes")
    (back.point / "work" / "old").rename(back.point / "work" / "new")
    back.kill()
    assert stored(service, "work") == {"old": b"old"}

    back.start()
    assert (back.point / "work" / "a").read_bytes() == b"bytes"
    assert sorted(path.name for path in (back.point / "work").iterdir()) == ["a", "new"]
    sync(back.point / "work")
    assert stored(service, "work") == {"a": b"bytes", "new": b"old"}


def test_umount_sends_what_waits(back: Mount, service: ServiceProcess) -> None:
    """Promises 13 and 15."""
    for number in range(20):
        (back.point / "work" / f"{number}").write_bytes(b"%d" % number)
    back.stop()
    assert len(stored(service, "work")) == 20


def test_the_end_tells_what_the_service_did_not_take(
    service: ServiceProcess, make_mount: MakeMount
) -> None:
    """Promises 13 and 15."""
    mount = make_mount(service, options=(*BACK, "drain_timeout=2"))
    (mount.point / "work").mkdir()
    service.add_fault("create_file", "status", status=403)
    (mount.point / "work" / "a").write_bytes(b"bytes")
    assert mount.exit_code_after(signal.SIGTERM, timeout_s=20) == EXIT_UNSENT
    assert "1 file(s) are not sent: work/a" in mount.log_text()
    service.clear_faults()
    mount.start()
    sync(mount.point / "work")
    assert stored(service, "work") == {"a": b"bytes"}


def test_ordinary_programs_work(back: Mount, service: ServiceProcess) -> None:
    """Promises 13 and 17."""
    work = back.point / "work"
    script = """
        git init -q . && git config user.email a@b && git config user.name n
        echo one > a.txt && git add a.txt && git commit -qm one
        echo two >> a.txt && git commit -qam two
        mv a.txt b.txt && sed -i s/two/three/ b.txt && git add -A && git commit -qm three
        git fsck --strict && git status --porcelain
    """
    done = subprocess.run(
        ["sh", "-ec", script], cwd=work, capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout == ""
    sync(work)
    back.restart()
    done = subprocess.run(
        ["git", "log", "--format=%s"],
        cwd=work,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.split() == ["three", "two", "one"]
    assert (work / "b.txt").read_text() == "one\nthree\n"
    assert stored(service, "work")["b.txt"] == b"one\nthree\n"


def test_programs_that_wait_for_a_dead_service_can_still_close(
    back: Mount, service: ServiceProcess
) -> None:
    """Promise 13."""
    service.add_fault("create_file", "stall")
    (back.point / "work" / "a").write_bytes(b"bytes")
    pause(2)  # its upload hangs by now
    descriptor = os.open(back.point / "work" / "b", os.O_CREAT | os.O_WRONLY)
    os.write(descriptor, b"more")
    os.close(descriptor)
    assert (back.point / "work" / "b").stat().st_size == 4
    with pytest.raises(OSError, match="not empty"):
        (back.point / "work").rmdir()
    back.abandon()  # the upload hangs until its time is over
