"""The file that says how the sending goes on, and the numbers in it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from msgspec.structs import replace
from tests.unit.disk.test_reading import UNSENT, VERSION

from ctrfs.disk.database import StateDatabase
from ctrfs.disk.journal import Journal
from ctrfs.disk.progress import (
    FILE_NAME,
    MountProgress,
    PendingCounts,
    ProgressFile,
    Sending,
    pending_counts,
    read_progress,
    text_from_progress,
)

PROGRESS = MountProgress(
    pid=7,
    sent_files=1,
    pending_files=2,
    pending_bytes=30,
    error="no route\nto host",
    sending_files=1,
    sending_bytes=20,
    sending_sent_bytes=5,
    sending=(
        Sending(container_id="cntr_1", name="plots/ü.png", size_bytes=20, sent_bytes=5, since_s=1),
    ),
)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    file = ProgressFile(tmp_path)
    file.write(MountProgress(pid=7))
    file.write(PROGRESS)

    assert read_progress(tmp_path, pid=7) == PROGRESS
    assert list(tmp_path.iterdir()) == [tmp_path / FILE_NAME]
    assert (tmp_path / FILE_NAME).stat().st_mode & 0o777 == 0o600


def test_it_is_one_line(tmp_path: Path) -> None:
    ProgressFile(tmp_path).write(PROGRESS)

    assert (tmp_path / FILE_NAME).read_text() == text_from_progress(PROGRESS)
    assert text_from_progress(PROGRESS).count("\n") == 1


def test_the_file_of_another_daemon_says_nothing(tmp_path: Path) -> None:
    ProgressFile(tmp_path).write(PROGRESS)

    assert read_progress(tmp_path, pid=8) is None


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b'{"pid": "7"}', b"\xff", b"[" * 100_000])
def test_a_damaged_file_says_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE_NAME).write_bytes(content)

    assert read_progress(tmp_path, pid=7) is None


def test_a_link_and_a_pipe_in_its_place_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "other").write_text(text_from_progress(PROGRESS))
    (tmp_path / FILE_NAME).symlink_to("other")
    assert read_progress(tmp_path, pid=7) is None
    (tmp_path / FILE_NAME).unlink()
    os.mkfifo(tmp_path / FILE_NAME)

    assert read_progress(tmp_path, pid=7) is None


def test_a_directory_that_takes_no_file_is_no_failure(tmp_path: Path) -> None:
    file = ProgressFile(tmp_path / "gone")

    file.write(PROGRESS)
    file.remove()


def test_removing_leaves_nothing(tmp_path: Path) -> None:
    file = ProgressFile(tmp_path)
    file.write(PROGRESS)

    file.remove()

    assert list(tmp_path.iterdir()) == []


def test_bytes_on_their_way_are_taken_off_what_is_left() -> None:
    assert (PROGRESS.left_files, PROGRESS.left_bytes) == (2, 25)


def test_a_copy_without_a_record_is_left_to_send_too() -> None:
    copying = replace(PROGRESS, pending_files=0, pending_bytes=0)

    assert (copying.left_files, copying.left_bytes) == (1, 15)


def test_the_counts_are_those_of_the_journal(tmp_path: Path) -> None:
    database = StateDatabase(tmp_path / "state.db")
    journal = Journal(database)
    assert pending_counts(database) == PendingCounts()
    journal.put(replace(UNSENT, key="1", error="", since_s=1))
    journal.put(replace(UNSENT, key="2", error="later", since_s=3))
    journal.put(replace(UNSENT, key="3", error="first", since_s=2))
    journal.settle(deletes=[VERSION])
    journal.put_rmdir("cntr_2")

    counted = pending_counts(database)

    assert counted == PendingCounts(files=3, size_bytes=9, failed_files=2, error="first", changes=2)
    database.close()
