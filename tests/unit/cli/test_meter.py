"""Figures of a transfer: what they say, and what they must not say."""

from __future__ import annotations

from msgspec.structs import replace

from ctrfs.cli.meter import Meter
from ctrfs.disk.progress import MountProgress

MIB = 1024 * 1024
START = MountProgress(
    pid=7,
    sent_files=100,
    sent_bytes=500 * MIB,
    pending_files=4,
    pending_bytes=40 * MIB,
    sending_files=1,
    sending_bytes=10 * MIB,
    moved_at_s=1000.0,
)


def test_what_was_sent_before_the_watch_began_is_not_counted() -> None:
    reading = Meter().read(START, now_s=1000.0)

    assert (reading.done_files, reading.all_files) == (0, 4)
    assert (reading.done_bytes, reading.all_bytes) == (0, 40 * MIB)
    assert reading.bytes_per_s is None
    assert reading.left_s is None


def test_the_rate_is_that_of_the_last_seconds_and_tells_the_time_left() -> None:
    meter = Meter()
    meter.read(START, now_s=1000.0)

    reading = meter.read(replace(START, sending_sent_bytes=8 * MIB, moved_at_s=1004), now_s=1004.0)

    assert reading.bytes_per_s == 2 * MIB
    assert reading.left_s == 16.0
    assert reading.share == 0.2


def test_a_file_that_is_sent_counts_once() -> None:
    meter = Meter()
    meter.read(START, now_s=1000.0)
    done = replace(
        START,
        sent_files=101,
        sent_bytes=510 * MIB,
        pending_files=3,
        pending_bytes=30 * MIB,
        sending_files=0,
        sending_bytes=0,
        moved_at_s=1001.0,
    )

    reading = meter.read(done, now_s=1001.0)

    assert (reading.done_files, reading.all_files) == (1, 4)
    assert (reading.done_bytes, reading.all_bytes) == (10 * MIB, 40 * MIB)


def test_many_small_files_take_as_long_as_files_and_not_as_bytes() -> None:
    meter = Meter()
    start = replace(START, pending_files=100, pending_bytes=100, sending_bytes=1)
    meter.read(start, now_s=1000.0)
    later = replace(
        start,
        sent_files=110,
        sent_bytes=start.sent_bytes + 10,
        pending_files=90,
        pending_bytes=90,
        moved_at_s=1005.0,
    )

    assert meter.read(later, now_s=1005.0).left_s == 45.0


def test_nothing_is_promised_while_nothing_moves() -> None:
    meter = Meter()
    meter.read(START, now_s=1000.0)
    moved = replace(START, sending_sent_bytes=8 * MIB, moved_at_s=1002.0)
    meter.read(moved, now_s=1002.0)

    reading = meter.read(moved, now_s=1010.0)

    assert reading.left_s is None
    assert reading.bytes_per_s == 0
    assert reading.still_s == 8.0


def test_an_attempt_that_begins_again_gives_no_negative_rate() -> None:
    meter = Meter()
    meter.read(replace(START, sending_sent_bytes=8 * MIB), now_s=1000.0)

    reading = meter.read(replace(START, moved_at_s=1002.0), now_s=1002.0)

    assert reading.bytes_per_s is None
    assert reading.left_s is None


def test_after_a_rest_a_new_batch_begins_at_zero() -> None:
    meter = Meter()
    meter.read(START, now_s=1000.0)
    idle = MountProgress(pid=7, sent_files=104, sent_bytes=540 * MIB, moved_at_s=1010.0)
    assert meter.read(idle, now_s=1010.0).is_done

    reading = meter.read(replace(idle, pending_files=2, pending_bytes=9), now_s=1020.0)

    assert (reading.done_files, reading.all_files) == (0, 2)


def test_the_window_forgets_what_is_long_ago() -> None:
    meter = Meter()
    amounts = [*range(60), *range(60, 500, 10)]

    rates = [
        meter.read(
            replace(START, sending_sent_bytes=sent, moved_at_s=1000.0 + second),
            now_s=1000.0 + second,
        ).bytes_per_s
        for second, sent in enumerate(amounts)
    ]

    assert (rates[50], rates[-1]) == (1.0, 10.0)


def test_files_without_bytes_are_done_as_files() -> None:
    meter = Meter()
    empty = MountProgress(pid=7, pending_files=4, moved_at_s=1000.0)
    meter.read(empty, now_s=1000.0)

    reading = meter.read(replace(empty, sent_files=1, pending_files=3), now_s=1001.0)

    assert reading.share == 0.25
