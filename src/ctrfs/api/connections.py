"""The connections to one service: httpx transports with room for one each.

How many are in use at once is the business of ``pacing``.

Transports and not clients: what a client adds (cookies, redirects, authentication, events) is
not wanted here, and is an eighth of the processor time of a small upload.

httpx's own pool looks at every connection for every request, which is quadratic in the number
of requests under way (docs/performance.md has the numbers).
"""

from __future__ import annotations

import ssl
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final

import httpcore
import httpx
import trio
from typing_extensions import override

from ctrfs import errors
from ctrfs.config import ApiConfig
from ctrfs.units import KIB

TransportFactory = Callable[[], httpx.AsyncBaseTransport]

# Many balancers drop a silent connection after 60 s; ours goes first, so that no request is
# sent into one that is just being closed.
KEEPALIVE_S: Final = 50.0
# A broken connection is closed on the way out of a cancelled call. TLS wants to say goodbye,
# and a peer that does not listen must not hold us up.
CLOSE_TIMEOUT_S: Final = 1.0
# httpcore reads 64 KiB from a socket at a time and spends as long on the way of each piece to us
# as on the reading. 256 MiB took 170 ms of CPU so, 110 with 128 KiB, 85 with 256, 80 to 110 with
# more; small answers cost the same.
_RECEIVE_BYTES: Final = 256 * KIB


class Connection:
    """One leased connection; whoever has read an answer to its end marks it reusable."""

    __slots__ = ("is_reusable", "transport")

    def __init__(self, transport: httpx.AsyncBaseTransport) -> None:
        self.transport = transport
        self.is_reusable = False

    async def send(self, request: httpx.Request) -> httpx.Response:
        """Return the answer once its head has come; raises what httpx raises."""
        response = await self.transport.handle_async_request(request)
        response.request = request
        return response


class Connections:
    """Transports of one connection each, made when needed.

    Invariant: no transport is both idle and leased.
    """

    def __init__(
        self,
        config: ApiConfig,
        *,
        needs_tls: bool,
        trusts_proxies: bool,
        transport_factory: TransportFactory | None,
    ) -> None:
        self._config = config
        self._transport_factory = transport_factory
        self._trusts_proxies = trusts_proxies
        # The one place where httpcore lets itself be told: for all of its connections.
        httpcore.AsyncHTTP11Connection.READ_NUM_BYTES = _RECEIVE_BYTES
        self._idle: list[httpx.AsyncBaseTransport] = []
        self._is_closed = False
        # One for all, as loading the certificates takes 30 ms. Without TLS it stays empty,
        # which trusts nobody.
        is_remote = config.unix_socket is None and transport_factory is None
        with _environment_to_blame():
            self._tls = (
                httpx.create_ssl_context()
                if needs_tls and is_remote
                else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            )

    @asynccontextmanager
    async def lease(self) -> AsyncIterator[Connection]:
        """Hold a connection; one that is not marked reusable at the end is closed."""
        connection = Connection(self._idle.pop() if self._idle else self._new_transport())
        try:
            yield connection
        finally:
            has_ended_well = connection.is_reusable and not _has_surplus(connection.transport)
            if has_ended_well and not self._is_closed:
                self._idle.append(connection.transport)
            else:
                await _close(connection.transport)

    async def aclose(self) -> None:
        """Close the idle connections; those on lease are closed when they come back."""
        self._is_closed = True
        while self._idle:
            await _close(self._idle.pop())

    def _new_transport(self) -> httpx.AsyncBaseTransport:
        if self._transport_factory is not None:
            return self._transport_factory()
        limits = httpx.Limits(
            max_connections=1, max_keepalive_connections=1, keepalive_expiry=KEEPALIVE_S
        )
        socket = self._config.unix_socket
        with _environment_to_blame():
            if socket is None and self._trusts_proxies and urllib.request.getproxies():
                return _ThroughProxies(
                    httpx.AsyncClient(verify=self._tls, limits=limits, trust_env=True)
                )
            return httpx.AsyncHTTPTransport(
                verify=self._tls, limits=limits, uds=None if socket is None else str(socket)
            )


class _ThroughProxies(httpx.AsyncBaseTransport):
    """A client as a transport: httpx itself knows which of the environment's proxies to take."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    @override
    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return await self._client.send(request, stream=True, follow_redirects=False)

    @override
    async def aclose(self) -> None:
        await self._client.aclose()


def _has_surplus(transport: httpx.AsyncBaseTransport) -> bool:
    """Tell whether bytes have come behind the end of an answer.

    httpcore keeps them and would take them for the next answer: that to another question. What
    comes later it notices by itself. There is no public way to ask; where the private one is
    gone, nothing has come (tests/faults/test_hostile_answers.py would notice).
    """
    pool: object = getattr(transport, "_pool", None)
    for connection in getattr(pool, "connections", ()):
        inner: object = getattr(connection, "_connection", None)
        wire: object = getattr(inner, "_h11_state", None)
        surplus: object = getattr(wire, "trailing_data", (b"", False))
        if surplus != (b"", False):
            return True
    return False


@contextmanager
def _environment_to_blame() -> Iterator[None]:
    """Put into words what httpx finds wrong with the variables that it reads itself.

    Raises:
        ConfigError: A proxy that it cannot use, or certificates that it cannot read.
    """
    try:
        yield
    # The words never hold a proxy's password: httpx shows its URLs without.
    except (ImportError, ValueError, httpx.InvalidURL, OSError) as error:
        raise errors.ConfigError(
            f"the proxy or certificate settings of the environment cannot be used: {error}"
        ) from error


async def _close(transport: httpx.AsyncBaseTransport) -> None:
    with trio.move_on_after(CLOSE_TIMEOUT_S, shield=True):
        await transport.aclose()
