"""Two mounts and a client of the API on one service, against what docs/semantics.md promises.

``EXAMPLES=5000`` makes a long run. A list that fails is printed as Python: put it into
``regressions.py``.
"""

from __future__ import annotations

import faulthandler
import os
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st
from tests.model.machines import InProcessMachine
from tests.model.operations import Settle, Step, lists_of_steps
from tests.model.performance import Performance
from tests.model.play import Stage
from tests.model.regressions import REGRESSIONS
from tests.model.truth import InProcessRecords
from tests.model.virtual_time import VirtualTime
from tests.model.world import InProcessWorld
from tests.support.service import InProcessService

EXAMPLES: Final = int(os.environ.get("EXAMPLES", "150"))
# Idle for that long, the second container is gone.
EXPIRY: Final = {"anchor": "last_active_at", "minutes": 5}


def play(steps: Sequence[Step], *, shares_state: bool) -> None:
    """Play steps on two mounts in virtual time, and settle at the end.

    Args:
        steps: What is done.
        shares_state: Whether the mounts have one state directory, as two mounts of one user do.
    """
    clock = trio.testing.MockClock()
    # Retries behind the users' backs wait for more or less long by chance.
    random.seed(0)

    async def main() -> None:
        with tempfile.TemporaryDirectory(prefix="ctrfs-model-") as directory:
            home = Path(directory)
            with InProcessService(home / "service") as service:
                ids = {
                    "one": service.create_container("one"),
                    "two": service.create_container("two", expires_after=EXPIRY),
                }
                async with trio.open_nursery() as nursery:
                    machines = [
                        InProcessMachine(
                            service, home / ("state" if shares_state else f"state-{n}"), nursery
                        )
                        for n in range(2)
                    ]
                    world = InProcessWorld(service, VirtualTime(clock), InProcessRecords(service))
                    for path in ("one/a", "one/f/a", "two/f/h/a"):
                        container, _, inner = path.partition("/")
                        world.upload(ids[container], inner, b"first")
                    stage = Stage(world, machines)
                    stage.look(is_by_mounts=False)
                    for machine in machines:
                        await world.run(machine.start)
                    await Performance(stage).play([*steps, Settle()])
                    nursery.cancel_scope.cancel()

    trio.run(main, clock=clock)


@given(steps=lists_of_steps(), shares_state=st.booleans())
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    print_blob=False,
    report_multiple_bugs=False,
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
    database=None,
)
@pytest.mark.timeout(0)
def test_two_mounts_and_a_client_keep_all_promises(
    steps: Sequence[Step], shares_state: bool
) -> None:
    """Promises 3, 5, 7 to 12a, 14 and 18."""
    # After a minute pytest would dump this thread's frames while it runs, which in a long run
    # ends in a segmentation fault now and then.
    faulthandler.cancel_dump_traceback_later()
    try:
        play(steps, shares_state=shares_state)
    except BaseException:
        note(f"REGRESSION:\n    ({shares_state}, {steps!r}),")
        raise


@pytest.mark.parametrize(("shares_state", "steps"), REGRESSIONS)
def test_what_once_broke_a_promise_keeps_it(shares_state: bool, steps: Sequence[Step]) -> None:
    play(steps, shares_state=shares_state)
