"""What downloads have shown about the service: docs/performance.md, random reads."""

from __future__ import annotations

from ctrfs.content.habits import BLOCK_BYTES_MAX, Habits
from ctrfs.units import KIB, MIB

SIZE_MIN = 64 * KIB


def test_the_rate_is_that_of_the_longest_transfers() -> None:
    """Each takes a millisecond beside its bytes, which come at 512 MiB a second."""
    habits = Habits()

    for size_bytes in (256 * KIB, 512 * KIB, 1 * MIB, 4 * MIB):
        habits.brought(size_bytes, 0.001 + size_bytes / (512 * MIB))

    assert habits.bytes_per_s > 400 * MIB


def test_one_transfer_that_was_held_up_does_not_decide_alone() -> None:
    habits = Habits()
    habits.brought(8 * MIB, 0.02)

    habits.brought(8 * MIB, 2.0)

    assert 250 * MIB < habits.bytes_per_s < 400 * MIB


def test_a_line_that_has_become_slow_is_believed_in_the_end() -> None:
    habits = Habits()
    habits.brought(256 * MIB, 0.5)

    for _ in range(20):
        habits.brought(4 * MIB, 4.0)

    assert habits.bytes_per_s < 4 * MIB


def test_blocks_double_with_what_was_wanted_up_to_what_a_request_is_worth() -> None:
    habits = Habits()
    habits.answered(0.02)
    habits.brought(4 * MIB, 0.01)
    sizes, present_bytes = [], 0

    for _ in range(9):
        sizes.append(habits.block_bytes(present_bytes, size_min=SIZE_MIN))
        present_bytes += sizes[-1]

    assert sizes[:4] == [SIZE_MIN, SIZE_MIN, 2 * SIZE_MIN, 4 * SIZE_MIN]
    assert sizes[-1] == BLOCK_BYTES_MAX
    habits.latency_s = 0.001
    assert habits.block_bytes(present_bytes, size_min=SIZE_MIN) == 256 * KIB


def test_the_whole_is_sooner_once_parts_were_waited_for_a_third_of_its_time() -> None:
    habits = Habits()
    assert not habits.is_sooner_whole(100 * MIB, waited_s=1e9)

    habits.brought(100 * MIB, 1.0)

    assert not habits.is_sooner_whole(100 * MIB, waited_s=0.3)
    assert habits.is_sooner_whole(100 * MIB, waited_s=0.35)
