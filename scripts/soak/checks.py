"""What must be true when the load has ended: the service and a new mount hold what they should."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

from scripts.soak.ledger import Ledger, digest_of
from tests.support.service import ServiceControl
from tests.support.trees import contents, stored

# Of the mount's list of names that never leave this machine: those that the load uses.
LOCAL_ONLY: Final = ("*~", ".*.swp", ".goutputstream-*")
GIT_DEADLINE_S: Final = 300


def is_local_only(path: str) -> bool:
    """Tell whether a path of the ledger is one that the service must never see."""
    return any(fnmatchcase(Path(path).name, glob) for glob in LOCAL_ONLY)


def check_service(service: ServiceControl, container: str, ledger: Ledger) -> list[str]:
    """Return what the service holds in a container and should not, or lacks."""
    try:
        seen = {path: digest_of(content) for path, content in stored(service, container).items()}
    except AssertionError as error:  # two rows of one name
        return [f"{container} on the service: {error}"]
    return [
        f"{container} on the service: {sentence}" for sentence in _shared(ledger).differences(seen)
    ]


def check_mount(top: Path, ledger: Ledger) -> list[str]:
    """Return what a new mount shows in a container and should not, or lacks."""
    seen = {path: digest_of(content) for path, content in contents(top).items()}
    return [f"{top.name} mounted anew: {sentence}" for sentence in ledger.differences(seen)]


def check_shown(service: ServiceControl, top: Path) -> list[str]:
    """Return what the service holds in a container and a new mount does not show alike."""
    shown = contents(top)
    try:
        held = stored(service, top.name)
    except AssertionError as error:
        return [f"{top.name} on the service: {error}"]
    return [
        f"{top.name}: {path} is not shown as the service has it"
        for path, content in sorted(held.items())
        if shown.get(path) != content
    ]


def check_repository(repository: Path, commits: Sequence[str], home: Path) -> list[str]:
    """Return what git finds wrong; every commit that it once acknowledged must be there."""
    environment = {"HOME": str(home), "PATH": "/usr/bin:/bin", "GIT_CONFIG_NOSYSTEM": "1"}
    complaints = [
        *_git(repository, environment, "fsck", "--full", "--strict", "--no-dangling"),
        *(_git(repository, environment, "cat-file", "-e", commits[-1]) if commits else []),
    ]
    known = subprocess.run(
        ["git", "rev-list", "HEAD"],
        cwd=repository,
        env=environment,
        capture_output=True,
        text=True,
        timeout=GIT_DEADLINE_S,
        check=False,
    ).stdout.split()
    missing = sorted(set(commits) - set(known))
    return complaints + [f"git: commits that are gone: {missing}" for _ in missing[:1]]


def _git(repository: Path, environment: Mapping[str, str], *words: str) -> list[str]:
    ended = subprocess.run(
        ["git", *words],
        cwd=repository,
        env=environment,
        capture_output=True,
        text=True,
        timeout=GIT_DEADLINE_S,
        check=False,
    )
    if ended.returncode == 0:
        return []
    return [f"git {words[0]} ended with {ended.returncode}: {(ended.stdout + ended.stderr)[-500:]}"]


def _shared(ledger: Ledger) -> Ledger:
    """Return the part of a ledger that the service is to know of."""
    return Ledger({path: ledger.acceptable(path) for path in ledger if not is_local_only(path)})
