"""``make conformance WRITE=through``: outside suites on a mount, with pinned pass counts.

Each suite works on a mount of its own over a service of its own with no latency, one after
another. Exit code 0: every suite passed as often as pinned; 1: one did not; 2: this version
does not mount with ``write=WRITE``.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from pathlib import Path
from typing import Final

from scripts.conformance.arena import Arena
from scripts.conformance.results import as_json, table
from scripts.conformance.suites import SUITES, run
from tests.support.mounting import MountFailedError, why_mounts_are_impossible

EXIT_REFUSED: Final = 2


def main() -> int:
    """Run what was asked for, print the table, write the JSON; return the exit code."""
    names = [suite.name for suite in SUITES]
    parser = argparse.ArgumentParser(prog="conformance", description=__doc__)
    parser.add_argument("--write", choices=["through", "back"], default="through")
    parser.add_argument("--only", nargs="+", default=names, choices=names)
    parser.add_argument("--json", type=Path, default=Path(".bench/conformance.json"))
    given = parser.parse_args()
    # As an interrupt does: what is mounted and what runs is ended on the way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    reason = why_mounts_are_impossible() or why_refused(given.write)
    if reason:
        print(f"conformance: {reason}", file=sys.stderr)
        return EXIT_REFUSED
    results = [run(suite, write=given.write) for suite in SUITES if suite.name in given.only]
    given.json.parent.mkdir(parents=True, exist_ok=True)
    given.json.write_text(json.dumps(as_json(results), indent=1) + "\n")
    print(f"\nwrite={given.write}\n{table(results)}")
    return 1 if any(each.complaint for each in results) else 0


def why_refused(write: str) -> str | None:
    """Return why a mount with ``write=WRITE`` cannot be made, in ctrfs's own words; or None."""
    try:
        with Arena("trial", options=[f"write={write}"]) as arena:
            arena.mount.stop()
    except MountFailedError as error:
        words = str(error).strip().splitlines()
        return f"this version does not mount with write={write}: {words[-1]}"
    return None


if __name__ == "__main__":
    sys.exit(main())
