"""The local Containers API service for tests: as a real process, or in this one without sockets.

Both offer the same controls (``ServiceControl``). The in-process one runs in the virtual time
of trio's ``MockClock``: nothing in it uses a thread or a real wait.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.parse
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Coroutine, Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar

import trio
from tests.support.in_process_transport import InProcessTransport
from typing_extensions import override

from ctrfs.clock import Clock
from ctrfs.config import Secret
from ctrfs.server.application import Application
from ctrfs.server.behaviour import Behaviour, changed_behaviour
from ctrfs.server.messages import Request
from ctrfs.server.service import Service
from ctrfs.server.state import ServiceState
from ctrfs.units import NS_PER_S

# The transport is asked for here, where its service is.
__all__ = [
    "TEST_KEY",
    "InProcessService",
    "InProcessTransport",
    "ServiceControl",
    "ServiceError",
    "ServiceProcess",
    "TrioClock",
    "quoted",
    "until_asked_for",
]

TEST_KEY: Final = "sk-test-key"
T = TypeVar("T")

_ROOT: Final = Path(__file__).parent.parent.parent
_STOP_TIMEOUT_S: Final = 15
_REQUEST_TIMEOUT_S: Final = 30
# 2026-01-01: where the in-process service's wall clock starts.
_WALL_START_NS: Final = 1_767_225_600 * NS_PER_S


class ServiceError(Exception):
    """The service answered a request of the test itself with something else than 200."""


class ServiceControl(ABC):
    """What a test can do to a service, and ask of it, beside the client under test.

    Requests made here count in ``counters`` and meet faults like all others, but for the
    controls themselves: prepare first, then ``reset_counters``.
    """

    @abstractmethod
    def request(
        self, method: str, path: str, body: bytes = b"", *, content_type: str = "application/json"
    ) -> bytes:
        """Return the body of the answer to one request; ``path`` begins after ``/v1``.

        Raises:
            ServiceError: The status is not 200.
        """

    # Controls

    def counters(self) -> dict[str, int]:
        """Return how many requests came since the last reset, by operation."""
        return {str(name): int(str(n)) for name, n in self._json("GET", "/_control/counters")}

    def reset_counters(self) -> None:
        """Count from zero again."""
        self.request("DELETE", "/_control/counters")

    def add_fault(self, route: str, action: str, **fields: object) -> None:
        """Add a fault rule; see ``ctrfs.server.faults`` for actions and fields.

        ``route`` is an operation (``list_files``, ``create_file`` …) or ``*``.
        """
        self._json("POST", "/_control/faults", {"route": route, "action": action, **fields})

    def clear_faults(self) -> None:
        """Drop all fault rules."""
        self.request("DELETE", "/_control/faults")

    def advance(self, seconds: float) -> None:
        """Put the service's wall clock forward, for expiry and lags."""
        self._json("POST", "/_control/clock", {"advance_s": seconds})

    def set_behaviour(self, **changes: object) -> None:
        """Change fields of ``ctrfs.server.behaviour.Behaviour``; enums by their value."""
        self._json("POST", "/_control/behaviour", changes)

    def plant(
        self,
        container_id: str,
        path: str,
        content: bytes = b"",
        *,
        source: str = "assistant",
        created_at: int | None = None,
    ) -> str:
        """Put a file at exactly ``path``, as code in the container would; return its id."""
        fields: dict[str, object] = {
            "path": path,
            "content_base64": base64.b64encode(content).decode("ascii"),
            "source": source,
        }
        if created_at is not None:
            fields["created_at"] = created_at
        route = f"/_control/containers/{quoted(container_id)}/files"
        return str(dict(self._json("POST", route, fields))["id"])

    # Ordinary requests, in short

    def create_container(self, name: str, **fields: object) -> str:
        """Create a container and return its id."""
        return str(dict(self._json("POST", "/containers", {"name": name, **fields}))["id"])

    def retrieve_container(self, container_id: str) -> dict[str, object]:
        """Return a container as JSON."""
        return dict(self._json("GET", f"/containers/{quoted(container_id)}"))

    def delete_container(self, container_id: str) -> None:
        """Delete a container."""
        self.request("DELETE", f"/containers/{quoted(container_id)}")

    def containers(self) -> list[dict[str, object]]:
        """Return the rows of all containers, newest first."""
        return self._rows("/containers")

    def upload(self, container_id: str, name: str, content: bytes) -> str:
        """Upload a file and return its id."""
        boundary = "boundary-of-the-tests"
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{name}"'
        body = b"%s\r\n\r\n%s\r\n--%s--\r\n" % (head.encode(), content, boundary.encode())
        answer = self.request(
            "POST",
            f"/containers/{quoted(container_id)}/files",
            body,
            content_type=f"multipart/form-data; boundary={boundary}",
        )
        return str(json.loads(answer)["id"])

    def files(self, container_id: str) -> list[dict[str, object]]:
        """Return the rows of all files of a container, newest first."""
        return self._rows(f"/containers/{quoted(container_id)}/files")

    def content(self, container_id: str, file_id: str) -> bytes:
        """Return the bytes of a file."""
        route = f"/containers/{quoted(container_id)}/files/{quoted(file_id)}/content"
        return self.request("GET", route)

    def delete_file(self, container_id: str, file_id: str) -> None:
        """Delete a file."""
        self.request("DELETE", f"/containers/{quoted(container_id)}/files/{quoted(file_id)}")

    def _rows(self, path: str) -> list[dict[str, object]]:
        rows: list[dict[str, object]] = []
        after = ""
        while True:
            page = json.loads(self.request("GET", f"{path}?limit=100{after}"))
            rows += page["data"]
            if not page["has_more"]:
                return rows
            after = f"&after={quoted(page['last_id'])}"

    def _json(
        self, method: str, path: str, fields: Mapping[str, object] | None = None
    ) -> list[tuple[str, object]]:
        body = b"" if fields is None else json.dumps(fields).encode("ascii")
        answer: dict[str, object] = json.loads(self.request(method, path, body))
        return list(answer.items())


def quoted(part: str) -> str:
    """Return ``part`` as one part of an address."""
    return urllib.parse.quote(part, safe="")


class ServiceProcess(ServiceControl):
    """A real ``ctrfs serve`` process with ``--control``; a context manager.

    Args:
        options: More command line options, as ``"--ranges"``.
        data: The data directory, kept afterwards; None: a temporary one.
        unix_socket: Listen there instead of on a free port of 127.0.0.1.
        environment: Added to this process's environment.

    Attributes:
        base_url: For clients, ends in ``/v1``; with ``unix_socket`` its host means nothing.
        key: A key that the service accepts.
    """

    def __init__(
        self,
        *options: str,
        data: Path | None = None,
        unix_socket: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.key = TEST_KEY
        self.base_url = "http://localhost/v1"
        self.unix_socket = unix_socket
        self._options = options
        self._stack = contextlib.ExitStack()
        self._given_data = data
        self._data: Path | None = None
        self._environment = {**os.environ, "PYTHONPATH": str(_ROOT / "src"), **(environment or {})}
        self._process: subprocess.Popen[str] | None = None
        self._port = 0

    def __enter__(self) -> Self:
        scratch = Path(
            self._stack.enter_context(tempfile.TemporaryDirectory(prefix="ctrfs-serve-"))
        )
        self._data = self._given_data or scratch / "data"
        self._complaints = scratch / "stderr"
        try:
            self.start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if self._process is not None:
                self.kill()
        finally:
            self._stack.close()

    @property
    def pid(self) -> int:
        """The id of the running process."""
        return self._running().pid

    @property
    def data(self) -> Path:
        """The data directory."""
        assert self._data is not None, "the service was never entered"
        return self._data

    @property
    def stderr(self) -> str:
        """All that the process wrote to standard error, the last time it was started."""
        return self._complaints.read_text()

    def start(self) -> None:
        """Start the process (again: on the same data and address) and wait until it is ready."""
        assert self._process is None, "it runs already"
        listen = (
            f"127.0.0.1:{self._port}" if self.unix_socket is None else f"unix:{self.unix_socket}"
        )
        command = [sys.executable, "-c", "from ctrfs.cli.serve import serve; serve()"]
        command += ["--listen", listen, "--data", str(self.data), "--control", *self._options]
        with self._complaints.open("w") as complaints:
            process = subprocess.Popen(
                command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=complaints,
                text=True,
            )
        self._process = process
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            self.kill()
            raise ServiceError(f"the service did not start: {self.stderr.strip()}")
        if self.unix_socket is None:
            self.base_url = line.split()[-1]
            self._port = int(self.base_url.removesuffix("/v1").rpartition(":")[2])

    def stop(self) -> int:
        """End the process as an administrator would; return its exit code."""
        self._running().send_signal(signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        """End the process as a crash would."""
        self._running().kill()
        self.wait()

    @override
    def request(
        self, method: str, path: str, body: bytes = b"", *, content_type: str = "application/json"
    ) -> bytes:
        connection: http.client.HTTPConnection
        if self.unix_socket is None:
            connection = http.client.HTTPConnection(
                "127.0.0.1", self._port, timeout=_REQUEST_TIMEOUT_S
            )
        else:
            connection = _UnixConnection(self.unix_socket)
        headers = {"Authorization": f"Bearer {self.key}", "Content-Type": content_type}
        with contextlib.closing(connection):
            connection.request(method, "/v1" + path, body or None, headers)
            answer = connection.getresponse()
            return _checked(answer.status, answer.read())

    def _running(self) -> subprocess.Popen[str]:
        assert self._process is not None, "the service does not run"
        return self._process

    def wait(self) -> int:
        """Wait until the process has ended by itself; return its exit code."""
        process = self._running()
        code = process.wait(_STOP_TIMEOUT_S)
        if process.stdout is not None:
            process.stdout.close()
        self._process = None
        return code


class InProcessService(ServiceControl):
    """The service without a process and without sockets; a context manager.

    Its wall clock starts at 2026 and follows trio's clock, so ``MockClock`` moves it, and
    ``advance`` puts it forward besides. Use it only inside ``trio.run``.

    Args:
        directory: Where its data lies; None: a temporary directory.
        behaviour: How it behaves; ``set_behaviour`` changes it later.
        round_trip_s: How long each request through ``transport`` takes at least.
    """

    def __init__(
        self,
        directory: Path | None = None,
        *,
        behaviour: Behaviour | None = None,
        round_trip_s: float = 0.0,
    ) -> None:
        self.key = TEST_KEY
        self.base_url = "http://in-process.invalid/v1"
        self._stack = contextlib.ExitStack()
        if directory is None:
            scratch = tempfile.TemporaryDirectory(prefix="ctrfs-in-process-")
            directory = Path(self._stack.enter_context(scratch))
        self.state = ServiceState(directory, is_durable=False)
        self._stack.callback(self.state.close)
        service = Service(state=self.state, clock=TrioClock(), behaviour=behaviour or Behaviour())
        self.application = Application(service, api_key=Secret(TEST_KEY), has_control=True)
        self.service = service
        self.transport = InProcessTransport(self.application, round_trip_s=round_trip_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give its directory back."""
        self._stack.close()

    @override
    def set_behaviour(self, **changes: object) -> None:
        self.service.behaviour = changed_behaviour(self.service.behaviour, changes)

    @override
    def request(
        self, method: str, path: str, body: bytes = b"", *, content_type: str = "application/json"
    ) -> bytes:
        pieces = _one_piece(body)
        request = Request(
            method=method,
            target="/v1" + path,
            headers=[
                (b"authorization", f"Bearer {self.key}".encode("ascii")),
                (b"content-type", content_type.encode("ascii")),
            ],
            body=pieces,
        )
        try:
            response = _finished(self.application.answer(request))
        finally:
            _finished(pieces.aclose())
        try:
            return _checked(response.status, b"".join(response.pieces()))
        finally:
            response.close()


class TrioClock(Clock):
    """A wall clock that starts at 2026 and runs as trio's clock does."""

    def __init__(self) -> None:
        self._start_s: float | None = None

    @override
    def monotonic_s(self) -> float:
        return trio.current_time()

    @override
    def wall_ns(self) -> int:
        if self._start_s is None:
            self._start_s = trio.current_time()
        return _WALL_START_NS + int((trio.current_time() - self._start_s) * NS_PER_S)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=_REQUEST_TIMEOUT_S)
        self._path = path

    @override
    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(_REQUEST_TIMEOUT_S)
        self.sock.connect(str(self._path))


def _checked(status: int, body: bytes) -> bytes:
    if status != 200:
        raise ServiceError(f"{status}: {body.decode('utf-8', 'replace')}")
    return body


async def _one_piece(body: bytes) -> AsyncGenerator[bytes, None]:
    yield body


def _finished(work: Coroutine[object, None, T]) -> T:
    """Return what ``work`` returns; nothing in the in-process service has to wait."""
    try:
        work.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    work.close()
    raise ServiceError("the request had to wait: a fault struck it")


async def until_asked_for(service: InProcessService, operation: str) -> None:
    """Return once the service gets the next request of that kind; counts from zero again."""
    service.reset_counters()
    while not service.counters().get(operation):  # noqa: ASYNC110  # the service tells nobody
        await trio.sleep(0.25)
