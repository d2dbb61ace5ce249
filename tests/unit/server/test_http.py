"""The wire over real sockets: framing, limits, and each fault that needs the wire."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from tests.support.service import InProcessService

from ctrfs.server.http import Connection, WireLimits
from ctrfs.server.line import SocketLine

KEY = b"Authorization: Bearer sk-test-key\r\n"
LIMITS = WireLimits(unread_s=0.2)


class Wire:
    """The application behind a real listener, and raw clients for it."""

    def __init__(self, service: InProcessService, port: int) -> None:
        self.service = service
        self._port = port

    async def connect(self) -> trio.SocketStream:
        return await trio.open_tcp_stream("127.0.0.1", self._port)

    async def send(self, request: bytes) -> bytes:
        """Send ``request`` on a connection of its own and return all that comes back."""
        async with await self.connect() as stream:
            await stream.send_all(request)
            return await receive_all(stream)


@asynccontextmanager
async def opened_wire(service: InProcessService, limits: WireLimits) -> AsyncIterator[Wire]:
    async def attend(stream: trio.SocketStream) -> None:
        await Connection(SocketLine(stream), service.application, limits).run()

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, attend, listeners)
        yield Wire(service, listeners[0].socket.getsockname()[1])
        nursery.cancel_scope.cancel()


@pytest.fixture
async def wire(service: InProcessService) -> AsyncIterator[Wire]:
    async with opened_wire(service, LIMITS) as opened:
        yield opened


async def receive_all(stream: trio.SocketStream) -> bytes:
    received = bytearray()
    with trio.fail_after(10):
        async for piece in stream:
            received += piece
    return bytes(received)


async def receive_until(stream: trio.SocketStream, end: bytes) -> bytes:
    received = bytearray()
    with trio.fail_after(10):
        while end not in received:
            piece = await stream.receive_some()
            assert piece, bytes(received)
            received += piece
    return bytes(received)


def get(path: str, more: bytes = b"Connection: close\r\n") -> bytes:
    return b"GET /v1%s HTTP/1.1\r\nHost: x\r\n%s%s\r\n" % (path.encode(), KEY, more)


def post(path: str, body: bytes, more: bytes = b"Connection: close\r\n") -> bytes:
    head = b"POST /v1%s HTTP/1.1\r\nHost: x\r\n%s%sContent-Length: %d\r\n\r\n"
    return head % (path.encode(), KEY, more, len(body)) + body


async def test_headers_stand_as_the_service_writes_them(wire: Wire) -> None:
    answer = await wire.send(get("/containers"))

    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[0] == b"HTTP/1.1 200 OK"
    names = [line.partition(b":")[0] for line in lines[1:]]
    assert names == [
        b"Content-Type",
        b"X-Request-ID",
        b"openai-processing-ms",
        b"openai-version",
        b"Content-Length",
        b"Date",
        b"Connection",
    ]
    assert b"Content-Length: %d" % len(body) in lines


async def test_one_connection_carries_many_requests(wire: Wire) -> None:
    async with await wire.connect() as stream:
        for _ in range(3):
            await stream.send_all(get("/containers", b""))
            await receive_until(stream, b'"last_id": null\n}')

    assert wire.service.counters() == {"list_containers": 3}


async def test_requests_sent_ahead_are_answered_in_order(wire: Wire) -> None:
    answer = await wire.send(get("/containers/a", b"") + get("/containers/b"))

    assert answer.index(b"id 'a'") < answer.index(b"id 'b'")


async def test_a_chunked_body_is_read(wire: Wire) -> None:
    head = b"POST /v1/containers HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + KEY
    chunks = b'Transfer-Encoding: chunked\r\n\r\n5\r\n{"nam\r\n7\r\ne":"a"}\r\n0\r\n\r\n'

    answer = await wire.send(head + chunks)

    assert answer.startswith(b"HTTP/1.1 200")
    assert [row["name"] for row in wire.service.containers()] == ["a"]


async def test_a_client_that_asks_first_is_told_to_go_on(wire: Wire) -> None:
    body = b'{"name":"a"}'
    request = post("/containers", body, b"Connection: close\r\nExpect: 100-continue\r\n")

    async with await wire.connect() as stream:
        await stream.send_all(request[: -len(body)])
        await receive_until(stream, b"HTTP/1.1 100 Continue\r\n\r\n")
        await stream.send_all(body)
        answer = await receive_all(stream)

    assert answer.startswith(b"HTTP/1.1 200")


async def test_a_client_that_asks_first_may_be_refused_before_it_sends(wire: Wire) -> None:
    request = post("/containers/none/files", b"x" * 9, b"Expect: 100-continue\r\n")

    answer = await wire.send(request[:-9])

    assert answer.startswith(b"HTTP/1.1 404")


async def test_head_is_not_allowed_and_has_no_body(wire: Wire) -> None:
    answer = await wire.send(get("/containers").replace(b"GET", b"HEAD"))

    assert answer.startswith(b"HTTP/1.1 405 Method Not Allowed\r\n")
    assert answer.endswith(b"\r\n\r\n")


async def test_a_head_beyond_the_limit_is_refused(wire: Wire) -> None:
    answer = await wire.send(get("/containers", b"X: %s\r\n" % (b"x" * 70_000)))

    assert answer.startswith(b"HTTP/1.1 431")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["type"] == "invalid_request_error"


async def test_something_that_is_not_http_is_refused(wire: Wire) -> None:
    assert (await wire.send(b"\x16\x03\x01 hello\r\n\r\n")).startswith(b"HTTP/1.1 400")


async def test_a_refusal_is_seen_by_a_client_that_goes_on_sending(wire: Wire) -> None:
    answer = await wire.send(post("/containers/none/files", b"x" * 20_000_000))

    assert answer.startswith(b"HTTP/1.1 404")


async def test_a_large_file_comes_whole(wire: Wire) -> None:
    container = wire.service.create_container("a")
    content = bytes(range(256)) * 40_000
    file = wire.service.plant(container, "/mnt/data/a.bin", content)

    answer = await wire.send(get(f"/containers/{container}/files/{file}/content"))

    assert answer.partition(b"\r\n\r\n")[2] == content


async def test_a_file_deleted_during_its_download_still_comes_whole(wire: Wire) -> None:
    container = wire.service.create_container("a")
    content = bytes(range(256)) * 100_000
    file = wire.service.plant(container, "/mnt/data/a.bin", content)

    async with await wire.connect() as stream:
        await stream.send_all(get(f"/containers/{container}/files/{file}/content"))
        begun = await receive_until(stream, b"\r\n\r\n")
        wire.service.delete_file(container, file)
        answer = begun + await receive_all(stream)

    assert answer.partition(b"\r\n\r\n")[2] == content


async def test_an_upload_that_breaks_off_leaves_nothing(wire: Wire) -> None:
    container = wire.service.create_container("a")
    form = b'--B\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + b"x" * 9000
    kind = b"Content-Type: multipart/form-data; boundary=B\r\n"

    async with await wire.connect() as stream:
        await stream.send_all(post(f"/containers/{container}/files", form, kind)[:-100])

    await trio.testing.wait_all_tasks_blocked(0.05)
    assert wire.service.files(container) == []
    assert list(wire.service.state.blobs.directory.iterdir()) == []


async def test_a_bug_costs_one_answer_and_not_the_service(
    wire: Wire, caplog: pytest.LogCaptureFixture
) -> None:
    container = wire.service.create_container("a")
    file = wire.service.plant(container, "/mnt/data/a", b"abc")
    for blob in wire.service.state.blobs.directory.iterdir():
        blob.unlink()

    answer = await wire.send(get(f"/containers/{container}/files/{file}/content"))

    assert answer.startswith(b"HTTP/1.1 500")
    assert b'"type": "server_error"' in answer
    assert "FileNotFoundError" in caplog.text
    assert (await wire.send(get("/containers"))).startswith(b"HTTP/1.1 200")


async def test_a_silent_client_is_dropped(service: InProcessService) -> None:
    async with opened_wire(service, WireLimits(idle_s=0.05, stall_s=0.05)) as wire:
        async with await wire.connect() as idle, await wire.connect() as half:
            await half.send_all(post("/containers", b"x" * 100)[:-50])

            assert await receive_all(idle) == b""
            assert await receive_all(half) == b""


# Faults of the wire


async def test_a_cut_answer_ends_in_good_order_after_so_many_bytes(wire: Wire) -> None:
    wire.service.add_fault("list_containers", "cut", bytes=10)

    answer = await wire.send(get("/containers"))

    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"Content-Length: 96" in head
    assert len(body) == 10


async def test_a_download_can_be_cut_anywhere(wire: Wire) -> None:
    container = wire.service.create_container("a")
    file = wire.service.plant(container, "/mnt/data/a.bin", b"x" * 3_000_000)
    wire.service.add_fault("file_content", "cut", bytes=1_500_000)

    answer = await wire.send(get(f"/containers/{container}/files/{file}/content"))

    assert len(answer.partition(b"\r\n\r\n")[2]) == 1_500_000


@pytest.mark.parametrize("delta", [5, -5])
async def test_a_wrong_length_is_promised_and_never_exceeded(wire: Wire, delta: int) -> None:
    wire.service.add_fault("list_containers", "wrong-length", delta=delta)

    answer = await wire.send(get("/containers"))

    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"Content-Length: %d" % (96 + delta) in head
    assert len(body) == 96 + min(0, delta)


async def test_a_reset_before_the_operation_leaves_it_undone(wire: Wire) -> None:
    wire.service.add_fault("create_container", "reset", count=1)

    with pytest.raises(trio.BrokenResourceError):
        await wire.send(post("/containers", b'{"name":"a"}'))

    assert wire.service.containers() == []


async def test_a_reset_after_the_operation_leaves_it_done(wire: Wire) -> None:
    wire.service.add_fault("create_container", "reset", when="after")

    with pytest.raises(trio.BrokenResourceError):
        await wire.send(post("/containers", b'{"name":"a"}'))

    assert len(wire.service.containers()) == 1


async def test_a_cut_before_the_operation_is_an_end_without_an_answer(wire: Wire) -> None:
    wire.service.add_fault("create_container", "cut", when="before", bytes=-1)

    assert await wire.send(post("/containers", b'{"name":"a"}')) == b""
    assert wire.service.containers() == []


async def test_a_cut_may_come_once_the_operation_is_done_and_before_its_answer(wire: Wire) -> None:
    wire.service.add_fault("create_container", "cut")

    assert await wire.send(post("/containers", b'{"name":"a"}')) == b""
    assert len(wire.service.containers()) == 1


async def test_an_answer_can_lack_its_last_byte(wire: Wire) -> None:
    wire.service.add_fault("list_containers", "cut", bytes=-1)

    answer = await wire.send(get("/containers"))

    assert len(answer.partition(b"\r\n\r\n")[2]) == 95


async def test_a_reset_can_come_within_the_answer(wire: Wire) -> None:
    wire.service.add_fault("list_containers", "reset", when="after", bytes=4)

    async with await wire.connect() as stream:
        await stream.send_all(get("/containers"))
        with pytest.raises(trio.BrokenResourceError):
            await receive_until(stream, b"no such bytes")


async def test_a_stall_within_the_request_ends_with_the_connection(wire: Wire) -> None:
    wire.service.add_fault("create_container", "stall", when="before", bytes=4, seconds=0.1)

    assert await wire.send(post("/containers", b'{"name":"a"}')) == b""
    assert wire.service.containers() == []


async def test_an_answer_can_be_followed_by_bytes_that_nobody_announced(wire: Wire) -> None:
    wire.service.add_fault("list_containers", "surplus", bytes=3)

    answer = await wire.send(get("/containers"))

    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"Content-Length: 96" in head
    assert (len(body), body[-3:]) == (99, b"xxx")


async def test_an_answer_can_come_drop_by_drop(wire: Wire) -> None:
    wire.service.add_fault("list_containers", "drip", seconds=0.001)
    began_s = trio.current_time()

    answer = await wire.send(get("/containers"))

    assert len(answer.partition(b"\r\n\r\n")[2]) == 96
    assert trio.current_time() - began_s >= 0.096


async def test_a_stall_in_the_body_is_silence_with_the_connection_open(wire: Wire) -> None:
    wire.service.add_fault("list_containers", "stall", bytes=4)

    async with await wire.connect() as stream:
        await stream.send_all(get("/containers"))
        await receive_until(stream, b"{\n  ")
        with trio.move_on_after(0.1) as patience:
            await stream.receive_some()

    assert patience.cancelled_caught


async def test_a_stall_before_the_head_ends_after_its_seconds(wire: Wire) -> None:
    wire.service.add_fault("list_containers", "stall", seconds=0.1)
    began_s = trio.current_time()

    answer = await wire.send(get("/containers"))

    assert answer.startswith(b"HTTP/1.1 200")
    assert trio.current_time() - began_s >= 0.1


async def test_a_delay_passes_before_the_answer(wire: Wire) -> None:
    wire.service.add_fault("*", "delay", seconds=0.1)
    began_s = trio.current_time()

    answer = await wire.send(get("/containers"))

    assert answer.startswith(b"HTTP/1.1 200")
    assert trio.current_time() - began_s >= 0.1
