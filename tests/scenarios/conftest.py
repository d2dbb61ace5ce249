"""Where the scenarios of system calls work; see also ``place`` in tests/conftest.py."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.scenarios.in_process import in_process_workplace
from tests.scenarios.workplace import DirectoryWorkplace, Workplace
from tests.support.mounting import IS_LOCAL

from ctrfs.config import WriteMode

MOUNTED = pytest.param("mounted", marks=[] if IS_LOCAL else [pytest.mark.mounted])


@pytest.fixture(params=["in process", MOUNTED])
def folder(request: pytest.FixtureRequest) -> Path | None:
    """A directory of this machine, or None where the file system runs in this process."""
    if request.param == "in process":
        return None
    # By name: the file system in this process needs no mount.
    place = request.getfixturevalue("place")
    assert isinstance(place, Path)
    return place


@pytest.fixture
async def workplace(
    folder: Path | None, write_mode: WriteMode, tmp_path: Path
) -> AsyncIterator[Workplace]:
    """A directory to work in by system calls, mounted or in process."""
    if folder is not None:
        yield DirectoryWorkplace(folder)
        return
    async with in_process_workplace(tmp_path, write_mode) as place:
        yield place


@pytest.fixture
def container(folder: Path | None, workplace: Workplace) -> Workplace:
    """Like ``workplace``, but a container for sure: plain folders will not do."""
    if IS_LOCAL and folder is not None:
        pytest.skip("a promise of containers only")
    return workplace


@pytest.fixture
def mounted_container(place: Path) -> Workplace:
    """A container with the kernel before it, which asks for more than the file system offers."""
    if IS_LOCAL:
        pytest.skip("a promise of the mount only")
    return DirectoryWorkplace(place)
