"""Where the scenarios work: see ``place`` in tests/conftest.py."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.scenarios.workplace import DirectoryWorkplace, Workplace
from tests.support.mounting import IS_LOCAL


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
