"""The service as the upper floors see it: implemented by ``api.client``, faked in tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import msgspec
import trio

from ctrfs.api.health import ServiceHealth
from ctrfs.api.models import (
    Container,
    ContainerFile,
    ContainerId,
    ContainerRequest,
    FileId,
    Listing,
)


class UploadBody(msgspec.Struct, frozen=True, kw_only=True):
    """The bytes of one upload, readable from the start as often as a retry needs.

    Attributes:
        size_bytes: How many bytes ``open`` gives, exactly.
        open: Begins a pass over the bytes, in pieces of up to a MiB; reads local disk only.
        before_end: Awaited in each pass before the service is given the end: until it returns,
            the service cannot have the file.
    """

    size_bytes: int
    open: Callable[[], Iterator[bytes]]
    before_end: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint_if_cancelled


class ContentStream(Protocol):
    """A download under way.

    Attributes:
        offset: Where in the file the first piece lies: the offset asked for if the server
            answered with that part (206), else 0.
        length_bytes: How many bytes this answer announces from ``offset`` on; None if it
            does not say.
        total_bytes: How many bytes the file has by this answer; None if it does not say.
        version: What the server calls this version of the bytes, a strong entity tag; None
            without one.
        has_ranges: Whether this answer shows that the server sends parts (206, or its word for
            it); None if it shows nothing.
    """

    offset: int
    length_bytes: int | None
    total_bytes: int | None
    version: str | None
    has_ranges: bool | None

    def pieces(self) -> AsyncIterator[bytes]:
        """Yield the bytes in order, as they come from the socket.

        Raises:
            RemoteUnavailableError: The connection broke, or the body ended early.
            RemoteStalledError: Nothing came for ``stall_timeout_s``.
        """


class ContainersApi(Protocol):
    """Every operation of the service.

    Each call waits for the service, retries what is safe to retry, and ends within the
    deadlines of ``ApiConfig``. Cancelling a call closes its connection. All raise the
    classes of ``ctrfs.errors.RemoteError`` and no others.
    """

    @property
    def health(self) -> ServiceHealth:
        """How the service does, as far as earlier calls have shown; asks nothing."""
        return ServiceHealth()

    def ask_again(self) -> None:
        """Let the next call ask the service even if calls are refused as it has not answered."""
        return

    async def list_containers(
        self, *, name: str | None = None, marks: Sequence[str] = ()
    ) -> Listing[Container]:
        """Return all containers, expired ones too, oldest first; one request per 100.

        ``marks`` are ids of an earlier answer (``paging.marks_among``): with them, the pages
        are asked for at once instead of one after another. They change nothing else.
        """

    async def create_container(self, request: ContainerRequest) -> Container:
        """Create a container; it may answer 404 for some seconds after."""

    async def retrieve_container(self, container_id: ContainerId) -> Container:
        """Return the current facts of one container."""

    async def delete_container(self, container_id: ContainerId) -> None:
        """Delete a container with all its files.

        Raises:
            RemoteProtocolError: The service answered without confirming the deletion.
        """

    async def list_files(
        self, container_id: ContainerId, *, marks: Sequence[str] = ()
    ) -> Listing[ContainerFile]:
        """Return all files of a container, oldest first; one request per 100.

        ``marks`` as in ``list_containers``.
        """

    async def retrieve_file(self, container_id: ContainerId, file_id: FileId) -> ContainerFile:
        """Return the current facts of one file."""

    async def create_file(
        self, container_id: ContainerId, *, name: str, body: UploadBody
    ) -> ContainerFile:
        """Upload ``body`` as a new file; ``name`` goes out as given, slashes included.

        Never sends the bytes a second time where the service may already have taken them.

        Raises:
            RemoteUncertainError: No answer came after bytes had been sent; the file may exist.
        """

    async def copy_file(self, container_id: ContainerId, *, source_id: str) -> ContainerFile:
        """Copy a file of the account's file store (``file-…``) into a container.

        Raises:
            RemoteUncertainError: No answer came; the copy may exist.
        """

    async def delete_file(self, container_id: ContainerId, file_id: FileId) -> None:
        """Delete one file.

        Raises:
            RemoteProtocolError: The service answered without confirming the deletion.
        """

    def download(
        self,
        container_id: ContainerId,
        file_id: FileId,
        *,
        offset: int = 0,
        end: int | None = None,
        version: str | None = None,
        on_turn: Callable[[], None] = lambda: None,
    ) -> AbstractAsyncContextManager[ContentStream]:
        """Open the bytes of a file; entering waits for its turn and the answer's headers.

        An ``offset`` above 0 or an ``end`` asks for the part from there to before ``end``; a
        server without ranges sends all of it, and ``ContentStream.offset`` tells which
        happened. The connection is given back when the block is left, early or not.

        Args:
            container_id: Of which container.
            file_id: Of which file.
            offset: The first byte to send.
            end: The first byte not to send; None for all there are.
            version: Send a part only of this version (``ContentStream.version``), else all.
            on_turn: Told each time that the request is about to be sent.
        """
