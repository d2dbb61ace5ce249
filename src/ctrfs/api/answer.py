"""One answer of the service while its body is on the way."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

import httpx

from ctrfs import errors


class Answer:
    """One answer, its body still on the way.

    Attributes:
        status: The HTTP status.
        headers: Looked up without regard to case.
        is_ended: Whether the body has been read to its end.
    """

    def __init__(self, response: httpx.Response) -> None:
        self.status = response.status_code
        self.headers: Mapping[str, str] = response.headers
        self.is_ended = False
        is_encoded = "content-encoding" in response.headers
        self._source = response.aiter_bytes() if is_encoded else response.aiter_raw()

    async def next_piece(self) -> bytes | None:
        """Return the next bytes of the body as they come, never empty; None at its end.

        Raises:
            httpx.HTTPError: The connection broke.
        """
        async for piece in self._source:
            if piece:
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
        # What stands in for a connection may read a file, which is closed by now.
        with suppress(httpx.HTTPError, httpx.StreamError, OSError, ValueError):
            while await self.next_piece():
                pass
