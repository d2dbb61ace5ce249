"""The five operations on files of a container, and the store that files are copied from."""

from __future__ import annotations

import os
import re
from typing import Final

from ctrfs.server import bodies, checks, naming, pages, refusals
from ctrfs.server.behaviour import Duplicates, Ids
from ctrfs.server.blobs import Blob
from ctrfs.server.messages import (
    BlobPart,
    Headers,
    Request,
    Response,
    json_response,
    read_whole,
)
from ctrfs.server.multipart import receive_upload
from ctrfs.server.records import FileRecord, StoredFileRecord
from ctrfs.server.refusals import RefusedError
from ctrfs.server.service import Service
from ctrfs.server.state import blob_of
from ctrfs.units import KIB, NS_PER_S

# Up to here one read and one send are cheaper than an open file that is handed on.
_WHOLE_BYTES_MAX: Final = 256 * KIB
_RANGE: Final = re.compile(r"bytes=(\d*)-(\d*)")


class Files:
    """Lists, creates, shows and deletes files, and sends their bytes."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def list(self, request: Request) -> Response:
        """Answer one page of files."""
        container = self._service.usable_container(request.parts[1])
        query = checks.page_query(request.query)
        behaviour = self._service.behaviour
        cursor = pages.cursor(behaviour, query.after)
        if cursor.is_empty_page:
            return json_response(cursor.empty_page())
        records = self._service.state.page_of_files(
            container.id,
            after=cursor.after,
            limit=query.limit + 1,
            newest_first=query.newest_first,
            now_ns=self._service.clock.wall_ns(),
        )
        if records is None:
            raise refusals.unknown_cursor(cursor.after or "")
        has_rubbish = behaviour.rubbish and cursor.after is None
        rubbish = pages.rubbish_rows(container.id) if has_rubbish else []
        return json_response(
            pages.page_of_files(behaviour, records, limit=query.limit, rubbish=rubbish)
        )

    async def create(self, request: Request) -> Response:
        """Take an upload, or copy a file of the account's store."""
        container_id = self._service.usable_container(request.parts[1]).id
        content_type = request.header("content-type") or ""
        if content_type.lower().startswith("multipart/form-data"):
            record = await self._upload(container_id, request, content_type)
        else:
            fields = checks.json_object(await read_whole(request))
            file_id = fields.get("file_id")
            if not isinstance(file_id, str):
                raise refusals.missing_parameter("file")
            source = self.stored(file_id)
            self._service.usable_container(container_id)
            record = self.copy_into(container_id, source)
        await self._service.state.flush()
        return json_response(bodies.file_body(record))

    async def retrieve(self, request: Request) -> Response:
        """Answer one file."""
        return json_response(bodies.file_body(self._file(request)))

    async def delete(self, request: Request) -> Response:
        """Delete one file; downloads under way get all of it."""
        record = self._file(request)
        self._service.state.remove_file(record)
        await self._service.state.flush()
        return json_response(bodies.deletion_body(record.id, "container.file"))

    async def content(self, request: Request) -> Response:
        """Send the bytes of a file, or the part asked for where ranges are on."""
        record = self._file(request)
        headers: Headers = (
            ("Content-Type", naming.content_type(record.path)),
            ("Content-Disposition", naming.content_disposition(record.path)),
        )
        fd = os.open(self._service.state.blobs.path(record.blob), os.O_RDONLY)
        if not self._service.behaviour.ranges:
            return _content(fd, headers, status=200, offset=0, end=record.size_bytes)
        headers = (*headers, ("Accept-Ranges", "bytes"))
        wanted = _wanted_range(request.header("range"), record.size_bytes)
        if wanted is None:
            return _content(fd, headers, status=200, offset=0, end=record.size_bytes)
        offset, end = wanted
        if offset >= end:
            os.close(fd)
            return _unsatisfiable(record.size_bytes)
        total = ("Content-Range", f"bytes {offset}-{end - 1}/{record.size_bytes}")
        return _content(fd, (*headers, total), status=206, offset=offset, end=end)

    async def store(self, request: Request) -> Response:
        """Take an upload into the account's own file store."""
        upload = await receive_upload(
            request.body,
            content_type=request.header("content-type") or "",
            blobs=self._service.state.blobs,
        )
        record = StoredFileRecord(
            id=naming.new_stored_file_id(),
            name=upload.name,
            purpose=upload.fields.get("purpose", "user_data"),
            size_bytes=upload.blob.size_bytes,
            created_at_s=self._service.clock.wall_ns() // NS_PER_S,
            blob=upload.blob.name,
            digest=upload.blob.digest,
        )
        self._service.state.add_stored_file(record)
        await self._service.state.flush()
        return json_response(bodies.stored_file_body(record))

    # Shared with the operations on containers and with control

    def stored(self, file_id: str) -> StoredFileRecord:
        """Return a file of the account's store, or raise RefusedError."""
        record = self._service.state.stored_file(file_id)
        if record is None:
            raise refusals.no_such_stored_file(file_id)
        return record

    def copy_into(self, container_id: str, source: StoredFileRecord) -> FileRecord:
        """Copy a file of the store into a container, as if it had been uploaded there."""
        blob = self._service.state.blobs.copy(blob_of(source))
        return self._add_upload(container_id, source.name, blob)

    def add(
        self, container_id: str, *, path: str, blob: Blob, source: str, created_at_s: int | None
    ) -> FileRecord:
        """Add a file at exactly ``path``."""
        now_ns = self._service.clock.wall_ns()
        behaviour = self._service.behaviour
        if created_at_s is None:
            created_at_s = now_ns // NS_PER_S
        record = FileRecord(
            sequence=0,
            id=naming.new_file_id(behaviour, created_at_s, path),
            container_id=container_id,
            path=path,
            size_bytes=blob.size_bytes,
            source=source,
            created_at_s=created_at_s,
            listed_from_ns=now_ns + int(behaviour.list_lag_s * NS_PER_S),
            blob=blob.name,
            digest=blob.digest,
        )
        return self._service.state.add_file(record)

    def require_container(self, container_id: str, blob: Blob) -> None:
        """Look again at what was true before ``blob`` came in; if it no longer is, drop it.

        Raises:
            RefusedError: The container was deleted, or expired, meanwhile.
        """
        try:
            self._service.usable_container(container_id)
        except RefusedError:
            self._service.state.blobs.remove(blob.name)
            raise

    # Inside

    async def _upload(self, container_id: str, request: Request, content_type: str) -> FileRecord:
        blobs = self._service.state.blobs
        upload = await receive_upload(request.body, content_type=content_type, blobs=blobs)
        if self._service.behaviour.refuse_empty and upload.blob.size_bytes == 0:
            blobs.remove(upload.blob.name)
            raise refusals.bad_request("File is empty.")
        self.require_container(container_id, upload.blob)
        return self._add_upload(container_id, upload.name, upload.blob)

    def _add_upload(self, container_id: str, name: str, blob: Blob) -> FileRecord:
        behaviour = self._service.behaviour
        path = naming.stored_path(behaviour, name, blob.digest)
        if behaviour.duplicates is Duplicates.SAME or behaviour.ids is Ids.PATH:
            same = self._service.state.same_file(container_id, path=path, digest=blob.digest)
            if same is not None:
                self._service.state.blobs.remove(blob.name)
                return same
        return self.add(container_id, path=path, blob=blob, source="user", created_at_s=None)

    def _file(self, request: Request) -> FileRecord:
        container = self._service.usable_container(request.parts[1])
        record = self._service.state.file(container.id, request.parts[3])
        if record is None:
            raise refusals.no_such_file()
        return record


def _content(fd: int, headers: Headers, *, status: int, offset: int, end: int) -> Response:
    part = BlobPart(fd=fd, offset=offset, length_bytes=end - offset)
    if part.length_bytes > _WHOLE_BYTES_MAX:
        return Response(status=status, headers=headers, body=part)
    try:
        # A read of this size from the page cache takes 5 to 50 µs, a thread hop 100 µs.
        return Response(status=status, headers=headers, body=b"".join(part.pieces()))
    finally:
        part.close()


def _unsatisfiable(size_bytes: int) -> Response:
    refusal = RefusedError(416, "The requested range is not satisfiable.")
    headers = (
        ("Content-Type", "application/json"),
        ("Content-Range", f"bytes */{size_bytes}"),
    )
    return Response(status=416, headers=headers, body=bodies.error_body(refusal).encode("ascii"))


def _wanted_range(header: str | None, size_bytes: int) -> tuple[int, int] | None:
    """Return offset and end of the one range asked for; None asks for everything."""
    match = _RANGE.fullmatch(header.strip()) if header else None
    if match is None or match[1] == match[2] == "":
        return None
    if match[1] == "":
        return max(0, size_bytes - int(match[2])), size_bytes
    offset = int(match[1])
    end = min(int(match[2]) + 1, size_bytes) if match[2] else size_bytes
    return offset, end
