"""Answers of a service that means no good: each is bounded in time and memory, and refused.

The other end is a script on the loopback interface, so that every byte is as written here.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio
from tests.support.scripted_server import Peer, Script, ScriptedServer, serve_scripts

from ctrfs import errors
from ctrfs.api.client import open_client
from ctrfs.api.models import ContainerId, FileId
from ctrfs.api.protocol import ContainersApi
from ctrfs.clock import SystemClock
from ctrfs.config import ApiConfig, Secret
from ctrfs.units import KIB, MIB

CONTAINER = ContainerId("cntr_1")
FILE = FileId("cfile_1")
KEY = "sk-test-0123456789"
# Long enough for any answer on a busy machine, short enough to see that it ends a call.
METADATA_TIMEOUT_S = 3.0
JSON_BYTES_MAX = 1 * MIB

Operation = Callable[[ContainersApi], Awaitable[object]]


async def list_containers(api: ContainersApi) -> object:
    return await api.list_containers()


async def list_files(api: ContainersApi) -> object:
    return await api.list_files(CONTAINER)


async def retrieve_file(api: ContainersApi) -> object:
    return await api.retrieve_file(CONTAINER, FILE)


async def delete_file(api: ContainersApi) -> object:
    await api.delete_file(CONTAINER, FILE)
    return None


async def download(api: ContainersApi) -> object:
    async with api.download(CONTAINER, FILE) as stream:
        return b"".join([piece async for piece in stream.pieces()])


METADATA = pytest.mark.parametrize(
    "operation",
    [list_containers, list_files, retrieve_file, delete_file],
    ids=lambda operation: str(operation.__name__),
)


@asynccontextmanager
async def client_of(
    *scripts: Script, retries_max: int = 0
) -> AsyncIterator[tuple[ContainersApi, ScriptedServer]]:
    async with serve_scripts(*scripts) as server:
        config = ApiConfig(
            base_url=server.base_url,
            key=Secret(KEY),
            retries_max=retries_max,
            metadata_timeout_s=METADATA_TIMEOUT_S,
            stall_timeout_s=1.0,
            transfer_timeout_s=20.0,
            json_bytes_max=JSON_BYTES_MAX,
            pages_max=50,
        )
        async with open_client(config, clock=SystemClock(), jitter=lambda: 0.0) as api:
            yield api, server


async def refusal_of(operation: Operation, *scripts: Script) -> errors.RemoteError:
    """Return the error that ``operation`` ends with, in good time."""
    async with client_of(*scripts) as (api, _):
        with trio.fail_after(30), pytest.raises(errors.RemoteError) as caught:
            await operation(api)
    return caught.value


def answering(body: bytes, *headers: str, status: int = 200) -> Script:
    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.answer(status, body, *headers)

    return script


# Too much


@METADATA
@pytest.mark.parametrize("status", [200, 500])
async def test_a_gigabyte_of_json_is_not_taken_in(operation: Operation, status: int) -> None:
    sent_bytes = 0

    async def send_a_gigabyte(peer: Peer) -> None:
        nonlocal sent_bytes
        await peer.request()
        await peer.send(f"HTTP/1.1 {status} X\r\nContent-Length: 1000000000\r\n\r\n".encode())
        await peer.send(b'{"data":["')
        for _ in range(16_000):
            await peer.send(b"x" * 64 * KIB)
            sent_bytes += 64 * KIB

    tracemalloc.start()
    try:
        await refusal_of(operation, send_a_gigabyte)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak_bytes < 32 * MIB
    # Our limit, and what the buffers of both ends hold.
    assert sent_bytes < 64 * MIB


async def test_a_body_without_an_announced_end_is_not_taken_in_without_end() -> None:
    async def send_chunks_for_ever(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            await peer.send(b"10000\r\n" + b"x" * 64 * KIB + b"\r\n")

    error = await refusal_of(retrieve_file, send_chunks_for_ever)

    assert isinstance(error, errors.RemoteProtocolError)


async def test_a_head_without_end_is_not_taken_in() -> None:
    async def send_headers_for_ever(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\n")
        while True:
            await peer.send(b"X-Filler: " + b"x" * 8 * KIB + b"\r\n")

    error = await refusal_of(retrieve_file, send_headers_for_ever)

    assert isinstance(error, errors.RemoteUnavailableError)


async def test_a_small_body_that_unpacks_to_a_gigabyte_is_not_taken_in() -> None:
    packed = packed_gigabyte()
    assert len(packed) < 2 * MIB
    tracemalloc.start()
    try:
        error = await refusal_of(retrieve_file, answering(packed, "Content-Encoding: gzip"))
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert isinstance(error, errors.RemoteProtocolError)
    assert peak_bytes < 128 * MIB


def packed_gigabyte() -> bytes:
    import zlib  # noqa: PLC0415  # for this test alone

    packer = zlib.compressobj(level=1, wbits=31)
    piece = bytes(4 * MIB)
    return b"".join([*(packer.compress(piece) for _ in range(64)), packer.flush()])


# Without end


@pytest.mark.parametrize("operation", [list_containers, list_files])
async def test_pages_without_end_are_left_after_the_most_that_a_mount_can_use(
    operation: Operation,
) -> None:
    pages = 0

    async def always_another_page(peer: Peer) -> None:
        nonlocal pages
        while True:
            await peer.request()
            pages += 1
            row = b'{"id":"row_%d","path":"/mnt/data/a","name":"a"}' % pages
            await peer.answer(200, b'{"data":[' + row + b'],"has_more":true}')

    error = await refusal_of(operation, always_another_page)

    assert isinstance(error, errors.RemoteProtocolError)
    assert "more than 50 pages" in str(error)
    assert pages == 50


async def test_a_cursor_that_does_not_move_ends_the_walk() -> None:
    page = b'{"data":[{"id":"row_1","path":"/mnt/data/a"}],"has_more":true,"last_id":"row_1"}'

    error = await refusal_of(list_files, answering(page))

    assert isinstance(error, errors.RemoteProtocolError)
    assert "circle" in str(error)


@METADATA
@pytest.mark.parametrize("status", [200, 500])
async def test_a_drip_of_bytes_ends_by_the_deadline_of_the_call(
    operation: Operation, status: int
) -> None:
    async def drip(peer: Peer) -> None:
        await peer.request()
        await peer.send(f"HTTP/1.1 {status} X\r\nContent-Length: 100000\r\n\r\n".encode())
        while True:
            await peer.send(b" ")
            await trio.sleep(0.05)

    started_s = trio.current_time()
    error = await refusal_of(operation, drip)

    assert isinstance(error, errors.RemoteStalledError)
    assert trio.current_time() - started_s < METADATA_TIMEOUT_S + 3


async def test_a_drip_of_headers_ends_by_the_deadline_of_the_call() -> None:
    async def drip(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        while True:
            await peer.send(b"x")
            await trio.sleep(0.05)

    assert isinstance(await refusal_of(retrieve_file, drip), errors.RemoteStalledError)


async def test_interim_answers_without_end_end_by_the_deadline_of_the_call() -> None:
    async def promise(peer: Peer) -> None:
        await peer.request()
        while True:
            await peer.send(b"HTTP/1.1 102 Processing\r\n\r\n")
            await trio.sleep(0.01)

    assert isinstance(await refusal_of(retrieve_file, promise), errors.RemoteStalledError)


# Not what it says


@METADATA
@pytest.mark.parametrize(
    "body",
    [
        b"[" * 500_000,
        b'{"a":' * 150_000,
        b'{"data":' + b"[" * 500_000 + b"]" * 500_000 + b"}",
        b'{"error":' * 50_000 + b"1" + b"}" * 50_000,
    ],
    ids=["arrays", "objects", "rows", "errors"],
)
@pytest.mark.parametrize("status", [200, 400])
async def test_deep_nesting_is_an_answer_that_cannot_be_read(
    operation: Operation, body: bytes, status: int
) -> None:
    error = await refusal_of(operation, answering(body, status=status))

    assert len(str(error)) < 1000


@pytest.mark.parametrize("operation", [retrieve_file, download])
async def test_a_body_that_is_shorter_than_announced_is_not_taken(operation: Operation) -> None:
    async def cut(peer: Peer) -> None:
        await peer.request()
        await peer.send(b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"id":"cfile_1"}')
        await peer.hang_up()

    assert isinstance(await refusal_of(operation, cut), errors.RemoteUnavailableError)


@pytest.mark.parametrize(
    "lengths", [("-5",), ("9" * 30,), ("5, 6",), ("5", "6"), ("0x5",), ("+5",), ("five",)]
)
@pytest.mark.parametrize("operation", [retrieve_file, download])
async def test_a_length_that_makes_no_sense_is_not_believed(
    operation: Operation, lengths: tuple[str, ...]
) -> None:
    async def lie(peer: Peer) -> None:
        await peer.request()
        head = "".join(f"Content-Length: {length}\r\n" for length in lengths)
        await peer.send(f"HTTP/1.1 200 OK\r\n{head}\r\nhello".encode())
        await peer.hang_up()

    assert isinstance(await refusal_of(operation, lie), errors.RemoteUnavailableError)


@pytest.mark.parametrize("is_at_once", [True, False], ids=["at-once", "later"])
async def test_a_body_longer_than_announced_does_not_become_the_next_answer(
    *, is_at_once: bool
) -> None:
    smuggled = b'{"id":"cfile_evil","path":"/mnt/data/evil","bytes":1}'
    has_come = trio.Event()

    async def say_more(peer: Peer) -> None:
        await peer.request()
        body = b'{"id":"cfile_1","path":"/mnt/data/a","bytes":1}'
        head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"
        answer = head % len(body) + body
        surplus = head % len(smuggled) + smuggled
        if is_at_once:
            await peer.send(answer + surplus)
        else:
            await peer.send(answer)
            await trio.sleep(0.1)
            await peer.send(surplus)
        has_come.set()
        await peer.wait_for_hang_up()

    async with client_of(say_more, answering(b'{"id":"cfile_2","path":"/b"}')) as (api, _):
        await api.retrieve_file(CONTAINER, FILE)
        await has_come.wait()
        with trio.fail_after(30):
            file = await api.retrieve_file(CONTAINER, FileId("cfile_2"))

    assert file.id == "cfile_2"


# Elsewhere


@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308])
async def test_no_redirect_is_followed_and_no_key_reaches_another_host(status: int) -> None:
    heads: list[bytes] = []

    async def listen(peer: Peer) -> None:
        heads.append(await peer.head())

    async with serve_scripts(listen) as other:
        location = f"Location: {other.base_url}/containers/cntr_1/files/cfile_1"
        for operation in (retrieve_file, list_containers, delete_file, download):
            error = await refusal_of(operation, answering(b"", location, status=status))
            assert "redirects" in str(error)

    assert heads == []


async def test_a_redirect_to_itself_is_asked_once() -> None:
    asked = 0

    async def redirect(peer: Peer) -> None:
        nonlocal asked
        while True:
            head = await peer.head()
            asked += 1
            path = head.split(b" ")[1].decode()
            await peer.answer(302, b"", f"Location: {path}")

    async with client_of(redirect, retries_max=6) as (api, _):
        with pytest.raises(errors.RemoteProtocolError):
            await api.retrieve_file(CONTAINER, FILE)

    assert asked == 1


async def test_cookies_are_not_kept() -> None:
    heads: list[bytes] = []

    async def set_a_cookie(peer: Peer) -> None:
        while True:
            heads.append(await peer.head())
            await peer.answer(200, b'{"id":"f","path":"/a"}', "Set-Cookie: track=1; Path=/")

    async with client_of(set_a_cookie) as (api, _):
        await api.retrieve_file(CONTAINER, FILE)
        await api.retrieve_file(CONTAINER, FILE)

    assert b"cookie" not in heads[1].lower()
