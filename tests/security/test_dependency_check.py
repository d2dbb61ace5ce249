"""scripts/check_advisories.py never calls unchecked dependencies safe."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
SCRIPT = ROOT / "scripts" / "check_advisories.py"


def checked_with(
    tmp_path: Path, report: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the check with a pip-audit that answers ``report`` for every service."""
    module = tmp_path / "pip_audit"
    module.mkdir()
    (module / "__init__.py").touch()
    (module / "__main__.py").write_text(f"print({report!r})")
    return subprocess.run(
        [sys.executable, SCRIPT],
        capture_output=True,
        text=True,
        env={**os.environ, **environment, "PYTHONPATH": str(tmp_path)},
        timeout=30,
        check=False,
    )


def report_of(*rows: dict[str, object]) -> str:
    return json.dumps({"dependencies": list(rows), "fixes": []})


UNKNOWN: dict[str, object] = {"name": "trio", "skip_reason": "not found"}
SAFE: dict[str, object] = {"name": "trio", "version": "1", "vulns": []}
WEAK: dict[str, object] = {
    "name": "h11",
    "version": "0.1",
    "vulns": [{"id": "PYSEC-1", "aliases": [], "fix_versions": ["0.2"], "description": ""}],
}


@pytest.mark.parametrize("report", ["no JSON", report_of(UNKNOWN)], ids=["broken off", "unknown"])
def test_what_could_not_be_asked_is_said_to_be_unchecked(tmp_path: Path, report: str) -> None:
    done = checked_with(tmp_path, report)

    assert done.returncode == 0
    assert "DEPENDENCIES NOT CHECKED" in done.stdout


def test_an_unchecked_dependency_fails_where_the_check_is_required(tmp_path: Path) -> None:
    done = checked_with(tmp_path, report_of(SAFE, UNKNOWN), CTRFS_REQUIRE_ADVISORIES="1")

    assert done.returncode == 1
    assert "not checked: unknown there" in done.stdout


def test_a_known_vulnerability_fails_the_check_with_the_version_that_mends_it(
    tmp_path: Path,
) -> None:
    done = checked_with(tmp_path, report_of(SAFE, WEAK))

    assert done.returncode == 1
    assert "h11 0.1: PYSEC-1, mended in 0.2" in done.stderr


def test_packages_without_advisories_pass(tmp_path: Path) -> None:
    done = checked_with(tmp_path, report_of(SAFE))

    assert done.returncode == 0
    assert "1 packages checked" in done.stdout
