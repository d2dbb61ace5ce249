"""A download under way: what the answer promises, and its bytes."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Final

import httpx
import msgspec
import trio
from typing_extensions import override

from ctrfs import errors
from ctrfs.api.answer import Answer
from ctrfs.api.failures import failure_from_exception
from ctrfs.api.protocol import ContentStream
from ctrfs.api.redaction import Redactor

_CONTENT_RANGE: Final = re.compile(
    r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)", re.ASCII | re.IGNORECASE
)
_STRONG_TAG: Final = re.compile(r'"[\x21\x23-\x7e]{1,200}"', re.ASCII)


def range_headers(offset: int, end: int | None, version: str | None) -> tuple[tuple[str, str], ...]:
    """Return the headers that ask for a part; none for the whole file.

    Source: RFC 9110, 13.1.5 (If-Range) and 14.2 (Range).
    """
    if offset == 0 and end is None:
        return ()
    last = "" if end is None else end - 1
    wanted = ("Range", f"bytes={offset}-{last}")
    return (wanted,) if version is None else (wanted, ("If-Range", version))


def content_stream(
    answer: Answer, *, offset: int, end: int | None, stall_timeout_s: float, redactor: Redactor
) -> HttpContentStream:
    """Return the download that ``answer`` begins.

    Args:
        answer: A success, its body not read yet.
        offset: What was asked for.
        end: Likewise; 0 and None mean that no part was.
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
    is_part_wanted = offset > 0 or end is not None
    length_bytes = _length_bytes(answer)
    start, total_bytes = 0, length_bytes
    if answer.status == 206:
        start, stop, total_bytes = _content_range(answer)
        is_right = start == offset and (end is None or stop <= end)
        if not is_part_wanted or not is_right or length_bytes not in {None, stop - start}:
            raise errors.RemoteProtocolError(
                "the service sent another part than the one asked for", request_id=request_id
            )
        length_bytes = stop - start
    announced = _Announced(
        offset=start,
        length_bytes=length_bytes,
        total_bytes=total_bytes,
        version=_strong_tag(answer),
        has_ranges=_has_ranges(answer, is_part_wanted=is_part_wanted),
    )
    return HttpContentStream(answer, announced, stall_timeout_s=stall_timeout_s, redactor=redactor)


class _Announced(msgspec.Struct, frozen=True, kw_only=True):
    """What the head of an answer says of its bytes; as in ``ContentStream``."""

    offset: int
    length_bytes: int | None
    total_bytes: int | None
    version: str | None
    has_ranges: bool | None


class HttpContentStream(ContentStream):
    """The bytes of one answer; ``pieces`` can be called once."""

    def __init__(
        self,
        answer: Answer,
        announced: _Announced,
        *,
        stall_timeout_s: float,
        redactor: Redactor,
    ) -> None:
        self._answer = answer
        self.offset = announced.offset
        self.length_bytes = announced.length_bytes
        self.total_bytes = announced.total_bytes
        self.version = announced.version
        self.has_ranges = announced.has_ranges
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


def _content_range(answer: Answer) -> tuple[int, int, int | None]:
    """Return where the part starts and stops, and how many bytes the whole has."""
    text = answer.headers.get("content-range", "").strip()
    match = _CONTENT_RANGE.fullmatch(text)
    if match is None or int(match[2]) < int(match[1]):
        raise errors.RemoteProtocolError("the service sent a part without saying which")
    return int(match[1]), int(match[2]) + 1, None if match[3] == "*" else int(match[3])


def _strong_tag(answer: Answer) -> str | None:
    # A weak one allows differences, and must not stand in If-Range. Source: RFC 9110, 8.8.3.
    text = answer.headers.get("etag", "").strip()
    return text if _STRONG_TAG.fullmatch(text) else None


def _has_ranges(answer: Answer, *, is_part_wanted: bool) -> bool | None:
    if answer.status == 206:
        return True
    if is_part_wanted:
        return False
    return True if answer.headers.get("accept-ranges", "").strip().lower() == "bytes" else None
