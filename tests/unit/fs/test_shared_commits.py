"""Many uploads that end together wait for this machine's disk together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import trio
import trio.testing
from tests.support.in_process import Settings, mounted
from tests.support.service import InProcessService

from ctrfs import failpoints
from ctrfs.config import FileSystemConfig, WriteMode

BACK = Settings(files=FileSystemConfig(write_mode=WriteMode.BACK))
NAMES = [f"work/{number}.txt" for number in range(8)]


@contextmanager
def passes() -> Iterator[list[tuple[str, str]]]:
    """Note which failpoints are passed in the block, in order, and with which detail."""
    passed: list[tuple[str, str]] = []
    failpoints.install(lambda name, detail: passed.append((name, detail)))
    try:
        yield passed
    finally:
        failpoints.install(None)


async def test_uploads_that_end_at_once_share_a_wait_for_the_disk(
    service: InProcessService, state: Path, work: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with mounted(service, state, BACK) as mount:
        for name in NAMES:
            await mount.write_file(name, name.encode())

        with passes() as passed:
            await trio.sleep(30)

        points = [name for name, _ in passed]
        assert points.count("save.bound") == len(NAMES)
        assert 1 <= points.count("database.committed") < len(NAMES) / 2


async def test_nothing_goes_on_behind_an_upload_before_the_disk_knows_of_its_end(
    service: InProcessService, state: Path, work: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with mounted(service, state, BACK) as mount:
        for name in NAMES:
            await mount.write_file(name, name.encode())

        with passes() as passed:
            await trio.sleep(30)

        on_disk = stored = bound = 0
        for name, _ in passed:
            stored += name == "save.stored"
            bound += name == "save.bound"
            on_disk = stored if name == "database.committed" else on_disk
            assert bound <= on_disk
        assert bound == len(NAMES)
