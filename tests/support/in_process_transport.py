"""httpx requests to the local service without sockets, in trio's time, virtual or not."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator

import httpx
import trio
from typing_extensions import override

from ctrfs.server.application import Application
from ctrfs.server.faults import Action, WireFault
from ctrfs.server.messages import Request, Response


class InProcessTransport(httpx.AsyncBaseTransport):
    """Carries httpx requests straight to the application, bodies as streams both ways.

    Read timeouts hold, in trio's time. Faults of the wire appear as the exceptions that
    httpx raises for them. A request that its client gives up is given up by the service too.
    """

    def __init__(self, application: Application, *, round_trip_s: float = 0.0) -> None:
        self._application = application
        self.round_trip_s = round_trip_s

    @override
    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        timeouts: dict[str, float | None] = request.extensions.get("timeout", {})
        patience_s = timeouts.get("read")
        await trio.sleep(self.round_trip_s)
        waiting = trio.CancelScope()

        async def body() -> AsyncGenerator[bytes, None]:
            assert isinstance(request.stream, httpx.AsyncByteStream)
            async for piece in request.stream:
                await trio.lowlevel.checkpoint()
                yield piece
            _limit(waiting, patience_s)

        if "content-length" not in request.headers and "transfer-encoding" not in request.headers:
            _limit(waiting, patience_s)
        with waiting:
            async with contextlib.aclosing(body()) as pieces:
                inner = Request(
                    method=request.method,
                    target=request.url.raw_path.decode("ascii"),
                    headers=[(name.lower(), value) for name, value in request.headers.raw],
                    body=pieces,
                )
                response = await self._application.answer(inner)
            return _httpx_response(response, patience_s)
        raise httpx.ReadTimeout("the service is silent", request=request)


class _ResponseStream(httpx.AsyncByteStream):
    """The body of an answer, with what a fault does to it."""

    def __init__(self, response: Response, promised_bytes: int, patience_s: float | None) -> None:
        self._response = response
        self._promised_bytes = promised_bytes
        self._patience_s = patience_s

    @override
    async def __aiter__(self) -> AsyncIterator[bytes]:
        fault = self._response.wire_fault
        left_bytes = _sent_bytes(self._response, fault)
        sent_bytes = 0
        for piece in self._response.pieces():
            await trio.lowlevel.checkpoint()
            shown = piece[: left_bytes - sent_bytes]
            sent_bytes += len(shown)
            if shown:
                yield shown
        if fault is not None and fault.action is Action.STALL:
            await self._fall_silent(fault)
        if fault is not None and fault.action is Action.RESET:
            raise httpx.ReadError("connection reset by peer")
        if sent_bytes < self._promised_bytes:
            raise httpx.RemoteProtocolError(
                "peer closed connection without sending complete message body"
                f" (received {sent_bytes} bytes, expected {self._promised_bytes})"
            )

    @override
    async def aclose(self) -> None:
        self._response.close()

    async def _fall_silent(self, fault: WireFault) -> None:
        silence_s = float("inf") if fault.seconds is None else fault.seconds
        patience_s = float("inf") if self._patience_s is None else self._patience_s
        await trio.sleep(min(silence_s, patience_s))
        if patience_s <= silence_s:
            raise httpx.ReadTimeout("the service is silent")


def _httpx_response(response: Response, patience_s: float | None) -> httpx.Response:
    fault = response.wire_fault
    if fault is not None and fault.bytes is None and fault.action is Action.RESET:
        response.close()
        raise httpx.ReadError("connection reset by peer")
    if fault is not None and fault.bytes is None and fault.action is Action.CUT:
        response.close()
        raise httpx.RemoteProtocolError("Server disconnected without sending a response.")
    delta = 0 if fault is None else fault.delta
    promised_bytes = max(0, response.length_bytes + delta)
    headers = [*response.headers, ("Content-Length", str(promised_bytes))]
    stream = _ResponseStream(response, promised_bytes, patience_s)
    return httpx.Response(response.status, headers=headers, stream=stream)


def _sent_bytes(response: Response, fault: WireFault | None) -> int:
    return response.length_bytes if fault is None else fault.sent_bytes(response.length_bytes)


def _limit(scope: trio.CancelScope, seconds: float | None) -> None:
    if seconds is not None:
        scope.deadline = trio.current_time() + seconds
