"""Both ends at once: what programs do on the mount, and what the service then holds."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import pytest
from tests.scenarios.programs import attempt, run
from tests.support.mounting import IS_LOCAL, SharedMount
from tests.support.service import ServiceControl
from tests.support.trees import contents, id_of, plant_tree, stored
from tests.support.trying import comes_true
from tests.support.write_modes import sync_directory

pytestmark = [
    pytest.mark.mounted,
    pytest.mark.both_write_modes,
    pytest.mark.skipif(IS_LOCAL, reason="plain folders have no service"),
]

# The kernel can be told to forget a name only after the refresh has been answered.
KERNEL_S: Final = 5


@pytest.fixture
def service(shared_mount: SharedMount | None) -> ServiceControl:
    """The service behind the shared mount."""
    assert shared_mount is not None
    return shared_mount.service


def plant(service: ServiceControl, place: Path, name: str, content: bytes) -> str:
    """Put a file on the service behind the mount's back."""
    return service.plant(id_of(service, place.name), f"/mnt/data/{name}", content)


def refresh(path: Path) -> None:
    run("setfattr", "-n", "user.ctrfs.refresh", "-v", "1", path, cwd=Path("/"))


def test_a_tree_arrives_on_the_service_byte_for_byte(
    place: Path, outside: Path, service: ServiceControl
) -> None:
    plant_tree(outside)
    run("cp", "-r", f"{outside}/.", place, cwd=outside)

    sync_directory(place)
    assert stored(service, place.name) == contents(outside)


def test_changes_arrive_and_replaced_files_are_gone(place: Path, service: ServiceControl) -> None:
    """Promise 12."""
    for name in ("kept", "changed", "renamed", "removed"):
        (place / name).write_bytes(name.encode())
    (place / "changed").write_bytes(b"other")
    with (place / "changed").open("ab") as file:
        file.write(b" and more")
    (place / "renamed").rename(place / "new name")
    (place / "removed").unlink()

    sync_directory(place)
    assert stored(service, place.name) == {
        "kept": b"kept",
        "changed": b"other and more",
        "new name": b"renamed",
    }


def test_editors_leave_no_litter_on_the_service(
    place: Path, outside: Path, service: ServiceControl
) -> None:
    """Promise 22."""
    (place / "a.txt").write_bytes(b"one\n")
    run("sed", "-i", "s/one/two/", "a.txt", cwd=place)
    vim = ("vim", "-u", "NONE", "-es", "-c", "set backup backupskip= backupcopy=no swapfile")
    run(*vim, "-c", "s/two/three/", "-c", "wq", "a.txt", cwd=place)
    script = "(progn (setq backup-enable-predicate (lambda (_) t) create-lockfiles t)"
    script += '(find-file "a.txt") (insert "four ") (save-buffer))'
    run("emacs", "-Q", "--batch", "--eval", script, cwd=place)
    (outside / "b.txt").write_bytes(b"b")
    run("rsync", "-a", f"{outside}/", place, cwd=place)
    (place / ".goutputstream-X7F2A0").write_bytes(b"five")
    (place / ".goutputstream-X7F2A0").rename(place / "c.txt")
    (place / ".DS_Store").write_bytes(b"x")

    sync_directory(place)
    assert stored(service, place.name) == {
        "a.txt": b"four three\n",
        "b.txt": b"b",
        "c.txt": b"five",
    }


def test_git_leaves_no_locks_and_temporaries_on_the_service(
    place: Path, service: ServiceControl
) -> None:
    (place / "a.txt").write_bytes(b"a")
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "first"]):
        run("git", *command, cwd=place)

    sync_directory(place)
    held = stored(service, place.name)
    assert held == contents(place)
    assert [name for name in held if name.endswith(".lock") or Path(name).match("tmp_*")] == []


def test_files_made_elsewhere_are_read_through_the_mount(
    place: Path, service: ServiceControl
) -> None:
    """Promise 8."""
    assert list(place.iterdir()) == []
    big = os.urandom(3_000_000)
    plant(service, place, "chart.png", b"png")
    plant(service, place, "plots/deep/fig1.png", b"fig")
    plant(service, place, "big.bin", big)
    plant(service, place, "empty", b"")
    service.upload(id_of(service, place.name), "report.csv", b"a,b\n")
    refresh(place)

    assert contents(place) == {
        "chart.png": b"png",
        "plots/deep/fig1.png": b"fig",
        "big.bin": big,
        "empty": b"",
        "report.csv": b"a,b\n",
    }


def test_a_file_replaced_elsewhere_shows_its_new_bytes_after_a_refresh(
    place: Path, service: ServiceControl
) -> None:
    """Promise 8."""
    container_id = id_of(service, place.name)
    first = plant(service, place, "a.txt", b"first")
    refresh(place)
    assert (place / "a.txt").read_bytes() == b"first"

    service.delete_file(container_id, first)
    plant(service, place, "a.txt", b"second version")
    refresh(place)
    assert comes_true(lambda: (place / "a.txt").read_bytes() == b"second version", KERNEL_S)
    assert (place / "a.txt").stat().st_size == 14


def test_a_file_deleted_elsewhere_is_gone_after_a_refresh(
    place: Path, service: ServiceControl
) -> None:
    first = plant(service, place, "a.txt", b"first")
    refresh(place)
    assert (place / "a.txt").exists()

    service.delete_file(id_of(service, place.name), first)
    refresh(place)
    assert comes_true(lambda: not (place / "a.txt").exists(), KERNEL_S)
    assert list(place.iterdir()) == []


def test_a_reader_keeps_the_version_it_opened(place: Path, service: ServiceControl) -> None:
    """Promise 9."""
    first = plant(service, place, "a.txt", b"first version")
    refresh(place)
    with (place / "a.txt").open("rb") as file:
        assert file.read(5) == b"first"
        service.delete_file(id_of(service, place.name), first)
        plant(service, place, "a.txt", b"SECOND VERSION")
        refresh(place)
        assert file.read() == b" version"

    # setfattr holds the folder's lock, so the kernel can forget the old name only after it.
    assert comes_true(lambda: (place / "a.txt").read_bytes() == b"SECOND VERSION", 10)


def test_two_files_of_one_shown_name_are_both_visible(place: Path, service: ServiceControl) -> None:
    """Promise 3."""
    container_id = id_of(service, place.name)
    service.upload(container_id, "report.csv", b"older")
    service.upload(container_id, "report.csv", b"newer")
    plant(service, place, "chart.png", b"one")
    plant(service, place, "chart.png", b"two")
    refresh(place)
    found = contents(place)

    assert found["report.csv"] == b"newer"
    assert sorted(found.values()) == sorted([b"older", b"newer", b"one", b"two"])


def test_ls_shows_a_thousand_files(place: Path, service: ServiceControl) -> None:
    container_id = id_of(service, place.name)
    for number in range(1000):
        service.plant(container_id, f"/mnt/data/file {number:04}", b"x" * (number % 7))
    refresh(place)
    lines = run("ls", "-l", place, cwd=Path("/")).splitlines()[1:]

    assert [line[-9:] for line in lines] == [f"file {number:04}" for number in range(1000)]
    assert [int(line.split()[4]) for line in lines] == [number % 7 for number in range(1000)]


def test_df_shows_space_that_programs_accept(place: Path) -> None:
    """Promise 21."""
    last = run("df", "-B1", "--output=size,used,avail", place, cwd=Path("/")).splitlines()[-1]
    size, _, free = map(int, last.split())

    assert size > 0
    assert free > 0


def test_getfattr_shows_what_the_service_knows(place: Path, service: ServiceControl) -> None:
    (place / "a.txt").write_bytes(b"hello")
    sync_directory(place)
    row = service.files(id_of(service, place.name))[0]
    listed = run("getfattr", "-d", "-m", "user.ctrfs.", "a.txt", cwd=place)

    assert f'user.ctrfs.id="{row["id"]}"' in listed
    assert f'user.ctrfs.path="{row["path"]}"' in listed
    assert 'user.ctrfs.source="user"' in listed
    assert 'user.ctrfs.state="clean"' in listed
    container = run("getfattr", "-d", "-m", "user.ctrfs.", place, cwd=Path("/"))
    assert f'user.ctrfs.id="{id_of(service, place.name)}"' in container
    assert 'user.ctrfs.status="running"' in container


def test_programs_are_refused_links_and_files_in_the_root(place: Path) -> None:
    """Promises 5 and 20."""
    (place / "a.txt").write_bytes(b"x")

    for command in (
        ["ln", "-s", "a.txt", "soft"],
        ["ln", "a.txt", "hard"],
        ["mkfifo", "fifo"],
        ["cp", "a.txt", "../in-the-root.txt"],
        ["mkdir", "../.Trash-0"],
    ):
        refused = attempt(*command, cwd=place)
        assert refused.returncode != 0, command
        assert b"not permitted" in refused.stderr, refused.stderr
    assert [entry.name for entry in place.iterdir()] == ["a.txt"]


def test_chown_to_the_owner_succeeds_and_to_others_not(place: Path) -> None:
    """Promise 19."""
    (place / "a.txt").write_bytes(b"x")
    status = (place / "a.txt").stat()
    run("chown", f"{status.st_uid}:{status.st_gid}", "a.txt", cwd=place)

    refused = attempt("chown", str(status.st_uid + 1), "a.txt", cwd=place)
    assert b"not permitted" in refused.stderr
    assert (place / "a.txt").stat().st_uid == status.st_uid
