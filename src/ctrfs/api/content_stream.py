"""A download under way: what the answer promises, and its bytes."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Final

import httpx
import trio
from typing_extensions import override

from ctrfs import errors
from ctrfs.api.failures import failure_from_exception
from ctrfs.api.protocol import ContentStream
from ctrfs.api.redaction import Redactor
from ctrfs.api.session import generator

_CONTENT_RANGE: Final = re.compile(
    r"bytes (\d{1,18})-(\d{1,18})/(\d+|\*)", re.ASCII | re.IGNORECASE
)


def content_stream(
    response: httpx.Response, *, offset: int, stall_timeout_s: float, redactor: Redactor
) -> HttpContentStream:
    """Return the download that ``response`` begins.

    Args:
        response: A success, its body not read yet.
        offset: What was asked for; 0 means that no range was.
        stall_timeout_s: The longest silence within the body.
        redactor: Masks the key in errors.

    Raises:
        RemoteProtocolError: The answer is not the part that was asked for, or not the bytes
            as they are stored.
    """
    request_id = response.headers.get("x-request-id")
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in {"", "identity"}:
        raise errors.RemoteProtocolError(
            "the service sent encoded bytes although asked not to", request_id=request_id
        )
    length_bytes = _length_bytes(response)
    start = 0
    if response.status_code == 206:
        start, range_bytes = _content_range(response)
        if offset == 0 or start != offset or length_bytes not in {None, range_bytes}:
            raise errors.RemoteProtocolError(
                "the service sent another part than the one asked for", request_id=request_id
            )
        length_bytes = range_bytes
    return HttpContentStream(
        response,
        offset=start,
        length_bytes=length_bytes,
        stall_timeout_s=stall_timeout_s,
        redactor=redactor,
    )


class HttpContentStream(ContentStream):
    """The bytes of one answer; ``pieces`` can be called once."""

    def __init__(
        self,
        response: httpx.Response,
        *,
        offset: int,
        length_bytes: int | None,
        stall_timeout_s: float,
        redactor: Redactor,
    ) -> None:
        self._response = response
        self.offset = offset
        self.length_bytes = length_bytes
        self._stall_timeout_s = stall_timeout_s
        self._redactor = redactor

    @override
    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield the bytes in order, as they come from the socket.

        Raises:
            RemoteUnavailableError: The connection broke, or the body ended early.
            RemoteStalledError: Nothing came for ``stall_timeout_s``.
            RemoteProtocolError: More came than was announced.
        """
        received_bytes = 0
        async with aclosing(generator(self._response.aiter_raw())) as source:
            while True:
                piece = await self._next(source)
                if piece is None:
                    break
                received_bytes += len(piece)
                if self.length_bytes is not None and received_bytes > self.length_bytes:
                    raise errors.RemoteProtocolError("the service sent more than it announced")
                if piece:
                    yield piece
        if self.length_bytes is not None and received_bytes < self.length_bytes:
            raise errors.RemoteUnavailableError(
                f"the download ended after {received_bytes} of {self.length_bytes} bytes"
            )

    async def _next(self, source: AsyncIterator[bytes]) -> bytes | None:
        # httpx has a timeout of its own for this, but only over real sockets.
        with trio.move_on_after(self._stall_timeout_s):
            try:
                return await anext(source)
            except StopAsyncIteration:
                return None
            except httpx.HTTPError as error:
                failure = failure_from_exception(error, redactor=self._redactor, was_sent=True)
                raise failure.error from error
        raise errors.RemoteStalledError(f"no bytes for {self._stall_timeout_s:.0f} s")


def _length_bytes(response: httpx.Response) -> int | None:
    text = response.headers.get("content-length", "")
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text) else None


def _content_range(response: httpx.Response) -> tuple[int, int]:
    """Return where the part starts and how many bytes it has."""
    text = response.headers.get("content-range", "").strip()
    match = _CONTENT_RANGE.fullmatch(text)
    if match is None or int(match[2]) < int(match[1]):
        raise errors.RemoteProtocolError("the service sent a part without saying which")
    return int(match[1]), int(match[2]) - int(match[1]) + 1
