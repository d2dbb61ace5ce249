"""Ask for known vulnerabilities of every locked dependency, and say what could not be asked.

Called by ``make check``. Without a way to an advisory service it prints ``not checked`` and
passes, so that work goes on offline; with ``CTRFS_REQUIRE_ADVISORIES=1`` that fails too.
pip-audit alone calls a package that its service does not know "no known vulnerability".
"""

from __future__ import annotations

import json
import os
import subprocess  # nosec B404  # to call pip-audit
import sys
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parent.parent
LOCK = ROOT / "scripts" / "dev-requirements.txt"
# The first that knows the packages is enough: both pass on the same advisories.
SERVICES = ("pypi", "osv")
TIMEOUT_S = 120

# Advisories that do not concern us: id and why. Each is printed with every run.
ACCEPTED: dict[str, str] = {}


@dataclass(kw_only=True)
class Findings:
    """What one service said of the locked packages."""

    checked: list[str] = field(default_factory=list)
    vulnerable: list[str] = field(default_factory=list)
    """A line for each advisory."""
    unknown: list[str] = field(default_factory=list)
    """Packages of which the service could or would say nothing."""


def findings_from_report(report: str) -> Findings:
    """Return what a report of ``pip-audit --format json`` says.

    Raises:
        ValueError: It is none: pip-audit broke off.
    """
    found = Findings()
    for row in json.loads(report)["dependencies"]:
        name = row["name"]
        if "skip_reason" in row:
            found.unknown.append(name)
            continue
        found.checked.append(name)
        for advisory in row["vulns"]:
            if not ACCEPTED.keys() & {advisory["id"], *advisory["aliases"]}:
                mended = ", ".join(advisory["fix_versions"]) or "no version yet"
                found.vulnerable.append(
                    f"{name} {row['version']}: {advisory['id']}, mended in {mended}"
                )
    return found


def ask(service: str) -> Findings | str:
    """Return what ``service`` knows, or in one line why it cannot be asked."""
    command = [
        sys.executable, "-m", "pip_audit", "--vulnerability-service", service,
        "--requirement", str(LOCK), "--require-hashes", "--disable-pip",
        "--format", "json", "--progress-spinner", "off",
    ]  # fmt: skip
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )  # nosec B603  # fixed words
    except subprocess.TimeoutExpired:
        return f"no answer within {TIMEOUT_S} s"
    try:
        found = findings_from_report(done.stdout)
    except (ValueError, KeyError, TypeError):
        words = done.stderr.strip().splitlines()
        return words[-1] if words else f"pip-audit ended with {done.returncode}"
    return found if found.checked else "it knows none of the packages"


def main() -> int:
    """Print what is known, and return the exit status."""
    for advisory, reason in ACCEPTED.items():
        print(f"accepted: {advisory}: {reason}")
    for service in SERVICES:
        found = ask(service)
        if isinstance(found, str):
            print(f"advisories of {service}: not checked: {found}"[:300])
            continue
        for line in found.vulnerable:
            print(line, file=sys.stderr)
        for name in found.unknown:
            print(f"advisories of {service}: {name} not checked: unknown there")
        print(f"advisories of {service}: {len(found.checked)} packages checked")
        is_incomplete = bool(found.unknown) and is_required()
        return 1 if found.vulnerable or is_incomplete else 0
    print("DEPENDENCIES NOT CHECKED for known vulnerabilities: no advisory service in reach")
    return 1 if is_required() else 0


def is_required() -> bool:
    """Whether a check that could not be made is a failure."""
    return os.environ.get("CTRFS_REQUIRE_ADVISORIES") == "1"


if __name__ == "__main__":
    sys.exit(main())
