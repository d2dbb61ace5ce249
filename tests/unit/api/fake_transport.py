"""Stands in for the connection: answers each request from a list, in virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx
import trio
from typing_extensions import override

from ctrfs.api.client import open_client
from ctrfs.api.protocol import ContainersApi
from ctrfs.clock import Clock
from ctrfs.config import ApiConfig, Secret

KEY = "sk-test-0123456789abcdef"

Reply = Callable[[httpx.Request], Awaitable[httpx.Response]]


class VirtualClock(Clock):
    """trio's virtual time; the wall shows what a test sets plus that."""

    def __init__(self, wall_s: float = 1_700_000_000.0) -> None:
        self._wall_s = wall_s

    @override
    def monotonic_s(self) -> float:
        return trio.current_time()

    @override
    def wall_ns(self) -> int:
        return int((self._wall_s + trio.current_time()) * 1_000_000_000)


@dataclass(frozen=True)
class Sent:
    """One request as it arrived.

    Attributes:
        at_s: When, on trio's clock.
    """

    method: str
    url: str
    headers: httpx.Headers
    body: bytes
    at_s: float


@dataclass
class FakeService:
    """Answers request n with ``replies[n]``, later ones with the last.

    Attributes:
        replies: What to do, one for each request.
        sent: What has arrived so far.
    """

    replies: list[Reply]
    sent: list[Sent] = field(default_factory=list)

    def transport(self) -> httpx.AsyncBaseTransport:
        return _FakeTransport(self)


class _FakeTransport(httpx.AsyncBaseTransport):
    def __init__(self, service: FakeService) -> None:
        self._service = service

    @override
    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        body = await request.aread()
        service = self._service
        service.sent.append(
            Sent(
                method=request.method,
                url=str(request.url),
                headers=request.headers,
                body=body,
                at_s=trio.current_time(),
            )
        )
        reply = service.replies[min(len(service.sent), len(service.replies)) - 1]
        return await reply(request)


def answers(status: int, body: bytes | str = b"", *, after_s: float = 0.0, **headers: str) -> Reply:
    """Reply with ``body``; underscores in names of headers stand for hyphens."""
    content = body.encode() if isinstance(body, str) else body

    async def reply(_request: httpx.Request) -> httpx.Response:
        await trio.sleep(after_s)
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        names.setdefault("content-length", str(len(content)))
        return httpx.Response(status, headers=names, stream=httpx.ByteStream(content))

    return reply


def fails(error: Exception, *, after_s: float = 0.0) -> Reply:
    """Reply with an exception, as a transport does whose connection breaks."""

    async def reply(_request: httpx.Request) -> httpx.Response:
        await trio.sleep(after_s)
        raise error

    return reply


async def never_answers(_request: httpx.Request) -> httpx.Response:
    await trio.sleep_forever()
    raise AssertionError


@asynccontextmanager
async def client_of(
    *replies: Reply, config: ApiConfig | None = None, clock: Clock | None = None
) -> AsyncIterator[tuple[ContainersApi, FakeService]]:
    """Provide a client without jitter, and the service that it talks to."""
    service = FakeService(replies=list(replies))
    async with open_client(
        config or ApiConfig(base_url="https://api.example/v1", key=Secret(KEY)),
        clock=clock or VirtualClock(),
        transport_factory=service.transport,
        jitter=lambda: 0.0,
    ) as api:
        yield api, service
