"""What an HTTP connection runs over: bytes both ways, and what only a socket can do."""

from __future__ import annotations

import os
import socket
import struct
from abc import abstractmethod
from typing import Final

import trio
from typing_extensions import override

from ctrfs.units import MIB

_SEND_BYTES: Final = 1 * MIB
_LINGER_OF_ZERO: Final = struct.pack("ii", 1, 0)


class Line(trio.abc.HalfCloseableStream):
    """A stream that can also send from a file, and break off as a crashed machine does."""

    @abstractmethod
    @override
    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Return what has come, at most ``max_bytes``; nothing at the end."""

    @abstractmethod
    async def send_file(self, fd: int, offset: int, length_bytes: int, *, stall_s: float) -> None:
        """Send a part of an open file.

        Raises:
            trio.BrokenResourceError: The peer is gone, took nothing for ``stall_s``, or the
                file is shorter than that.
        """

    @abstractmethod
    def reset(self) -> None:
        """Close at once, in such a way that the peer gets an error instead of an end."""


class SocketLine(Line):
    """A line over a socket; the kernel copies files, this program sees no byte of them."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream

    @override
    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        return await self._stream.receive_some(max_bytes)

    @override
    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)

    @override
    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    @override
    async def send_eof(self) -> None:
        await self._stream.send_eof()

    @override
    async def aclose(self) -> None:
        await self._stream.aclose()

    @override
    async def send_file(self, fd: int, offset: int, length_bytes: int, *, stall_s: float) -> None:
        peer = self._stream.socket
        end = offset + length_bytes
        while offset < end:
            try:
                sent = os.sendfile(peer.fileno(), fd, offset, min(_SEND_BYTES, end - offset))
            except BlockingIOError:
                with trio.move_on_after(stall_s) as patience:
                    await trio.lowlevel.wait_writable(peer)
                if patience.cancelled_caught:
                    raise trio.BrokenResourceError("the peer takes nothing") from None
                continue
            except OSError as error:
                raise trio.BrokenResourceError("the peer is gone") from error
            if sent == 0:
                raise trio.BrokenResourceError("the file is shorter than its row says")
            offset += sent
            await trio.lowlevel.checkpoint()

    @override
    def reset(self) -> None:
        # Closing with a linger of zero sends RST instead of FIN (on TCP).
        self._stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_OF_ZERO)
        self._stream.socket.close()
