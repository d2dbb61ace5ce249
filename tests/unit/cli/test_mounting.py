"""What ``ctrfs umount`` says of a daemon whose mount point has a newer mount meanwhile."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace
from tests.unit.disk.clocks import StoppedClock

from ctrfs.cli.mounting import _wait
from ctrfs.disk.journal import Journal, UnsentRow
from ctrfs.disk.state_dir import StateDirectory
from ctrfs.mount.problems import EXIT_OK, EXIT_UNSENT
from ctrfs.mount.records import MountRecord, MountRecords, record_of_this_process

UNSENT = UnsentRow(
    key="7",
    container_id="cntr_1",
    container_name="analysis",
    path=b"figure.png",
    spool_name="0" * 32,
    size_bytes=3,
    digest="ab" * 16,
    replaces=(),
    mtime_ns=400 * 10**18,
    mode=0o644,
    error="",
    since_s=1_700_000_000,
)
NEWER = record_of_this_process(
    mountpoint=Path("/mnt/work"), source="openai:", state_path=Path("/newer"), log_file=None
)


@pytest.fixture
def older(tmp_path: Path) -> MountRecord:
    """The record of a daemon that has ended, with nothing unsent in its slot."""
    with StateDirectory.open(tmp_path, "openai:", clock=StoppedClock()) as state:
        return replace(NEWER, started_ticks=1, state_path=str(state.path))


def wait_for(records: MountRecords, record: MountRecord) -> int:
    return _wait(records, record, timeout_s=10, is_quiet=True)


def test_umount_says_what_its_daemon_has_left_though_the_place_has_a_newer_mount(
    tmp_path: Path, older: MountRecord, capsys: pytest.CaptureFixture[str]
) -> None:
    with StateDirectory.open(tmp_path, "openai:", clock=StoppedClock()) as state:
        Journal(state.database).put(UNSENT)
    records = MountRecords(tmp_path)
    records.write(NEWER)

    assert wait_for(records, older) == EXIT_UNSENT

    assert "1 file(s) are not sent: analysis/figure.png" in capsys.readouterr().err
    assert records.read(Path("/mnt/work")) == NEWER


def test_umount_says_what_its_daemon_has_left_though_a_newer_mount_has_come_and_gone(
    tmp_path: Path, older: MountRecord
) -> None:
    with StateDirectory.open(tmp_path, "openai:", clock=StoppedClock()) as state:
        Journal(state.database).put(UNSENT)

    assert wait_for(MountRecords(tmp_path), older) == EXIT_UNSENT


def test_umount_of_a_daemon_that_has_sent_everything_leaves_the_record_of_a_newer_mount(
    tmp_path: Path, older: MountRecord
) -> None:
    records = MountRecords(tmp_path)
    records.write(NEWER)

    assert wait_for(records, older) == EXIT_OK

    assert records.read(Path("/mnt/work")) == NEWER
