"""Where the scenarios work: a container on a real mount, or a plain folder.

``CTRFS_SCENARIOS_ON=local`` runs them in plain folders: what fails there is the scenario's own
mistake, not the file system's.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import pytest
from tests.scenarios.workplace import DirectoryWorkplace, Workplace

IS_LOCAL: Final = os.environ.get("CTRFS_SCENARIOS_ON") == "local"


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder on the local disk."""
    made = tmp_path / "outside"
    made.mkdir()
    return made


@pytest.fixture
def place(tmp_path: Path) -> Path:
    made = tmp_path / "place"
    made.mkdir()
    return made


@pytest.fixture
def second_place(tmp_path: Path) -> Path:
    made = tmp_path / "second"
    made.mkdir()
    return made


@pytest.fixture
def workplace(place: Path) -> Workplace:
    """A directory to work in by system calls."""
    return DirectoryWorkplace(place)


@pytest.fixture
def container(workplace: Workplace) -> Workplace:
    """A directory to work in that is a container for sure: plain folders will not do."""
    if IS_LOCAL:
        pytest.skip("a promise of the mount only")
    return workplace
