"""A way to a service that can be made bad: silent, refused, reset or slow, and good again.

A thread with a trio loop of its own, between a mount and a real service. What was on its way
when the line fell silent arrives once it passes again, as after lost packets.
"""

from __future__ import annotations

import enum
import socket
import struct
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Final, Protocol, Self
from urllib.parse import urlsplit

import trio

_PIECE_BYTES: Final = 64 * 1024
# How much may be on the way in one direction; each piece has its own time of arrival.
_PIECES_ON_THE_WAY_MAX: Final = 64
_BACKLOG: Final = 256
_END_TIMEOUT_S: Final = 10.0
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)  # struct linger: on, no time


class Mode(enum.Enum):
    """What becomes of bytes and connections."""

    PASS = "pass"  # noqa: S105  # no password
    BLACK_HOLE = "black hole"
    """Connections are taken; no byte moves, either way."""
    REFUSE = "refuse"
    """New connections are refused; those there are were reset."""
    RESET = "reset"
    """Connections are reset, new ones as soon as they are made."""


class _Service(Protocol):
    @property
    def base_url(self) -> str: ...

    @property
    def key(self) -> str: ...


class Proxy:
    """A service that is reached through a bad line; a context manager.

    Attributes:
        base_url: For clients, in place of the service's own.
        key: The service's.
    """

    def __init__(self, service: _Service) -> None:
        """Stand before ``service``, which listens on a TCP port of this machine."""
        parts = urlsplit(service.base_url)
        assert parts.hostname is not None, "a service on a Unix socket needs no proxy"
        self._target = parts.hostname, parts.port or 80
        self._path = parts.path
        self.key = service.key
        self.base_url = ""
        self._mode = Mode.PASS
        self._delay_s = 0.0
        self._connections = 0
        self._links: set[_Link] = set()
        self._thread = threading.Thread(target=self._run, name="proxy")
        self._is_ready = threading.Event()

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._is_ready.wait(_END_TIMEOUT_S), "the proxy does not start"
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._from_outside(self._nursery.cancel_scope.cancel)
        self._thread.join(_END_TIMEOUT_S)
        assert not self._thread.is_alive(), "the proxy does not end"

    @property
    def connections(self) -> int:
        """How many connections were taken so far, whatever became of them."""
        return self._connections

    def set(self, mode: Mode) -> None:
        """Make the line good or bad; returns when it is."""
        self._from_outside(lambda: self._change(mode))

    def delay(self, seconds: float) -> None:
        """Let each piece take ``seconds`` longer, one way: a round trip takes twice that."""
        self._from_outside(lambda: setattr(self, "_delay_s", seconds))

    def _from_outside(self, act: Callable[[], None]) -> None:
        trio.from_thread.run_sync(act, trio_token=self._token)

    def _run(self) -> None:
        trio.run(self._serve)

    async def _serve(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._changed = trio.Event()
        self._listener = _bound_socket(0)
        self._port: int = self._listener.getsockname()[1]
        self.base_url = f"http://127.0.0.1:{self._port}{self._path}"
        self._listener.listen(_BACKLOG)
        try:
            async with trio.open_nursery() as self._nursery:
                self._is_ready.set()
                while True:
                    await self._accept()
        finally:
            self._listener.close()

    async def _accept(self) -> None:
        listener = self._listener
        if self._mode is Mode.REFUSE:
            await self._changed.wait()
            return
        try:
            taken, _ = await listener.accept()
        except (OSError, trio.ClosedResourceError):
            return  # closed by ``_change``
        self._connections += 1
        link = _Link(trio.SocketStream(taken))
        if self._mode is Mode.RESET:
            link.reset()
        else:
            self._nursery.start_soon(self._connect, link)

    def _change(self, mode: Mode) -> None:
        # Not async on purpose: what the caller does next meets the new line.
        if (mode is Mode.REFUSE) != (self._mode is Mode.REFUSE):
            # The port stays ours: bound without listening, it refuses.
            self._listener.close()
            self._listener = _bound_socket(self._port)
            if mode is not Mode.REFUSE:
                self._listener.listen(_BACKLOG)
        self._mode = mode
        if mode in {Mode.REFUSE, Mode.RESET}:
            for link in self._links:
                link.reset()
        changed, self._changed = self._changed, trio.Event()
        changed.set()

    async def _connect(self, link: _Link) -> None:
        self._links.add(link)
        try:
            await self._until_open()
            link.far = await trio.open_tcp_stream(*self._target)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._carry, link.near, link.far)
                nursery.start_soon(self._carry, link.far, link.near)
        except* (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            link.reset()
        finally:
            self._links.discard(link)
            link.close()

    async def _carry(self, source: trio.SocketStream, sink: trio.SocketStream) -> None:
        """Carry bytes one way until the source has no more."""
        send, receive = trio.open_memory_channel[tuple[float, bytes]](_PIECES_ON_THE_WAY_MAX)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._take_in, source, send)
            async for due_s, piece in receive:
                await trio.sleep_until(due_s)
                await self._until_open()
                await sink.send_all(piece)
        await sink.send_eof()

    async def _take_in(
        self, source: trio.SocketStream, send: trio.MemorySendChannel[tuple[float, bytes]]
    ) -> None:
        async with send:
            while piece := await source.receive_some(_PIECE_BYTES):
                await self._until_open()
                await send.send((trio.current_time() + self._delay_s, piece))

    async def _until_open(self) -> None:
        while self._mode is Mode.BLACK_HOLE:
            await self._changed.wait()


class _Link:
    """One connection on both sides of the proxy."""

    def __init__(self, near: trio.SocketStream) -> None:
        self.near = near
        self.far: trio.SocketStream | None = None

    def reset(self) -> None:
        for stream in (self.near, self.far):
            if stream is not None and stream.socket.fileno() >= 0:
                stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
                stream.socket.close()

    def close(self) -> None:
        self.near.socket.close()
        if self.far is not None:
            self.far.socket.close()


def _bound_socket(port: int) -> trio.socket.SocketType:
    plain = socket.socket()
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    plain.bind(("127.0.0.1", port))
    plain.setblocking(False)
    return trio.socket.from_stdlib_socket(plain)
