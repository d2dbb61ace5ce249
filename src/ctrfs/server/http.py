"""The wire: HTTP/1.1 by h11 over a line, one task a connection.

Everything about a request is decided in ``application``; here are only bytes, limits and
the faults that need the wire itself. Bodies stream both ways: no file is ever in memory.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from email.utils import formatdate
from http import HTTPStatus
from typing import Final, NoReturn

import h11
import msgspec
import trio

from ctrfs.server import bodies
from ctrfs.server.application import Application
from ctrfs.server.faults import Action, WireFault
from ctrfs.server.line import Line
from ctrfs.server.messages import BlobPart, Request, Response, json_response
from ctrfs.server.refusals import RefusedError
from ctrfs.units import KIB, MIB, NS_PER_S

_log = logging.getLogger(__name__)

# One receive. Uploads of 256 MiB ran at 315 MB/s with 64 KiB, 340 with 128, 250 with 256: what
# does not stay in the processor's cache is read from memory for the hash and again for the disk.
_RECEIVE_BYTES: Final = 128 * KIB
# From here on a body of known length goes past h11, whose buffer copies each byte three times.
_BYPASS_BYTES_MIN: Final = 256 * KIB


class WireLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How much and how long the wire takes."""

    head_bytes_max: int = 64 * KIB
    """Request line and headers together."""
    idle_s: float = 300.0
    """How long a connection may wait for its next request."""
    stall_s: float = 120.0
    """How long a peer may neither send nor take a byte in the middle of an exchange."""
    connections_max: int = 400
    """How many at once; one more is closed unanswered. With a file open for each, this stays
    under the 1024 descriptors that a process may usually have."""
    unread_bytes_max: int = 8 * MIB
    """How much of a body that nobody wanted is read, so that the answer can be seen."""
    unread_s: float = 2.0


class ConnectionLostError(Exception):
    """The peer is gone, fell silent, or does not speak HTTP; nobody to answer to."""


class _PlannedEndError(Exception):
    """A fault asked for the connection to end here."""


class Connection:
    """One connection, from accept to close.

    Invariant: between two requests, and only then, ``_idle`` may be cancelled. ``_bypass`` is
    set exactly while the body of the present request goes past h11.
    """

    def __init__(self, line: Line, application: Application, limits: WireLimits) -> None:
        self._line = line
        self._application = application
        self._limits = limits
        self._http = self._new_http(b"")
        self._bypass: _Bypass | None = None
        self._idle = trio.CancelScope()
        self._is_ending = False

    def end_when_idle(self) -> None:
        """Close after the exchange under way; at once if there is none."""
        self._is_ending = True
        self._idle.cancel()

    async def run(self) -> None:
        """Answer requests until either side has enough."""
        try:
            async with self._line:
                while await self._exchange():
                    self._begin_next()
                await self._linger()
        except (ConnectionLostError, _PlannedEndError, trio.BrokenResourceError):
            pass

    async def _exchange(self) -> bool:
        """Answer one request; return whether there can be another."""
        try:
            head = await self._next_head()
        except h11.RemoteProtocolError as error:
            await self._refuse(error)
            return False
        if head is None:
            return False
        self._bypass = self._bypass_for(head)
        try:
            async with aclosing(self._body()) as body:
                request = Request(
                    method=head.method.decode("ascii"),
                    target=head.target.decode("latin-1"),
                    headers=list(head.headers),
                    body=body,
                )
                response = await self._application.answer(request)
        except h11.RemoteProtocolError as error:
            await self._refuse(error)
            return False
        except (ConnectionLostError, trio.BrokenResourceError):
            raise
        except Exception:  # noqa: BLE001  # a bug of ours costs one answer, not the service
            _log.exception("%r %r failed", head.method, head.target)
            refusal = RefusedError(
                500,
                "The server had an error while processing your request. Sorry about that!",
                kind="server_error",
            )
            response = json_response(bodies.error_body(refusal), status=500)
        try:
            await self._send(response, is_head_only=head.method == b"HEAD")
        finally:
            response.close()
        return await self._is_reusable()

    # Receiving

    async def _next_head(self) -> h11.Request | None:
        self._idle = trio.CancelScope(deadline=trio.current_time() + self._limits.idle_s)
        with self._idle:
            if self._is_ending:
                return None
            event = await self._next_event()
            return event if isinstance(event, h11.Request) else None
        return None

    async def _next_event(self) -> h11.Event | type[h11.PAUSED]:
        while True:
            event = self._http.next_event()
            if not isinstance(event, type) or event is h11.PAUSED:
                return event
            self._http.receive_data(await self._line.receive_some(self._receivable_bytes()))

    def _receivable_bytes(self) -> int:
        """Return how much to receive at once: never more of a head than is allowed."""
        if self._http.their_state is not h11.IDLE:
            return _RECEIVE_BYTES
        pending, _ = self._http.trailing_data
        return self._limits.head_bytes_max + 1 - len(pending)

    async def _body(self) -> AsyncGenerator[bytes, None]:
        if self._http.they_are_waiting_for_100_continue:
            go_on = h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue")
            await self._line.send_all(self._http.send(go_on) or b"")
        while True:
            with trio.move_on_after(self._limits.stall_s) as patience:
                piece = await self._next_piece()
            if patience.cancelled_caught:
                raise ConnectionLostError
            if piece is None:
                return
            yield piece

    async def _next_piece(self) -> bytes | None:
        """Return the next bytes of the body, or None at its end."""
        if self._bypass is not None:
            return await self._bypass.next_piece(self._line)
        match await self._next_event():
            case h11.Data() as received:
                return bytes(received.data)
            case h11.EndOfMessage():
                return None
            case _:
                raise ConnectionLostError

    def _bypass_for(self, head: h11.Request) -> _Bypass | None:
        """Return how to read a large body past h11, or None to read it through h11."""
        headers = dict(head.headers)
        if b"transfer-encoding" in headers:
            return None
        length_bytes = int(headers.get(b"content-length", b"0"))
        if length_bytes < _BYPASS_BYTES_MIN:
            return None
        received, _ = self._http.trailing_data
        return _Bypass(received, length_bytes)

    def _begin_next(self) -> None:
        if self._bypass is None:
            self._http.start_next_cycle()
        else:
            # h11 still waits for the body that went past it.
            self._http = self._new_http(self._bypass.beyond)
            self._bypass = None

    def _new_http(self, received: bytes) -> h11.Connection:
        http = h11.Connection(h11.SERVER, max_incomplete_event_size=self._limits.head_bytes_max)
        if received:
            http.receive_data(received)
        return http

    def _has_whole_body(self) -> bool:
        if self._bypass is not None:
            return self._bypass.left_bytes == 0
        return self._http.their_state in {h11.DONE, h11.CLOSED}

    async def _is_reusable(self) -> bool:
        """Read what is left of an unwanted body, if it is little, and say what comes next."""
        unread_bytes = 0
        if not self._http.they_are_waiting_for_100_continue:
            with trio.move_on_after(self._limits.unread_s):
                while not self._has_whole_body() and unread_bytes < self._limits.unread_bytes_max:
                    unread_bytes += len(await self._next_piece() or b"")
        is_whole = self._has_whole_body() and self._http.their_state is not h11.CLOSED
        return is_whole and self._http.our_state is h11.DONE and not self._is_ending

    async def _linger(self) -> None:
        """Let the peer see the last answer: closing with bytes unread would reset it away."""
        if self._http.their_state is h11.IDLE or self._has_whole_body():
            return
        with trio.move_on_after(self._limits.unread_s):
            await self._line.send_eof()
            while await self._line.receive_some(_RECEIVE_BYTES):
                pass

    # Sending

    async def _refuse(self, error: h11.RemoteProtocolError) -> None:
        """Answer something that is not HTTP, or has too large a head."""
        if self._http.our_state not in {h11.IDLE, h11.SEND_RESPONSE}:
            raise ConnectionLostError
        refusal = RefusedError(error.error_status_hint, str(error))
        await self._send(
            json_response(bodies.error_body(refusal), status=refusal.status), is_head_only=False
        )

    async def _send(self, response: Response, *, is_head_only: bool) -> None:
        fault = response.wire_fault
        is_an_end = fault is not None and fault.action in {Action.CUT, Action.RESET}
        if fault is not None and is_an_end and fault.bytes is None:
            await self._end_by_plan(fault)
        head = self._head(response, delta=0 if fault is None else fault.delta)
        is_too_much = fault is not None and fault.action is Action.SURPLUS
        surplus = b"x" * (fault.bytes or 1) if fault is not None and is_too_much else b""
        if is_head_only:
            await self._send_all(head + (self._http.send(h11.EndOfMessage()) or b""))
        elif fault is not None and fault.action is not Action.SURPLUS:
            await self._send_faulty(head, response, fault)
        elif isinstance(response.body, BlobPart):
            await self._send_all(head)
            await self._send_blob(response.body)
            await self._send_all((self._http.send(h11.EndOfMessage()) or b"") + surplus)
        else:
            body = self._http.send(h11.Data(data=response.body)) or b""
            end = self._http.send(h11.EndOfMessage()) or b""
            await self._send_all(head + body + end + surplus)

    def _head(self, response: Response, *, delta: int) -> bytes:
        headers = [
            *response.headers,
            ("Content-Length", str(max(0, response.length_bytes + delta))),
            ("Date", formatdate(self._application.service.clock.wall_ns() / NS_PER_S, usegmt=True)),
        ]
        if self._is_ending:
            headers.append(("Connection", "close"))
        head = h11.Response(
            status_code=response.status, headers=headers, reason=_reason(response.status)
        )
        return self._http.send(head) or b""

    async def _send_all(self, piece: bytes) -> None:
        with trio.move_on_after(self._limits.stall_s) as patience:
            await self._line.send_all(piece)
        if patience.cancelled_caught:
            raise ConnectionLostError

    async def _send_blob(self, part: BlobPart) -> None:
        """Send the bytes of a file past h11, which only counts them."""
        promise = _Promise(part.length_bytes)
        self._http.send_with_data_passthrough(h11.Data(data=promise))  # type: ignore[arg-type]  # h11 allows anything with a length here
        await self._line.send_file(
            part.fd, part.offset, part.length_bytes, stall_s=self._limits.stall_s
        )

    async def _send_faulty(self, head: bytes, response: Response, fault: WireFault) -> None:
        left_bytes = fault.sent_bytes(response.length_bytes)
        await self._send_all(head)
        for piece in response.pieces():
            sent = piece[:left_bytes]
            left_bytes -= len(sent)
            if fault.action is Action.DRIP:
                await self._send_drip(sent, fault.seconds or 0.0)
            else:
                await self._send_all(sent)
        if fault.action is Action.STALL:
            await self._fall_silent(fault.seconds)
        await self._end_by_plan(fault)

    async def _send_drip(self, piece: bytes, seconds: float) -> None:
        for index in range(len(piece)):
            await trio.sleep(seconds)
            await self._send_all(piece[index : index + 1])

    async def _fall_silent(self, seconds: float | None) -> None:
        with trio.move_on_after(float("inf") if seconds is None else seconds):
            # Ends early when the peer has had enough.
            while await self._line.receive_some(_RECEIVE_BYTES):
                pass

    async def _end_by_plan(self, fault: WireFault) -> NoReturn:
        if fault.action is Action.RESET:
            self._line.reset()
        else:
            await self._line.send_eof()
            # Closing with bytes unread would be a reset.
            with trio.move_on_after(self._limits.unread_s):
                while await self._line.receive_some(_RECEIVE_BYTES):
                    pass
        raise _PlannedEndError


def _reason(status: int) -> bytes:
    try:
        return HTTPStatus(status).phrase.encode("ascii")
    except ValueError:
        return b""


class _Bypass:
    """A body of known length, read straight from the stream.

    Attributes:
        left_bytes: How much of the body is still to be read.
        beyond: What had already been received of the next request.
    """

    def __init__(self, received: bytes, length_bytes: int) -> None:
        self._first = received[:length_bytes]
        self.beyond = received[length_bytes:]
        self.left_bytes = length_bytes

    async def next_piece(self, line: Line) -> bytes | None:
        if self.left_bytes == 0:
            return None
        piece, self._first = self._first, b""
        # Never more than the body, so that nothing of the next request is lost.
        piece = piece or await line.receive_some(min(_RECEIVE_BYTES, self.left_bytes))
        if not piece:
            raise ConnectionLostError
        self.left_bytes -= len(piece)
        return bytes(piece)


class _Promise:
    """Stands for bytes that the kernel sends, so that h11 can count them.

    Source: h11's documentation, "Sending large files with sendfile".
    """

    def __init__(self, length_bytes: int) -> None:
        self._length_bytes = length_bytes

    def __len__(self) -> int:
        return self._length_bytes
