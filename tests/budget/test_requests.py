"""The request budgets of docs/performance.md, counted by the service: the regression gate.

A request to the real service takes about a second, so one too many is a bug like any other.
Everything runs within one ttl; what a ttl's end adds is said there.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.budget.counting import ONE_MOMENT, Budget
from tests.scenarios.programs import need, run, terminal
from tests.support.mounting import MakeMount
from tests.support.service import ServiceProcess

pytestmark = pytest.mark.mounted


def test_mounting_and_the_first_ls_cost_one_listing(
    service: ServiceProcess, make_mount: MakeMount
) -> None:
    service.reset_counters()
    mount = make_mount(service, options=ONE_MOMENT)
    run("ls", "-l", mount.point, cwd=Path("/"))

    assert {name: n for name, n in service.counters().items() if n} == {"list_containers": 1}


@pytest.mark.parametrize(("files", "requests"), [(1, 1), (100, 1), (101, 2), (250, 3)])
def test_ls_of_a_directory_costs_one_request_per_hundred_files(
    service: ServiceProcess, make_mount: MakeMount, files: int, requests: int
) -> None:
    container_id = service.create_container("full")
    for number in range(files):
        service.plant(container_id, f"/mnt/data/{number}.txt", b"x")
    budget = Budget(service, make_mount(service, options=ONE_MOMENT))
    with budget.counted() as counted:
        lines = run("ls", "-l", budget.mount.point / "full", cwd=Path("/")).splitlines()

    assert len(lines) == files + 1
    assert counted.requests == {"list_files": requests}


def test_what_is_known_or_known_not_to_be_there_costs_nothing(budget: Budget) -> None:
    path = budget.container / "a.txt"
    path.write_bytes(b"x")
    with budget.counted() as counted:
        for _ in range(3):
            assert path.stat().st_size == 1
            assert not (budget.container / "none").exists()
            assert not (budget.mount.point / "none").exists()
            assert os.access(path, os.R_OK | os.W_OK)
            assert os.statvfs(path).f_blocks > 0
            assert os.getxattr(path, "user.ctrfs.state") == b"clean"
            assert os.listxattr(path)
            assert [entry.name for entry in budget.container.iterdir()] == ["a.txt"]

    assert counted.requests == {}


def test_reading_a_file_twice_downloads_it_once(
    service: ServiceProcess, make_mount: MakeMount
) -> None:
    container_id = service.create_container("work")
    service.plant(container_id, "/mnt/data/a.txt", b"planted")
    budget = Budget(service, make_mount(service, options=ONE_MOMENT))
    run("ls", "-l", budget.container, cwd=Path("/"))
    with budget.counted() as first:
        assert run("cat", budget.container / "a.txt", cwd=Path("/")) == "planted"
    with budget.counted() as second:
        assert run("cat", budget.container / "a.txt", cwd=Path("/")) == "planted"

    assert first.requests == {"file_content": 1}
    assert second.requests == {}


def test_reading_what_was_just_written_costs_nothing(budget: Budget) -> None:
    (budget.container / "a.txt").write_bytes(b"ours")
    with budget.counted() as counted:
        assert (budget.container / "a.txt").read_bytes() == b"ours"

    assert counted.requests == {}


def test_creating_a_file_costs_one_upload(budget: Budget) -> None:
    with budget.counted() as counted:
        (budget.container / "a.txt").write_bytes(b"content")

    assert counted.requests == {"create_file": 1}


def test_creating_a_file_in_a_new_folder_costs_one_upload(budget: Budget) -> None:
    with budget.counted() as counted:
        (budget.container / "one/two").mkdir(parents=True)
        (budget.container / "one/two/a.txt").write_bytes(b"content")

    assert counted.requests == {"create_file": 1}


def test_overwriting_costs_an_upload_and_a_delete(budget: Budget) -> None:
    (budget.container / "a.txt").write_bytes(b"content")
    with budget.counted() as counted:
        (budget.container / "a.txt").write_bytes(b"other")

    assert counted.requests == {"create_file": 1, "delete_file": 1}


def test_writing_the_same_bytes_again_costs_nothing(budget: Budget) -> None:
    (budget.container / "a.txt").write_bytes(b"content")
    with budget.counted() as counted:
        (budget.container / "a.txt").write_bytes(b"content")

    assert counted.requests == {}


def test_touching_a_new_file_costs_one_upload_and_an_old_one_nothing(budget: Budget) -> None:
    with budget.counted() as first:
        run("touch", "a.txt", cwd=budget.container)
    with budget.counted() as second:
        run("touch", "a.txt", cwd=budget.container)

    assert first.requests == {"create_file": 1}
    assert second.requests == {}


def test_sed_saves_with_an_upload_and_a_delete(budget: Budget) -> None:
    (budget.container / "a.txt").write_bytes(b"one\n")
    with budget.counted() as counted:
        run("sed", "-i", "s/one/two/", "a.txt", cwd=budget.container)

    assert (budget.container / "a.txt").read_bytes() == b"two\n"
    assert counted.requests == {"create_file": 1, "delete_file": 1}


@pytest.mark.parametrize("backupcopy", ["yes", "no", "auto"])
def test_vim_saves_with_an_upload_and_a_delete(
    budget: Budget, tmp_path: Path, backupcopy: str
) -> None:
    need("vim")
    (budget.container / "a.txt").write_bytes(b"one\n")
    with budget.counted() as counted, terminal(tmp_path) as screen:
        screen.open(
            *("vim", "-u", "NONE", "-N", "-c", f"set backupskip= backupcopy={backupcopy}", "a.txt"),
            cwd=budget.container,
        )
        screen.wait_for("one")
        screen.write("itwo ")
        screen.wait_for("two")
        screen.type("Escape")
        screen.write(":wq")
        screen.type("Enter")
        screen.wait_for_the_end()

    assert (budget.container / "a.txt").read_bytes() == b"two one\n"
    assert counted.requests == {"create_file": 1, "delete_file": 1}


def test_a_desktop_editor_saves_with_an_upload_and_a_delete(budget: Budget) -> None:
    path = budget.container / "a.txt"
    path.write_bytes(b"one")
    with budget.counted() as counted:
        temporary = budget.container / ".goutputstream-X7F2A0"
        temporary.write_bytes(b"two")
        temporary.rename(path)

    assert counted.requests == {"create_file": 1, "delete_file": 1}


def test_removing_a_file_costs_one_delete(budget: Budget) -> None:
    (budget.container / "a.txt").write_bytes(b"one")
    with budget.counted() as counted:
        (budget.container / "a.txt").unlink()

    assert counted.requests == {"delete_file": 1}


def test_removing_a_container_of_files_costs_one_delete_each_a_last_look_and_one_for_itself(
    budget: Budget,
) -> None:
    # The look is promise 5: whatever others have put there meanwhile must not be lost.
    for number in range(20):
        (budget.container / f"{number}.txt").write_bytes(b"x")
    with budget.counted() as counted:
        run("rm", "-r", budget.container, cwd=Path("/"))

    assert counted.requests == {"delete_file": 20, "list_files": 1, "delete_container": 1}


def test_git_status_costs_nothing_the_second_time(budget: Budget) -> None:
    path = budget.container / "a.txt"
    path.write_bytes(b"one\n")
    # git looks again, and writes its index again, while a file is no older than the index.
    os.utime(path, (1_500_000_000, 1_500_000_000))
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "first"]):
        run("git", *command, cwd=budget.container)
    run("git", "status", "--porcelain", cwd=budget.container)
    with budget.counted() as counted:
        assert run("git", "status", "--porcelain", cwd=budget.container) == ""

    assert counted.requests == {}
