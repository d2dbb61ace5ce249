"""A service in process, and a way to send it single requests."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio
from tests.support.service import InProcessService

from ctrfs.server.messages import Request


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A response with its body read."""

    status: int
    headers: dict[str, str]
    body: bytes


class Caller:
    """Sends requests to the application and reads the answers whole."""

    def __init__(self, service: InProcessService) -> None:
        self._service = service

    async def __call__(
        self,
        method: str,
        path: str,
        *,
        body: bytes = b"",
        headers: dict[str, str] | None = None,
        gate: trio.Event | None = None,
    ) -> Answer:
        """Send a request and return the answer; ``gate`` holds back the end of the body."""
        if headers is None:
            headers = {}
        headers = {"authorization": f"Bearer {self._service.key}", **headers}
        async with aclosing(_pieces(body, gate)) as pieces:
            request = Request(
                method=method,
                target=path,
                headers=[
                    (name.encode(), value.encode()) for name, value in headers.items() if value
                ],
                body=pieces,
            )
            response = await self._service.application.answer(request)
        try:
            content = b"".join(response.pieces())
        finally:
            response.close()
        return Answer(status=response.status, headers=dict(response.headers), body=content)


async def _pieces(body: bytes, gate: trio.Event | None) -> AsyncGenerator[bytes, None]:
    # Odd pieces, so that every boundary falls somewhere.
    for start in range(0, len(body), 7):
        yield body[start : start + 7]
    if gate is not None:
        await gate.wait()


@pytest.fixture
def service(tmp_path: Path) -> Iterator[InProcessService]:
    with InProcessService(tmp_path / "data") as opened:
        yield opened


@pytest.fixture
def call(service: InProcessService) -> Caller:
    return Caller(service)
