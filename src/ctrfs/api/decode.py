"""JSON of the service to models.

Servers of this API differ, and even the real one lists rubbish, so a row is read on its own:
one that cannot be understood is set aside with a reason, and the rest of its page stays.
What is not in a row that we need gets the value that promises least.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from typing import Final, TypeVar, cast

import msgspec

from ctrfs.api.models import (
    Container,
    ContainerFile,
    ContainerId,
    FileId,
    Page,
    RejectedRow,
)
from ctrfs.api.redaction import Redactor
from ctrfs.errors import RemoteProtocolError

log = logging.getLogger("ctrfs.api")

# No service stores a file of a pebibyte; a length beyond it would only break arithmetic.
SIZE_BYTES_MAX: Final = 1 << 50
# The last second of the year 9999: what a calendar can show.
TIME_S_MAX: Final = 253_402_300_799
EXCERPT_CHARACTERS_MAX: Final = 200

ModelT = TypeVar("ModelT", Container, ContainerFile)


class _ListBody(msgspec.Struct):
    data: list[msgspec.Raw]
    has_more: object = None
    last_id: object = None


class _LooseListBody(msgspec.Struct):
    data: list[object]
    has_more: object = None
    last_id: object = None


class _ContainerRow(msgspec.Struct):
    id: object = None
    name: object = None
    created_at: object = None
    status: object = None
    expires_after: object = None
    last_active_at: object = None
    memory_limit: object = None
    network_policy: object = None


class _FileRow(msgspec.Struct):
    id: object = None
    path: object = None
    bytes: object = None
    created_at: object = None
    source: object = None


class _DeletedBody(msgspec.Struct):
    deleted: object = None


class _RowRejectedError(Exception):
    """A row cannot be understood; the text is the reason."""


_LIST_BODY: Final = msgspec.json.Decoder(_ListBody)
_CONTAINER_ROW: Final = msgspec.json.Decoder(_ContainerRow)
_FILE_ROW: Final = msgspec.json.Decoder(_FileRow)
_DELETED_BODY: Final = msgspec.json.Decoder(_DeletedBody)


class Decoder:
    """Reads the bodies of answers; ``redactor`` masks what is quoted from them."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor

    def container(self, body: bytes) -> Container:
        """Return the container of a single answer.

        Raises:
            RemoteProtocolError: The body is not a container.
        """
        return self._single(body, _container_from_row)

    def file(self, body: bytes, container_id: ContainerId) -> ContainerFile:
        """Return the file of a single answer about ``container_id``.

        Raises:
            RemoteProtocolError: The body is not a file.
        """
        return self._single(body, lambda row: _file_from_row(row, container_id))

    def container_page(self, body: bytes, *, limit: int) -> Page[Container]:
        """Return one page of the list of containers, asked for with ``limit``.

        Raises:
            RemoteProtocolError: The body is not a list.
        """
        return self._page(body, _container_from_row, limit=limit)

    def file_page(
        self, body: bytes, container_id: ContainerId, *, limit: int
    ) -> Page[ContainerFile]:
        """Return one page of the list of files of ``container_id``, asked for with ``limit``.

        Raises:
            RemoteProtocolError: The body is not a list.
        """
        return self._page(body, lambda row: _file_from_row(row, container_id), limit=limit)

    def confirms_deletion(self, body: bytes) -> bool:
        """Return whether the body says that something was deleted."""
        try:
            return _DELETED_BODY.decode(body).deleted is True
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return False

    def _single(self, body: bytes, model_from_row: Callable[[bytes], ModelT]) -> ModelT:
        try:
            return model_from_row(body)
        except _RowRejectedError as error:
            excerpt = self._excerpt(body)
            raise RemoteProtocolError(f"unreadable answer ({error}): {excerpt}") from error

    def _page(
        self, body: bytes, model_from_row: Callable[[bytes], ModelT], *, limit: int
    ) -> Page[ModelT]:
        envelope = self._list_body(body)
        items: list[ModelT] = []
        rejected: list[RejectedRow] = []
        for raw in envelope.data:
            row = bytes(raw)
            try:
                items.append(model_from_row(row))
            except _RowRejectedError as error:
                rejected.append(self._rejected(str(error), row))
        has_more = envelope.has_more
        return Page(
            items=tuple(items),
            rejected=tuple(rejected),
            # A server that does not say has more only if it filled the page exactly: one that
            # sends fewer has ended, one that sends more does not know ``limit`` at all.
            has_more=has_more if isinstance(has_more, bool) else len(envelope.data) == limit,
            cursor=_cursor(envelope),
        )

    def _list_body(self, body: bytes) -> _ListBody:
        try:
            try:
                return _LIST_BODY.decode(body)
            except msgspec.ValidationError:
                raise
            except msgspec.DecodeError:
                # One row with half a surrogate pair makes msgspec refuse the page.
                return _list_body_from_loose_json(body)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            excerpt = self._excerpt(body)
            raise RemoteProtocolError(f"not a list ({error}): {excerpt}") from error

    def _rejected(self, reason: str, row: bytes) -> RejectedRow:
        rejected = RejectedRow(
            reason=self._redactor.line(reason, characters_max=EXCERPT_CHARACTERS_MAX),
            excerpt=self._excerpt(row),
        )
        log.info("left out a listed row: %s: %s", rejected.reason, rejected.excerpt)
        return rejected

    def _excerpt(self, raw: bytes) -> str:
        text = raw.decode("utf-8", errors="replace")
        return self._redactor.line(text, characters_max=EXCERPT_CHARACTERS_MAX)


def _list_body_from_loose_json(body: bytes) -> _ListBody:
    loose = msgspec.convert(json.loads(body), _LooseListBody)
    return _ListBody(
        data=[msgspec.Raw(json.dumps(row).encode("ascii")) for row in loose.data],
        has_more=loose.has_more,
        last_id=loose.last_id,
    )


def _cursor(envelope: _ListBody) -> str | None:
    # The official clients page on with the id of the last row. ``last_id`` counts where there
    # is none: OpenRouter sends empty pages that have more behind them. What is left is an
    # earlier row, behind which the last ones come a second time.
    named = _text(envelope.last_id)
    if named is not None and not _is_sendable(named):
        named = None
    if envelope.data and (last := _id_in(envelope.data[-1])) is not None:
        return last
    ids = (_id_in(row) for row in reversed(envelope.data))
    return named or next((id_ for id_ in ids if id_ is not None), None)


def _is_sendable(text: str) -> bool:
    """Whether an address can hold ``text``: half a surrogate pair cannot be written in bytes."""
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


def _id_in(row: msgspec.Raw) -> str | None:
    try:
        return _text(_FILE_ROW.decode(row).id)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def _container_from_row(raw: bytes) -> Container:
    row = _decoded(_CONTAINER_ROW, raw)
    last_active_at_s = _time_s(row.last_active_at)
    return Container(
        id=ContainerId(_id(row.id)),
        name=_text(row.name) or "",
        created_at_s=_time_s(row.created_at),
        status=_text(row.status) or "unknown",
        expires_after_minutes=_minutes(row.expires_after),
        last_active_at_s=last_active_at_s or None,
        memory_limit=_text(row.memory_limit),
        network_policy=_network_policy(row.network_policy),
    )


def _file_from_row(raw: bytes, container_id: ContainerId) -> ContainerFile:
    row = _decoded(_FILE_ROW, raw)
    if not isinstance(row.path, str) or not row.path:
        raise _RowRejectedError("no path")
    return ContainerFile(
        id=FileId(_id(row.id)),
        # Not the row's own: a proxy that rewrites ids may leave the inner one as it was, and
        # only the id that was asked for is known to work.
        container_id=container_id,
        path=row.path,
        size_bytes=_size_bytes(row.bytes),
        created_at_s=_time_s(row.created_at),
        # A handful of words on each of many rows: one of each in memory.
        source=sys.intern(_text(row.source) or "unknown"),
    )


RowT = TypeVar("RowT", _ContainerRow, _FileRow)


def _decoded(decoder: msgspec.json.Decoder[RowT], raw: bytes) -> RowT:
    try:
        return decoder.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _RowRejectedError(str(error)) from error


def _id(field: object) -> str:
    if not isinstance(field, str) or not field:
        raise _RowRejectedError("no id")
    if field in {".", ".."}:
        raise _RowRejectedError("an id that no address can hold")
    return field


def _text(field: object) -> str | None:
    return field if isinstance(field, str) and field else None


def _number(field: object) -> int | None:
    """Return ``field`` as a whole number if it is one; a float counts, a truth value does not."""
    if isinstance(field, bool) or not isinstance(field, int | float):
        return None
    return int(field) if abs(field) <= TIME_S_MAX or isinstance(field, int) else None


def _time_s(field: object) -> int:
    """Return unix seconds; 0, the oldest, for what is no time."""
    time_s = _number(field)
    return time_s if time_s is not None and 0 <= time_s <= TIME_S_MAX else 0


def _size_bytes(field: object) -> int | None:
    if field is None:
        return None
    size_bytes = _number(field)
    if size_bytes is None or size_bytes != field:
        raise _RowRejectedError("bytes is no whole number")
    if not 0 <= size_bytes <= SIZE_BYTES_MAX:
        raise _RowRejectedError("bytes is out of range")
    return size_bytes


def _minutes(field: object) -> int | None:
    if not isinstance(field, dict):
        return None
    minutes = _number(cast("dict[str, object]", field).get("minutes"))
    return minutes if minutes is not None and minutes > 0 else None


def _network_policy(field: object) -> str | None:
    if isinstance(field, dict):
        return _text(cast("dict[str, object]", field).get("type"))
    return _text(field)
