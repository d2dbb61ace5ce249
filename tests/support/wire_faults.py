"""HTTP in virtual time: the real client and the real wire of the service, over lines in memory.

httpx, httpcore and h11 speak on one side, ``ctrfs.server.http`` on the other; only the sockets
are missing. A line holds as much in flight as a socket does, ends in good order, or is reset.
What a service cannot do to itself, to break a connection before it has read the request, is
done by the rules of ``Wire.faults``.
"""

from __future__ import annotations

import math
import os
import ssl
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Final

import httpcore
import httpx
import trio
from httpcore import SOCKET_OPTION
from tests.support.service import InProcessService
from typing_extensions import override

from ctrfs.server.application import Application, operation_of
from ctrfs.server.faults import Action, FaultRules, rule_from_json
from ctrfs.server.http import Connection, WireLimits
from ctrfs.server.line import Line
from ctrfs.server.messages import Request

IN_FLIGHT_BYTES: Final = 64 * 1024
# Only the client's patience ends anything: a limit of the service would make time jump.
LIMITS: Final = WireLimits(idle_s=math.inf, stall_s=math.inf)


class _Pipe:
    """One direction of a line."""

    def __init__(self) -> None:
        self.waiting = bytearray()
        self.has_ended = False
        self.is_broken = False
        self.changed = trio.lowlevel.ParkingLot()

    def end(self, *, is_broken: bool) -> None:
        self.has_ended = True
        if is_broken:
            self.is_broken = True
            self.waiting.clear()
        self.changed.unpark_all()


class MemoryLine(Line):
    """One end of a line."""

    def __init__(self, incoming: _Pipe, outgoing: _Pipe) -> None:
        self._incoming = incoming
        self._outgoing = outgoing
        self._is_closed = False

    @property
    def is_readable(self) -> bool:
        """Whether something could be received at once, be it the end."""
        return bool(self._incoming.waiting) or self._incoming.has_ended

    @override
    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        while not self.is_readable:
            await self._incoming.changed.park()
        if self._incoming.is_broken:
            raise trio.BrokenResourceError("connection reset by peer")
        piece = bytes(self._incoming.waiting[:max_bytes])
        del self._incoming.waiting[: len(piece)]
        self._incoming.changed.unpark_all()
        return piece

    @override
    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint()
        left = memoryview(data)
        while left:
            if self._outgoing.has_ended:
                raise trio.BrokenResourceError("broken pipe")
            room_bytes = IN_FLIGHT_BYTES - len(self._outgoing.waiting)
            if room_bytes == 0:
                await self._outgoing.changed.park()
                continue
            self._outgoing.waiting += left[:room_bytes]
            left = left[room_bytes:]
            self._outgoing.changed.unpark_all()

    @override
    async def wait_send_all_might_not_block(self) -> None:
        raise NotImplementedError

    @override
    async def send_file(self, fd: int, offset: int, length_bytes: int, *, stall_s: float) -> None:
        end = offset + length_bytes
        while offset < end:
            piece = os.pread(fd, min(IN_FLIGHT_BYTES, end - offset), offset)
            await self.send_all(piece)
            offset += len(piece)

    @override
    async def send_eof(self) -> None:
        self._outgoing.end(is_broken=False)
        await trio.lowlevel.checkpoint()

    @override
    def reset(self) -> None:
        self._is_closed = True
        self._incoming.end(is_broken=True)
        self._outgoing.end(is_broken=True)

    @override
    async def aclose(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            # As a socket does: what arrived and was not read makes the end a reset.
            self._outgoing.end(is_broken=bool(self._incoming.waiting))
            self._incoming.end(is_broken=True)
        await trio.lowlevel.checkpoint()


def line_pair() -> tuple[MemoryLine, MemoryLine]:
    """Return the two ends of a new line."""
    there, back = _Pipe(), _Pipe()
    return MemoryLine(back, there), MemoryLine(there, back)


class Wire:
    """The way to one service.

    Attributes:
        faults: Strike before the service has read a byte of the request: cut, reset, stall.
        exchanges: How many requests were begun.
    """

    def __init__(self, service: InProcessService, nursery: trio.Nursery) -> None:
        self._application: Application = service.application
        self._nursery = nursery
        self.faults = FaultRules()
        self.exchanges = 0

    def add_fault(self, route: str, action: str, **fields: object) -> None:
        """Add a rule to ``faults``."""
        self.faults.add(rule_from_json({"route": route, "action": action, **fields}))

    def connect(self) -> MemoryLine:
        """Return the client's end of a new connection, with the service at the other."""
        here, there = line_pair()
        self._nursery.start_soon(Connection(there, self._application, LIMITS).run)
        return here

    def transport(self) -> httpx.AsyncBaseTransport:
        """Return what a client of httpx needs to go this way."""
        transport = httpx.AsyncHTTPTransport(verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
        transport._pool = httpcore.AsyncConnectionPool(
            max_connections=1, network_backend=_Backend(self)
        )
        return transport


@asynccontextmanager
async def wire_to(service: InProcessService) -> AsyncIterator[Wire]:
    """Provide a way to ``service``; its connections end with the block."""
    async with trio.open_nursery() as nursery:
        yield Wire(service, nursery)
        nursery.cancel_scope.cancel()


class _Backend(httpcore.AsyncNetworkBackend):
    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    @override
    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        await trio.lowlevel.checkpoint()
        return _ClientStream(self._wire)

    @override
    async def sleep(self, seconds: float) -> None:
        await trio.sleep(seconds)


class _ClientStream(httpcore.AsyncNetworkStream):
    """The client's end, with the faults that strike before the service has read anything."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._line = wire.connect()

    @override
    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        try:
            with trio.fail_after(math.inf if timeout is None else timeout):
                return await self._line.receive_some(max_bytes)
        except trio.TooSlowError as error:
            raise httpcore.ReadTimeout from error
        except trio.BrokenResourceError as error:
            raise httpcore.ReadError(str(error)) from error

    @override
    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._strike(buffer)
        try:
            with trio.fail_after(math.inf if timeout is None else timeout):
                await self._line.send_all(buffer)
        except trio.TooSlowError as error:
            raise httpcore.WriteTimeout from error
        except trio.BrokenResourceError as error:
            raise httpcore.WriteError(str(error)) from error

    @override
    async def aclose(self) -> None:
        await self._line.aclose()

    @override
    def get_extra_info(self, info: str) -> object:
        return self._line.is_readable if info == "is_readable" else None

    def _strike(self, buffer: bytes) -> None:
        words = bytes(buffer).partition(b"\r\n")[0].decode("latin-1").split(" ")
        if len(words) != 3 or words[2] != "HTTP/1.1":
            return  # a piece of a body
        self._wire.exchanges += 1
        request = Request(method=words[0], target=words[1], headers=[], body=_nothing())
        fault = self._wire.faults.take(operation_of(request))
        if fault is None:
            return
        # From here on a peer that never reads: the service never hears of this request.
        self._wire._nursery.start_soon(self._line.aclose)
        self._line, peer = line_pair()
        if fault.action is Action.RESET:
            peer.reset()
        elif fault.action is Action.CUT:
            self._wire._nursery.start_soon(_read_and_end, peer)
        else:
            self._wire._nursery.start_soon(_read_for_ever, peer)


async def _read_and_end(peer: MemoryLine) -> None:
    await peer.send_eof()
    await _read_for_ever(peer)


async def _read_for_ever(peer: MemoryLine) -> None:
    try:
        while await peer.receive_some():
            pass
    except trio.BrokenResourceError:
        pass


async def _nothing() -> AsyncIterator[bytes]:
    for piece in tuple[bytes, ...]():
        yield piece
