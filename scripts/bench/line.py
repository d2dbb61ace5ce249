"""A line of a given round trip before one or more servers: delay, and nothing else.

A process of its own: ``python -m scripts.bench.line DELAY_S TARGET_PORT …`` listens on a free
port of 127.0.0.1 for each target, prints these ports, and carries bytes until its standard
input ends. What a program sends arrives ``DELAY_S`` later, in any amount: bandwidth is
unlimited. Making a connection takes a round trip, as a TCP handshake does.

Written with sockets and ``select`` alone: it must carry a gigabyte a second and more, so that
what is measured is never the line (``ceiling_bytes_per_s``).
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Final

# Larger pieces fall out of the processor's cache between the two copies.
_PIECE_BYTES: Final = 256 * 1024
# So much may be under way in one direction: 100 ms at 2.5 GB/s. Beyond it the sender waits.
_UNDER_WAY_BYTES_MAX: Final = 256 * 1024 * 1024
_BACKLOG: Final = 256
_START_DEADLINE_S: Final = 20.0
_CEILING_BYTES: Final = 512 * 1024 * 1024


class _Way:
    """One direction of one connection: what was sent, and when each piece arrives."""

    def __init__(self, source: socket.socket, sink: socket.socket, *, open_from_s: float) -> None:
        self.source = source
        self.sink = sink
        self.open_from_s = open_from_s
        self.pieces: deque[tuple[float, memoryview]] = deque()
        self.under_way_bytes = 0
        self.is_ended = False
        self.is_done = False
        self.is_blocked = False

    def take_in(self, *, now_s: float, delay_s: float) -> None:
        """Read what has come; the end of the stream travels as an empty piece."""
        piece = self.source.recv(_PIECE_BYTES)
        self.is_ended = not piece
        self.under_way_bytes += len(piece)
        due_s = max(now_s, self.open_from_s) + delay_s
        self.pieces.append((due_s, memoryview(piece)))

    def give_out(self, *, now_s: float) -> None:
        """Send what is due, as much as the other end takes."""
        self.is_blocked = False
        while self.pieces and self.pieces[0][0] <= now_s:
            due_s, piece = self.pieces[0]
            if not piece:
                self.sink.shutdown(socket.SHUT_WR)
                self.is_done = True
                self.pieces.clear()
                return
            try:
                sent = self.sink.send(piece)
            except BlockingIOError:
                self.is_blocked = True
                return
            self.under_way_bytes -= sent
            if sent < len(piece):
                self.pieces[0] = (due_s, piece[sent:])
                self.is_blocked = True
                return
            self.pieces.popleft()

    @property
    def takes_more(self) -> bool:
        """Whether the source should be read."""
        return not self.is_ended and self.under_way_bytes < _UNDER_WAY_BYTES_MAX


class _Link:
    """One connection; its far side is opened one delay after its near side."""

    def __init__(self, near: socket.socket, port: int, *, now_s: float, delay_s: float) -> None:
        self.near = near
        self.port = port
        self.connects_at_s = now_s + delay_s
        # The first byte of a client can leave when its handshake is over: a round trip from now.
        self.client_from_s = now_s + 2 * delay_s
        self.ways: tuple[_Way, ...] = ()
        self.interest: dict[int, int] = {}
        # The one entry of the agenda that counts; None: none does.
        self.wakes_at_s: float | None = None

    @property
    def due_s(self) -> float | None:
        """When the next piece arrives at an end that takes it."""
        times = [way.pieces[0][0] for way in self.ways if way.pieces and not way.is_blocked]
        return min(times, default=None)

    def connect(self) -> None:
        far = socket.create_connection(("127.0.0.1", self.port))
        for each in (self.near, far):
            each.setblocking(False)  # noqa: FBT003  # the standard library's
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.ways = (
            _Way(self.near, far, open_from_s=self.client_from_s),
            _Way(far, self.near, open_from_s=0.0),
        )

    def close(self) -> None:
        self.near.close()
        for way in self.ways:
            way.source.close()
        self.wakes_at_s = None


class Carrier:
    """The loop that carries all connections of one process."""

    def __init__(self, ports: Sequence[int], *, delay_s: float) -> None:
        self._delay_s = delay_s
        self._poll = select.epoll()
        self._listeners: dict[int, tuple[socket.socket, int]] = {}
        self._ways: dict[int, tuple[_Link, _Way, _Way]] = {}
        # When something falls due, and for which link; entries may be out of date.
        self._agenda: list[tuple[float, int, _Link]] = []
        self._order = itertools.count()
        for port in ports:
            listener = socket.create_server(("127.0.0.1", 0), backlog=_BACKLOG)
            listener.setblocking(False)  # noqa: FBT003  # the standard library's
            self._listeners[listener.fileno()] = (listener, port)
            self._poll.register(listener, select.EPOLLIN)

    @property
    def ports(self) -> list[int]:
        """Where it listens, in the order of its targets."""
        return [listener.getsockname()[1] for listener, _ in self._listeners.values()]

    def run(self, end_fd: int) -> None:
        """Carry until ``end_fd`` can be read."""
        self._poll.register(end_fd, select.EPOLLIN)
        while True:
            # epoll waits in milliseconds, select in microseconds.
            wait_s = max(0.0, self._agenda[0][0] - time.monotonic()) if self._agenda else None
            if wait_s != 0.0:
                select.select([self._poll], [], [], wait_s)
            for fd, _ in self._poll.poll(0):
                if fd == end_fd:
                    return
                if fd in self._listeners:
                    self._accept(*self._listeners[fd])
                elif fd in self._ways:
                    self._serve(fd)
            self._serve_due()

    def _accept(self, listener: socket.socket, port: int) -> None:
        with contextlib.suppress(BlockingIOError):
            near, _ = listener.accept()
            link = _Link(near, port, now_s=time.monotonic(), delay_s=self._delay_s)
            self._wake(link, link.connects_at_s)

    def _wake(self, link: _Link, at_s: float) -> None:
        if link.wakes_at_s is None or at_s < link.wakes_at_s:
            link.wakes_at_s = at_s
            heapq.heappush(self._agenda, (at_s, next(self._order), link))

    def _serve_due(self) -> None:
        while self._agenda and self._agenda[0][0] <= time.monotonic():
            at_s, _, link = heapq.heappop(self._agenda)
            if at_s != link.wakes_at_s:
                continue
            link.wakes_at_s = None
            with self._breaking(link):
                if not link.ways:
                    self._open(link)
                for way in link.ways:
                    way.give_out(now_s=time.monotonic())
                self._settle(link)

    def _open(self, link: _Link) -> None:
        link.connect()
        there, back = link.ways
        self._ways[there.source.fileno()] = (link, there, back)
        self._ways[back.source.fileno()] = (link, back, there)

    def _serve(self, fd: int) -> None:
        """Read from ``fd`` if it has something, and write to it if something is due."""
        link, way, opposite = self._ways[fd]
        with self._breaking(link):
            now_s = time.monotonic()
            if way.takes_more:
                with contextlib.suppress(BlockingIOError):
                    way.take_in(now_s=now_s, delay_s=self._delay_s)
            opposite.give_out(now_s=now_s)
            self._settle(link)

    def _settle(self, link: _Link) -> None:
        """Ask to be told of what the link waits for now; close it once both ways are done."""
        if all(way.is_done for way in link.ways):
            self._drop(link)
            return
        there, back = link.ways
        for way, opposite in ((there, back), (back, there)):
            fd = way.source.fileno()
            interest = (select.EPOLLIN if way.takes_more else 0) | (
                select.EPOLLOUT if opposite.is_blocked else 0
            )
            self._watch(link, fd, interest)
        due_s = link.due_s
        if due_s is not None:
            self._wake(link, due_s)

    def _watch(self, link: _Link, fd: int, interest: int) -> None:
        before = link.interest.get(fd, 0)
        link.interest[fd] = interest
        if interest == before:
            return
        if interest == 0:
            # Else a connection that hung up would be reported again and again.
            self._poll.unregister(fd)
        elif before == 0:
            self._poll.register(fd, interest)
        else:
            self._poll.modify(fd, interest)

    @contextlib.contextmanager
    def _breaking(self, link: _Link) -> Iterator[None]:
        """Close a link whose either end broke off."""
        try:
            yield
        except OSError:
            self._drop(link)

    def _drop(self, link: _Link) -> None:
        for way in link.ways:
            self._ways.pop(way.source.fileno(), None)
        link.close()


class Line:
    """A running line; a context manager.

    Attributes:
        ports: Where it listens, by target port.
    """

    def __init__(self, target_ports: Sequence[int], *, round_trip_s: float) -> None:
        command = [sys.executable, "-m", "scripts.bench.line", str(round_trip_s / 2)]
        self._process = subprocess.Popen(
            [*command, *map(str, target_ports)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        words = self._process.stdout.readline().split()
        assert len(words) == len(target_ports), "the line did not start"
        self.ports = dict(zip(target_ports, map(int, words), strict=True))

    @property
    def pid(self) -> int:
        """The process that carries."""
        return self._process.pid

    def close(self) -> None:
        """End it; connections break off."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def ceiling_bytes_per_s(*, round_trip_s: float) -> float:
    """Return how fast a line carries one stream from a plain sender to a plain reader."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        line = Line([server.getsockname()[1]], round_trip_s=round_trip_s)
        try:
            (port,) = line.ports.values()
            sender = threading.Thread(target=_send_all, args=(server,), name="sender")
            sender.start()
            with socket.create_connection(("127.0.0.1", port)) as reader:
                buffer = bytearray(1 << 20)
                reader.recv_into(buffer, 1)
                began_s = time.perf_counter()
                got = 1
                while count := reader.recv_into(buffer):
                    got += count
                took_s = time.perf_counter() - began_s
            sender.join()
        finally:
            line.close()
    assert got == _CEILING_BYTES
    return got / took_s


def _send_all(server: socket.socket) -> None:
    stream, _ = server.accept()
    with stream:
        piece = bytes(1 << 20)
        for _ in range(_CEILING_BYTES // len(piece)):
            stream.sendall(piece)


def main() -> None:
    """Carry until standard input ends."""
    carrier = Carrier([int(each) for each in sys.argv[2:]], delay_s=float(sys.argv[1]))
    print(*carrier.ports, flush=True)
    carrier.run(sys.stdin.fileno())
    os._exit(0)


if __name__ == "__main__":
    main()
