"""Every method of the client against the local service: in this process, and over real sockets."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from tests.support.service import (
    InProcessService,
    InProcessTransport,
    ServiceProcess,
)

from ctrfs import errors
from ctrfs.api.client import open_client
from ctrfs.api.models import ContainerId, ContainerRequest, FileId
from ctrfs.api.protocol import ContainersApi, UploadBody
from ctrfs.clock import SystemClock
from ctrfs.config import ApiConfig, Secret

MIB = 1024 * 1024


@pytest.fixture
def process() -> Iterator[ServiceProcess]:
    with ServiceProcess() as service:
        yield service


@pytest.fixture
def in_process() -> Iterator[InProcessService]:
    with InProcessService() as service:
        yield service


@pytest.fixture(params=["in_process", "process"])
def service(request: pytest.FixtureRequest) -> InProcessService | ServiceProcess:
    running = request.getfixturevalue(request.param)
    assert isinstance(running, InProcessService | ServiceProcess)
    return running


@asynccontextmanager
async def client_of(service: InProcessService | ServiceProcess) -> AsyncIterator[ContainersApi]:
    config = ApiConfig(
        base_url=service.base_url,
        key=Secret(service.key),
        unix_socket=service.unix_socket if isinstance(service, ServiceProcess) else None,
        connections_max=4,
    )

    def in_process_transport() -> InProcessTransport:
        assert isinstance(service, InProcessService)
        return service.transport

    is_in_process = isinstance(service, InProcessService)
    async with open_client(
        config,
        clock=SystemClock(),
        transport_factory=in_process_transport if is_in_process else None,
        jitter=lambda: 3.9,
    ) as api:
        yield api


def body_of(*pieces: bytes) -> UploadBody:
    return UploadBody(size_bytes=sum(map(len, pieces)), open=lambda: iter(pieces))


async def content_of(api: ContainersApi, container_id: ContainerId, file_id: FileId) -> bytes:
    async with api.download(container_id, file_id) as stream:
        content = b"".join([piece async for piece in stream.pieces()])
        assert stream.length_bytes == len(content)
        return content


async def new_container(api: ContainersApi, name: str = "analysis") -> ContainerId:
    return (await api.create_container(ContainerRequest(name=name))).id


async def test_a_container_is_created_found_listed_and_deleted(
    service: InProcessService | ServiceProcess,
) -> None:
    async with client_of(service) as api:
        created = await api.create_container(
            ContainerRequest(
                name="everything ü",
                expires_after_minutes=15,
                memory_limit="4g",
                allowed_domains=("pypi.org",),
                domain_secrets=(("pypi.org", "TOKEN", "hidden"),),
            )
        )
        retrieved = await api.retrieve_container(created.id)
        listing = await api.list_containers()
        await api.delete_container(created.id)
        with pytest.raises(errors.RemoteNotFoundError):
            await api.retrieve_container(created.id)

    assert created.name == retrieved.name == "everything ü"
    assert created.expires_after_minutes == 15
    assert created.memory_limit == "4g"
    assert created.network_policy == "allowlist"
    assert created.is_alive
    assert created.id in [container.id for container in listing.items]
    assert listing.rejected == ()


async def test_containers_are_filtered_by_name(service: InProcessService | ServiceProcess) -> None:
    async with client_of(service) as api:
        wanted = await new_container(api, "only & this=one")
        await new_container(api, "another")

        listing = await api.list_containers(name="only & this=one")

    assert [container.id for container in listing.items] == [wanted]


async def test_a_file_is_uploaded_found_listed_read_and_deleted(
    service: InProcessService | ServiceProcess,
) -> None:
    content = b"This is a test file content for container testing."
    async with client_of(service) as api:
        container = await new_container(api)
        created = await api.create_file(container, name="report.csv", body=body_of(content))
        retrieved = await api.retrieve_file(container, created.id)
        listing = await api.list_files(container)
        downloaded = await content_of(api, container, created.id)
        await api.delete_file(container, created.id)
        with pytest.raises(errors.RemoteNotFoundError):
            await api.retrieve_file(container, created.id)

    assert created.path == "/mnt/data/bfe940181cd9f2193931fd77047b66bb-report.csv"
    assert (created.size_bytes, created.source) == (50, "user")
    assert retrieved == created
    assert listing.items == (created,)
    assert downloaded == content


async def test_a_large_file_comes_back_as_it_went(
    service: InProcessService | ServiceProcess,
) -> None:
    pieces = [bytes([number]) * MIB for number in range(5)]
    async with client_of(service) as api:
        container = await new_container(api)
        created = await api.create_file(container, name="large.bin", body=body_of(*pieces))
        downloaded = await content_of(api, container, created.id)

    assert created.size_bytes == 5 * MIB
    digest = hashlib.blake2b(b"".join(pieces), digest_size=16).hexdigest()
    assert created.path == f"/mnt/data/{digest}-large.bin"
    assert downloaded == b"".join(pieces)


async def test_an_empty_file_comes_back_empty(service: InProcessService | ServiceProcess) -> None:
    async with client_of(service) as api:
        container = await new_container(api)
        created = await api.create_file(container, name="empty", body=body_of())

        assert created.size_bytes == 0
        assert await content_of(api, container, created.id) == b""


@pytest.mark.parametrize("name", ["Grüße 世界.txt", "two words", "plots/fig1.png", "100%22.txt"])
async def test_a_name_arrives_as_it_was_given(
    service: InProcessService | ServiceProcess, name: str
) -> None:
    async with client_of(service) as api:
        container = await new_container(api)
        created = await api.create_file(container, name=name, body=body_of(b"x"))

    digest = hashlib.blake2b(b"x", digest_size=16).hexdigest()
    assert created.path.replace(f"{digest}-", "") == f"/mnt/data/{name}"


async def test_a_long_listing_comes_whole_in_pages_of_a_hundred_oldest_first(
    in_process: InProcessService,
) -> None:
    async with client_of(in_process) as api:
        container = await new_container(api)
        planted = [in_process.plant(container, f"/mnt/data/{n}") for n in range(250)]
        in_process.reset_counters()

        listing = await api.list_files(container)

    assert [file.id for file in listing.items] == planted
    assert in_process.counters()["list_files"] == 3


async def test_a_download_starts_at_an_offset_where_the_server_has_ranges(
    in_process: InProcessService,
) -> None:
    in_process.set_behaviour(ranges=True)
    async with client_of(in_process) as api:
        container = await new_container(api)
        created = await api.create_file(container, name="a", body=body_of(b"0123456789"))

        async with api.download(container, created.id, offset=4) as stream:
            content = b"".join([piece async for piece in stream.pieces()])

        assert (stream.offset, stream.length_bytes, content) == (4, 6, b"456789")
        with pytest.raises(errors.RemoteInvalidError):
            async with api.download(container, created.id, offset=99):
                raise AssertionError


async def test_a_server_without_ranges_sends_the_file_from_its_start(
    service: InProcessService | ServiceProcess,
) -> None:
    async with client_of(service) as api:
        container = await new_container(api)
        created = await api.create_file(container, name="a", body=body_of(b"0123456789"))

        async with api.download(container, created.id, offset=4) as stream:
            content = b"".join([piece async for piece in stream.pieces()])

    assert (stream.offset, stream.length_bytes, content) == (0, 10, b"0123456789")


async def test_a_large_download_comes_in_large_pieces(process: ServiceProcess) -> None:
    async with client_of(process) as api:
        container = await new_container(api)
        body = body_of(*[bytes(MIB) for _ in range(8)])
        created = await api.create_file(container, name="a", body=body)

        async with api.download(container, created.id) as stream:
            sizes = [len(piece) async for piece in stream.pieces()]

    assert sum(sizes) == 8 * MIB
    assert max(sizes) > 64 * 1024


async def test_a_download_can_be_left_half_way(service: InProcessService | ServiceProcess) -> None:
    async with client_of(service) as api:
        container = await new_container(api)
        body = body_of(*[bytes(MIB) for _ in range(8)])
        created = await api.create_file(container, name="a", body=body)

        async with api.download(container, created.id) as stream:
            first = await anext(aiter(stream.pieces()))

        assert first
        assert (await api.retrieve_file(container, created.id)).size_bytes == 8 * MIB


async def test_a_file_of_the_account_that_is_unknown_cannot_be_copied(
    service: InProcessService | ServiceProcess,
) -> None:
    async with client_of(service) as api:
        container = await new_container(api)

        with pytest.raises((errors.RemoteNotFoundError, errors.RemoteInvalidError)):
            await api.copy_file(container, source_id="file-unknown")


async def test_an_expired_container_says_so(in_process: InProcessService) -> None:
    async with client_of(in_process) as api:
        container = await new_container(api)
        in_process.advance(21 * 60)

        retrieved = await api.retrieve_container(container)
        with pytest.raises(errors.ContainerExpiredError):
            await api.list_files(container)

    assert retrieved.is_expired


async def test_a_wrong_key_is_refused_and_not_shown(in_process: InProcessService) -> None:
    in_process.key = "sk-wrong-0123456789"
    async with client_of(in_process) as api:
        with pytest.raises(errors.RemoteRefusedError) as caught:
            await api.list_containers()

    assert "sk-wrong" not in str(caught.value)


async def test_a_service_is_reached_over_a_unix_socket(tmp_path: Path) -> None:
    with ServiceProcess(unix_socket=tmp_path / "s") as service:
        async with client_of(service) as api:
            container = await new_container(api)
            created = await api.create_file(container, name="a", body=body_of(b"hello"))

            assert await content_of(api, container, created.id) == b"hello"


async def test_rubbish_in_a_listing_is_set_aside(in_process: InProcessService) -> None:
    in_process.set_behaviour(rubbish=True, empty_pages=True)
    async with client_of(in_process) as api:
        container = await new_container(api)
        created = await api.create_file(container, name="a", body=body_of(b"x"))

        listing = await api.list_files(container)

    assert created.id in [file.id for file in listing.items]


async def test_a_service_that_fails_twice_is_asked_a_third_time(
    in_process: InProcessService,
) -> None:
    in_process.add_fault("list_containers", "status", status=503, count=2)
    async with client_of(in_process) as api:
        listing = await api.list_containers()

    assert listing.items == ()
    assert in_process.counters()["list_containers"] == 3


async def test_a_failed_upload_is_not_sent_again_and_may_have_been_done(
    in_process: InProcessService,
) -> None:
    async with client_of(in_process) as api:
        container = await new_container(api)
        in_process.add_fault("create_file", "reset", when="after", count=1)

        with pytest.raises(errors.RemoteUncertainError):
            await api.create_file(container, name="a", body=body_of(b"x"))
        listing = await api.list_files(container)

    assert in_process.counters()["create_file"] == 1
    assert len(listing.items) == 1


async def test_many_calls_at_once_all_get_their_own_answers(
    service: InProcessService | ServiceProcess,
) -> None:
    contents: dict[int, bytes] = {}
    async with client_of(service) as api:
        container = await new_container(api)

        async def round_trip(number: int) -> None:
            body = body_of(str(number).encode())
            created = await api.create_file(container, name=f"{number}.txt", body=body)
            contents[number] = await content_of(api, container, created.id)

        async with trio.open_nursery() as nursery:
            for number in range(30):
                nursery.start_soon(round_trip, number)

    assert contents == {number: str(number).encode() for number in range(30)}
