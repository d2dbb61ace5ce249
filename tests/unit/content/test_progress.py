"""What is counted of uploads."""

from __future__ import annotations

import pytest
import trio
from tests.unit.content.fake_service import CONTAINER
from tests.unit.disk.clocks import StoppedClock
from typing_extensions import override

from ctrfs.api.protocol import UploadBody
from ctrfs.content.progress import UploadProgress
from ctrfs.errors import RemoteUnavailableError
from ctrfs.units import KIB, MIB, NS_PER_S

PIECES = [b"abc", b"defg"]
BODY = UploadBody(size_bytes=7, open=lambda: iter(PIECES))


async def test_a_piece_counts_once_the_connection_asks_for_the_next() -> None:
    progress = UploadProgress(StoppedClock())

    with progress.upload(CONTAINER, stored_name="a", size_bytes=7) as upload:
        pieces = progress.counted(BODY, upload).open()
        seen = [(next(pieces), upload.sent_bytes), (next(pieces), upload.sent_bytes)]
        assert next(pieces, None) is None

        assert seen == [(b"abc", 0), (b"defg", 3)]
        assert upload.sent_bytes == 7


async def test_a_second_attempt_counts_from_zero() -> None:
    progress = UploadProgress(StoppedClock())

    with progress.upload(CONTAINER, stored_name="a", size_bytes=7) as upload:
        body = progress.counted(BODY, upload)
        assert b"".join(body.open()) == b"abcdefg"
        next(body.open())

        assert upload.sent_bytes == 0
    assert (progress.sent_files, progress.sent_bytes) == (1, 7)


class PassingClock(StoppedClock):
    """A clock that somebody else moves."""

    def __init__(self) -> None:
        self.now_ns = 0

    @override
    def wall_ns(self) -> int:
        return self.now_ns


@pytest.mark.parametrize(
    ("pause_s", "sizes"),
    [(0, [64 * KIB, 128 * KIB, 256 * KIB, 512 * KIB, 64 * KIB, MIB]), (1, [64 * KIB] * 32)],
    ids=["fast", "slow"],
)
async def test_a_slow_line_is_given_small_pieces(pause_s: int, sizes: list[int]) -> None:
    clock = PassingClock()
    progress = UploadProgress(clock)
    content = bytes(MIB)
    body = UploadBody(size_bytes=2 * MIB, open=lambda: iter([content, content]))
    seen = []

    with progress.upload(CONTAINER, stored_name="a", size_bytes=2 * MIB) as upload:
        for piece in progress.counted(body, upload).open():
            seen.append(len(piece))
            clock.now_ns += pause_s * NS_PER_S

    assert seen == sizes


async def test_a_failed_upload_is_on_its_way_no_more_and_not_sent() -> None:
    progress = UploadProgress(StoppedClock())

    def fail() -> None:
        with progress.upload(CONTAINER, stored_name="a", size_bytes=7):
            raise RemoteUnavailableError("gone")

    with pytest.raises(RemoteUnavailableError):
        fail()

    assert progress.under_way == []
    assert (progress.sent_files, progress.sent_bytes) == (0, 0)


async def test_of_two_equal_uploads_the_end_of_one_leaves_the_other() -> None:
    progress = UploadProgress(StoppedClock())

    with progress.upload(CONTAINER, stored_name="a", size_bytes=7) as first:
        with progress.upload(CONTAINER, stored_name="a", size_bytes=7):
            pass

        assert [each is first for each in progress.under_way] == [True]


async def test_a_change_before_the_question_is_not_missed_and_is_told_once() -> None:
    progress = UploadProgress(StoppedClock())
    progress.note_change()

    await progress.change()

    with trio.move_on_after(0.01) as waiting:
        await progress.change()
    assert waiting.cancelled_caught
