from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from msgspec.structs import replace

from ctrfs.errors import MountError
from ctrfs.mount.records import (
    MountRecords,
    ended,
    is_alive,
    record_of_this_process,
    wait_for_end,
)

MOUNTPOINT = Path("/mnt/some where")
RECORD = record_of_this_process(
    mountpoint=MOUNTPOINT, source="openai:", state_path=Path("/s"), log_file=None
)


def test_a_record_is_found_by_its_mount_point(tmp_path: Path) -> None:
    records = MountRecords(tmp_path / "new")
    records.write(RECORD)

    assert records.read(MOUNTPOINT) == RECORD
    assert records.read(Path("/mnt/other")) is None


def test_a_daemon_adds_how_it_ended(tmp_path: Path) -> None:
    records = MountRecords(tmp_path)
    records.write(RECORD)

    records.write_end(ended(RECORD, unsent_files=3))

    found = records.read(MOUNTPOINT)
    assert found is not None
    assert found.has_ended
    assert found.unsent_files == 3


def test_the_end_of_an_older_daemon_leaves_the_record_of_the_newer_mount(tmp_path: Path) -> None:
    """As after ``umount --timeout 1`` and a mount at the same place, while the older still sends."""
    records = MountRecords(tmp_path)
    older = replace(RECORD, pid=RECORD.pid + 1, state_path="/older")
    records.write(older)
    records.write(RECORD)

    records.write_end(ended(older, unsent_files=1))
    records.remove(older)

    assert records.read(MOUNTPOINT) == RECORD


def test_a_newer_mount_whose_process_has_the_number_of_the_older_keeps_its_record(
    tmp_path: Path,
) -> None:
    records = MountRecords(tmp_path)
    records.write(RECORD)

    records.write_end(ended(replace(RECORD, started_ticks=1), unsent_files=1))

    assert records.read(MOUNTPOINT) == RECORD


def test_a_record_that_makes_no_sense_counts_as_none(tmp_path: Path) -> None:
    records = MountRecords(tmp_path)
    records.write(RECORD)
    [path] = (tmp_path / "mounts").glob("*.json")

    for rubbish in ("", "[]", "{}", '{"pid": "x"}'):
        path.write_text(rubbish)
        assert records.read(MOUNTPOINT) is None


def test_all_records_are_found_by_mount_point_without_what_makes_no_sense(tmp_path: Path) -> None:
    records = MountRecords(tmp_path)
    assert records.read_all() == []
    for mountpoint in ("/mnt/b", "/mnt/a"):
        records.write(replace(RECORD, mountpoint=mountpoint))
    (tmp_path / "mounts" / "rubbish.json").write_text("[]")

    assert [each.mountpoint for each in records.read_all()] == ["/mnt/a", "/mnt/b"]


def test_a_record_is_alive_as_long_as_its_own_process() -> None:
    assert is_alive(RECORD)
    assert not is_alive(replace(RECORD, started_ticks=1))


def test_a_daemon_that_has_ended_is_not_alive_though_nobody_has_asked_for_its_exit_code() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        ticks = int(
            Path(f"/proc/{process.pid}/stat").read_text("ascii").rpartition(")")[2].split()[19]
        )
        record = replace(RECORD, pid=process.pid, started_ticks=ticks)
        assert is_alive(record)

        assert process.stdin is not None
        process.stdin.close()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)

        assert not is_alive(record)


def test_a_removed_record_is_gone_and_may_be_removed_again(tmp_path: Path) -> None:
    records = MountRecords(tmp_path)
    records.write(RECORD)

    records.remove(RECORD)
    records.remove(RECORD)

    assert records.read(MOUNTPOINT) is None


def test_waiting_for_a_living_process_ends_at_the_deadline() -> None:
    assert not wait_for_end(RECORD, timeout_s=0.05)


def test_waiting_for_a_process_that_ends_returns_at_once() -> None:
    program = (
        "from pathlib import Path; from ctrfs.mount.records import *;"
        "r = record_of_this_process(mountpoint=Path('/m'), source='', state_path=Path('/s'),"
        " log_file=None); print(r.pid, r.started_ticks, flush=True)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        pid, ticks = process.stdout.readline().split()

        assert wait_for_end(replace(RECORD, pid=int(pid), started_ticks=int(ticks)), timeout_s=20)


def test_another_process_under_the_same_number_is_not_waited_for() -> None:
    assert wait_for_end(replace(RECORD, started_ticks=1), timeout_s=20)


def test_of_two_mounts_that_start_at_one_place_one_is_refused(tmp_path: Path) -> None:
    records = MountRecords(tmp_path)

    with records.claim(MOUNTPOINT):
        with pytest.raises(MountError, match="being mounted"):
            records.claim(MOUNTPOINT)
        records.claim(Path("/mnt/other")).release()
    records.claim(MOUNTPOINT).release()


def test_a_claim_lasts_until_the_daemon_has_let_it_go_too(tmp_path: Path) -> None:
    records = MountRecords(tmp_path)
    claim = records.claim(MOUNTPOINT)
    with subprocess.Popen(["sleep", "60"], pass_fds=open_locks()) as daemon:
        claim.release()

        with pytest.raises(MountError, match="being mounted"):
            records.claim(MOUNTPOINT)
        daemon.kill()
    records.claim(MOUNTPOINT).release()


def open_locks() -> list[int]:
    links = {int(link.name): link.resolve() for link in Path("/proc/self/fd").iterdir()}
    return [fd for fd, path in links.items() if path.suffix == ".lock"]
