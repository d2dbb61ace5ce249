"""The service from request to response, without any wire: routes, keys, faults, counters.

Driven by ``ctrfs.server.http`` over sockets, and directly by tests, then in virtual time.
"""

from __future__ import annotations

import hmac
import math
import secrets
from collections.abc import Awaitable, Callable
from typing import Final

import trio
from msgspec.structs import replace

from ctrfs.config import Secret
from ctrfs.server import bodies, refusals
from ctrfs.server.containers import Containers
from ctrfs.server.control import CONTROL, Control
from ctrfs.server.faults import Action, Fault, Moment, WireFault
from ctrfs.server.files import Files
from ctrfs.server.messages import Request, Response, json_response
from ctrfs.server.refusals import RefusedError
from ctrfs.server.service import Service

API_VERSION: Final = "2020-10-01"

_Operation = Callable[[Request], Awaitable[Response]]


class Application:
    """Answers every request of the Containers API.

    Args:
        service: State, clock and behaviour.
        api_key: The only key accepted; None accepts any.
        has_control: Whether the routes under ``/_control`` are there.
    """

    def __init__(
        self, service: Service, *, api_key: Secret | None = None, has_control: bool = False
    ) -> None:
        self.service = service
        self._api_key = api_key
        self._has_control = has_control
        files = Files(service)
        containers = Containers(service, files)
        self._control = Control(service, files)
        self._operations: dict[str, _Operation] = {
            "list_containers": containers.list,
            "create_container": containers.create,
            "retrieve_container": containers.retrieve,
            "delete_container": containers.delete,
            "list_files": files.list,
            "create_file": files.create,
            "retrieve_file": files.retrieve,
            "delete_file": files.delete,
            "file_content": files.content,
            "create_stored_file": files.store,
        }

    async def answer(self, request: Request) -> Response:
        """Return the response to a request; whoever sends it closes it.

        Waits for disk, for the rest of the request's body, and as long as a fault says.
        Cancelling leaves the state as before the operation or as after it.
        """
        began_s = self.service.clock.monotonic_s()
        try:
            response = await self._answer(request)
        except RefusedError as refusal:
            response = json_response(bodies.error_body(refusal), status=refusal.status)
        elapsed_ms = int((self.service.clock.monotonic_s() - began_s) * 1000)
        headers = (
            *response.headers,
            ("X-Request-ID", f"req_{secrets.token_hex(16)}"),
            ("openai-processing-ms", str(elapsed_ms)),
            ("openai-version", API_VERSION),
        )
        return replace(response, headers=headers)

    async def _answer(self, request: Request) -> Response:
        if self._has_control and request.parts[:1] == (CONTROL,):
            if self._api_key is not None:
                self._authorize(request)
            return await self._control.answer(request)
        operation = operation_of(request)
        self.service.counters[operation] += 1
        fault = self.service.faults.take(operation)
        if fault is None:
            return await self._carry_out(operation, request)
        instead = await _strike(fault, Moment.BEFORE, request)
        if instead is not None:
            return instead
        response = await self._carry_out(operation, request)
        try:
            instead = await _strike(fault, Moment.AFTER, request)
        except BaseException:
            response.close()
            raise
        if instead is not None:
            response.close()
            return instead
        return _with_wire_fault(fault, response)

    async def _carry_out(self, operation: str, request: Request) -> Response:
        self._authorize(request)
        return await self._operations[operation](request)

    def _authorize(self, request: Request) -> None:
        scheme, _, token = (request.header("authorization") or "").partition(" ")
        key = token.strip() if scheme.lower() == "bearer" else ""
        key = key or request.header("api-key") or ""
        if not key:
            raise refusals.no_key()
        if self._api_key is None:
            return
        expected = self._api_key.reveal().encode("utf-8")
        if not hmac.compare_digest(key.encode("latin-1"), expected):
            raise refusals.wrong_key(key)


def operation_of(request: Request) -> str:
    """Return the name of the operation that method and path ask for.

    Raises:
        RefusedError: There is nothing at that path, or not with that method.
    """
    match request.parts:
        case ("containers",):
            methods = {"GET": "list_containers", "POST": "create_container"}
        case ("containers", _):
            methods = {"GET": "retrieve_container", "DELETE": "delete_container"}
        case ("containers", _, "files"):
            methods = {"GET": "list_files", "POST": "create_file"}
        case ("containers", _, "files", _):
            methods = {"GET": "retrieve_file", "DELETE": "delete_file"}
        case ("containers", _, "files", _, "content"):
            methods = {"GET": "file_content"}
        case ("files",):
            methods = {"POST": "create_stored_file"}
        case _:
            raise refusals.no_such_route(request.method, request.path)
    operation = methods.get(request.method)
    if operation is None:
        raise refusals.wrong_method(request.method, request.path)
    return operation


async def _strike(fault: Fault, moment: Moment, request: Request) -> Response | None:
    """Do what a fault does without the wire; return the answer that replaces the real one."""
    if fault.when is not moment:
        return None
    is_before = moment is Moment.BEFORE
    match fault.action:
        case Action.STATUS:
            return _status_response(fault)
        case Action.DELAY:
            await trio.sleep(fault.seconds or 0)
        case Action.STALL if is_before or fault.bytes is None:
            await _read_some(request, fault.bytes or 0)
            await trio.sleep(math.inf if fault.seconds is None else fault.seconds)
            # What has been read of a body is gone.
            return None if fault.bytes is None else _end_of_connection(Action.CUT)
        case Action.CUT | Action.RESET if is_before:
            await _read_some(request, fault.bytes or 0)
            return _end_of_connection(fault.action)
        case _:
            pass
    return None


def _with_wire_fault(fault: Fault, response: Response) -> Response:
    """Return the operation's answer with what the wire must do to it."""
    is_over = fault.action in {Action.STATUS, Action.DELAY} or (
        fault.action is Action.STALL and fault.bytes is None
    )
    if is_over or fault.when is Moment.BEFORE:
        return response
    wire_fault = WireFault(
        action=fault.action,
        bytes=fault.bytes,
        seconds=fault.seconds,
        delta=fault.delta,
    )
    return replace(response, wire_fault=wire_fault)


def _end_of_connection(action: Action) -> Response:
    return Response(status=500, headers=(), body=b"", wire_fault=WireFault(action=action))


def _status_response(fault: Fault) -> Response:
    body = fault.body
    if isinstance(body, str):
        response = Response(
            status=fault.status,
            headers=(("Content-Type", "text/plain; charset=utf-8"),),
            body=body.encode("utf-8"),
        )
    elif body is None:
        refusal = RefusedError(fault.status, "A fault was asked for.", kind="server_error")
        response = json_response(bodies.error_body(refusal), status=fault.status)
    else:
        response = json_response(bodies.pretty(body), status=fault.status)
    overridden = {name.lower() for name, _ in fault.headers}
    kept = tuple(each for each in response.headers if each[0].lower() not in overridden)
    return replace(response, headers=(*kept, *fault.headers))


async def _read_some(request: Request, size_bytes: int) -> None:
    """Read at least so much of a request's body; below 0, so much less than all of it."""
    if size_bytes < 0:
        size_bytes += int(request.header("content-length") or 0)
    read_bytes = 0
    while read_bytes < size_bytes:
        piece = await anext(request.body, None)
        if piece is None:
            return
        read_bytes += len(piece)
