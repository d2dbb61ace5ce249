from __future__ import annotations

import gzip
import json
import logging

import httpx
import pytest
import trio
import trio.testing
from tests.unit.api.fake_transport import (
    KEY,
    FakeService,
    Reply,
    VirtualClock,
    answers,
    client_of,
    fails,
    never_answers,
)

from ctrfs import errors
from ctrfs.api.client import open_client
from ctrfs.api.models import ContainerId, ContainerRequest, FileId
from ctrfs.api.protocol import ContainersApi, UploadBody
from ctrfs.config import ApiConfig, AuthStyle, Secret

CONTAINER = ContainerId("cntr_1")
FILE = FileId("cfile_1")
EMPTY_LIST = '{"object":"list","data":[],"first_id":null,"has_more":false,"last_id":null}'
FILE_ANSWER = '{"id":"cfile_1","path":"/mnt/data/a","bytes":5,"created_at":1,"source":"user"}'
CONTAINER_ANSWER = '{"id":"cntr_1","name":"analysis","created_at":1,"status":"running"}'
DELETED = '{"id":"x","deleted":true}'


def config_with(
    base_url: str = "https://api.example/v1",
    *,
    key: Secret | None = Secret(KEY),  # noqa: B008  # frozen
    auth: AuthStyle = AuthStyle.BEARER,
    organization: str | None = None,
    json_bytes_max: int = 16 * 1024 * 1024,
    transfer_timeout_s: float = 600.0,
) -> ApiConfig:
    return ApiConfig(
        base_url=base_url,
        key=key,
        auth=auth,
        organization=organization,
        project="proj_1",
        json_bytes_max=json_bytes_max,
        transfer_timeout_s=transfer_timeout_s,
    )


def body_of(content: bytes = b"hello") -> UploadBody:
    return UploadBody(size_bytes=len(content), open=lambda: iter([content]))


async def upload(api: ContainersApi) -> None:
    await api.create_file(CONTAINER, name="a", body=body_of())


# What is sent


async def test_every_request_says_who_we_are() -> None:
    config = config_with(organization="org_1")
    async with client_of(answers(200, FILE_ANSWER), config=config) as (api, service):
        await api.retrieve_file(CONTAINER, FILE)

    headers = service.sent[0].headers
    assert headers["authorization"] == f"Bearer {KEY}"
    assert headers["openai-organization"] == "org_1"
    assert headers["openai-project"] == "proj_1"
    assert headers["openai-beta"] == "containers=v1"
    assert headers["user-agent"].startswith("ctrfs/")
    assert headers["accept-encoding"] == "identity"
    assert headers["host"] == "api.example"
    assert "cookie" not in headers


async def test_the_key_can_travel_in_the_header_of_azure() -> None:
    config = config_with(auth=AuthStyle.API_KEY_HEADER)
    async with client_of(answers(200, FILE_ANSWER), config=config) as (api, service):
        await api.retrieve_file(CONTAINER, FILE)

    assert service.sent[0].headers["api-key"] == KEY
    assert "authorization" not in service.sent[0].headers


async def test_without_a_key_none_is_sent() -> None:
    async with client_of(answers(200, FILE_ANSWER), config=config_with(key=None)) as (api, service):
        await api.retrieve_file(CONTAINER, FILE)

    assert "authorization" not in service.sent[0].headers


@pytest.mark.parametrize(
    ("base_url", "expected"),
    [
        ("https://h/v1", "https://h/v1/containers?limit=100&order=asc"),
        ("https://h/v1/", "https://h/v1/containers?limit=100&order=asc"),
        ("http://h:8400", "http://h:8400/containers?limit=100&order=asc"),
        (
            "https://h/openai?api-version=2025-01-01",
            "https://h/openai/containers?api-version=2025-01-01&limit=100&order=asc",
        ),
        ("https://h/a%20b/v1#top", "https://h/a%20b/v1/containers?limit=100&order=asc"),
    ],
)
async def test_paths_are_put_behind_the_base_url_and_its_query_is_kept(
    base_url: str, expected: str
) -> None:
    async with client_of(answers(200, EMPTY_LIST), config=config_with(base_url)) as (api, service):
        await api.list_containers()

    assert service.sent[0].url == expected


async def test_an_id_stays_one_part_of_the_path_whatever_it_holds() -> None:
    async with client_of(answers(200, FILE_ANSWER)) as (api, service):
        await api.retrieve_file(ContainerId("../a/b?c#d%2F"), FileId("ü x"))

    assert service.sent[0].url == (
        "https://api.example/v1/containers/..%2Fa%2Fb%3Fc%23d%252F/files/%C3%BC%20x"
    )


@pytest.mark.parametrize("segment", ["", ".", "..", "\ud800"])
async def test_an_id_that_would_lead_elsewhere_is_not_sent(segment: str) -> None:
    async with client_of(answers(200, DELETED)) as (api, service):
        with pytest.raises(errors.RemoteNotFoundError):
            await api.delete_file(CONTAINER, FileId(segment))
        with pytest.raises(errors.RemoteNotFoundError):
            await api.delete_container(ContainerId(segment))

    assert service.sent == []


async def test_everything_that_a_container_can_be_asked_for_is_sent() -> None:
    request = ContainerRequest(
        name="analysis",
        expires_after_minutes=15,
        memory_limit="4g",
        allowed_domains=("a.example", "b.example"),
        domain_secrets=(("a.example", "TOKEN", "hidden"),),
        file_ids=("file-1",),
        skills=("skill_1",),
    )
    async with client_of(answers(200, CONTAINER_ANSWER)) as (api, service):
        await api.create_container(request)

    assert service.sent[0].headers["content-type"] == "application/json"
    assert json.loads(service.sent[0].body) == {
        "name": "analysis",
        "expires_after": {"anchor": "last_active_at", "minutes": 15},
        "file_ids": ["file-1"],
        "memory_limit": "4g",
        "network_policy": {
            "type": "allowlist",
            "allowed_domains": ["a.example", "b.example"],
            "domain_secrets": [{"domain": "a.example", "name": "TOKEN", "value": "hidden"}],
        },
        "skills": [{"type": "skill_reference", "skill_id": "skill_1"}],
    }


async def test_what_is_not_asked_for_is_not_sent() -> None:
    async with client_of(answers(200, CONTAINER_ANSWER)) as (api, service):
        await api.create_container(ContainerRequest(name="a"))
        await api.create_container(ContainerRequest(name="b", network_disabled=True))

    assert json.loads(service.sent[0].body) == {"name": "a"}
    assert json.loads(service.sent[1].body)["network_policy"] == {"type": "disabled"}


@pytest.mark.parametrize(
    "request_",
    [
        ContainerRequest(name="\ud800"),
        ContainerRequest(name="a", network_disabled=True, allowed_domains=("b",)),
        ContainerRequest(name="a", domain_secrets=(("b", "c", "d"),)),
    ],
)
async def test_a_container_that_cannot_be_is_not_asked_for(request_: ContainerRequest) -> None:
    async with client_of(answers(200, CONTAINER_ANSWER)) as (api, service):
        with pytest.raises(errors.RemoteInvalidError):
            await api.create_container(request_)

    assert service.sent == []


async def test_a_copy_names_its_source() -> None:
    async with client_of(answers(200, FILE_ANSWER)) as (api, service):
        await api.copy_file(CONTAINER, source_id="file-1")

    assert json.loads(service.sent[0].body) == {"file_id": "file-1"}


# What comes back


async def test_an_error_sent_with_status_200_is_an_error() -> None:
    reply = answers(200, '{"error":{"message":"File not found","code":"404"}}')
    async with client_of(reply) as (api, _):
        with pytest.raises(errors.RemoteNotFoundError):
            await api.retrieve_file(CONTAINER, FILE)


async def test_a_web_page_in_place_of_an_answer_is_a_protocol_error_after_two_retries(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with client_of(answers(200, "<html>Please log in</html>")) as (api, service):
        with pytest.raises(errors.RemoteProtocolError, match="Please log in"):
            await api.list_files(CONTAINER)

    assert len(service.sent) == 3


async def test_an_unreadable_confirmation_of_a_deletion_is_asked_for_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    replies = (answers(200, "<html>"), answers(404, '{"error":{"message":"Not found"}}'))
    async with client_of(*replies) as (api, service):
        await api.delete_file(CONTAINER, FILE)

    assert len(service.sent) == 2


async def test_an_unreadable_answer_to_an_upload_leaves_it_uncertain() -> None:
    async with client_of(answers(200, "<html>")) as (api, service):
        with pytest.raises(errors.RemoteUncertainError):
            await upload(api)

    assert len(service.sent) == 1


async def test_an_answer_above_the_limit_is_refused() -> None:
    config = config_with(json_bytes_max=1000)
    async with client_of(answers(200, " " * 1001), config=config) as (api, _):
        with pytest.raises(errors.RemoteProtocolError, match="more than 1000 bytes"):
            await api.list_files(CONTAINER)


async def test_a_compressed_list_is_read_though_not_asked_for() -> None:
    reply = answers(200, gzip.compress(EMPTY_LIST.encode()), content_encoding="gzip")
    async with client_of(reply) as (api, _):
        assert (await api.list_files(CONTAINER)).items == ()


async def test_a_redirect_is_not_followed() -> None:
    reply = answers(307, location="https://evil.example/")
    async with client_of(reply) as (api, service):
        with pytest.raises(errors.RemoteProtocolError, match="not followed"):
            await api.list_files(CONTAINER)

    assert len(service.sent) == 1


@pytest.mark.parametrize("answer", ["", "{}", '{"deleted":false}'])
async def test_a_deletion_must_be_confirmed(answer: str) -> None:
    async with client_of(answers(200, answer)) as (api, _):
        with pytest.raises(errors.RemoteProtocolError):
            await api.delete_file(CONTAINER, FILE)


@pytest.mark.parametrize(
    "uncertain",
    [fails(httpx.ReadError("broke")), answers(500), answers(408)],
)
async def test_gone_after_an_uncertain_deletion_is_deleted(
    uncertain: Reply, autojump_clock: trio.testing.MockClock
) -> None:
    async with client_of(uncertain, answers(404)) as (api, service):
        await api.delete_file(CONTAINER, FILE)

    assert len(service.sent) == 2


@pytest.mark.parametrize("certain", [fails(httpx.ConnectError("no route")), answers(409)])
async def test_gone_after_a_deletion_that_was_not_done_is_an_error(
    certain: Reply, autojump_clock: trio.testing.MockClock
) -> None:
    async with client_of(certain, answers(404)) as (api, _):
        with pytest.raises(errors.RemoteNotFoundError):
            await api.delete_file(CONTAINER, FILE)


async def test_a_service_without_a_list_of_containers_does_not_offer_them() -> None:
    async with client_of(answers(404, "not found")) as (api, _):
        with pytest.raises(errors.RemoteReadOnlyError):
            await api.list_containers()
        with pytest.raises(errors.RemoteReadOnlyError):
            await api.create_container(ContainerRequest(name="a"))


async def test_a_new_container_from_an_unknown_file_is_not_found() -> None:
    async with client_of(answers(404)) as (api, _):
        with pytest.raises(errors.RemoteNotFoundError):
            await api.create_container(ContainerRequest(name="a", file_ids=("file-1",)))


# Downloads


async def download(api: ContainersApi, offset: int = 0) -> tuple[int, int | None, bytes]:
    async with api.download(CONTAINER, FILE, offset=offset) as stream:
        content = b"".join([piece async for piece in stream.pieces()])
        return stream.offset, stream.length_bytes, content


async def test_a_part_is_asked_for_only_where_an_offset_is() -> None:
    async with client_of(answers(200, b"hello")) as (api, service):
        assert await download(api) == (0, 5, b"hello")
        assert await download(api, 2) == (0, 5, b"hello")

    assert "range" not in service.sent[0].headers
    assert service.sent[1].headers["range"] == "bytes=2-"


async def test_a_part_is_known_by_its_range() -> None:
    reply = answers(206, b"llo", content_range="bytes 2-4/5")
    async with client_of(reply) as (api, _):
        assert await download(api, 2) == (2, 3, b"llo")


@pytest.mark.parametrize(
    ("offset", "content_range"),
    [(2, ""), (2, "bytes 1-3/5"), (2, "bytes 2-1/5"), (2, "bytes 2-9/10"), (2, "bytes */5"),
     (2, "lines 2-4/5"), (0, "bytes 0-2/5"), (2, f"bytes 2-{'9' * 5000}/*")],
)  # fmt: skip
async def test_another_part_than_the_one_asked_for_is_an_error(
    offset: int, content_range: str
) -> None:
    reply = answers(206, b"llo", content_range=content_range)
    async with client_of(reply) as (api, _):
        with pytest.raises(errors.RemoteProtocolError):
            await download(api, offset)


async def test_an_offset_past_the_end_is_an_invalid_request() -> None:
    async with client_of(answers(416)) as (api, _):
        with pytest.raises(errors.RemoteInvalidError):
            await download(api, 99)


async def test_compressed_bytes_of_a_file_are_refused() -> None:
    reply = answers(200, gzip.compress(b"hello"), content_encoding="gzip")
    async with client_of(reply) as (api, _):
        with pytest.raises(errors.RemoteProtocolError):
            await download(api)


async def test_fewer_bytes_than_announced_are_an_error() -> None:
    async with client_of(answers(200, b"hell", content_length="5")) as (api, _):
        with pytest.raises(errors.RemoteUnavailableError):
            await download(api)


async def test_more_bytes_than_announced_are_an_error() -> None:
    async with client_of(answers(200, b"hello!", content_length="5")) as (api, _):
        with pytest.raises(errors.RemoteProtocolError):
            await download(api)


async def test_a_download_without_an_announced_length_is_taken_as_it_comes() -> None:
    async with client_of(answers(200, b"hello", content_length="")) as (api, _):
        assert await download(api) == (0, None, b"hello")


async def test_a_download_is_begun_again_until_its_head_arrives(
    autojump_clock: trio.testing.MockClock,
) -> None:
    replies = (answers(503), fails(httpx.ReadError("broke")), answers(200, b"hello"))
    async with client_of(*replies) as (api, service):
        assert await download(api) == (0, 5, b"hello")

    assert len(service.sent) == 3


async def test_a_missing_file_is_not_found() -> None:
    async with client_of(answers(404)) as (api, _):
        with pytest.raises(errors.RemoteNotFoundError):
            await download(api)


# Deadlines


async def test_a_read_without_an_answer_ends_at_its_deadline(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with client_of(never_answers) as (api, _):
        with pytest.raises(errors.RemoteStalledError):
            await api.retrieve_container(CONTAINER)

    assert trio.current_time() == pytest.approx(30.0)


async def test_an_upload_without_an_answer_ends_at_its_deadline_and_is_uncertain(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with client_of(never_answers) as (api, service):
        with pytest.raises(errors.RemoteUncertainError):
            await upload(api)

    assert trio.current_time() == pytest.approx(600.0)
    assert len(service.sent) == 1


async def test_waiting_for_a_connection_counts_towards_the_deadline(
    autojump_clock: trio.testing.MockClock,
) -> None:
    config = ApiConfig(base_url="https://h/v1", connections_max=1)
    async with client_of(never_answers, config=config) as (api, service):
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(expect_a_stall, api)

    assert trio.current_time() == pytest.approx(30.0)
    assert len(service.sent) <= 3


async def expect_a_stall(api: ContainersApi) -> None:
    with pytest.raises(errors.RemoteStalledError):
        await api.retrieve_container(CONTAINER)


async def test_a_walk_over_pages_has_a_deadline_of_its_own(
    autojump_clock: trio.testing.MockClock,
) -> None:
    pages = [
        answers(200, f'{{"data":[{{"id":"f{n}","path":"/a"}}],"has_more":true}}', after_s=20.0)
        for n in range(40)
    ]
    config = config_with(transfer_timeout_s=100.0)
    async with client_of(*pages, config=config) as (api, service):
        with pytest.raises(errors.RemoteUnavailableError, match="100 s"):
            await api.list_files(CONTAINER)

    assert len(service.sent) == 5


async def test_a_walk_may_take_longer_than_one_request(
    autojump_clock: trio.testing.MockClock,
) -> None:
    pages = [
        answers(
            200,
            f'{{"data":[{{"id":"f{n}","path":"/a"}}],"has_more":{json.dumps(n < 3)}}}',
            after_s=20.0,
        )
        for n in range(4)
    ]
    async with client_of(*pages) as (api, _):
        assert len((await api.list_files(CONTAINER)).items) == 4


# The key, and the log


@pytest.mark.parametrize(
    "reply",
    [
        answers(401, json.dumps({"error": {"message": f"Incorrect API key provided: {KEY}", "code": KEY}})),
        answers(401, '{"error":{"message":"Incorrect API key provided: sk-test**********cdef"}}'),
        answers(500, f"panic: Authorization: Bearer {KEY}", x_request_id=KEY),
        answers(307, location=f"https://evil.example/?{KEY}"),
        answers(200, f"<html>{KEY}</html>"),
        fails(httpx.RemoteProtocolError(f"illegal header line: {KEY}")),
        fails(httpx.ReadError(KEY)),
    ],
)  # fmt: skip
async def test_the_key_is_in_no_error_and_no_log_line(
    reply: Reply, caplog: pytest.LogCaptureFixture, autojump_clock: trio.testing.MockClock
) -> None:
    caplog.set_level(logging.DEBUG, logger="ctrfs")
    async with client_of(reply) as (api, _):
        with pytest.raises(errors.RemoteError) as caught:
            await api.list_files(CONTAINER)

    error = caught.value
    texts = f"{error}{error!r}{error.code}{error.request_id}{error.__cause__}{caplog.text}"
    assert KEY not in texts
    assert "cdef" not in texts


async def test_the_key_is_in_no_repr() -> None:
    service = FakeService(replies=[answers(200, EMPTY_LIST)])
    async with open_client(
        config_with(), clock=VirtualClock(), transport_factory=service.transport
    ) as api:
        assert KEY not in repr(api)
        assert KEY not in repr(config_with())


async def test_a_listed_row_that_holds_the_key_is_quoted_without_it() -> None:
    async with client_of(answers(200, json.dumps({"data": [{"id": KEY}]}))) as (api, _):
        listing = await api.list_files(CONTAINER)

    assert KEY not in repr(listing)


async def test_one_line_a_request_tells_what_happened(
    caplog: pytest.LogCaptureFixture, autojump_clock: trio.testing.MockClock
) -> None:
    caplog.set_level(logging.DEBUG, logger="ctrfs.api")
    replies = (answers(503, after_s=0.25, x_request_id="req_1"), answers(200, FILE_ANSWER))
    async with client_of(*replies) as (api, _):
        await api.retrieve_file(CONTAINER, FILE)

    first, second = caplog.records
    assert first.levelname == "INFO"
    assert first.message.startswith(
        "retrieve file GET /containers/cntr_1/files/cfile_1 503 req_1 250 ms RemoteUnavailableError"
    )
    assert second.levelname == "DEBUG"
    assert second.message == "retrieve file GET /containers/cntr_1/files/cfile_1 200 - 0 ms"


async def test_a_request_that_nobody_waits_for_any_more_is_logged_as_given_up(
    caplog: pytest.LogCaptureFixture, autojump_clock: trio.testing.MockClock
) -> None:
    caplog.set_level(logging.DEBUG, logger="ctrfs.api")
    async with client_of(answers(200, FILE_ANSWER, after_s=5)) as (api, _):
        with trio.move_on_after(2):
            await api.retrieve_file(CONTAINER, FILE)

    (record,) = caplog.records
    assert record.message.endswith(" - - 2000 ms given up")


# What cannot be used


@pytest.mark.parametrize(
    "base_url", ["", "api.openai.com/v1", "ftp://h/v1", "https://", "https://u:p@h/v1", "https://h:x"]
)  # fmt: skip
async def test_an_address_that_cannot_be_used_is_a_configuration_error(base_url: str) -> None:
    with pytest.raises(errors.ConfigError):
        async with client_of(config=config_with(base_url)):
            raise AssertionError


@pytest.mark.parametrize("key", ["", "sk-with\nnewline", "sk-ünicode", " sk-space", "sk-\x00"])
async def test_a_key_that_cannot_be_sent_is_a_configuration_error_that_does_not_show_it(
    key: str,
) -> None:
    with pytest.raises(errors.ConfigError) as caught:
        async with client_of(config=config_with(key=Secret(key))):
            raise AssertionError

    assert not key or key.strip() not in str(caught.value)


async def test_an_organization_that_cannot_be_sent_is_a_configuration_error() -> None:
    with pytest.raises(errors.ConfigError, match="OpenAI-Organization"):
        async with client_of(config=config_with(organization="a\nb")):
            raise AssertionError


async def test_no_connections_at_all_are_a_configuration_error() -> None:
    with pytest.raises(errors.ConfigError):
        async with client_of(config=ApiConfig(connections_max=0)):
            raise AssertionError


# Many failures


async def test_a_call_survives_six_failures_in_a_row_within_its_deadline(
    autojump_clock: trio.testing.MockClock,
) -> None:
    replies = [answers(500) if n % 2 else fails(httpx.ReadError("reset")) for n in range(6)]
    async with client_of(*replies, answers(200, FILE_ANSWER)) as (api, service):
        file = await api.retrieve_file(CONTAINER, FILE)

    assert file.id == FILE
    assert len(service.sent) == 7
    assert trio.current_time() == pytest.approx(0.5 + 1 + 2 + 4 + 8 + 8)


async def test_an_answer_that_asks_for_a_pause_holds_up_the_other_calls_too(
    autojump_clock: trio.testing.MockClock,
) -> None:
    replies = (answers(503, retry_after_ms="7000"), answers(200, FILE_ANSWER))
    async with client_of(*replies) as (api, service):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(api.retrieve_file, CONTAINER, FILE)
            await trio.sleep(0.1)
            nursery.start_soon(api.retrieve_file, CONTAINER, FILE)

    assert [sent.at_s for sent in service.sent] == pytest.approx([0.0, 7.0, 7.0])


async def test_a_call_that_cannot_wait_for_the_end_of_a_pause_fails_at_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with client_of(answers(429, retry_after="60")) as (api, service):
        with pytest.raises(errors.RemoteBusyError):
            await api.retrieve_file(CONTAINER, FILE)
        with pytest.raises(errors.RemoteBusyError, match="another 60 s"):
            await api.retrieve_file(CONTAINER, FILE)

    assert trio.current_time() == 0.0
    assert len(service.sent) == 1


async def test_a_thousand_calls_of_which_one_answer_in_ten_fails_all_succeed(
    autojump_clock: trio.testing.MockClock,
) -> None:
    bad = [
        answers(500),
        answers(503),
        fails(httpx.ReadError("reset")),
        answers(503, retry_after="0.1"),
    ]
    replies = [
        bad[n // 10 % 4] if n % 10 == 0 else answers(200, FILE_ANSWER, after_s=0.1)
        for n in range(3000)
    ]
    async with client_of(*replies) as (api, service):
        async with trio.open_nursery() as nursery:
            for _ in range(1000):
                nursery.start_soon(api.retrieve_file, CONTAINER, FILE)

    assert 1100 <= len(service.sent) <= 1130
