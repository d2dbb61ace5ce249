"""Lists of steps as in ``test_two_mounts``, on mounts of the kernel and in real time.

``REAL_EXAMPLES=50`` makes a long run.
"""

from __future__ import annotations

import faulthandler
import os
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest
import trio
from hypothesis import HealthCheck, Phase, given, note, settings
from tests.model.operations import Settle, Step, lists_of_steps
from tests.model.performance import Performance
from tests.model.play import Stage
from tests.model.real_machines import RealMachine, RealWorld
from tests.support.mounting import Mount
from tests.support.service import ServiceProcess

EXAMPLES: Final = int(os.environ.get("REAL_EXAMPLES", "2"))


def play(steps: Sequence[Step], directory: Path) -> None:
    """Play steps on two mounts of one new service, and settle at the end."""
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=directory)))
        service = stack.enter_context(ServiceProcess())
        ids = {name: service.create_container(name) for name in ("one", "two")}
        for path in ("one/a", "one/f/a", "two/f/h/a"):
            container, _, inner = path.partition("/")
            service.upload(ids[container], inner, b"first")
        mounts = []
        for name in ("left", "right"):
            (home / name).mkdir()
            mount = Mount(home / name, service=service)
            stack.callback(mount.abandon)
            mount.start()
            mounts.append(mount)

        async def main() -> None:
            stage = Stage(RealWorld(service), [RealMachine(each, service) for each in mounts])
            stage.look(is_by_mounts=False)
            try:
                await Performance(stage).play([*steps, Settle()])
            finally:
                for held in [each for mount in (0, 1) for each in stage.open_slots(mount)]:
                    os.close(held.descriptor)

        trio.run(main)
        for mount in mounts:
            # Of a container that is gone some may be left for ever.
            mount.stop(may_leave_bytes=True)


@pytest.mark.mounted
@pytest.mark.timeout(0)
def test_two_real_mounts_and_a_client_keep_all_promises(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Promises 3, 5, 7 to 12a, 14 and 18."""
    directory = tmp_path_factory.mktemp("real")

    @given(steps=lists_of_steps(has_time=False))
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize="REAL_EXAMPLES" not in os.environ,
        suppress_health_check=list(HealthCheck),
        # Each example takes seconds: what fails is better shrunk in virtual time.
        phases=[Phase.generate],
        database=None,
    )
    def play_one(steps: Sequence[Step]) -> None:
        # See test_two_mounts: a long run is no hang.
        faulthandler.cancel_dump_traceback_later()
        try:
            play(steps, directory)
        except BaseException:
            note(f"LIST:\n    {steps!r}")
            raise

    play_one()
