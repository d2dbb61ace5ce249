"""The service without sockets, as other tests use it: virtual time, streams, faults."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
import trio
import trio.testing
from tests.support.service import InProcessService


@pytest.fixture
def service(tmp_path: Path) -> Iterator[InProcessService]:
    with InProcessService(tmp_path / "data") as opened:
        yield opened


@pytest.fixture
async def client(service: InProcessService) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(
        transport=service.transport,
        base_url=service.base_url,
        headers={"Authorization": f"Bearer {service.key}"},
    ) as opened:
        yield opened


async def test_a_client_uploads_and_downloads_without_sockets(
    service: InProcessService, client: httpx.AsyncClient
) -> None:
    container = service.create_container("a")

    created = await client.post(
        f"/containers/{container}/files", files={"file": ("a.bin", b"x" * 700_000)}
    )
    async with client.stream(
        "GET", f"/containers/{container}/files/{created.json()['id']}/content"
    ) as answer:
        received = [piece async for piece in answer.aiter_raw()]

    assert b"".join(received) == b"x" * 700_000


async def test_a_delay_passes_in_virtual_time(
    service: InProcessService, client: httpx.AsyncClient, autojump_clock: trio.testing.MockClock
) -> None:
    service.add_fault("list_containers", "delay", seconds=3.0)

    began_s = trio.current_time()
    answer = await client.get("/containers")

    assert answer.status_code == 200
    assert trio.current_time() - began_s == pytest.approx(3.0)


async def test_a_silent_service_is_a_read_timeout(
    service: InProcessService, client: httpx.AsyncClient, autojump_clock: trio.testing.MockClock
) -> None:
    service.add_fault("list_containers", "stall")

    with pytest.raises(httpx.ReadTimeout):
        await client.get("/containers", timeout=5.0)


async def test_a_reset_is_a_read_error(
    service: InProcessService, client: httpx.AsyncClient
) -> None:
    service.add_fault("create_container", "reset", when="after")

    with pytest.raises(httpx.ReadError):
        await client.post("/containers", json={"name": "a"})

    assert [row["name"] for row in service.containers()] == ["a"]


@pytest.mark.parametrize(
    "fault", [{"action": "cut", "bytes": 5}, {"action": "wrong-length", "delta": 9}]
)
async def test_a_body_that_ends_early_is_a_protocol_error(
    service: InProcessService, client: httpx.AsyncClient, fault: dict[str, object]
) -> None:
    service.add_fault("list_containers", str(fault.pop("action")), **fault)

    with pytest.raises(httpx.RemoteProtocolError, match="complete message body"):
        await client.get("/containers")


async def test_a_stall_in_the_body_is_a_read_timeout(
    service: InProcessService, client: httpx.AsyncClient, autojump_clock: trio.testing.MockClock
) -> None:
    service.add_fault("list_containers", "stall", bytes=3)

    with pytest.raises(httpx.ReadTimeout):
        await client.get("/containers")


async def test_counters_tell_operations_and_can_be_reset(
    service: InProcessService, client: httpx.AsyncClient
) -> None:
    service.create_container("a")
    service.reset_counters()

    await client.get("/containers")
    await client.get("/containers")

    assert service.counters() == {"list_containers": 2}


async def test_its_wall_clock_follows_virtual_time(
    service: InProcessService, autojump_clock: trio.testing.MockClock
) -> None:
    container = service.create_container("a")

    await trio.sleep(20 * 60)

    assert service.retrieve_container(container)["status"] == "expired"
