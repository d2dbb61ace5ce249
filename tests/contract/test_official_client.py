"""The official Python client, unchanged, against a real server process: every operation."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from tests.support.service import ServiceProcess

from ctrfs.units import KIB, MIB


def peak_memory_bytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (peak,) = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
    return int(peak) * KIB


@pytest.fixture
def service() -> Iterator[ServiceProcess]:
    with ServiceProcess() as running:
        yield running


@pytest.fixture
def client(service: ServiceProcess) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=service.base_url, api_key=service.key, max_retries=0) as opened:
        yield opened


def test_a_container_is_created_with_what_was_asked_for(client: openai.OpenAI) -> None:
    created = client.containers.create(
        name="analysis",
        memory_limit="4g",
        expires_after={"anchor": "last_active_at", "minutes": 15},
        network_policy={"type": "allowlist", "allowed_domains": ["example.com"]},
    )

    assert created.id.startswith("cntr_")
    assert created.object == "container"
    assert created.name == "analysis"
    assert created.status == "running"
    assert created.memory_limit == "4g"
    assert created.expires_after is not None
    assert created.expires_after.minutes == 15
    assert created.network_policy is not None
    assert created.network_policy.allowed_domains == ["example.com"]


def test_a_created_container_can_be_retrieved(client: openai.OpenAI) -> None:
    created = client.containers.create(name="analysis")

    retrieved = client.containers.retrieve(created.id)

    assert (retrieved.id, retrieved.name, retrieved.status) == (created.id, "analysis", "running")


def test_containers_are_listed_across_pages_and_by_name(client: openai.OpenAI) -> None:
    ids = [client.containers.create(name=name).id for name in ("a", "b", "a", "c")]

    everything = [each.id for each in client.containers.list(limit=2, order="asc")]
    named = [each.id for each in client.containers.list(name="a")]

    assert everything == ids
    assert named == [ids[2], ids[0]]


def test_a_deleted_container_is_gone(client: openai.OpenAI) -> None:
    created = client.containers.create(name="analysis")

    client.containers.delete(created.id)

    assert list(client.containers.list()) == []
    with pytest.raises(openai.NotFoundError, match=f"Container with id '{created.id}' not found."):
        client.containers.retrieve(created.id)


def test_an_upload_comes_back_byte_for_byte(client: openai.OpenAI) -> None:
    container = client.containers.create(name="analysis")
    content = b"This is a test file content for container testing."

    created = client.containers.files.create(container.id, file=("report.txt", content))
    answer = client.containers.files.content.retrieve(created.id, container_id=container.id)

    assert created.path == "/mnt/data/bfe940181cd9f2193931fd77047b66bb-report.txt"
    assert created.bytes == len(content)
    assert created.source == "user"
    assert answer.content == content
    assert answer.response.headers["content-type"] == "text/plain; charset=utf-8"


def test_a_file_of_many_pieces_is_streamed_both_ways(client: openai.OpenAI, tmp_path: Path) -> None:
    container = client.containers.create(name="analysis")
    path = tmp_path / "large.bin"
    path.write_bytes(bytes(range(256)) * 40_000)

    created = client.containers.files.create(container.id, file=path)
    with client.containers.files.content.with_streaming_response.retrieve(
        created.id, container_id=container.id
    ) as answer:
        received = b"".join(answer.iter_bytes())

    assert received == path.read_bytes()


def test_a_large_file_never_sits_in_the_servers_memory(
    service: ServiceProcess, client: openai.OpenAI, tmp_path: Path
) -> None:
    container = client.containers.create(name="analysis")
    path = tmp_path / "large.bin"
    with path.open("wb") as file:
        file.truncate(128 * MIB)
    before = peak_memory_bytes(service.pid)

    created = client.containers.files.create(container.id, file=path)
    with client.containers.files.content.with_streaming_response.retrieve(
        created.id, container_id=container.id
    ) as answer:
        received_bytes = sum(len(piece) for piece in answer.iter_bytes(1 * MIB))

    assert received_bytes == 128 * MIB
    assert peak_memory_bytes(service.pid) - before < 16 * MIB


def test_files_are_listed_across_pages_in_both_orders(client: openai.OpenAI) -> None:
    container = client.containers.create(name="analysis")
    ids = [
        client.containers.files.create(container.id, file=(f"{n}.txt", b"%d" % n)).id
        for n in range(5)
    ]

    oldest_first = [
        each.id for each in client.containers.files.list(container.id, limit=2, order="asc")
    ]
    newest_first = [each.id for each in client.containers.files.list(container.id, limit=2)]

    assert oldest_first == ids
    assert newest_first == ids[::-1]


def test_a_file_is_retrieved_and_deleted_by_id(client: openai.OpenAI) -> None:
    container = client.containers.create(name="analysis")
    created = client.containers.files.create(container.id, file=("a.txt", b"a"))

    retrieved = client.containers.files.retrieve(created.id, container_id=container.id)
    client.containers.files.delete(created.id, container_id=container.id)

    assert retrieved.path == created.path
    assert list(client.containers.files.list(container.id)) == []
    with pytest.raises(openai.NotFoundError, match=r"File not found\."):
        client.containers.files.content.retrieve(created.id, container_id=container.id)


def test_a_stored_file_is_copied_into_new_and_old_containers(client: openai.OpenAI) -> None:
    stored = client.files.create(file=("a.txt", io.BytesIO(b"stored")), purpose="user_data")

    new = client.containers.create(name="new", file_ids=[stored.id])
    old = client.containers.create(name="old")
    copied = client.containers.files.create(old.id, file_id=stored.id)

    assert stored.filename == "a.txt"
    (copied_at_creation,) = client.containers.files.list(new.id)
    assert copied_at_creation.path == copied.path
    answer = client.containers.files.content.retrieve(copied.id, container_id=old.id)
    assert answer.content == b"stored"


def test_a_wrong_key_is_an_authentication_error() -> None:
    with (
        ServiceProcess("--api-key", "sk-right-key-0123456789") as locked,
        openai.OpenAI(base_url=locked.base_url, api_key="sk-wrong-key-0123456789") as client,
        pytest.raises(openai.AuthenticationError) as refused,
    ):
        client.containers.list()

    assert refused.value.code == "invalid_api_key"
    assert "sk-wrong***********6789" in str(refused.value)


def test_a_refused_value_is_a_bad_request_with_all_facts(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.containers.create(
            name="a", expires_after={"anchor": "last_active_at", "minutes": 21}
        )

    assert refused.value.code == "integer_above_max_value"
    assert refused.value.param == "expires_after.minutes"
    assert refused.value.request_id is not None


def test_the_clients_own_retries_get_past_a_fault(service: ServiceProcess) -> None:
    service.add_fault(
        "list_containers", "status", count=1, status=429, headers={"retry-after-ms": "1"}
    )

    with openai.OpenAI(base_url=service.base_url, api_key=service.key) as client:
        assert list(client.containers.list()) == []

    assert service.counters() == {"list_containers": 2}
