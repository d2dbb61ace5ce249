"""The wire: addresses, the key, and one exchange of request and answer."""

from __future__ import annotations

import importlib.metadata
import logging
import math
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Final, NoReturn
from urllib.parse import quote, urlencode

import httpx
import msgspec
import trio
from msgspec.structs import replace

from ctrfs import errors
from ctrfs.api.answer import Answer
from ctrfs.api.connections import CLOSE_TIMEOUT_S, Connection, Connections, TransportFactory
from ctrfs.api.failures import (
    BEFORE_SENDING,
    AttemptFailedError,
    failure_from_answer,
    failure_from_exception,
)
from ctrfs.api.health import ServiceHealth
from ctrfs.api.hosts import is_loopback
from ctrfs.api.keyring import Keyring, check_key, is_sendable
from ctrfs.api.line import Line, Trial
from ctrfs.api.multipart import MultipartBody, PieceStream
from ctrfs.api.redaction import Redactor
from ctrfs.api.retry import Attempts, retry_after_s
from ctrfs.clock import Clock
from ctrfs.config import ApiConfig, AuthStyle, Secret
from ctrfs.units import KIB, NS_PER_S

log = logging.getLogger("ctrfs.api")

ERROR_BODY_BYTES_MAX: Final = 64 * KIB
# An answer takes a second or two; after so much silence the service does not keep up.
SILENCE_S: Final = 10.0


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """One request, as often as it is sent.

    Attributes:
        operation: What the log calls it.
        method: The HTTP method.
        segments: The path below the base URL, unquoted.
        query: Added to the query of the base URL.
        headers: Added to those of every request.
        json: A JSON body; not together with ``upload``.
        upload: A multipart body.
        is_transfer: Whether file bytes travel; such calls leave some connections to others.
        on_turn: Told each time that the request is about to be sent, after waiting for its turn.
    """

    operation: str
    method: str
    segments: tuple[str, ...]
    query: tuple[tuple[str, str], ...] = ()
    headers: tuple[tuple[str, str], ...] = ()
    json: bytes | None = None
    upload: MultipartBody | None = None
    is_transfer: bool = False
    on_turn: Callable[[], None] = lambda: None


class Session:
    """Sends calls to one service as one user.

    Owner: of all connections; ``aclose`` closes them.
    """

    def __init__(
        self,
        config: ApiConfig,
        *,
        clock: Clock,
        redactor: Redactor,
        transport_factory: TransportFactory | None = None,
    ) -> None:
        """Prepare a session; connections are made when they are needed.

        Raises:
            ConfigError: The address, the key or another header cannot be sent, or a limit
                allows no request at all.
        """
        if config.connections_max < 1:
            raise errors.ConfigError("connections must be at least 1")
        self._clock = clock
        self._redactor = redactor
        self._base_url = _base_url(config.base_url)
        self._headers = _headers(config)
        self._auth = config.auth
        self._keyring = Keyring(
            config.key, read_again=config.read_key, redactor=redactor, clock=clock
        )
        self._silence_s = min(SILENCE_S, config.metadata_timeout_s / 2)
        self._timeout = httpx.Timeout(
            connect=config.connect_timeout_s,
            read=config.stall_timeout_s,
            write=config.stall_timeout_s,
            pool=None,
        )
        self._line = Line(config, silence_s=self._silence_s, clock=clock)
        self._connections = Connections(
            config,
            needs_tls=self._base_url.scheme == "https",
            # What goes to this machine unencrypted must not take the way over another one.
            trusts_proxies=not is_loopback(self._base_url.host),
            transport_factory=transport_factory,
        )

    async def aclose(self) -> None:
        """Close the connections that are not in use."""
        await self._connections.aclose()

    @property
    def health(self) -> ServiceHealth:
        """How the service does, as far as this session's requests have shown."""
        return self._line.health

    def ask_again(self) -> None:
        """See ``ContainersApi.ask_again``."""
        self._line.ask_again()

    def url(self, call: Call) -> httpx.URL:
        """Return the address of ``call``; the query of the base URL is kept.

        Raises:
            RemoteNotFoundError: A segment would be read as a direction, not as a name.
        """
        for segment in call.segments:
            if segment in {"", ".", ".."}:
                raise errors.RemoteNotFoundError(f"the service cannot have the id {segment!r}")
        try:
            path = "".join("/" + quote(segment, safe="") for segment in call.segments)
            query = urlencode(call.query)
        except UnicodeEncodeError as error:
            raise errors.RemoteNotFoundError("an id or name is not valid Unicode") from error
        base_path, _, base_query = self._base_url.raw_path.partition(b"?")
        raw_path = base_path.rstrip(b"/") + path.encode("ascii")
        queries = b"&".join(part for part in (base_query, query.encode("ascii")) if part)
        return self._base_url.copy_with(raw_path=raw_path + (b"?" + queries if queries else b""))

    @asynccontextmanager
    async def exchange(self, call: Call, attempts: Attempts) -> AsyncIterator[Answer]:
        """Send ``call`` once; inside the block its answer, a success, can be read.

        Waits for its turn and for the head of the answer. Leaving the block before
        the body has been read to its end, or by cancellation, closes the connection. Where
        the service refuses the key and there is a newer one, sends it once more with that.

        Raises:
            AttemptFailedError: No answer, or one that is not a success; also if the
                connection breaks while the body is read inside the block.
        """
        key = self._keyring.key
        async with AsyncExitStack() as stack:
            try:
                answer = await stack.enter_async_context(self._exchange(call, attempts, key))
            except AttemptFailedError as error:
                if error.failure.status != 401:
                    raise
                attempts.was_sent = False  # a refused request is not done
                if not await self._keyring.renew(key):
                    raise
                key = self._keyring.key
                answer = await stack.enter_async_context(self._exchange(call, attempts, key))
            yield answer

    @asynccontextmanager
    async def _exchange(
        self, call: Call, attempts: Attempts, key: Secret | None
    ) -> AsyncIterator[Answer]:
        url = self.url(call)
        async with (
            self._line.attempt(
                is_transfer=call.is_transfer, deadline_s=attempts.deadline_s
            ) as trial,
            self._connections.lease() as connection,
        ):
            report = _Report(started_s=trial.started_s)
            call.on_turn()
            try:
                request = self._request(call, url, attempts, key)
                attempts.was_sent = True
                with _limited(trial, call):
                    response = await connection.send(request)
                report.answered(response)
                self._learn(trial, response)
                async with _reading(response, connection) as answer:
                    if not response.is_success:
                        await self._refuse(answer)
                    yield answer
            except httpx.HTTPError as error:
                failure = failure_from_exception(
                    error, redactor=self._redactor, was_sent=attempts.was_sent
                )
                report.outcome = f"{type(failure.error).__name__}: {failure.error}"
                if not isinstance(failure.error, errors.RemoteProtocolError):
                    goes_on = trial.unanswered(
                        str(failure.error),
                        is_timeout=isinstance(error, httpx.TimeoutException),
                        is_connected=not isinstance(error, BEFORE_SENDING),
                    )
                    failure = replace(failure, is_final=not goes_on)
                raise AttemptFailedError(failure) from error
            except AttemptFailedError as error:
                report.outcome = f"{type(error.failure.error).__name__}: {error}"
                raise
            except BaseException as error:
                # A cancellation, or what the reader of the body makes of it.
                is_cancelled = isinstance(error, trio.Cancelled)
                report.outcome = "given up" if is_cancelled else f"{type(error).__name__}: {error}"
                if self._has_waited_in_vain(call, trial, attempts):
                    waited_s = self._clock.monotonic_s() - trial.started_s
                    trial.unanswered(
                        f"no answer within {waited_s:.0f} s", is_timeout=True, is_connected=True
                    )
                raise
            finally:
                self._log(call, report)

    def _learn(self, trial: Trial, response: httpx.Response) -> None:
        wall_s = self._clock.wall_ns() / NS_PER_S
        asked_s = retry_after_s(response.headers, wall_s=wall_s)
        trial.answered(response.status_code, asked_s=asked_s)

    def _has_waited_in_vain(self, call: Call, trial: Trial, attempts: Attempts) -> bool:
        """Return whether a call that is being cut off has waited long enough for its answer.

        Not so for a program that was interrupted, for an attempt that began just before the
        deadline, and for an upload, whose bytes may have been on their way all the time.
        """
        now_s = self._clock.monotonic_s()
        return (
            call.upload is None
            and now_s >= attempts.deadline_s
            and now_s - trial.started_s >= self._silence_s
        )

    async def _refuse(self, answer: Answer) -> NoReturn:
        body = bytearray()
        try:
            while len(body) < ERROR_BODY_BYTES_MAX and (piece := await answer.next_piece()):
                body += piece
        except httpx.HTTPError as error:
            # A server that refuses an upload early may cut the line behind its answer. The
            # status alone says enough.
            self._redactor.exception(error)
        raise AttemptFailedError(
            failure_from_answer(
                answer.status,
                answer.headers,
                bytes(body[:ERROR_BODY_BYTES_MAX]),
                redactor=self._redactor,
            )
        )

    def _request(
        self, call: Call, url: httpx.URL, attempts: Attempts, key: Secret | None
    ) -> httpx.Request:
        # Written out, as httpx's own way wraps every body in an async generator, which a
        # broken connection then leaves unfinished; trio complains about those.
        headers = {"Host": url.netloc.decode("ascii"), **self._headers, **dict(call.headers)}
        if key is not None and self._auth is AuthStyle.API_KEY_HEADER:
            headers["api-key"] = key.reveal()
        elif key is not None:
            headers["Authorization"] = f"Bearer {key.reveal()}"
        body = PieceStream(lambda: iter(()))
        if call.upload is not None:
            headers["Content-Type"] = call.upload.content_type
            headers["Content-Length"] = str(call.upload.length_bytes)
            body = call.upload.stream()
        elif call.json is not None:
            json = call.json
            headers["Content-Type"] = "application/json"
            headers["Content-Length"] = str(len(json))
            body = PieceStream(lambda: iter((json,)))

        async def trace(event: str, _details: object) -> None:
            # Until the line stands, nothing has left this machine. A transport that does not
            # trace counts as having sent at once.
            if event.endswith((".connect_tcp.started", ".connect_unix_socket.started")):
                attempts.was_sent = False
            elif event.endswith(".send_request_headers.started"):
                attempts.was_sent = True

        return httpx.Request(
            call.method,
            url,
            headers=headers,
            stream=body,
            extensions={"timeout": self._timeout.as_dict(), "trace": trace},
        )

    def _log(self, call: Call, report: _Report) -> None:
        passed_ms = (self._clock.monotonic_s() - report.started_s) * 1000
        line = (
            f"{call.operation} {call.method} /{'/'.join(call.segments)} "
            f"{report.status or '-'} {report.request_id or '-'} {passed_ms:.0f} ms"
        )
        if report.outcome:
            line += f" {report.outcome}"
        level = logging.INFO if report.outcome else logging.DEBUG
        log.log(level, "%s", self._redactor.line(line, characters_max=1000))


class _Report:
    """What the log line of one exchange tells."""

    def __init__(self, *, started_s: float) -> None:
        self.started_s = started_s
        self.status: int | None = None
        self.request_id: str | None = None
        self.outcome = ""

    def answered(self, response: httpx.Response) -> None:
        self.status = response.status_code
        self.request_id = response.headers.get("x-request-id")


@contextmanager
def _limited(trial: Trial, call: Call) -> Iterator[None]:
    """Let a probe wait no longer for its answer than a probe may.

    Raises:
        httpx.ReadTimeout: It has.
    """
    # The bytes of an upload may take longer; the silence between them has its own limit.
    seconds = math.inf if call.upload is not None else trial.probe_s
    with trio.move_on_after(seconds) as scope:
        yield
    if scope.cancelled_caught:
        raise httpx.ReadTimeout(f"no answer within {seconds:.0f} s")


@asynccontextmanager
async def _reading(response: httpx.Response, connection: Connection) -> AsyncIterator[Answer]:
    answer = Answer(response)
    try:
        yield answer
    finally:
        connection.is_reusable = answer.is_ended
        if not answer.is_ended:
            with trio.move_on_after(CLOSE_TIMEOUT_S, shield=True):
                await response.aclose()
                await answer.run_dry()


def _base_url(text: str) -> httpx.URL:
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL as error:
        raise errors.ConfigError(f"the address of the service is not a URL: {error}") from error
    if url.scheme not in {"http", "https"} or not url.host:
        raise errors.ConfigError("the address of the service must start with https:// or http://")
    if url.userinfo:
        raise errors.ConfigError("the address of the service must not hold a user or password")
    return url.copy_with(fragment=None)


def _headers(config: ApiConfig) -> dict[str, str]:
    version = importlib.metadata.version("ctrfs")
    headers = {
        "User-Agent": f"ctrfs/{version}",
        "Accept": "*/*",
        # Bytes must arrive as they are stored, and their length must be the announced one.
        "Accept-Encoding": "identity",
        # A plain delete has once been a no-op without it. Source: docs/api-notes.md.
        "OpenAI-Beta": "containers=v1",
    }
    if config.organization:
        headers["OpenAI-Organization"] = config.organization
    if config.project:
        headers["OpenAI-Project"] = config.project
    if config.key is not None:
        check_key(config.key)
    for name in ("OpenAI-Organization", "OpenAI-Project"):
        if not is_sendable(headers.get(name, "-")):
            raise errors.ConfigError(f"the value for {name} holds characters that cannot be sent")
    return headers
