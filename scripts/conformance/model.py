"""The differential test of tests/model at length: random operations on the mount and beside it.

Also a program: ``python -m scripts.conformance.model PLACE OUTSIDE SEED STEPS``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from scripts.conformance.arena import Arena
from scripts.conformance.results import Case, failed, passed
from tests.model.test_differential import play_both
from tests.support.trees import contents, stored
from tests.support.write_modes import sync_directory

SEEDS: Final = (11, 12, 13, 14)
STEPS: Final = 3000
LIMIT_S: Final = 240


def play(arena: Arena) -> Iterator[Case]:
    """Play each seed in a container and a local folder of its own, and compare the service."""
    for seed in SEEDS:
        place = arena.mount.point / f"seed {seed}"
        beside = arena.outside / f"seed {seed}"
        for folder in (place, beside):
            folder.mkdir()
        yield arena.case(
            f"seed {seed}, {STEPS} steps",
            *(sys.executable, "-m", "scripts.conformance.model", place, beside),
            *(str(seed), str(STEPS)),
            cwd=Path.cwd(),
            limit_s=LIMIT_S,
        )
        name = f"seed {seed}, what the service holds"
        sync_directory(place)
        is_alike = stored(arena.service, place.name) == contents(beside)
        yield passed(name) if is_alike else failed(name, "differs from the local folder")


if __name__ == "__main__":
    play_both(Path(sys.argv[1]), Path(sys.argv[2]), seed=int(sys.argv[3]), steps=int(sys.argv[4]))
