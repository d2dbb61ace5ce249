"""Trees go into the mount and come out again with every byte, mode and time."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest
from tests.scenarios.programs import run
from tests.support.trees import contents, plant_tree, walked

pytestmark = pytest.mark.both_write_modes


@pytest.fixture
def tree(outside: Path) -> Path:
    """A tree on the local disk."""
    planted = outside / "tree"
    planted.mkdir()
    plant_tree(planted)
    return planted


def test_cp_brings_a_tree_in_and_out_unchanged(place: Path, tree: Path, outside: Path) -> None:
    run("cp", "-a", tree, place / "in", cwd=outside)
    run("diff", "-r", tree, place / "in", cwd=outside)
    run("cp", "-a", place / "in", outside / "out", cwd=outside)

    run("diff", "-r", tree, outside / "out", cwd=outside)
    assert walked(place / "in") == walked(tree)
    assert walked(outside / "out") == walked(tree)


def test_cp_copies_a_tree_inside_the_mount(place: Path, tree: Path) -> None:
    run("cp", "-a", tree, place / "one", cwd=place)
    run("cp", "-a", place / "one", place / "two", cwd=place)

    assert walked(place / "two") == walked(tree)


def test_rsync_sends_nothing_the_second_time(place: Path, tree: Path) -> None:
    """Promise 19."""
    source, target = f"{tree}/", place / "copy"
    run("rsync", "-a", source, target, cwd=place)
    second = run("rsync", "-a", "--itemize-changes", source, target, cwd=place)

    assert [line for line in second.splitlines() if line[:2] in {">f", "cd", "*d"}] == []
    assert walked(target) == walked(tree)


def test_rsync_deletes_and_updates_what_changed(place: Path, tree: Path) -> None:
    source, target = f"{tree}/", place / "copy"
    run("rsync", "-a", source, target, cwd=place)
    (tree / "file-0.bin").unlink()
    (tree / "file-4.bin").chmod(0o644)
    (tree / "file-4.bin").write_bytes(b"new content")
    run("rm", "-rf", tree / "folder 1", cwd=place)
    run("rsync", "-a", "--delete", source, target, cwd=place)

    assert walked(target) == walked(tree)


def test_rsync_writes_in_place_and_by_checksum(place: Path, tree: Path) -> None:
    source, target = f"{tree}/", place / "copy"
    run("rsync", "-a", source, target, cwd=place)
    (tree / "file-8.bin").chmod(0o644)
    (tree / "file-8.bin").write_bytes(b"x" * 200_000)
    run("rsync", "-a", "--inplace", "--checksum", source, target, cwd=place)

    assert walked(target) == walked(tree)


def test_tar_keeps_times_and_modes_both_ways(place: Path, tree: Path, outside: Path) -> None:
    run("tar", "-cf", outside / "in.tar", "-C", tree, ".", cwd=outside)
    (place / "in").mkdir()
    run("tar", "-xpf", outside / "in.tar", "-C", place / "in", cwd=outside)
    assert walked(place / "in") == walked(tree)

    run("tar", "-czf", place / "out.tar.gz", "-C", place / "in", ".", cwd=outside)
    (outside / "back").mkdir()
    run("tar", "-xpzf", place / "out.tar.gz", "-C", outside / "back", cwd=outside)
    assert walked(outside / "back") == walked(tree)


def test_zip_writes_and_unzip_reads_on_the_mount(place: Path, tree: Path) -> None:
    run("zip", "-q", "-r", place / "all.zip", ".", cwd=tree)
    run("zip", "-q", place / "all.zip", "file-0.bin", cwd=tree)
    run("unzip", "-q", place / "all.zip", "-d", place / "unpacked", cwd=place)

    assert contents(place / "unpacked") == contents(tree)
    with zipfile.ZipFile(place / "all.zip") as archive:
        assert archive.testzip() is None


def test_deep_folders_are_made_walked_and_removed(place: Path) -> None:
    deep = place / "/".join(f"level {number}" for number in range(20))
    run("mkdir", "-p", deep, cwd=place)
    (deep / "leaf.txt").write_bytes(b"leaf")

    assert run("find", place, "-name", "leaf.txt", cwd=place).strip() == str(deep / "leaf.txt")
    run("rm", "-rf", place / "level 0", cwd=place)
    assert list(place.iterdir()) == []


def test_rm_removes_a_whole_tree(place: Path, tree: Path) -> None:
    run("cp", "-r", tree, place / "in", cwd=place)
    run("rm", "-rf", place / "in", cwd=place)

    assert not (place / "in").exists()
    assert list(place.iterdir()) == []


def test_mv_renames_files_and_folders(place: Path, tree: Path) -> None:
    run("cp", "-a", tree, place / "in", cwd=place)
    run("mv", place / "in/file-0.bin", place / "in/renamed.bin", cwd=place)
    run("mv", place / "in/folder 1", place / "in/folder 2/moved", cwd=place)
    run("mv", tree / "file-0.bin", tree / "renamed.bin", cwd=place)
    run("mv", tree / "folder 1", tree / "folder 2/moved", cwd=place)

    assert walked(place / "in") == walked(tree)


def test_mv_over_an_existing_file_replaces_it(place: Path) -> None:
    (place / "old.txt").write_bytes(b"old")
    (place / "new.txt").write_bytes(b"new")
    run("mv", "-f", "new.txt", "old.txt", cwd=place)

    assert contents(place) == {"old.txt": b"new"}


def test_mv_goes_between_two_containers(place: Path, second_place: Path, tree: Path) -> None:
    run("cp", "-a", tree, place / "in", cwd=place)
    run("mv", place / "in/file-0.bin", second_place / "single.bin", cwd=place)
    run("mv", place / "in", second_place / "all", cwd=place)

    single = (tree / "file-0.bin").read_bytes()
    (tree / "file-0.bin").unlink()
    assert walked(second_place / "all") == walked(tree)
    assert (second_place / "single.bin").read_bytes() == single
    assert list(place.iterdir()) == []


def test_mv_renames_a_container_with_all_that_is_in_it(place: Path, tree: Path) -> None:
    """Promise 18."""
    run("cp", "-a", tree, place / "in", cwd=place)
    renamed = place.with_name(f"{place.name} renamed")
    run("mv", place, renamed, cwd=place.parent)

    assert walked(renamed / "in") == walked(tree)
    assert not place.exists()


def test_a_file_of_many_mebibytes_comes_back_whole(place: Path, outside: Path) -> None:
    (outside / "big.bin").write_bytes(os.urandom(24 * 1024 * 1024 + 17))
    run("cp", outside / "big.bin", place / "big.bin", cwd=place)
    run("cmp", outside / "big.bin", place / "big.bin", cwd=place)
    run("dd", f"if={place}/big.bin", f"of={outside}/back.bin", "bs=1M", "status=none", cwd=outside)

    run("cmp", outside / "big.bin", outside / "back.bin", cwd=place)
