"""Thousands of random operations on the mount and on a local folder, with the same outcomes.

``CTRFS_DIFFERENTIAL_SEEDS=7,8,9`` and ``CTRFS_DIFFERENTIAL_STEPS=20000`` make a long run.
"""

from __future__ import annotations

import os
import random
from collections import deque
from pathlib import Path
from typing import Final

import pytest
from tests.model.steps import Player, Step, draw, shown
from tests.support.mounting import MakeMount, SharedMount
from tests.support.service import ServiceProcess
from tests.support.trees import contents, id_of, stored
from tests.support.write_modes import sync_directory

SEEDS: Final = [int(s) for s in os.environ.get("CTRFS_DIFFERENTIAL_SEEDS", "1,2,3").split(",")]
STEPS: Final = int(os.environ.get("CTRFS_DIFFERENTIAL_STEPS", "700"))
# Small enough to find the step that went wrong, large enough not to be all of the work.
STEPS_BETWEEN_WALKS: Final = 100
STEPS_SHOWN: Final = 40


def play_both(mounted: Path, local: Path, *, seed: int, steps: int) -> None:
    """Play the same steps in both folders and compare each outcome, and now and then all."""
    chance = random.Random(seed)  # noqa: S311  # repeatable on purpose
    players = Player(mounted), Player(local)
    past: deque[Step] = deque(maxlen=STEPS_SHOWN)
    try:
        for number in range(1, steps + 1):
            step = draw(chance)
            past.append(step)
            ours, theirs = (player.play(step) for player in players)
            assert ours == theirs, _story(past, f"seed {seed}, step {number}")
            if number % STEPS_BETWEEN_WALKS == 0:
                assert shown(mounted) == shown(local), _story(past, f"seed {seed}, walk {number}")
    finally:
        for player in players:
            player.close()
    assert shown(mounted) == shown(local), _story(past, f"seed {seed}, after the last close")


def _story(past: deque[Step], where: str) -> str:
    return "\n".join([where, *map(str, past)])


@pytest.mark.both_write_modes
@pytest.mark.parametrize("seed", SEEDS)
def test_random_operations_have_the_outcomes_of_a_local_folder(
    shared_mount: SharedMount | None, place: Path, outside: Path, seed: int
) -> None:
    play_both(place, outside, seed=seed, steps=STEPS)

    if shared_mount is not None:
        sync_directory(place)
        assert stored(shared_mount.service, place.name) == contents(outside)


@pytest.mark.mounted
@pytest.mark.both_write_modes
@pytest.mark.parametrize("options", [("cache_size=0", "ttl=0", "max_stale=0"), ("slashes=encode",)])
def test_random_operations_need_no_cache_and_no_slashes(
    service: ServiceProcess, make_mount: MakeMount, outside: Path, options: tuple[str, ...]
) -> None:
    place = make_mount(service, options=options).point / "work"
    place.mkdir()
    play_both(place, outside, seed=SEEDS[0], steps=STEPS // 2)
    sync_directory(place)
    assert len(service.files(id_of(service, "work"))) == len(contents(outside))


@pytest.mark.mounted
@pytest.mark.both_write_modes
@pytest.mark.parametrize("seed", SEEDS[:2])
def test_random_operations_survive_remounts(
    service: ServiceProcess, make_mount: MakeMount, outside: Path, seed: int
) -> None:
    mount = make_mount(service)
    place = mount.point / "work"
    place.mkdir()
    for part in range(3):
        play_both(place, outside, seed=seed + 1000 * part, steps=STEPS // 4)
        mount.restart()
        # Folders without a file in them exist on one machine, and only while mounted.
        drop_empty_folders(outside)
        drop_empty_folders(place)
        assert shown(place) == shown(outside)
        assert stored(service, "work") == contents(outside)


def drop_empty_folders(top: Path) -> None:
    """Remove the folders that hold no file, however deep."""
    for folder, _, _ in os.walk(top, topdown=False):
        path = Path(folder)
        if path != top and not any(path.iterdir()):
            path.rmdir()
