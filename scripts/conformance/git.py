"""git's own heavy commands, in a repository on the mount."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from scripts.conformance.arena import Arena, Ended
from scripts.conformance.results import Case
from tests.support.trees import plant_tree

LIMIT_S: Final = 120
COMMITS: Final = 40
GIT: Final = (
    *("git", "-c", "init.defaultBranch=main", "-c", "gc.autoDetach=false"),
    *("-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "protocol.file.allow=always"),
)

# In the clone, one after another; each must end with 0.
COMMANDS: Final = (
    "fsck --full --strict",
    "checkout -q -b side HEAD~20",
    "cherry-pick -X theirs --allow-empty main",
    "rebase -q -X theirs main~5",
    "rebase -q --exec true HEAD~3",
    "checkout -q main",
    "merge -q -X ours -m merged side",
    "checkout -q HEAD~10 -- .",
    "reset -q --hard",
    "repack -q -a -d -f --depth=50 --window=50",
    "multi-pack-index write",
    "multi-pack-index verify",
    "commit-graph write --reachable",
    "commit-graph verify",
    "pack-refs --all",
    "reflog expire --expire=now --all",
    "gc -q --aggressive --prune=now",
    "prune-packed",
    "count-objects -v",
    "fsck --full --strict --unreachable",
    "stash push -q --include-untracked --keep-index",
    "worktree add -q ../second main~1 --detach",
    "worktree list",
    "worktree remove ../second",
    "bundle create ../all.bundle --all",
    "bundle verify -q ../all.bundle",
    "archive -o ../all.tar HEAD",
    "grep -c line",
    "log --stat --oneline",
    "filter-branch -f --msg-filter cat HEAD~5..HEAD",
    "bisect start HEAD HEAD~4",
    "bisect reset",
    "clean -fdxq",
    "clone -q . ../again",
    "-C ../again fsck --full --strict",
    "clone -q --bare ../all.bundle ../bare.git",
    "-C ../bare.git fsck --full",
    "push -q ../bare.git HEAD:refs/heads/pushed",
    "fetch -q ../again main:refs/heads/fetched",
    "maintenance run --task=gc",
)


def play(arena: Arena) -> Iterator[Case]:
    """Clone a repository into the mount, work on it, and look at its state in between."""
    origin = _origin(arena)
    yield _case(arena, "clone", f"clone -q {origin} clone", cwd=arena.place)
    clone = arena.place / "clone"
    for command in COMMANDS:
        yield _case(arena, command, command, cwd=clone)
        if command.split()[0] in {"merge", "reset", "gc", "clean", "maintenance"}:
            yield arena.case(
                f"status after {command.split()[0]}",
                *(*GIT, "status", "--porcelain"),
                cwd=clone,
                limit_s=LIMIT_S,
                judge=_complaint_of_changes,
            )
    arena.mount.restart()
    yield _case(arena, "fsck after a remount", "fsck --full --strict", cwd=clone)
    yield _case(arena, "clone out", f"clone -q {clone} {arena.outside / 'back'}", cwd=arena.outside)


def _origin(arena: Arena) -> Path:
    """Make a repository with history on the local disk."""
    origin = arena.outside / "origin"
    origin.mkdir()
    plant_tree(origin, files=40)
    arena.run(*GIT, "init", "-q", cwd=origin, limit_s=LIMIT_S)
    for number in range(COMMITS):
        (origin / f"text {number % 7}.txt").write_text(f"line {number}\n" * (number + 1))
        arena.run(*GIT, "add", "-A", cwd=origin, limit_s=LIMIT_S)
        arena.run(*GIT, "commit", "-q", "-m", f"change {number}", cwd=origin, limit_s=LIMIT_S)
    return origin


def _case(arena: Arena, name: str, words: str, *, cwd: Path) -> Case:
    return arena.case(name, *GIT, *words.split(), cwd=cwd, limit_s=LIMIT_S)


def _complaint_of_changes(ended: Ended) -> str | None:
    return f"not clean: {ended.words[:300]}" if ended.words.strip() else None
