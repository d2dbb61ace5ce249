"""A service whose every answer a test writes down beforehand."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import NoReturn

import trio
from typing_extensions import override

from ctrfs.api.models import (
    Container,
    ContainerFile,
    ContainerId,
    ContainerRequest,
    FileId,
    Listing,
)
from ctrfs.api.protocol import ContainersApi, ContentStream, UploadBody
from ctrfs.clock import Clock
from ctrfs.content.identity import ContentIdentity
from ctrfs.errors import CtrfsError

CONTAINER = ContainerId("cntr_1")
FILE = FileId("cfile_1")


def digest_of(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def identity_of(
    content: bytes, *, sized: bool = True, hashed: bool = True, file_id: FileId = FILE
) -> ContentIdentity:
    return ContentIdentity(
        container_id=CONTAINER,
        file_id=file_id,
        size_bytes=len(content) if sized else None,
        created_at_s=1_700_000_000,
        digest=digest_of(content) if hashed else None,
    )


class StoppedClock(Clock):
    @override
    def monotonic_s(self) -> float:
        return 0.0

    @override
    def wall_ns(self) -> int:
        return 1_700_000_000_000_000_000


@dataclass(kw_only=True)
class Transfer:
    """One answer to a download.

    Attributes:
        content: What the server holds.
        piece_bytes: How much comes at a time.
        cut_at: Break off before this offset of the content.
        cut_error: With what.
        pause_s: Wait so long before each piece.
        gate_at: Wait for ``gate`` before sending bytes from this offset on.
        honours_range: Send only the rest that was asked for.
        starts_late_by: Leave out that many bytes at the start of the answer.
        announces: Tell the length.
        refusal: Raised instead of any answer.
        version: The entity tag of the answer.
    """

    content: bytes = b""
    piece_bytes: int = 10
    cut_at: int | None = None
    cut_error: CtrfsError | None = None
    pause_s: float = 0.0
    gate_at: int | None = None
    gate: trio.Event = field(default_factory=trio.Event)
    honours_range: bool = False
    starts_late_by: int = 0
    announces: bool = True
    refusal: CtrfsError | None = None
    version: str | None = None


class Stream(ContentStream):
    def __init__(self, transfer: Transfer, offset: int, end: int | None) -> None:
        self._transfer = transfer
        is_part = transfer.honours_range and (offset > 0 or end is not None)
        length = len(transfer.content)
        self.offset = offset if is_part else 0
        self.offset += transfer.starts_late_by
        self._end = min(end, length) if is_part and end is not None else length
        self.length_bytes = self._end - self.offset if transfer.announces else None
        self.total_bytes = length if transfer.announces else None
        self.version = transfer.version
        is_wanted = offset > 0 or end is not None
        self.has_ranges = is_part if is_wanted else (True if transfer.honours_range else None)

    @override
    async def pieces(self) -> AsyncIterator[bytes]:
        transfer = self._transfer
        for start in range(self.offset, self._end, transfer.piece_bytes):
            if transfer.gate_at is not None and start >= transfer.gate_at:
                await transfer.gate.wait()
            if transfer.cut_at is not None and start >= transfer.cut_at:
                if transfer.cut_error is None:
                    return
                raise transfer.cut_error
            await trio.sleep(transfer.pause_s)
            yield transfer.content[start : min(start + transfer.piece_bytes, self._end)]


class FakeService(ContainersApi):
    """Gives the next of ``transfers`` for each download, the last one again and again."""

    def __init__(self, *transfers: Transfer) -> None:
        self.transfers = list(transfers)
        self.offsets: list[int] = []
        self.parts: list[tuple[int, int | None]] = []
        self.versions: list[str | None] = []
        """What each download asked for."""
        self.open_streams = 0
        self.queue_s = 0.0
        """How long a download waits for its turn."""
        self.closing_s = 0.0
        """How long it takes to close its connection, wanted or not."""
        self.uploads: list[tuple[str, bytes]] = []
        self.upload_answers: list[ContainerFile | CtrfsError] = []
        self.listings: list[Listing[ContainerFile] | CtrfsError] = []
        """Given one after another, the last one again and again."""
        self.looks_at_s: list[float] = []
        """When each listing was asked for."""

    @override
    @asynccontextmanager
    async def download(
        self,
        container_id: ContainerId,
        file_id: FileId,
        *,
        offset: int = 0,
        end: int | None = None,
        version: str | None = None,
        on_turn: Callable[[], None] = lambda: None,
    ) -> AsyncIterator[ContentStream]:
        self.offsets.append(offset)
        self.parts.append((offset, end))
        self.versions.append(version)
        await trio.sleep(self.queue_s)
        on_turn()
        transfer = self.transfers.pop(0) if len(self.transfers) > 1 else self.transfers[0]
        if transfer.refusal is not None:
            raise transfer.refusal
        self.open_streams += 1
        try:
            yield Stream(transfer, offset, end)
        finally:
            self.open_streams -= 1
            if self.closing_s > 0:
                with trio.CancelScope(shield=True):
                    await trio.sleep(self.closing_s)

    @override
    async def create_file(
        self, container_id: ContainerId, *, name: str, body: UploadBody
    ) -> ContainerFile:
        await trio.lowlevel.checkpoint()
        self.uploads.append((name, b"".join(body.open())))
        answer = self.upload_answers.pop(0)
        if isinstance(answer, CtrfsError):
            raise answer
        return answer

    @override
    async def list_files(
        self, container_id: ContainerId, *, marks: Sequence[str] = ()
    ) -> Listing[ContainerFile]:
        await trio.lowlevel.checkpoint()
        self.looks_at_s.append(trio.current_time())
        answer = self.listings.pop(0) if len(self.listings) > 1 else self.listings[0]
        if isinstance(answer, CtrfsError):
            raise answer
        return answer

    @override
    async def list_containers(
        self, *, name: str | None = None, marks: Sequence[str] = ()
    ) -> Listing[Container]:
        _never()

    @override
    async def create_container(self, request: ContainerRequest) -> Container:
        _never()

    @override
    async def retrieve_container(self, container_id: ContainerId) -> Container:
        _never()

    @override
    async def delete_container(self, container_id: ContainerId) -> None:
        _never()

    @override
    async def retrieve_file(self, container_id: ContainerId, file_id: FileId) -> ContainerFile:
        _never()

    @override
    async def copy_file(self, container_id: ContainerId, *, source_id: str) -> ContainerFile:
        _never()

    @override
    async def delete_file(self, container_id: ContainerId, file_id: FileId) -> None:
        _never()


def _never() -> NoReturn:
    raise AssertionError("the content floor does not ask for this")
