"""The routes under ``/_control``: for tests only, and there only if asked for."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Final

from ctrfs.errors import ConfigError
from ctrfs.server import bodies, checks, refusals
from ctrfs.server.behaviour import changed_behaviour
from ctrfs.server.blobs import Blob
from ctrfs.server.faults import rule_from_json
from ctrfs.server.files import Files
from ctrfs.server.messages import Request, Response, json_response, read_whole
from ctrfs.server.service import Service
from ctrfs.units import MIB

CONTROL: Final = "_control"
# Planted files come whole, in JSON.
_BODY_BYTES_MAX: Final = 256 * MIB
# SQLite holds 64 bits; the year 9999 is hostile enough.
_CREATED_AT_S_MAX: Final = 253_402_300_799


class Control:
    """Changes what the service does and tells what it did."""

    def __init__(self, service: Service, files: Files) -> None:
        self._service = service
        self._files = files

    async def answer(self, request: Request) -> Response:
        """Answer a control request.

        Raises:
            RefusedError: There is no such control, or its body does not fit.
        """
        fields = checks.json_object(await read_whole(request, bytes_max=_BODY_BYTES_MAX))
        try:
            return await self._dispatch(request, fields)
        except ConfigError as error:
            raise refusals.bad_request(str(error)) from error

    async def _dispatch(self, request: Request, fields: Mapping[str, object]) -> Response:
        match (request.method, *request.parts[1:]):
            case ("POST", "faults"):
                self._service.faults.add(rule_from_json(fields))
            case ("DELETE", "faults"):
                self._service.faults.clear()
            case ("GET", "counters"):
                return json_response(bodies.pretty(dict(self._service.counters)))
            case ("DELETE", "counters"):
                self._service.counters.clear()
            case ("POST", "clock"):
                self._advance(fields)
            case ("POST", "behaviour"):
                self._service.behaviour = changed_behaviour(self._service.behaviour, fields)
            case ("POST", "containers", container_id, "files"):
                return await self._plant(container_id, fields)
            case _:
                raise refusals.no_such_route(request.method, request.path)
        return json_response(bodies.pretty({"ok": True}))

    def _advance(self, fields: Mapping[str, object]) -> None:
        seconds = fields.get("advance_s")
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or seconds < 0:
            raise ConfigError("advance_s must be a number, 0 or more")
        self._service.clock.advance(seconds)

    async def _plant(self, container_id: str, fields: Mapping[str, object]) -> Response:
        path, source = fields.get("path"), fields.get("source", "assistant")
        if not isinstance(path, str) or not isinstance(source, str):
            raise ConfigError("path and source must be texts")
        created_at_s = fields.get("created_at")
        if created_at_s is not None and (
            not isinstance(created_at_s, int) or not 0 <= created_at_s <= _CREATED_AT_S_MAX
        ):
            raise ConfigError("created_at must be a whole number of seconds since 1970")
        content = _content(fields)
        self._service.usable_container(container_id)
        blob = await self._keep(content)
        self._files.require_container(container_id, blob)
        record = self._files.add(
            container_id, path=path, blob=blob, source=source, created_at_s=created_at_s
        )
        await self._service.state.flush()
        return json_response(bodies.file_body(record))

    async def _keep(self, content: bytes) -> Blob:
        with self._service.state.blobs.new() as writer:
            writer.write(content)
            return await writer.commit()


def _content(fields: Mapping[str, object]) -> bytes:
    text, encoded = fields.get("text"), fields.get("content_base64")
    if isinstance(text, str):
        return text.encode("utf-8", "surrogatepass")
    if not isinstance(encoded, str):
        raise ConfigError("text or content_base64 must be given")
    try:
        return base64.b64decode(encoded, validate=True)
    except binascii.Error as error:
        raise ConfigError(f"content_base64 is not base64: {error}") from error
