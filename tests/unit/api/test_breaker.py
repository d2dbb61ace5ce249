from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
import trio
import trio.testing
from tests.unit.api.fake_transport import (
    VirtualClock,
    answers,
    client_of,
    fails,
    never_answers,
)
from typing_extensions import override

from ctrfs import errors
from ctrfs.api.breaker import LONGEST_PAUSE_S, PATIENCE_S, Breaker
from ctrfs.api.failures import AttemptFailedError
from ctrfs.api.models import ContainerId, FileId
from ctrfs.api.protocol import ContainersApi, UploadBody

CONTAINER = ContainerId("cntr_1")
FILE = FileId("cfile_1")
FILE_ANSWER = '{"id":"cfile_1","path":"/mnt/data/a","bytes":5,"created_at":1,"source":"user"}'
REFUSED = fails(httpx.ConnectError("connection refused"))
OK = answers(200, FILE_ANSWER)


class BreakingStream(httpx.AsyncByteStream):
    """A body whose connection breaks after its first byte."""

    @override
    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"{"
        raise httpx.ReadError("reset")


def breaker_of() -> Breaker:
    return Breaker(silence_s=10.0, clock=VirtualClock())


async def read(api: ContainersApi) -> None:
    await api.retrieve_file(CONTAINER, FILE)


async def expect_no_answer(api: ContainersApi) -> str:
    with pytest.raises((errors.RemoteUnavailableError, errors.RemoteStalledError)) as caught:
        await read(api)
    return str(caught.value)


async def fail(breaker: Breaker, *, after_s: float = 0.0) -> None:
    admission = breaker.admit()
    await trio.sleep(after_s)
    breaker.failed(admission, "refused")


async def test_calls_fail_at_once_after_a_service_has_been_away_for_a_while(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with client_of(REFUSED) as (api, service):
        await expect_no_answer(api)
        assert not api.health.is_answering
        sent, now_s = len(service.sent), trio.current_time()

        words = await expect_no_answer(api)

    assert trio.current_time() == now_s
    assert len(service.sent) == sent
    # The wall of the test's clock began at this moment.
    assert "has not answered since 2023-11-14 22:13:20 UTC (connection refused)" in words


async def test_an_address_where_nobody_ever_was_is_given_up_after_three_attempts(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with client_of(REFUSED) as (api, service):
        await expect_no_answer(api)

    assert [sent.at_s for sent in service.sent] == pytest.approx([0.0, 0.5, 1.5])


async def test_a_service_that_has_answered_is_given_up_after_five_attempts(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with client_of(OK, REFUSED) as (api, service):
        await read(api)
        await expect_no_answer(api)

    assert [sent.at_s for sent in service.sent[1:]] == pytest.approx([0.0, 0.5, 1.5, 3.5, 7.5])


async def test_a_line_that_breaks_six_times_in_a_row_still_brings_the_call_through(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with client_of(*[fails(httpx.ReadError("reset"))] * 6, OK) as (api, _):
        await read(api)


async def test_two_calls_that_waited_in_vain_are_enough(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with client_of(never_answers) as (api, service):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(expect_no_answer, api)
            nursery.start_soon(expect_no_answer, api)
        assert trio.current_time() == pytest.approx(30.0)

        assert "no answer within 30 s" in await expect_no_answer(api)

    assert trio.current_time() == pytest.approx(30.0)
    assert len(service.sent) == 2


async def test_the_service_is_found_again_by_the_next_call_without_a_remount(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with client_of(*[REFUSED] * 3, OK) as (api, service):
        await expect_no_answer(api)
        assert len(service.sent) == 3
        await trio.sleep(LONGEST_PAUSE_S)
        assert len(service.sent) == 3

        await read(api)

        assert api.health.is_answering
        assert api.health.silent_since_ns is None
        await read(api)


async def test_one_last_call_asks_before_the_pause_is_over(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with client_of(*[REFUSED] * 3, OK) as (api, _):
        await expect_no_answer(api)

        api.ask_again()
        await read(api)

        assert api.health.is_answering


async def test_only_one_caller_probes_and_the_others_hear_of_it_soon(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with client_of(*[REFUSED] * 3, answers(200, FILE_ANSWER, after_s=1.0)) as (api, service):
        await expect_no_answer(api)
        await trio.sleep(LONGEST_PAUSE_S)
        began_s = trio.current_time()

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(read, api)

    assert [sent.at_s - began_s for sent in service.sent[3:]] == pytest.approx([0.0, *[1.0] * 4])


async def test_the_others_wait_for_a_probe_for_a_moment_only(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with client_of(*[REFUSED] * 3, answers(200, FILE_ANSWER, after_s=5.0)) as (api, service):
        await expect_no_answer(api)
        await trio.sleep(LONGEST_PAUSE_S)
        began_s = trio.current_time()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read, api)
            await trio.testing.wait_all_tasks_blocked()
            await expect_no_answer(api)
            assert trio.current_time() - began_s == pytest.approx(PATIENCE_S)
        await read(api)

    assert len(service.sent) == 5


async def test_a_probe_waits_ten_seconds_and_the_next_one_longer(
    autojump_clock: trio.testing.MockClock,
) -> None:
    slow = answers(200, FILE_ANSWER, after_s=15.0)
    async with client_of(*[REFUSED] * 3, slow) as (api, service):
        await expect_no_answer(api)
        await trio.sleep(LONGEST_PAUSE_S)
        started_s = trio.current_time()

        await expect_no_answer(api)
        assert trio.current_time() - started_s < 15.0
        await trio.sleep(LONGEST_PAUSE_S)
        await read(api)

    assert len(service.sent) == 5


async def test_a_probe_that_is_given_up_lets_the_next_caller_probe_at_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with client_of(*[REFUSED] * 3, never_answers, OK) as (api, _):
        await expect_no_answer(api)
        await trio.sleep(LONGEST_PAUSE_S)
        with trio.move_on_after(1.0):
            await read(api)

        await read(api)


@pytest.mark.parametrize("status", [400, 401, 404, 500, 503])
async def test_answers_of_any_status_never_open_it(
    status: int, autojump_clock: trio.testing.MockClock
) -> None:
    async with client_of(answers(status)) as (api, _):
        for _attempt in range(10):
            with pytest.raises(errors.RemoteError):
                await read(api)

        assert api.health.is_answering


async def test_a_body_that_breaks_off_is_not_silence(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def breaks_off(_request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, stream=BreakingStream())

    async with client_of(breaks_off) as (api, _):
        for _attempt in range(3):
            with pytest.raises(errors.RemoteError):
                await read(api)

        assert api.health.is_answering


async def test_an_interrupted_program_is_no_sign_of_a_silent_service(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with client_of(never_answers) as (api, _):
        for _attempt in range(10):
            with trio.move_on_after(20.0):
                await read(api)

        assert api.health.is_answering


async def test_an_upload_that_is_refused_was_surely_not_done(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with client_of(REFUSED) as (api, service):
        await expect_no_answer(api)
        sent = len(service.sent)
        with pytest.raises(errors.RemoteUnavailableError) as caught:
            await api.create_file(
                CONTAINER, name="a", body=UploadBody(size_bytes=1, open=lambda: iter([b"a"]))
            )

    assert not isinstance(caught.value, errors.RemoteUncertainError)
    assert len(service.sent) == sent


async def test_failures_in_one_moment_do_not_open_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    breaker = breaker_of()

    for _ in range(100):
        await fail(breaker)

    assert not breaker.is_open


async def test_failures_long_ago_are_forgotten(autojump_clock: trio.testing.MockClock) -> None:
    breaker = breaker_of()

    for _ in range(100):
        await fail(breaker, after_s=1.0)
        await trio.sleep(61.0)

    assert not breaker.is_open


async def test_an_answer_in_between_begins_the_count_anew(
    autojump_clock: trio.testing.MockClock,
) -> None:
    breaker = breaker_of()

    for number in range(100):
        await fail(breaker, after_s=1.0)
        if number % 4 == 0:
            breaker.answered()

    assert not breaker.is_open


async def test_the_pause_grows_to_half_a_minute(autojump_clock: trio.testing.MockClock) -> None:
    breaker = breaker_of()
    for _ in range(5):
        await fail(breaker, after_s=1.0)
    pauses = []

    for _ in range(6):
        before_s = trio.current_time()
        while True:
            try:
                breaker.check()
                break
            except AttemptFailedError:
                await trio.sleep(0.5)
        pauses.append(trio.current_time() - before_s)
        await fail(breaker)

    assert pauses == [3.0, 6.0, 12.0, 24.0, 30.0, 30.0]
