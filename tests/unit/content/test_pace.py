from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from ctrfs.content.pace import BYTES_PER_S_MIN, Pace

WINDOW_S = 60.0
ENOUGH = int(BYTES_PER_S_MIN * WINDOW_S)


def test_nothing_at_all_lasts_for_no_time() -> None:
    assert Pace(WINDOW_S).lasts_until_s() == -math.inf


def test_a_burst_is_a_reason_to_wait_for_one_window() -> None:
    pace = Pace(WINDOW_S)

    pace.note(ENOUGH, now_s=5.0)

    assert pace.lasts_until_s() == 65.0


def test_one_byte_less_than_enough_is_nothing() -> None:
    pace = Pace(WINDOW_S)

    pace.note(ENOUGH - 1, now_s=5.0)

    assert pace.lasts_until_s() == -math.inf


def test_what_came_longer_ago_than_a_window_does_not_count() -> None:
    pace = Pace(WINDOW_S)
    pace.note(ENOUGH - 1, now_s=5.0)

    pace.note(1, now_s=65.5)

    assert pace.lasts_until_s() == -math.inf


@given(
    st.lists(
        st.tuples(st.floats(0.0, 30.0), st.integers(1, 2 * ENOUGH)),
        min_size=1,
        max_size=40,
    )
)
def test_the_answer_is_that_of_the_definition_but_for_a_second(
    arrivals: list[tuple[float, int]],
) -> None:
    pace = Pace(WINDOW_S)
    now_s = 0.0
    log: list[tuple[float, int]] = []
    for gap_s, size_bytes in arrivals:
        now_s += gap_s
        pace.note(size_bytes, now_s=now_s)
        log.append((now_s, size_bytes))

    until_s = max(now_s, pace.lasts_until_s())

    def come(after_s: float) -> int:
        return sum(size for at_s, size in log if at_s > after_s)

    assert until_s == now_s or come(until_s - WINDOW_S - 2.0) >= ENOUGH
    assert until_s > now_s or come(now_s - WINDOW_S + 2.0) < ENOUGH


def test_a_fast_transfer_is_remembered_in_two_numbers() -> None:
    pace = Pace(WINDOW_S)

    for second in range(1000):
        pace.note(ENOUGH, now_s=float(second * 2))

    assert len(pace._arrivals) == 1
