from __future__ import annotations

import logging
import threading

import pytest
import trio
import trio.testing
from tests.unit.api.fake_transport import KEY, FakeService, VirtualClock, answers

from ctrfs import errors
from ctrfs.api.client import open_client
from ctrfs.api.models import ContainerId, FileId
from ctrfs.api.protocol import UploadBody
from ctrfs.config import ApiConfig, AuthStyle, Secret

CONTAINER = ContainerId("cntr_1")
FILE = FileId("cfile_1")
FILE_ANSWER = '{"id":"cfile_1","path":"/mnt/data/a","bytes":5,"created_at":1,"source":"user"}'
REFUSED = answers(
    401, '{"error":{"message":"Incorrect API key provided","code":"invalid_api_key"}}'
)
OK = answers(200, FILE_ANSWER)
NEW_KEY = "newer-0123456789abcdef"


class KeyPlace:
    """Where keys are read: gives one after another, at last the same for ever.

    Attributes:
        reads: How often it was read.
    """

    def __init__(self, *keys: str, seconds: float = 0.0) -> None:
        self._keys = keys
        self._seconds = seconds
        self.reads = 0

    def __call__(self) -> Secret:
        threading.Event().wait(self._seconds)
        self.reads += 1
        return Secret(self._keys[min(self.reads, len(self._keys)) - 1])


def config_with(place: KeyPlace | None, *, auth: AuthStyle = AuthStyle.BEARER) -> ApiConfig:
    return ApiConfig(base_url="https://api.example/v1", key=Secret(KEY), read_key=place, auth=auth)


def sent_keys(service: FakeService) -> list[str]:
    return [sent.headers["authorization"].removeprefix("Bearer ") for sent in service.sent]


async def read(config: ApiConfig, service: FakeService, *, times: int = 1) -> None:
    async with open_client(
        config, clock=VirtualClock(), transport_factory=service.transport, jitter=lambda: 0.0
    ) as api:
        for _ in range(times):
            await api.retrieve_file(CONTAINER, FILE)


async def test_a_refused_key_is_read_again_and_the_call_repeated_with_the_new_one() -> None:
    place, service = KeyPlace(NEW_KEY), FakeService(replies=[REFUSED, OK])

    await read(config_with(place), service, times=2)

    assert sent_keys(service) == [KEY, NEW_KEY, NEW_KEY]
    assert place.reads == 1


async def test_the_new_key_travels_as_the_old_one_did() -> None:
    place, service = KeyPlace(NEW_KEY), FakeService(replies=[REFUSED, OK])

    await read(config_with(place, auth=AuthStyle.API_KEY_HEADER), service)

    assert [sent.headers["api-key"] for sent in service.sent] == [KEY, NEW_KEY]


async def test_a_key_that_is_still_the_same_is_not_sent_again() -> None:
    place, service = KeyPlace(KEY), FakeService(replies=[REFUSED])

    with pytest.raises(errors.RemoteRefusedError):
        await read(config_with(place), service)

    assert len(service.sent) == 1


async def test_a_new_key_that_is_refused_too_is_not_replaced_once_more() -> None:
    place, service = KeyPlace(NEW_KEY, "newest-0123456789"), FakeService(replies=[REFUSED])

    with pytest.raises(errors.RemoteRefusedError):
        await read(config_with(place), service)

    assert sent_keys(service) == [KEY, NEW_KEY]


async def test_a_key_that_cannot_change_is_not_sent_again() -> None:
    service = FakeService(replies=[REFUSED])

    with pytest.raises(errors.RemoteRefusedError):
        await read(config_with(None), service)

    assert len(service.sent) == 1


async def test_many_refused_calls_read_the_key_once() -> None:
    place = KeyPlace(NEW_KEY, seconds=0.05)
    service = FakeService(replies=[*[REFUSED] * 10, OK])
    async with open_client(
        config_with(place), clock=VirtualClock(), transport_factory=service.transport
    ) as api:
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(api.retrieve_file, CONTAINER, FILE)

    assert place.reads == 1
    assert sent_keys(service) == [KEY] * 10 + [NEW_KEY] * 10


async def test_an_unchanged_key_is_not_asked_for_by_each_of_many_refused_calls() -> None:
    place, service = KeyPlace(KEY), FakeService(replies=[REFUSED])
    async with open_client(
        config_with(place), clock=VirtualClock(), transport_factory=service.transport
    ) as api:
        for _ in range(10):
            with pytest.raises(errors.RemoteRefusedError):
                await api.retrieve_file(CONTAINER, FILE)

    assert place.reads == 1


async def test_an_upload_is_sent_whole_with_the_new_key() -> None:
    place, service = KeyPlace(NEW_KEY), FakeService(replies=[REFUSED, OK])
    async with open_client(
        config_with(place), clock=VirtualClock(), transport_factory=service.transport
    ) as api:
        body = UploadBody(size_bytes=5, open=lambda: iter([b"hello"]))
        await api.create_file(CONTAINER, name="a", body=body)

    assert all(b"hello" in sent.body for sent in service.sent)
    assert sent_keys(service) == [KEY, NEW_KEY]


async def test_a_place_that_has_no_key_any_more_leaves_the_refusal_and_a_line_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def gone() -> Secret:
        raise errors.ConfigError("the key file /k cannot be read: No such file")

    config = ApiConfig(base_url="https://h/v1", key=Secret(KEY), read_key=gone)
    with pytest.raises(errors.RemoteRefusedError):
        await read(config, FakeService(replies=[REFUSED]))

    assert "the key file /k cannot be read" in caplog.text


async def test_a_new_key_that_cannot_be_sent_is_not_used_and_not_shown(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    with pytest.raises(errors.RemoteRefusedError):
        await read(config_with(KeyPlace("bad\nkey")), FakeService(replies=[REFUSED]))

    assert "bad" not in caplog.text


async def test_the_new_key_and_the_old_one_are_in_no_error_and_no_log_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, logger="ctrfs")
    echo = answers(400, f'{{"error":{{"message":"you sent {NEW_KEY} after {KEY}"}}}}')

    with pytest.raises(errors.RemoteInvalidError) as caught:
        await read(config_with(KeyPlace(NEW_KEY)), FakeService(replies=[REFUSED, echo]))

    texts = f"{caught.value}{caught.value!r}{caplog.text}"
    assert NEW_KEY not in texts
    assert KEY not in texts
