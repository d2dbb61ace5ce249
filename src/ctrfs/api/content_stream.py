"""A download under way: what the answer promises, and its bytes."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Final

import httpx
import trio
from typing_extensions import override

from ctrfs import errors
from ctrfs.api.answer import Answer
from ctrfs.api.failures import failure_from_exception
from ctrfs.api.protocol import ContentStream
from ctrfs.api.redaction import Redactor

_CONTENT_RANGE: Final = re.compile(
    r"bytes (\d{1,18})-(\d{1,18})/(\d+|\*)", re.ASCII | re.IGNORECASE
)


def content_stream(
    answer: Answer, *, offset: int, stall_timeout_s: float, redactor: Redactor
) -> HttpContentStream:
    """Return the download that ``answer`` begins.

    Args:
        answer: A success, its body not read yet.
        offset: What was asked for; 0 means that no range was.
        stall_timeout_s: The longest silence within the body.
        redactor: Masks the key in errors.

    Raises:
        RemoteProtocolError: The answer is not the part that was asked for, or not the bytes
            as they are stored.
    """
    request_id = answer.headers.get("x-request-id")
    encoding = answer.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in {"", "identity"}:
        raise errors.RemoteProtocolError(
            "the service sent encoded bytes although asked not to", request_id=request_id
        )
    length_bytes = _length_bytes(answer)
    start = 0
    if answer.status == 206:
        start, range_bytes = _content_range(answer)
        if offset == 0 or start != offset or length_bytes not in {None, range_bytes}:
            raise errors.RemoteProtocolError(
                "the service sent another part than the one asked for", request_id=request_id
            )
        length_bytes = range_bytes
    return HttpContentStream(
        answer,
        offset=start,
        length_bytes=length_bytes,
        stall_timeout_s=stall_timeout_s,
        redactor=redactor,
    )


class HttpContentStream(ContentStream):
    """The bytes of one answer; ``pieces`` can be called once."""

    def __init__(
        self,
        answer: Answer,
        *,
        offset: int,
        length_bytes: int | None,
        stall_timeout_s: float,
        redactor: Redactor,
    ) -> None:
        self._answer = answer
        self.offset = offset
        self.length_bytes = length_bytes
        self._stall_timeout_s = stall_timeout_s
        self._redactor = redactor
        self._received_bytes = 0

    @override
    def pieces(self) -> AsyncIterator[bytes]:
        """Yield the bytes in order, as they come from the socket.

        Raises:
            RemoteUnavailableError: The connection broke, or the body ended early.
            RemoteStalledError: Nothing came for ``stall_timeout_s``.
            RemoteProtocolError: More came than was announced.
        """
        return _Pieces(self)

    async def next_piece(self) -> bytes | None:
        """Return the next bytes; None at the end of the body. Raises as ``pieces`` does."""
        piece = await self._awaited_piece()
        self._received_bytes += len(piece or b"")
        if self.length_bytes is None:
            return piece
        if self._received_bytes > self.length_bytes:
            raise errors.RemoteProtocolError("the service sent more than it announced")
        if piece is None and self._received_bytes < self.length_bytes:
            raise errors.RemoteUnavailableError(
                f"the download ended after {self._received_bytes} of {self.length_bytes} bytes"
            )
        return piece

    async def _awaited_piece(self) -> bytes | None:
        # httpx has a timeout of its own for this, but only over real sockets.
        with trio.move_on_after(self._stall_timeout_s):
            try:
                return await self._answer.next_piece()
            except httpx.HTTPError as error:
                failure = failure_from_exception(error, redactor=self._redactor, was_sent=True)
                raise failure.error from error
        raise errors.RemoteStalledError(f"no bytes for {self._stall_timeout_s:g} s")


class _Pieces(AsyncIterator[bytes]):
    # A class and not an async generator, so that a reader may stop half way and drop it.
    def __init__(self, stream: HttpContentStream) -> None:
        self._stream = stream

    @override
    async def __anext__(self) -> bytes:
        piece = await self._stream.next_piece()
        if piece is None:
            raise StopAsyncIteration
        return piece


def _length_bytes(answer: Answer) -> int | None:
    text = answer.headers.get("content-length", "")
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text) else None


def _content_range(answer: Answer) -> tuple[int, int]:
    """Return where the part starts and how many bytes it has."""
    text = answer.headers.get("content-range", "").strip()
    match = _CONTENT_RANGE.fullmatch(text)
    if match is None or int(match[2]) < int(match[1]):
        raise errors.RemoteProtocolError("the service sent a part without saying which")
    return int(match[1]), int(match[2]) - int(match[1]) + 1
