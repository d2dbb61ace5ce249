from __future__ import annotations

import pytest
import trio
import trio.testing

from ctrfs import deadlines
from ctrfs.errors import RemoteStalledError
from ctrfs.keyed_lock import KeyedLock


async def hold_for_ever(
    locks: KeyedLock[int], key: int, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    async with locks.hold(key):
        task_status.started()
        await trio.sleep_forever()


async def test_a_wait_for_a_lock_ends_with_the_time_of_the_request(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    locks = KeyedLock[int]()
    await nursery.start(hold_for_ever, locks, 2)
    began_s = trio.current_time()

    with pytest.raises(RemoteStalledError), deadlines.within(30):
        async with locks.hold(1, 2, 3):
            raise AssertionError

    assert trio.current_time() - began_s == 30
    assert set(locks._locks) == {2}


async def test_a_free_lock_is_had_even_when_no_time_is_left(nursery: trio.Nursery) -> None:
    locks = KeyedLock[int]()

    with deadlines.within(0):
        async with locks.hold(1):
            assert set(locks._locks) == {1}

    assert not locks._locks


async def test_a_lock_is_held_by_one_at_a_time_in_the_order_of_asking(
    autojump_clock: trio.testing.MockClock,
) -> None:
    locks = KeyedLock[int]()
    order: list[str] = []

    async def work(name: str) -> None:
        async with locks.hold(1):
            order.append(f"{name} begins")
            await trio.sleep(1)
            order.append(f"{name} ends")

    async with trio.open_nursery() as both:
        both.start_soon(work, "first")
        await trio.sleep(0.5)
        both.start_soon(work, "second")

    assert order == ["first begins", "first ends", "second begins", "second ends"]
