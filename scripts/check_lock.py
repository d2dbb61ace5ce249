"""Check that scripts/dev-requirements.txt is what pyproject.toml asks for.

Called by ``make check``; needs no network. ``make lock`` mends what it complains about.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
LOCK = ROOT / "scripts" / "dev-requirements.txt"


def wanted_requirements(pyproject: str) -> list[Requirement]:
    """Return what the project and its developers need, as pyproject.toml states it."""
    tables = tomllib.loads(pyproject)
    lines = tables["project"]["dependencies"] + tables["dependency-groups"]["dev"]
    return [Requirement(line) for line in lines]


def locked_requirements(lock: str) -> dict[str, list[tuple[Requirement, str]]]:
    """Return each locked package by name, with the options (hashes) that follow it.

    A name can stand there twice, for Pythons that need different versions.
    """
    locked: dict[str, list[tuple[Requirement, str]]] = {}
    bare = re.sub(r"^\s*#.*$", "", lock, flags=re.MULTILINE).replace("\\\n", " ")
    for line in filter(None, (line.strip() for line in bare.splitlines())):
        text, _, options = line.partition(" --")
        requirement = Requirement(text)
        locked.setdefault(canonicalize_name(requirement.name), []).append((requirement, options))
    return locked


def complaints_about_form(lock: str) -> Iterator[str]:
    """Yield what makes the lock less than exact, or tied to one place."""
    if re.search(
        r"https?://|^\s*(-i|-f|--index-url|--extra-index-url|--find-links)\b", lock, re.MULTILINE
    ):
        yield "names a package index; it must work with any"
    for name, rows in locked_requirements(lock).items():
        for requirement, options in rows:
            if [pin.operator for pin in requirement.specifier] != ["=="]:
                yield f"{name} is not held to one version"
            if "hash=sha256:" not in options:
                yield f"{name} has no hash"


def complaints_about_versions(pyproject: str, lock: str) -> Iterator[str]:
    """Yield where the lock lacks, or contradicts, what pyproject.toml asks for."""
    locked = locked_requirements(lock)
    for wanted in wanted_requirements(pyproject):
        pins = [
            pin.version
            for row, _ in locked.get(canonicalize_name(wanted.name), [])
            for pin in row.specifier
        ]
        if not pins:
            yield f"{wanted.name} is missing"
        for version in pins:
            if not wanted.specifier.contains(version, prereleases=True):
                yield f"{wanted} is asked for, {version} is locked"


def main() -> int:
    """Print what is wrong and return the exit status."""
    pyproject, lock = (ROOT / "pyproject.toml").read_text(), LOCK.read_text()
    found = [*complaints_about_form(lock), *complaints_about_versions(pyproject, lock)]
    for complaint in found:
        print(f"{LOCK.relative_to(ROOT)}: {complaint}", file=sys.stderr)
    if found:
        print("run: make lock", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
