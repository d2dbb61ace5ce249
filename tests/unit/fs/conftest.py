"""A service, and a mount of it with one empty container ``work``.

A test in which time matters asks for ``autojump_clock`` itself: pytest-trio runs a test by a
clock only if it is an argument of the test.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from tests.support.in_process import InProcessMount, mounted
from tests.support.service import InProcessService


@pytest.fixture
def service(tmp_path: Path) -> Iterator[InProcessService]:
    """A service without sockets."""
    with InProcessService(tmp_path / "service") as opened:
        yield opened


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """Where mounts keep their state, across remounts."""
    return tmp_path / "state"


@pytest.fixture
async def work(service: InProcessService) -> str:
    """The id of the container ``work``."""
    return service.create_container("work")


@pytest.fixture
async def mount(service: InProcessService, state: Path, work: str) -> AsyncIterator[InProcessMount]:
    """A mount with nothing special about it; no request has been counted yet."""
    async with mounted(service, state) as made:
        service.reset_counters()
        yield made
