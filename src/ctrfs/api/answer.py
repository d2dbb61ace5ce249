"""One answer of the service while its body is on the way."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

import httpcore
import httpx

from ctrfs import errors
from ctrfs.units import MIB

# A body that is so long comes straight from the socket: each piece then costs half as much on its
# way here, and there are fewer of them. The price is a new connection for the next request.
_DIRECT_BYTES_MIN: Final = 16 * MIB
_PIECE_BYTES: Final = 1 * MIB


class Answer:
    """One answer, its body still on the way.

    Attributes:
        status: The HTTP status.
        headers: Looked up without regard to case.
        is_ended: Whether the body has been read to its end, and the connection can be used again.
    """

    def __init__(self, response: httpx.Response) -> None:
        self.status = response.status_code
        self.headers: Mapping[str, str] = response.headers
        self.is_ended = False
        is_encoded = "content-encoding" in response.headers
        self._source = response.aiter_bytes() if is_encoded else response.aiter_raw()
        self._direct = _direct_body(response)

    async def next_piece(self) -> bytes | None:
        """Return the next bytes of the body as they come, never empty; None at its end.

        Raises:
            httpx.HTTPError: The connection broke.
        """
        if self._direct is not None and self._direct.is_begun:
            return await self._direct.next_piece()
        async for piece in self._source:
            if piece:
                if self._direct is not None:
                    self._direct.begin_behind(piece)
                return piece
        self.is_ended = True
        return None

    async def read(self, *, bytes_max: int) -> bytes:
        """Return the whole body.

        Raises:
            RemoteProtocolError: It has more than ``bytes_max``.
            httpx.HTTPError: The connection broke.
        """
        body = bytearray()
        while piece := await self.next_piece():
            body += piece
            if len(body) > bytes_max:
                raise errors.RemoteProtocolError(f"an answer has more than {bytes_max} bytes")
        return bytes(body)

    async def run_dry(self) -> None:
        """Drive what is left of the body to its end, which a closed connection brings at once.

        httpx reads through several async generators, one in another. Each must come to its
        end, or trio complains when the garbage collector finds it.
        """
        self._direct = None
        # What stands in for a connection may read a file, which is closed by now.
        with suppress(httpx.HTTPError, httpx.StreamError, OSError, ValueError):
            while await self.next_piece():
                pass


class _DirectBody:
    """The rest of a body of known length, from the socket past the layers of the HTTP client.

    With the first piece those give all that they have taken from the socket beyond the head. If
    they ever kept some of it, the end would not come, which is an error and no wrong byte.
    Source: h11/_readers.py (ContentLengthReader), httpcore/_async/http11.py; 0.16 and 1.0.
    """

    def __init__(
        self, wire: httpcore.AsyncNetworkStream, *, length_bytes: int, timeout_s: float
    ) -> None:
        self._wire = wire
        self._left_bytes = length_bytes
        self._timeout_s = timeout_s
        self.is_begun = False

    def begin_behind(self, piece: bytes) -> None:
        """Go on behind the first piece."""
        self._left_bytes -= len(piece)
        self.is_begun = True

    async def next_piece(self) -> bytes | None:
        """Return the next bytes; None at the end. Raises httpx.HTTPError if the line breaks."""
        if self._left_bytes == 0:
            return None
        try:
            piece = await self._wire.read(min(self._left_bytes, _PIECE_BYTES), self._timeout_s)
        except httpcore.TimeoutException as error:
            raise httpx.ReadTimeout(str(error)) from error
        except (httpcore.NetworkError, httpcore.ProtocolError) as error:
            raise httpx.ReadError(str(error)) from error
        if not piece:
            raise httpx.RemoteProtocolError("the connection was closed before the end of the body")
        self._left_bytes -= len(piece)
        return piece


def _direct_body(response: httpx.Response) -> _DirectBody | None:
    """Return where a long plain body can be read from; None for all others."""
    headers = response.headers
    length = headers.get("content-length", "")
    is_plain = not {"content-encoding", "transfer-encoding"} & headers.keys()
    wire: object = response.extensions.get("network_stream")
    if not is_plain or not re.fullmatch(r"[0-9]{1,18}", length):
        return None
    if int(length) < _DIRECT_BYTES_MIN or not isinstance(wire, httpcore.AsyncNetworkStream):
        return None
    timeout_s = response.request.extensions["timeout"]["read"]
    return _DirectBody(wire, length_bytes=int(length), timeout_s=timeout_s)
