"""What the client of the service does when the other end breaks off, at each point of an exchange."""

from __future__ import annotations

import traceback
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
import trio
from tests.support.scripted_server import Peer, Script, ScriptedServer, serve_scripts

from ctrfs import errors
from ctrfs.api.client import open_client
from ctrfs.api.models import ContainerFile, ContainerId, ContainerRequest, FileId
from ctrfs.api.protocol import ContainersApi, ContentStream, UploadBody
from ctrfs.clock import SystemClock
from ctrfs.config import ApiConfig, Secret

CONTAINER = ContainerId("cntr_1")
FILE = FileId("cfile_1")
FILE_ANSWER = (
    b'{"id":"cfile_1","object":"container.file","created_at":1,"bytes":5,'
    b'"container_id":"cntr_1","path":"/mnt/data/a.txt","source":"user"}'
)
LARGE_BYTES = 8 * 1024 * 1024  # more than both socket buffers of a loopback connection hold
LONG_BYTES = 16_384 * 1_280  # more than comes through the layers of the HTTP client
LONG_PATTERN = bytes(range(256)) * 4 + b"x" * 256  # no divisor of what one read takes


@asynccontextmanager
async def client_of(
    *scripts: Script, connections_max: int = 4, retries_max: int = 2, stall_timeout_s: float = 5.0
) -> AsyncIterator[tuple[ContainersApi, ScriptedServer]]:
    async with serve_scripts(*scripts) as server:
        config = ApiConfig(
            base_url=server.base_url,
            key=Secret("sk-test-0123456789"),
            connections_max=connections_max,
            retries_max=retries_max,
            stall_timeout_s=stall_timeout_s,
            metadata_timeout_s=10.0,
        )
        # All jitter taken off the backoff would still leave half a second a retry.
        async with open_client(config, clock=SystemClock(), jitter=lambda: 3.9) as api:
            yield api, server


def body_of(content: bytes) -> UploadBody:
    return UploadBody(size_bytes=len(content), open=lambda: iter([content]))


def large_body() -> UploadBody:
    def pieces() -> Iterator[bytes]:
        for _ in range(LARGE_BYTES // 65536):
            yield bytes(65536)

    return UploadBody(size_bytes=LARGE_BYTES, open=pieces)


async def gather(stream: ContentStream, received: list[bytes]) -> None:
    async for piece in stream.pieces():
        received += [piece]


async def hang_up_at_once(peer: Peer) -> None:
    await peer.hang_up()


async def hang_up_after_the_head(peer: Peer) -> None:
    await peer.head()
    await peer.hang_up()


async def hang_up_after_the_request(peer: Peer) -> None:
    await peer.request()
    await peer.hang_up()


async def hang_up_within_the_answer(peer: Peer) -> None:
    await peer.request()
    await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{")
    await peer.hang_up()


async def answer_with_the_file(peer: Peer) -> None:
    while True:
        await peer.request()
        await peer.answer(200, FILE_ANSWER)


async def confirm_the_deletion(peer: Peer) -> None:
    await peer.request()
    await peer.answer(200, b'{"id":"cfile_1","deleted":true}')


async def say_that_it_is_gone(peer: Peer) -> None:
    await peer.request()
    await peer.answer(404, b'{"error":{"message":"File not found.","code":null}}')


async def fall_silent(peer: Peer) -> None:
    await peer.request()
    await trio.sleep_forever()


BREAKS = pytest.mark.parametrize(
    "break_off",
    [
        hang_up_at_once,
        hang_up_after_the_head,
        hang_up_after_the_request,
        hang_up_within_the_answer,
    ],
    ids=lambda script: str(script.__name__),
)


@BREAKS
async def test_a_read_is_sent_again_wherever_the_connection_broke(break_off: Script) -> None:
    async with client_of(break_off, answer_with_the_file) as (api, server):
        file = await api.retrieve_file(CONTAINER, FILE)

        assert file.id == FILE
        assert server.connections == 2


@BREAKS
async def test_an_upload_is_never_sent_again_once_it_was_under_way(break_off: Script) -> None:
    async with client_of(break_off, answer_with_the_file) as (api, server):
        with pytest.raises(errors.RemoteUncertainError):
            await api.create_file(CONTAINER, name="a.txt", body=body_of(b"hello"))

        assert server.connections == 1


@BREAKS
async def test_a_container_is_never_created_twice(break_off: Script) -> None:
    async with client_of(break_off, answer_with_the_file) as (api, server):
        with pytest.raises(errors.RemoteUncertainError):
            await api.create_container(ContainerRequest(name="analysis"))

        assert server.connections == 1


@BREAKS
async def test_a_copy_is_never_made_twice(break_off: Script) -> None:
    async with client_of(break_off, answer_with_the_file) as (api, server):
        with pytest.raises(errors.RemoteUncertainError):
            await api.copy_file(CONTAINER, source_id="file-1")

        assert server.connections == 1


async def test_an_upload_that_breaks_in_the_middle_of_its_body_is_uncertain() -> None:
    async def hang_up_within_the_body(peer: Peer) -> None:
        await peer.head()
        await peer.body(100_000)
        await peer.hang_up()

    async with client_of(hang_up_within_the_body) as (api, server):
        with pytest.raises(errors.RemoteUncertainError):
            await api.create_file(CONTAINER, name="a.txt", body=large_body())

        assert server.connections == 1


async def test_an_upload_that_nobody_reads_is_given_up_after_the_silence() -> None:
    async def read_nothing(peer: Peer) -> None:
        await trio.sleep_forever()

    async with client_of(read_nothing, stall_timeout_s=0.2) as (api, server):
        with pytest.raises(errors.RemoteUncertainError):
            await api.create_file(CONTAINER, name="a.txt", body=large_body())

        assert server.connections == 1


async def test_an_upload_without_an_answer_is_uncertain_after_the_silence() -> None:
    async with client_of(fall_silent, stall_timeout_s=0.2) as (api, server):
        with pytest.raises(errors.RemoteUncertainError):
            await api.create_file(CONTAINER, name="a.txt", body=body_of(b"hello"))

        assert server.connections == 1


async def test_an_upload_that_found_no_connection_is_not_uncertain() -> None:
    async with serve_scripts(hang_up_at_once) as server:
        base_url = server.base_url
    opened = 0

    def count_passes() -> Iterator[bytes]:
        nonlocal opened
        opened += 1
        return iter([b"hello"])

    config = ApiConfig(base_url=base_url, retries_max=1)
    async with open_client(config, clock=SystemClock(), jitter=lambda: 3.9) as api:
        body = UploadBody(size_bytes=5, open=count_passes)
        with pytest.raises(errors.RemoteUnavailableError) as caught:
            await api.create_file(CONTAINER, name="a.txt", body=body)

    assert not isinstance(caught.value, errors.RemoteUncertainError)
    assert opened == 0


async def test_an_upload_to_a_server_without_tls_is_not_uncertain() -> None:
    async def speak_plainly(peer: Peer) -> None:
        await peer.send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        await peer.wait_for_hang_up()

    async with serve_scripts(speak_plainly) as server:
        config = ApiConfig(base_url=server.base_url.replace("http:", "https:"), retries_max=0)
        async with open_client(config, clock=SystemClock()) as api:
            with pytest.raises(errors.RemoteUnavailableError, match="SSL") as caught:
                await api.create_file(CONTAINER, name="a.txt", body=body_of(b"hello"))

    assert not isinstance(caught.value, errors.RemoteUncertainError)


async def test_an_upload_refused_for_too_many_requests_is_sent_again_from_its_start() -> None:
    bodies: list[bytes] = []

    async def refuse_then_take(peer: Peer) -> None:
        bodies.append((await peer.request())[1])
        await peer.answer(429, b"{}", "retry-after-ms: 1")
        bodies.append((await peer.request())[1])
        await peer.answer(200, FILE_ANSWER)

    async with client_of(refuse_then_take) as (api, server):
        await api.create_file(CONTAINER, name="a.txt", body=body_of(b"hello"))

        assert server.connections == 1
    assert b"hello" in bodies[0]
    assert bodies[0] == bodies[1]


async def test_a_refusal_in_the_middle_of_an_upload_is_the_error_that_is_raised() -> None:
    async def refuse_early(peer: Peer) -> None:
        await peer.head()
        await peer.answer(413, b'{"error":{"message":"That is a lot."}}', "Connection: close")
        await peer.hang_up()

    async with client_of(refuse_early) as (api, server):
        with pytest.raises(errors.RemoteTooLargeError, match="That is a lot"):
            await api.create_file(CONTAINER, name="a.txt", body=large_body())

        assert server.connections == 1


async def test_a_file_that_is_gone_after_a_lost_answer_counts_as_deleted() -> None:
    async with client_of(hang_up_after_the_request, say_that_it_is_gone) as (api, server):
        await api.delete_file(CONTAINER, FILE)

        assert server.connections == 2


async def test_a_file_that_is_gone_from_the_start_is_an_error_to_delete() -> None:
    async with client_of(say_that_it_is_gone) as (api, _):
        with pytest.raises(errors.RemoteNotFoundError):
            await api.delete_file(CONTAINER, FILE)


async def test_a_deletion_is_sent_again_and_confirmed() -> None:
    async with client_of(hang_up_after_the_request, confirm_the_deletion) as (api, server):
        await api.delete_container(CONTAINER)

        assert server.connections == 2


async def test_a_download_that_ends_early_is_noticed() -> None:
    async def send_half(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
        await peer.hang_up()

    async with client_of(send_half) as (api, _):
        async with api.download(CONTAINER, FILE) as stream:
            assert stream.length_bytes == 10
            pieces = stream.pieces()
            received = await anext(pieces)
            with pytest.raises(errors.RemoteUnavailableError):
                await anext(pieces)

    assert received == b"hello"


async def test_a_download_that_falls_silent_is_given_up() -> None:
    async def send_half(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
        await peer.wait_for_hang_up()

    async with client_of(send_half, stall_timeout_s=0.2) as (api, _):
        async with api.download(CONTAINER, FILE) as stream:
            pieces = stream.pieces()
            assert await anext(pieces) == b"hello"
            with pytest.raises(errors.RemoteStalledError):
                await anext(pieces)


async def test_a_download_left_early_closes_its_connection_and_gives_it_back() -> None:
    hung_up = trio.Event()

    async def send_for_ever(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        try:
            while True:
                await peer.send(bytes(65536))
        except trio.BrokenResourceError:
            hung_up.set()

    async with client_of(send_for_ever, answer_with_the_file, connections_max=1) as (api, _):
        async with api.download(CONTAINER, FILE) as stream:
            async for _piece in stream.pieces():
                break
        with trio.fail_after(5):
            await hung_up.wait()

        file = await api.retrieve_file(CONTAINER, FILE)

        assert file.id == FILE


async def test_a_long_download_is_whole_and_the_next_call_has_a_connection_too() -> None:
    content = LONG_PATTERN * (LONG_BYTES // len(LONG_PATTERN))

    async def answer_with_many_bytes(peer: Peer) -> None:
        await peer.request()
        await peer.answer(200, content)
        await peer.wait_for_hang_up()

    scripts = (answer_with_many_bytes, answer_with_the_file)
    async with client_of(*scripts, connections_max=1) as (api, server):
        async with api.download(CONTAINER, FILE) as stream:
            received = b"".join([piece async for piece in stream.pieces()])
        file = await api.retrieve_file(CONTAINER, FILE)

        assert received == content
        assert (file.id, server.connections) == (FILE, 2)


@pytest.mark.parametrize(
    ("end", "failure"),
    [
        (Peer.hang_up, errors.RemoteUnavailableError),
        (Peer.break_off, errors.RemoteUnavailableError),
        (Peer.wait_for_hang_up, errors.RemoteStalledError),
    ],
    ids=["closed", "reset", "silent"],
)
async def test_a_long_download_that_comes_to_half_is_noticed(
    end: Script, failure: type[errors.RemoteError]
) -> None:
    async def send_half(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % LONG_BYTES)
        await peer.send(bytes(LONG_BYTES // 2))
        await end(peer)

    async with client_of(send_half, stall_timeout_s=0.2) as (api, _):
        async with api.download(CONTAINER, FILE) as stream:
            received: list[bytes] = []
            with pytest.raises(failure):
                await gather(stream, received)

    assert 0 < sum(map(len, received)) <= LONG_BYTES // 2


async def test_what_comes_behind_a_long_download_is_no_part_of_it() -> None:
    async def send_too_much(peer: Peer) -> None:
        await peer.request()
        await peer.answer(200, bytes(LONG_BYTES))
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        await peer.wait_for_hang_up()

    scripts = (send_too_much, answer_with_the_file)
    async with client_of(*scripts, connections_max=1) as (api, _):
        async with api.download(CONTAINER, FILE) as stream:
            received_bytes = sum([len(piece) async for piece in stream.pieces()])
        file = await api.retrieve_file(CONTAINER, FILE)

        assert (received_bytes, file.id) == (LONG_BYTES, FILE)


@pytest.mark.parametrize("operation", ["read", "upload", "download"])
async def test_cancelling_a_call_closes_its_connection_and_gives_it_back(operation: str) -> None:
    asked, hung_up = trio.Event(), trio.Event()

    async def never_answer(peer: Peer) -> None:
        await peer.request()
        asked.set()
        await peer.wait_for_hang_up()
        hung_up.set()

    async def call(api: ContainersApi) -> ContainerFile | None:
        if operation == "upload":
            return await api.create_file(CONTAINER, name="a.txt", body=body_of(b"hello"))
        if operation == "read":
            return await api.retrieve_file(CONTAINER, FILE)
        async with api.download(CONTAINER, FILE):
            return None

    async with client_of(never_answer, answer_with_the_file, connections_max=1) as (api, server):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call, api)
            await asked.wait()
            nursery.cancel_scope.cancel()
        with trio.fail_after(5):
            await hung_up.wait()
            file = await api.retrieve_file(CONTAINER, FILE)

        assert file.id == FILE
        assert server.connections == 2


async def test_a_connection_serves_one_call_after_another() -> None:
    async with client_of(answer_with_the_file) as (api, server):
        for _ in range(5):
            await api.retrieve_file(CONTAINER, FILE)

        assert server.connections == 1


async def test_a_connection_that_the_server_closed_while_idle_is_not_used_for_an_upload() -> None:
    async def answer_once(peer: Peer) -> None:
        await peer.request()
        await peer.answer(200, FILE_ANSWER)
        await peer.hang_up()

    async with client_of(answer_once) as (api, server):
        await api.retrieve_file(CONTAINER, FILE)
        await trio.sleep(0.05)
        await api.create_file(CONTAINER, name="a.txt", body=body_of(b"hello"))

        assert server.connections == 2


async def test_no_more_calls_are_under_way_than_there_are_connections() -> None:
    async with client_of(fall_silent, connections_max=3) as (api, server):
        with trio.move_on_after(0.3):
            async with trio.open_nursery() as nursery:
                for _ in range(10):
                    nursery.start_soon(api.retrieve_file, CONTAINER, FILE)

        assert server.connections == 3


async def test_a_listing_finds_a_connection_while_downloads_hold_theirs() -> None:
    async def start_a_download_or_list(peer: Peer) -> None:
        head, _ = await peer.request()
        if b"/content" in head:
            await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
            await peer.wait_for_hang_up()
        else:
            await peer.answer(200, b'{"data":[],"has_more":false}')

    async def download(api: ContainersApi) -> None:
        async with api.download(CONTAINER, FILE):
            await trio.sleep_forever()

    async with client_of(start_a_download_or_list, connections_max=4) as (api, _):
        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(download, api)
            await trio.sleep(0.2)
            with trio.fail_after(5):
                listing = await api.list_files(CONTAINER)
            nursery.cancel_scope.cancel()

    assert listing.items == ()


async def test_what_is_not_http_is_an_unavailable_service_in_the_end() -> None:
    async def speak_smtp(peer: Peer) -> None:
        await peer.send(b"220 mail.example ESMTP\r\n\r\n")
        await peer.wait_for_hang_up()

    async with client_of(speak_smtp) as (api, server):
        with pytest.raises(errors.RemoteUnavailableError):
            await api.retrieve_file(CONTAINER, FILE)

        assert server.connections == 3


async def test_the_key_stays_out_of_the_traceback_of_a_header_that_quotes_it() -> None:
    async def echo_the_key_in_a_broken_header(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nsk-test-0123456789 oops\r\n\r\n")
        await peer.wait_for_hang_up()

    async with client_of(echo_the_key_in_a_broken_header, retries_max=0) as (api, _):
        with pytest.raises(errors.RemoteError) as caught:
            await api.retrieve_file(CONTAINER, FILE)

    assert "sk-test-0123456789" not in "".join(traceback.format_exception(caught.value))


async def test_what_goes_to_this_machine_takes_no_way_over_a_proxy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with serve_scripts(answer_with_the_file) as proxy:
        for variable in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(variable, proxy.base_url.removesuffix("/v1"))
        async with client_of(answer_with_the_file) as (api, server):
            await api.retrieve_file(CONTAINER, FILE)

        assert (proxy.connections, server.connections) == (0, 1)


async def test_what_goes_elsewhere_takes_the_way_that_the_environment_asks_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with serve_scripts(answer_with_the_file) as proxy:
        monkeypatch.setenv("http_proxy", proxy.base_url.removesuffix("/v1"))
        config = ApiConfig(base_url="http://service.invalid/v1", retries_max=0)
        async with open_client(config, clock=SystemClock()) as api:
            file = await api.retrieve_file(CONTAINER, FILE)

        assert (file.id, proxy.connections) == (FILE, 1)
