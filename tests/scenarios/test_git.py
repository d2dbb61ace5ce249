"""git works on the mount, and across its border."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.scenarios.programs import run
from tests.support.trees import contents, plant_tree

pytestmark = pytest.mark.both_write_modes


def git(*words: str | Path, cwd: Path) -> str:
    return run("git", "-c", "init.defaultBranch=main", *words, cwd=cwd)


def commit(repository: Path, name: str, content: bytes, message: str) -> None:
    (repository / name).write_bytes(content)
    git("add", "-A", cwd=repository)
    git("commit", "-q", "-m", message, cwd=repository)


@pytest.fixture
def repository(outside: Path) -> Path:
    """A repository on the local disk, with a tree and two commits."""
    made = outside / "origin"
    made.mkdir()
    git("init", "-q", cwd=made)
    plant_tree(made, files=12)
    commit(made, "one.txt", b"one\n", "first")
    commit(made, "two.txt", b"two\n", "second")
    return made


def test_git_commits_branches_merges_and_packs(place: Path) -> None:
    git("init", "-q", cwd=place)
    commit(place, "base.txt", b"base\n", "base")
    git("checkout", "-q", "-b", "side", cwd=place)
    commit(place, "side.txt", b"side\n", "side")
    git("checkout", "-q", "main", cwd=place)
    commit(place, "base.txt", b"base\nmore\n", "more")
    git("merge", "-q", "-m", "merge", "side", cwd=place)
    git("gc", "-q", "--prune=now", cwd=place)

    assert git("fsck", "--full", "--strict", cwd=place).strip() == ""
    assert git("status", "--porcelain", cwd=place) == ""
    assert git("log", "--format=%s", cwd=place).split() == ["merge", "more", "side", "base"]
    assert (place / "side.txt").read_bytes() == b"side\n"


def test_git_sees_what_changed_and_what_was_put_back(place: Path) -> None:
    git("init", "-q", cwd=place)
    commit(place, "a.txt", b"first\n", "first")

    (place / "a.txt").write_bytes(b"other\n")
    assert git("status", "--porcelain", cwd=place) == " M a.txt\n"
    git("stash", "-q", cwd=place)
    assert (place / "a.txt").read_bytes() == b"first\n"
    git("stash", "pop", "-q", cwd=place)
    assert (place / "a.txt").read_bytes() == b"other\n"
    git("checkout", "-q", "--", "a.txt", cwd=place)
    assert git("status", "--porcelain", cwd=place) == ""


def test_git_clones_into_the_mount(place: Path, repository: Path) -> None:
    git("clone", "-q", repository, place / "copy", cwd=place)

    git("fsck", "--full", cwd=place / "copy")
    assert git("status", "--porcelain", cwd=place / "copy") == ""
    assert (place / "copy/two.txt").read_bytes() == b"two\n"
    head = git("rev-parse", "HEAD", cwd=repository)
    assert git("rev-parse", "HEAD", cwd=place / "copy") == head


def test_git_clones_out_of_the_mount(place: Path, repository: Path, outside: Path) -> None:
    git("clone", "-q", repository, place / "copy", cwd=place)
    git("clone", "-q", place / "copy", outside / "back", cwd=outside)

    git("fsck", "--full", cwd=outside / "back")
    tracked = git("ls-files", "-z", cwd=repository).split("\0")[:-1]
    assert tracked
    for name in tracked:
        assert (outside / "back" / name).read_bytes() == (repository / name).read_bytes()


def test_git_pushes_to_and_fetches_from_a_bare_repository_on_the_mount(
    place: Path, repository: Path, outside: Path
) -> None:
    git("clone", "-q", "--bare", repository, place / "bare.git", cwd=place)
    git("remote", "add", "mounted", place / "bare.git", cwd=repository)
    commit(repository, "three.txt", b"three\n", "third")
    git("push", "-q", "mounted", "main", cwd=repository)

    git("fsck", "--full", cwd=place / "bare.git")
    git("clone", "-q", place / "bare.git", outside / "back", cwd=outside)
    assert (outside / "back/three.txt").read_bytes() == b"three\n"
    assert {name for name in contents(outside / "back") if not name.startswith(".git/")} == {
        name for name in contents(repository) if not name.startswith(".git/")
    }
