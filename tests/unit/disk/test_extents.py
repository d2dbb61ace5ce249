from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctrfs.disk.extents import Extents, Range

END = 40
RANGES = st.tuples(st.integers(0, END), st.integers(0, END)).map(
    lambda pair: (min(pair), max(pair))
)
STEPS = st.lists(st.tuples(st.booleans(), RANGES), max_size=12)


def played(steps: list[tuple[bool, Range]]) -> tuple[Extents, set[int]]:
    """The same additions and removals on ranges and on a plain set of offsets."""
    extents, offsets = Extents(), set[int]()
    for is_added, (start, end) in steps:
        if is_added:
            extents.add(start, end)
            offsets |= set(range(start, end))
        else:
            extents.remove(start, end)
            offsets -= set(range(start, end))
        extents.check_invariants()
    return extents, offsets


@given(STEPS)
def test_ranges_hold_what_a_set_of_offsets_would(steps: list[tuple[bool, Range]]) -> None:
    extents, offsets = played(steps)

    assert {offset for start, end in extents for offset in range(start, end)} == offsets
    assert extents.total_bytes == len(offsets)


@given(STEPS, RANGES)
def test_the_first_gap_is_that_of_the_set(steps: list[tuple[bool, Range]], asked: Range) -> None:
    extents, offsets = played(steps)
    missing = [offset for offset in range(*asked) if offset not in offsets]

    gap = extents.first_gap(*asked)

    assert extents.covers(*asked) is (not missing)
    if not missing:
        assert gap is None
    else:
        start = end = missing[0]
        while end < asked[1] and end not in offsets:
            end += 1
        assert gap == (start, end)


@given(STEPS, st.integers(0, END))
def test_present_end_is_where_the_set_has_its_first_hole(
    steps: list[tuple[bool, Range]], start: int
) -> None:
    extents, offsets = played(steps)
    end = start
    while end in offsets:
        end += 1

    assert extents.present_end(start) == end


@given(STEPS, RANGES)
def test_a_part_holds_what_lies_inside(steps: list[tuple[bool, Range]], asked: Range) -> None:
    extents, offsets = played(steps)

    part = extents.within(*asked)

    part.check_invariants()
    assert {offset for start, end in part for offset in range(start, end)} == offsets & set(
        range(*asked)
    )


def test_what_touches_becomes_one_range() -> None:
    assert list(Extents([(0, 10), (20, 30), (10, 20)])) == [(0, 30)]


def test_a_copy_changes_apart_from_its_origin() -> None:
    extents = Extents([(0, 10)])
    twin = extents.copy()

    twin.add(10, 20)

    assert list(extents) == [(0, 10)]
    assert twin != extents


def test_a_range_that_ends_before_it_starts_is_our_mistake() -> None:
    with pytest.raises(AssertionError):
        Extents().add(2, 1)
