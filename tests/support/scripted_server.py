"""A TCP server that does to each connection what a test tells it to, byte by byte.

For what no well-behaved server does: hanging up in the middle, falling silent, answering
before it was asked. Runs on the loopback interface, in the test's own nursery.
"""

from __future__ import annotations

import re
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import trio

Script = Callable[["Peer"], Awaitable[None]]


class Peer:
    """The server's end of one connection."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._received = bytearray()

    async def head(self) -> bytes:
        """Return the request line and headers of the next request."""
        while b"\r\n\r\n" not in self._received:
            await self._receive()
        head, _, rest = bytes(self._received).partition(b"\r\n\r\n")
        self._received = bytearray(rest)
        return head

    async def body(self, size_bytes: int) -> bytes:
        """Return the next ``size_bytes`` of a request's body."""
        while len(self._received) < size_bytes:
            await self._receive()
        body = bytes(self._received[:size_bytes])
        del self._received[:size_bytes]
        return body

    async def request(self) -> tuple[bytes, bytes]:
        """Return head and body of the next request."""
        head = await self.head()
        length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
        return head, await self.body(int(length[1]) if length else 0)

    async def send(self, data: bytes) -> None:
        """Send ``data`` as it is."""
        await self.stream.send_all(data)

    async def answer(self, status: int, body: bytes, *headers: str) -> None:
        """Send a complete answer."""
        lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", *headers]
        await self.send("\r\n".join(lines).encode() + b"\r\n\r\n" + body)

    async def hang_up(self) -> None:
        """Close the connection."""
        await self.stream.aclose()

    async def break_off(self) -> None:
        """Close the connection with a reset, as a server that dies does."""
        linger_at_once = struct.pack("ii", 1, 0)
        self.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_at_once)
        await self.stream.aclose()

    async def wait_for_hang_up(self) -> None:
        """Wait until the client has closed the connection, reading what still comes."""
        with suppress(trio.BrokenResourceError):
            while await self.stream.receive_some(65536):
                pass

    async def _receive(self) -> None:
        data = await self.stream.receive_some(65536)
        if not data:
            raise EOFError("the client hung up")
        self._received += data


class ScriptedServer:
    """What ``serve_scripts`` gives: the address, and what has happened so far.

    Attributes:
        base_url: Of the service it plays.
        connections: How many connections were made.
    """

    def __init__(self, port: int) -> None:
        self.base_url = f"http://127.0.0.1:{port}/v1"
        self.connections = 0


@asynccontextmanager
async def serve_scripts(*scripts: Script) -> AsyncIterator[ScriptedServer]:
    """Serve connection n with ``scripts[n]``, later ones with the last; then hang up."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port: int = listeners[0].socket.getsockname()[1]
    server = ScriptedServer(port)

    async def serve(stream: trio.SocketStream) -> None:
        script = scripts[min(server.connections, len(scripts) - 1)]
        server.connections += 1
        async with stream:
            # The client may hang up at any time.
            with suppress(EOFError, trio.BrokenResourceError):
                await script(Peer(stream))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, serve, listeners)
        try:
            yield server
        finally:
            nursery.cancel_scope.cancel()
