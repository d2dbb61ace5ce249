"""The mount whose requests are counted."""

from __future__ import annotations

import pytest
from tests.budget.counting import ONE_MOMENT, Budget
from tests.support.mounting import MakeMount
from tests.support.service import ServiceProcess

from ctrfs.config import WriteMode


@pytest.fixture
def budget(service: ServiceProcess, make_mount: MakeMount, write_mode: WriteMode) -> Budget:
    """A fresh mount of a fresh service with one empty, listed container."""
    # On a busy machine a test may take longer than the second that a file is left alone.
    patient = ("write_delay=10",) if write_mode is WriteMode.BACK else ()
    mount = make_mount(service, options=(*ONE_MOMENT, *patient))
    ready = Budget(service, mount)
    ready.container.mkdir()
    assert list(ready.container.iterdir()) == []
    return ready
