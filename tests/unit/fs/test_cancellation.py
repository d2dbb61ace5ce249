"""A request that is given up in the middle: names and bytes agree, and with the service, too.

The last resort of ``fuse.time_limits``, and the end of serving: cancelled at any wait, an
operation has happened or has not, and what the service still must hear of is sent later.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
import trio.testing
from tests.support.in_process import InProcessMount, mounted
from tests.support.service import InProcessService
from tests.support.trees import stored

from ctrfs.errors import CtrfsError

ROUND_TRIP_S = 1.0
# More waits than any of these operations has.
MOMENTS = [0.5, 1.5, 2.5, 3.5, 4.5, 5.5]
BEFORE: dict[str, bytes | None] = {
    "work": None, "work/a": b"aaa", "work/b": b"bbb", "work/d": None, "work/d/x": b"xxx",
}  # fmt: skip


def without(*names: str, **more: bytes | None) -> dict[str, bytes | None]:
    kept = {name: content for name, content in BEFORE.items() if name not in names}
    return kept | more


async def mkdir(mount: InProcessMount) -> None:
    await mount.mkdir("new")


async def unlink(mount: InProcessMount) -> None:
    await mount.unlink("work/a")


async def rename(mount: InProcessMount) -> None:
    await mount.rename("work/a", "work/c")


async def rename_over(mount: InProcessMount) -> None:
    await mount.rename("work/a", "work/b")


async def rename_folder(mount: InProcessMount) -> None:
    await mount.rename("work/d", "work/e")


async def overwrite(mount: InProcessMount) -> None:
    await mount.write_file("work/a", b"new")


async def create(mount: InProcessMount) -> None:
    await mount.write_file("work/c", b"new")


OPERATIONS: list[tuple[Callable[[InProcessMount], Awaitable[None]], dict[str, bytes | None]]] = [
    (mkdir, without(new=None)),
    (unlink, without("work/a")),
    (rename, without("work/a", **{"work/c": b"aaa"})),
    (rename_over, without("work/a", **{"work/b": b"aaa"})),
    (rename_folder, without("work/d", "work/d/x", **{"work/e": None, "work/e/x": b"xxx"})),
    (overwrite, without(**{"work/a": b"new"})),
    (create, without(**{"work/c": b"new"})),
]


CASES = [
    pytest.param(operation, after, moment_s, id=f"{operation.__name__} after {moment_s} s")
    for operation, after in OPERATIONS
    for moment_s in MOMENTS
]


@pytest.mark.parametrize(("operation", "after", "moment_s"), CASES)
async def test_an_operation_given_up_at_any_wait_has_happened_or_has_not(
    tmp_path: Path,
    autojump_clock: trio.testing.MockClock,
    operation: Callable[[InProcessMount], Awaitable[None]],
    after: dict[str, bytes | None],
    moment_s: float,
) -> None:
    with InProcessService(tmp_path / "service", round_trip_s=ROUND_TRIP_S) as service:
        work = service.create_container("work")
        for name in ("a", "b", "d/x"):
            service.upload(work, name, BEFORE[f"work/{name}"] or b"")
        async with mounted(service, tmp_path / "state") as mount:
            assert await mount.walk() == BEFORE

            with trio.move_on_after(moment_s):
                await operation(mount)

            mount.check_invariants()
            seen = await mount.walk()
            assert seen in (BEFORE, after)
            # The kernel releases what a program leaves open; the rest is done in the background.
            await trio.sleep(300)
            try:
                await mount.fs.drain()
            except CtrfsError as error:
                pytest.fail(f"the rest cannot be sent: {error}")
            mount.check_invariants()
            await mount.refresh("")
            await mount.refresh("work")
            last = await mount.walk()
            assert last in (BEFORE, after)
            assert {
                f"work/{name}": content for name, content in stored(service, "work").items()
            } == {name: content for name, content in last.items() if content is not None}
        async with mounted(service, tmp_path / "state") as again:
            await trio.sleep(300)  # a folder's move that was written down is undone or finished
            await again.refresh("work")
            assert await again.walk() == last
