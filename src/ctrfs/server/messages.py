"""A request and a response as records: what lies between the wire and the operations."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from functools import cached_property
from typing import Final
from urllib.parse import parse_qsl, unquote

import msgspec

from ctrfs.server import refusals
from ctrfs.server.faults import WireFault
from ctrfs.units import MIB

Headers = tuple[tuple[str, str], ...]

_PIECE_BYTES: Final = 1 * MIB
# The largest JSON that the service knows is some KiB.
JSON_BYTES_MAX: Final = 1 * MIB


class Request:
    """What a client asked.

    Attributes:
        method: In capitals.
        target: Path and query as sent.
        body: The bytes of the body, once, in pieces; ends early by an exception only.
    """

    def __init__(
        self,
        *,
        method: str,
        target: str,
        headers: list[tuple[bytes, bytes]],
        body: AsyncIterator[bytes],
    ) -> None:
        self.method = method
        self.target = target
        self.body = body
        self._headers = headers

    def header(self, name: str) -> str | None:
        """Return the first header ``name``, which is given in small letters."""
        wanted = name.encode("ascii")
        for key, value in self._headers:
            if key == wanted or key.lower() == wanted:
                return value.decode("latin-1")
        return None

    @cached_property
    def path(self) -> str:
        """The path as sent, without the query."""
        return self.target.partition("?")[0]

    @cached_property
    def parts(self) -> tuple[str, ...]:
        """The parts of the path, each decoded, without a leading ``v1``."""
        parts = [unquote(part) for part in self.path.split("/") if part]
        return tuple(parts[1:] if parts[:1] == ["v1"] else parts)

    @cached_property
    def query(self) -> dict[str, str]:
        """The query; of a repeated name the last value."""
        return dict(parse_qsl(self.target.partition("?")[2], keep_blank_values=True))


class BlobPart:
    """Some bytes of a blob, open, so that a deletion meanwhile changes nothing.

    Attributes:
        fd: The open file.
        offset: Where the bytes begin.
        length_bytes: How many they are.
    """

    def __init__(self, *, fd: int, offset: int, length_bytes: int) -> None:
        self.fd = fd
        self.offset = offset
        self.length_bytes = length_bytes

    def pieces(self) -> Iterator[bytes]:
        """Yield the bytes, read from the local disk."""
        offset, end = self.offset, self.offset + self.length_bytes
        while offset < end:
            piece = os.pread(self.fd, min(_PIECE_BYTES, end - offset), offset)
            if not piece:
                raise EOFError("a blob is shorter than its row says")
            offset += len(piece)
            yield piece

    def close(self) -> None:
        """Close the file; whoever sends the response must call this."""
        os.close(self.fd)


class Response(msgspec.Struct, frozen=True, kw_only=True):
    """What the client gets; ``headers`` lack only ``Content-Length`` and ``Date``."""

    status: int
    headers: Headers
    body: bytes | BlobPart
    wire_fault: WireFault | None = None

    @property
    def length_bytes(self) -> int:
        """How long the body is."""
        return len(self.body) if isinstance(self.body, bytes) else self.body.length_bytes

    def pieces(self) -> Iterator[bytes]:
        """Yield the body, read from the local disk."""
        if isinstance(self.body, bytes):
            yield self.body
        else:
            yield from self.body.pieces()

    def close(self) -> None:
        """Give back what the body holds open."""
        if isinstance(self.body, BlobPart):
            self.body.close()


async def read_whole(request: Request, *, bytes_max: int = JSON_BYTES_MAX) -> bytes:
    """Return the whole body of a request that holds JSON.

    Raises:
        RefusedError: It is longer than ``bytes_max``.
    """
    pieces: list[bytes] = []
    size_bytes = 0
    async for piece in request.body:
        size_bytes += len(piece)
        if size_bytes > bytes_max:
            raise refusals.too_large("The JSON body of the request is too large.")
        pieces.append(piece)
    return b"".join(pieces)


def json_response(text: str, *, status: int = 200) -> Response:
    """Return an answer that holds JSON, already written."""
    headers = (("Content-Type", "application/json"),)
    return Response(status=status, headers=headers, body=text.encode("ascii"))
