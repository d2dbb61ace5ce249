"""The service as a process: opens the state, listens, says that it is ready, ends cleanly."""

from __future__ import annotations

import fcntl
import ipaddress
import logging
import os
import select
import signal
import sqlite3
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Final

import msgspec
import trio

from ctrfs.clock import SystemClock
from ctrfs.config import Secret
from ctrfs.errors import ConfigError
from ctrfs.server.application import Application
from ctrfs.server.behaviour import Behaviour
from ctrfs.server.http import Connection, WireLimits
from ctrfs.server.line import SocketLine
from ctrfs.server.service import Service
from ctrfs.server.state import ServiceState

log = logging.getLogger(__name__)

DEFAULT_PORT: Final = 8400
# A stopping service lets answers under way finish this long.
_GRACE_S: Final = 5.0
_EXPIRY_INTERVAL_S: Final = 60.0
_BACKLOG: Final = 512


class TcpAddress(msgspec.Struct, frozen=True, kw_only=True):
    """A host and a port; port 0 is any that is free."""

    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


class UnixAddress(msgspec.Struct, frozen=True, kw_only=True):
    """A socket in the file system, which only its owner may use."""

    path: Path


class ServeConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What ``ctrfs serve`` was asked for."""

    data: Path
    address: TcpAddress | UnixAddress = msgspec.field(default_factory=TcpAddress)
    api_key: Secret | None = None
    """The only key accepted; None accepts any, on a loopback address or a unix socket."""
    behaviour: Behaviour = msgspec.field(default_factory=Behaviour)
    limits: WireLimits = msgspec.field(default_factory=WireLimits)
    has_control: bool = False
    ends_with_stdin: bool = False
    is_durable: bool = True
    """Whether an acknowledged change survives a power cut."""

    def __post_init__(self) -> None:
        is_reachable = isinstance(self.address, TcpAddress) and not self.address.is_loopback
        if is_reachable and self.api_key is None:
            raise ConfigError(
                "an address that other machines reach needs --api-key"
                " (or CTRFS_SERVER_API_KEY in the environment)"
            )


def address_from_text(text: str) -> TcpAddress | UnixAddress:
    """Return the address that ``HOST:PORT``, ``[IPv6]:PORT`` or ``unix:PATH`` names.

    Raises:
        ConfigError: ``text`` is none of these.
    """
    if text.startswith("unix:"):
        if text == "unix:":
            raise ConfigError("unix: needs the path of a socket")
        return UnixAddress(path=Path(text.removeprefix("unix:")))
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ConfigError(f"not an address: {text!r} (write HOST:PORT or unix:PATH)")
    return TcpAddress(host=host.removeprefix("[").removesuffix("]"), port=int(port))


async def run_service(config: ServeConfig, *, on_ready: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT, or, if asked for, until stdin ends.

    Args:
        config: Where and how.
        on_ready: Called once, with the base URL, when connections are accepted.

    Raises:
        ConfigError: The data directory or the address cannot be used.
    """
    state = ServiceState(config.data, is_durable=config.is_durable)
    try:
        service = Service(state=state, clock=SystemClock(), behaviour=config.behaviour)
        application = Application(service, api_key=config.api_key, has_control=config.has_control)
        listeners = await _listeners(config.address)
        try:
            await _serve(config, application, listeners, on_ready)
        finally:
            if isinstance(config.address, UnixAddress):
                config.address.path.unlink(missing_ok=True)
    finally:
        state.close()


async def _serve(
    config: ServeConfig,
    application: Application,
    listeners: list[trio.SocketListener],
    on_ready: Callable[[str], None],
) -> None:
    connections: set[Connection] = set()

    async def attend(stream: trio.SocketStream) -> None:
        if len(connections) >= config.limits.connections_max:
            await stream.aclose()
            return
        connection = Connection(SocketLine(stream), application, config.limits)
        connections.add(connection)
        try:
            await connection.run()
        finally:
            connections.discard(connection)

    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        # Connections outlive the listeners: they get a while to finish.
        async with trio.open_nursery() as attending:
            application.service.state.blobs.start_soon = attending.start_soon
            async with trio.open_nursery() as listening:
                await listening.start(_listen, attend, listeners, attending)
                listening.start_soon(_expire_now_and_then, application.service)
                on_ready(_base_url(config.address, listeners[0]))
                await _wait_for_end(signals, ends_with_stdin=config.ends_with_stdin)
                listening.cancel_scope.cancel()
            for connection in list(connections):
                connection.end_when_idle()
            attending.cancel_scope.deadline = trio.current_time() + _GRACE_S


async def _listen(
    attend: Callable[[trio.SocketStream], Awaitable[None]],
    listeners: list[trio.SocketListener],
    attending: trio.Nursery,
    *,
    task_status: trio.TaskStatus[list[trio.SocketListener]],
) -> None:
    await trio.serve_listeners(
        attend, listeners, handler_nursery=attending, task_status=task_status
    )


async def _expire_now_and_then(service: Service) -> None:
    """Give back the disk space of expired containers that nobody asks about."""
    while True:
        try:
            service.expire_due()
        except (sqlite3.Error, OSError) as error:
            # A full disk, say: others may make room, and answers need none.
            log.warning("cannot drop the data of expired containers: %s", error)
        await trio.sleep(_EXPIRY_INTERVAL_S)


async def _wait_for_end(signals: AsyncIterator[int], *, ends_with_stdin: bool) -> None:
    async with trio.open_nursery() as nursery:

        async def wait_for_signal() -> None:
            await anext(signals)
            nursery.cancel_scope.cancel()

        async def wait_for_stdin() -> None:
            # A thread, as stdin may be a terminal or a pipe that others use: making it
            # non-blocking would change it for them too.
            while await trio.to_thread.run_sync(_stays_open, 0, abandon_on_cancel=True):
                pass
            nursery.cancel_scope.cancel()

        nursery.start_soon(wait_for_signal)
        if ends_with_stdin:
            nursery.start_soon(wait_for_stdin)


def _stays_open(fd: int) -> bool:
    """Block until something comes or the input ends; whether there is more to wait for.

    Once the last writer of a named pipe has gone, the next may come at any moment. Who locks
    the pipe decides: a writer that has the lock is seen here and keeps the service; one that
    comes later waits for it until the process has ended, which never lets it go before.
    """
    if os.read(fd, 4096):
        return True
    if not stat.S_ISFIFO(os.fstat(fd).st_mode):
        return False
    fcntl.flock(fd, fcntl.LOCK_EX)
    poller = select.poll()
    # That nobody writes is always told. Source: poll(2), POLLHUP.
    poller.register(fd, 0)
    if poller.poll(0):
        return False
    fcntl.flock(fd, fcntl.LOCK_UN)
    return True


async def _listeners(address: TcpAddress | UnixAddress) -> list[trio.SocketListener]:
    try:
        if isinstance(address, TcpAddress):
            return await trio.open_tcp_listeners(address.port, host=address.host, backlog=_BACKLOG)
        return [await _unix_listener(address.path)]
    except OSError as error:
        shown = (
            address.path if isinstance(address, UnixAddress) else f"{address.host}:{address.port}"
        )
        raise ConfigError(f"cannot listen on {shown}: {error.strerror or error}") from error


async def _unix_listener(path: Path) -> trio.SocketListener:
    socket_path = trio.Path(path)
    if await socket_path.is_socket():
        await _remove_if_abandoned(socket_path)
    listening = trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM)
    # The mode of the socket follows the mask; there is no moment when others could connect.
    mask = os.umask(0o177)
    try:
        await listening.bind(str(path))
    except OSError:
        listening.close()
        raise
    finally:
        os.umask(mask)
    listening.listen(_BACKLOG)
    return trio.SocketListener(listening)


async def _remove_if_abandoned(path: trio.Path) -> None:
    try:
        stream = await trio.open_unix_socket(path)
    except ConnectionRefusedError:
        await path.unlink()
        return
    await stream.aclose()
    raise ConfigError(f"another server listens on {path}")


def _base_url(address: TcpAddress | UnixAddress, listener: trio.SocketListener) -> str:
    if isinstance(address, UnixAddress):
        return f"unix:{address.path}"
    port = listener.socket.getsockname()[1]
    host = f"[{address.host}]" if ":" in address.host else address.host
    return f"http://{host}:{port}/v1"
