"""What tasks cost with write=back: what was undone before it was sent is never sent.

Each task ends with ``sync DIR``, which waits for all that was put off: so nothing is left out
of the count.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.budget.counting import Budget
from tests.scenarios.programs import run
from tests.support.trees import stored

from ctrfs.config import WriteMode

pytestmark = [
    pytest.mark.mounted,
    pytest.mark.parametrize("write_mode", [WriteMode.BACK], indirect=True, ids=["write=back"]),
]


def test_creating_a_file_costs_one_upload(budget: Budget) -> None:
    with budget.counted() as counted:
        (budget.container / "a.txt").write_bytes(b"content")
        budget.settle()

    assert counted.requests == {"create_file": 1}


def test_closing_a_file_costs_nothing_until_it_is_sent(budget: Budget) -> None:
    with budget.counted() as counted:
        (budget.container / "a.txt").write_bytes(b"content")

    assert counted.requests == {}


def test_fsync_of_a_file_costs_one_upload_and_the_close_behind_it_nothing(budget: Budget) -> None:
    with budget.counted() as counted:
        run(
            "dd", "if=/dev/zero", "of=a.bin", "bs=1k", "count=9", "conv=fsync", cwd=budget.container
        )
        budget.settle()

    assert counted.requests == {"create_file": 1}


def test_a_file_saved_five_times_within_a_second_costs_one_upload(budget: Budget) -> None:
    with budget.counted() as counted:
        for number in range(5):
            (budget.container / "a.txt").write_bytes(b"version %d" % number)
        budget.settle()

    assert counted.requests == {"create_file": 1}
    assert stored(budget.service, "work") == {"a.txt": b"version 4"}


def test_an_old_file_saved_five_times_within_a_second_costs_an_upload_and_a_delete(
    budget: Budget,
) -> None:
    (budget.container / "a.txt").write_bytes(b"old")
    budget.settle()
    with budget.counted() as counted:
        for number in range(5):
            (budget.container / "a.txt").write_bytes(b"version %d" % number)
        budget.settle()

    assert counted.requests == {"create_file": 1, "delete_file": 1}
    assert stored(budget.service, "work") == {"a.txt": b"version 4"}


def test_a_file_deleted_before_it_was_sent_costs_nothing(budget: Budget) -> None:
    with budget.counted() as counted:
        (budget.container / "a.txt").write_bytes(b"content")
        (budget.container / "a.txt").unlink()
        budget.settle()

    assert counted.requests == {}


def test_a_tree_unpacked_and_removed_at_once_costs_nothing(budget: Budget) -> None:
    with budget.counted() as counted:
        (budget.container / "one/two").mkdir(parents=True)
        for number in range(20):
            (budget.container / f"one/two/{number}").write_bytes(b"%d" % number)
        run("rm", "-r", "one", cwd=budget.container)
        budget.settle()

    assert counted.requests == {}


@pytest.mark.parametrize("files", [1, 20, 150])
def test_removing_a_container_with_all_in_it_costs_a_last_look_and_one_delete(
    budget: Budget, files: int
) -> None:
    # The look is promise 5: whatever others have put there meanwhile must not be lost. With
    # write=through the same costs a delete for each file.
    for number in range(files):
        (budget.container / f"{number}.txt").write_bytes(b"%d" % number)
    budget.settle()
    with budget.counted() as counted:
        run("rm", "-r", budget.container, cwd=Path("/"))
        budget.settle()

    pages = -(-files // 100)
    assert counted.requests == {"list_files": pages, "delete_container": 1}
    assert budget.service.containers() == []


def test_removing_a_folder_costs_one_delete_for_each_file(budget: Budget) -> None:
    (budget.container / "folder").mkdir()
    for number in range(5):
        (budget.container / f"folder/{number}.txt").write_bytes(b"%d" % number)
    budget.settle()
    with budget.counted() as counted:
        run("rm", "-r", "folder", cwd=budget.container)
        budget.settle()

    assert counted.requests == {"delete_file": 5}


def test_overwriting_costs_an_upload_and_a_delete(budget: Budget) -> None:
    (budget.container / "a.txt").write_bytes(b"content")
    budget.settle()
    with budget.counted() as counted:
        (budget.container / "a.txt").write_bytes(b"other")
        budget.settle()

    assert counted.requests == {"create_file": 1, "delete_file": 1}


@pytest.mark.parametrize("draft", [".goutputstream-X7F2A0", "draft.txt"])
def test_an_editors_save_by_rename_costs_an_upload_and_a_delete(budget: Budget, draft: str) -> None:
    path = budget.container / "a.txt"
    path.write_bytes(b"one")
    budget.settle()
    with budget.counted() as counted:
        (budget.container / draft).write_bytes(b"two")
        (budget.container / draft).rename(path)
        budget.settle()

    assert counted.requests == {"create_file": 1, "delete_file": 1}
    assert stored(budget.service, "work") == {"a.txt": b"two"}


def test_a_rename_over_deletes_nothing_before_the_new_bytes_are_there(budget: Budget) -> None:
    path = budget.container / "a.txt"
    path.write_bytes(b"one")
    budget.settle()
    budget.service.add_fault("create_file", "status", status=403)
    with budget.counted() as counted:
        (budget.container / "draft.txt").write_bytes(b"two")
        (budget.container / "draft.txt").rename(path)
        with pytest.raises(OSError, match="Permission denied"):
            budget.settle()

    assert "delete_file" not in counted.requests
    assert stored(budget.service, "work") == {"a.txt": b"one"}
    budget.service.clear_faults()
    budget.settle()
    assert stored(budget.service, "work") == {"a.txt": b"two"}


def test_writing_the_same_bytes_again_costs_nothing(budget: Budget) -> None:
    (budget.container / "a.txt").write_bytes(b"content")
    budget.settle()
    with budget.counted() as counted:
        (budget.container / "a.txt").write_bytes(b"content")
        budget.settle()

    assert counted.requests == {}


def test_a_new_file_renamed_and_chmodded_costs_one_upload_under_its_last_name(
    budget: Budget,
) -> None:
    with budget.counted() as counted:
        (budget.container / "a.part").write_bytes(b"content")
        (budget.container / "a.part").chmod(0o600)
        (budget.container / "a.part").rename(budget.container / "a.bin")
        budget.settle()

    assert counted.requests == {"create_file": 1}
    assert stored(budget.service, "work") == {"a.bin": b"content"}


def test_sync_costs_nothing_where_nothing_is_pending(budget: Budget) -> None:
    (budget.container / "a.txt").write_bytes(b"content")
    budget.settle()
    with budget.counted() as counted:
        budget.settle()
        run("sync", budget.container, cwd=Path("/"))

    assert counted.requests == {}


def test_reading_back_what_waits_to_be_sent_costs_nothing(budget: Budget) -> None:
    with budget.counted() as counted:
        (budget.container / "a.txt").write_bytes(b"content")
        assert (budget.container / "a.txt").read_bytes() == b"content"
        assert [path.name for path in budget.container.iterdir()] == ["a.txt"]

    assert counted.requests == {}


def test_removing_a_file_costs_one_delete(budget: Budget) -> None:
    (budget.container / "a.txt").write_bytes(b"one")
    budget.settle()
    with budget.counted() as counted:
        (budget.container / "a.txt").unlink()
        budget.settle()

    assert counted.requests == {"delete_file": 1}


def test_touching_a_new_file_costs_one_upload_and_an_old_one_nothing(budget: Budget) -> None:
    with budget.counted() as first:
        run("touch", "a.txt", cwd=budget.container)
        budget.settle()
    with budget.counted() as second:
        run("touch", "a.txt", cwd=budget.container)
        budget.settle()

    assert first.requests == {"create_file": 1}
    assert second.requests == {}


def test_git_status_costs_nothing_the_second_time(budget: Budget) -> None:
    path = budget.container / "a.txt"
    path.write_bytes(b"one\n")
    # git looks again, and writes its index again, while a file is no older than the index.
    os.utime(path, (1_500_000_000, 1_500_000_000))
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "first"]):
        run("git", *command, cwd=budget.container)
    run("git", "status", "--porcelain", cwd=budget.container)
    budget.settle()
    with budget.counted() as counted:
        assert run("git", "status", "--porcelain", cwd=budget.container) == ""
        budget.settle()

    assert counted.requests == {}
