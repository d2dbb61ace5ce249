"""The client of the Containers API: one method an endpoint, nothing clever.

Connections are the business of ``session``, repetition of ``retry``, failures of ``failures``.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final, TypeVar

import trio
from typing_extensions import override

from ctrfs import errors
from ctrfs.api.connections import TransportFactory
from ctrfs.api.content_stream import HttpContentStream, content_stream, range_headers
from ctrfs.api.decode import Decoder
from ctrfs.api.encode import container_body, copy_body
from ctrfs.api.failures import (
    AttemptFailedError,
    Failure,
    error_status_in,
    failure_from_answer,
)
from ctrfs.api.health import ServiceHealth
from ctrfs.api.models import (
    Container,
    ContainerFile,
    ContainerId,
    ContainerRequest,
    FileId,
    Listing,
    Page,
)
from ctrfs.api.multipart import MultipartBody
from ctrfs.api.paging import PAGE_LIMIT, walk
from ctrfs.api.protocol import ContainersApi, UploadBody
from ctrfs.api.redaction import Redactor
from ctrfs.api.retry import Attempts, Plan, Repeat, Retrier
from ctrfs.api.session import Call, Session
from ctrfs.clock import Clock
from ctrfs.config import ApiConfig

ResultT = TypeVar("ResultT")
ModelT = TypeVar("ModelT", Container, ContainerFile)

_CONTAINERS: Final = "containers"
_FILES: Final = "files"


@asynccontextmanager
async def open_client(
    config: ApiConfig,
    *,
    clock: Clock,
    transport_factory: TransportFactory | None = None,
    jitter: Callable[[], float] = random.random,
) -> AsyncIterator[ContainersApi]:
    """Provide a client of the service that ``config`` names; sends nothing by itself.

    Args:
        config: Where the service is, who we are, and every limit.
        clock: For deadlines, waits and the log.
        transport_factory: Makes what stands in for a connection, in tests.
        jitter: Gives numbers from [0, 1) that spread retries.

    Raises:
        ConfigError: The address or the key cannot be used.
    """
    redactor = Redactor(config.key)
    session = Session(config, clock=clock, redactor=redactor, transport_factory=transport_factory)
    try:
        yield ContainersClient(
            config, session=session, clock=clock, redactor=redactor, jitter=jitter
        )
    finally:
        await session.aclose()


class ContainersClient(ContainersApi):
    """Speaks the Containers API over a ``Session`` that somebody else closes."""

    def __init__(
        self,
        config: ApiConfig,
        *,
        session: Session,
        clock: Clock,
        redactor: Redactor,
        jitter: Callable[[], float],
    ) -> None:
        self._config = config
        self._session = session
        self._clock = clock
        self._redactor = redactor
        self._decoder = Decoder(redactor)
        self._retrier = Retrier(clock=clock, random=jitter)

    @property
    @override
    def health(self) -> ServiceHealth:
        return self._session.health

    @override
    def ask_again(self) -> None:
        self._session.ask_again()

    @override
    async def list_containers(
        self, *, name: str | None = None, marks: Sequence[str] = ()
    ) -> Listing[Container]:
        """Return all containers, expired ones too, oldest first; one request per 100.

        Raises:
            RemoteReadOnlyError: The service has no list of containers.
        """

        def page_from(body: bytes) -> Page[Container]:
            return self._decoder.container_page(body, limit=PAGE_LIMIT)

        filters = () if name is None else (("name", name),)
        try:
            return await self._list(
                "list containers", (_CONTAINERS,), page_from, filters=filters, marks=marks
            )
        except errors.RemoteNotFoundError as error:
            raise _endpoint_missing(error) from error

    @override
    async def create_container(self, request: ContainerRequest) -> Container:
        """Create a container; it may answer 404 for some seconds after.

        Raises:
            RemoteUncertainError: No answer came; the container may exist.
            RemoteReadOnlyError: The service creates no containers.
        """
        call = Call(
            operation="create container",
            method="POST",
            segments=(_CONTAINERS,),
            json=container_body(request),
        )
        try:
            return await self._create(call, self._decoder.container)
        except errors.RemoteNotFoundError as error:
            if request.file_ids or request.skills:
                raise  # it may be one of these that is unknown
            raise _endpoint_missing(error) from error

    @override
    async def retrieve_container(self, container_id: ContainerId) -> Container:
        call = Call(
            operation="retrieve container", method="GET", segments=(_CONTAINERS, container_id)
        )
        return await self._read(call, self._decoder.container)

    @override
    async def delete_container(self, container_id: ContainerId) -> None:
        await self._delete(
            Call(
                operation="delete container",
                method="DELETE",
                segments=(_CONTAINERS, container_id),
            )
        )

    @override
    async def list_files(
        self, container_id: ContainerId, *, marks: Sequence[str] = ()
    ) -> Listing[ContainerFile]:
        def page_from(body: bytes) -> Page[ContainerFile]:
            return self._decoder.file_page(body, container_id, limit=PAGE_LIMIT)

        segments = (_CONTAINERS, container_id, _FILES)
        return await self._list("list files", segments, page_from, marks=marks)

    @override
    async def retrieve_file(self, container_id: ContainerId, file_id: FileId) -> ContainerFile:
        call = Call(
            operation="retrieve file",
            method="GET",
            segments=(_CONTAINERS, container_id, _FILES, file_id),
        )
        return await self._read(call, lambda body: self._decoder.file(body, container_id))

    @override
    async def create_file(
        self, container_id: ContainerId, *, name: str, body: UploadBody
    ) -> ContainerFile:
        call = Call(
            operation="create file",
            method="POST",
            segments=(_CONTAINERS, container_id, _FILES),
            upload=MultipartBody(name=name, body=body),
            is_transfer=True,
        )
        return await self._create(call, lambda answer: self._decoder.file(answer, container_id))

    @override
    async def copy_file(self, container_id: ContainerId, *, source_id: str) -> ContainerFile:
        call = Call(
            operation="copy file",
            method="POST",
            segments=(_CONTAINERS, container_id, _FILES),
            json=copy_body(source_id),
        )
        return await self._create(call, lambda answer: self._decoder.file(answer, container_id))

    @override
    async def delete_file(self, container_id: ContainerId, file_id: FileId) -> None:
        await self._delete(
            Call(
                operation="delete file",
                method="DELETE",
                segments=(_CONTAINERS, container_id, _FILES, file_id),
            )
        )

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
    ) -> AsyncIterator[HttpContentStream]:
        call = Call(
            operation="download",
            method="GET",
            segments=(_CONTAINERS, container_id, _FILES, file_id, "content"),
            headers=range_headers(offset, end, version),
            is_transfer=True,
            on_turn=on_turn,
        )
        async with AsyncExitStack() as stack:

            async def attempt(attempts: Attempts) -> HttpContentStream:
                answer = await stack.enter_async_context(self._session.exchange(call, attempts))
                return content_stream(
                    answer,
                    offset=offset,
                    end=end,
                    stall_timeout_s=self._config.stall_timeout_s,
                    redactor=self._redactor,
                )

            # The way to the head of the answer may lead through a queue of other transfers.
            plan = self._plan(Repeat.FREELY, timeout_s=self._config.transfer_timeout_s)
            yield await self._retrier.run(attempt, plan=plan)

    async def _list(
        self,
        operation: str,
        segments: tuple[str, ...],
        page_from: Callable[[bytes], Page[ModelT]],
        *,
        filters: tuple[tuple[str, str], ...] = (),
        marks: Sequence[str] = (),
    ) -> Listing[ModelT]:
        async def fetch_page(cursor: str | None) -> Page[ModelT]:
            query = (("limit", str(PAGE_LIMIT)), ("order", "asc"), *filters)
            if cursor is not None:
                query += (("after", cursor),)
            call = Call(operation=operation, method="GET", segments=segments, query=query)
            return await self._read(call, page_from)

        # Each page has the deadline of its own request; the walk as a whole may take as long
        # as a transfer, for 5,000 files are 50 requests of a second.
        with trio.move_on_after(self._config.transfer_timeout_s):
            return await walk(fetch_page, pages_max=self._config.pages_max, marks=marks)
        raise errors.RemoteUnavailableError(
            f"a listing did not end within {self._config.transfer_timeout_s:.0f} s"
        )

    async def _read(self, call: Call, decode: Callable[[bytes], ResultT]) -> ResultT:
        plan = self._plan(Repeat.FREELY, timeout_s=self._config.metadata_timeout_s)
        return await self._run(call, decode, plan)

    async def _create(self, call: Call, decode: Callable[[bytes], ResultT]) -> ResultT:
        config = self._config
        timeout_s = config.transfer_timeout_s if call.is_transfer else config.metadata_timeout_s
        plan = self._plan(Repeat.IF_SURELY_NOT_DONE, timeout_s=timeout_s)
        return await self._run(call, decode, plan)

    async def _delete(self, call: Call) -> None:
        async def attempt(attempts: Attempts) -> None:
            try:
                body = await self._exchange(call, attempts)
            except AttemptFailedError as error:
                is_gone = isinstance(error.failure.error, errors.RemoteNotFoundError)
                if is_gone and attempts.may_be_done:
                    return  # by the attempt before, whose answer was lost
                raise
            if not self._decoder.confirms_deletion(body):
                unconfirmed = errors.RemoteProtocolError("the service did not confirm the deletion")
                raise AttemptFailedError(_unreadable(unconfirmed))

        plan = self._plan(Repeat.FREELY, timeout_s=self._config.metadata_timeout_s)
        await self._retrier.run(attempt, plan=plan)

    async def _run(self, call: Call, decode: Callable[[bytes], ResultT], plan: Plan) -> ResultT:
        async def attempt(attempts: Attempts) -> ResultT:
            body = await self._exchange(call, attempts)
            try:
                return decode(body)
            except errors.RemoteProtocolError as error:
                raise AttemptFailedError(_unreadable(error)) from error

        return await self._retrier.run(attempt, plan=plan)

    async def _exchange(self, call: Call, attempts: Attempts) -> bytes:
        async with self._session.exchange(call, attempts) as answer:
            try:
                body = await answer.read(bytes_max=self._config.json_bytes_max)
            except errors.RemoteProtocolError as error:
                raise AttemptFailedError(_unreadable(error)) from error
        status = error_status_in(body)
        if status is not None:
            raise AttemptFailedError(
                failure_from_answer(status, answer.headers, body, redactor=self._redactor)
            )
        return body

    def _plan(self, repeat: Repeat, *, timeout_s: float) -> Plan:
        return Plan(
            repeat=repeat,
            retries_max=self._config.retries_max,
            deadline_s=self._clock.monotonic_s() + timeout_s,
        )


def _endpoint_missing(error: errors.RemoteNotFoundError) -> errors.RemoteReadOnlyError:
    # A collection is not an object that could be missing: the service, or what stands at this
    # address, does not know the endpoint. OpenRouter has no list of containers.
    return errors.RemoteReadOnlyError(
        f"the service does not offer containers at this address: {error}",
        request_id=error.request_id,
        code=error.code,
    )


def _unreadable(error: errors.RemoteProtocolError) -> Failure:
    # The service called it a success: a creation is then probably done.
    return Failure(error=error, cause=error.__cause__, status=200, may_be_done=True)
