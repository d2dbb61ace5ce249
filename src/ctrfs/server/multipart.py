"""Multipart bodies, parsed as they arrive: the bytes of a file go straight to a blob."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

import msgspec
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from ctrfs.server import refusals
from ctrfs.server.blobs import Blob, BlobStore, BlobWriter
from ctrfs.units import KIB

# The fields beside the file are a word each.
_FIELD_BYTES_MAX: Final = 64 * KIB
_FIELDS_MAX: Final = 64
# The name of the file stands in a header, percent-escaped three bytes for one.
_HEADER_BYTES_MAX: Final = 16 * KIB


class Upload(msgspec.Struct, frozen=True, kw_only=True):
    """What a multipart body held."""

    name: str
    blob: Blob
    fields: dict[str, str]


async def receive_upload(
    body: AsyncIterator[bytes], *, content_type: str, blobs: BlobStore
) -> Upload:
    """Read ``body`` to its end and return its part ``file``, committed as a blob.

    Raises:
        RefusedError: It is no multipart body, or has not exactly one such part.
    """
    _, options = parse_options_header(content_type)
    boundary = options.get(b"boundary")
    if not boundary:
        raise refusals.bad_request("Missing boundary in multipart/form-data Content-Type header.")
    with blobs.new() as writer:
        parts = _Parts(writer)
        try:
            parser = parts.parser(boundary)
            async for piece in body:
                parser.write(piece)
            parser.finalize()
        except FormParserError as error:
            raise refusals.bad_request(f"Could not parse multipart body: {error}") from None
        if parts.file_name is None or not parts.has_ended:
            raise refusals.missing_parameter("file")
        blob = await writer.commit()
    return Upload(name=parts.file_name, blob=blob, fields=parts.fields)


class _Parts:
    """Sorts what the parser reports: the file's bytes to a blob, headers, other fields."""

    def __init__(self, writer: BlobWriter) -> None:
        self._writer = writer
        self.file_name: str | None = None
        self.has_ended = False
        self.fields: dict[str, str] = {}
        self._header_name = b""
        self._header_value = b""
        self._disposition: dict[bytes, bytes] = {}
        self._is_file = False
        self._field = b""

    def parser(self, boundary: bytes) -> MultipartParser:
        return MultipartParser(
            boundary,
            {
                "on_part_begin": self._on_part_begin,
                "on_header_field": self._on_header_field,
                "on_header_value": self._on_header_value,
                "on_header_end": self._on_header_end,
                "on_headers_finished": self._on_headers_finished,
                "on_part_data": self._on_part_data,
                "on_part_end": self._on_part_end,
                "on_end": self._on_end,
            },
            max_header_size=_HEADER_BYTES_MAX,
        )

    def _on_part_begin(self) -> None:
        self._disposition = {}
        self._field = b""

    def _on_header_field(self, piece: bytes, start: int, end: int) -> None:
        self._header_name += piece[start:end]

    def _on_header_value(self, piece: bytes, start: int, end: int) -> None:
        self._header_value += piece[start:end]

    def _on_header_end(self) -> None:
        if self._header_name.lower() == b"content-disposition":
            _, self._disposition = parse_options_header(self._header_value)
        self._header_name = self._header_value = b""

    def _on_headers_finished(self) -> None:
        self._is_file = (
            self._disposition.get(b"name") == b"file" and b"filename" in self._disposition
        )
        if not self._is_file:
            return
        if self.file_name is not None:
            raise refusals.bad_request("Invalid multipart body: more than one part 'file'.")
        self.file_name = self._disposition[b"filename"].decode("utf-8", "replace")

    def _on_part_data(self, piece: bytes, start: int, end: int) -> None:
        if self._is_file:
            self._writer.write(memoryview(piece)[start:end])
            return
        self._field += piece[start:end]
        if len(self._field) > _FIELD_BYTES_MAX or len(self.fields) > _FIELDS_MAX:
            raise refusals.too_large("A field of the multipart body is too large.")

    def _on_part_end(self) -> None:
        if not self._is_file:
            name = self._disposition.get(b"name", b"").decode("utf-8", "replace")
            self.fields[name] = self._field.decode("utf-8", "replace")

    def _on_end(self) -> None:
        self.has_ended = True
