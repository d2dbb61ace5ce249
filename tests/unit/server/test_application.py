"""Routes, validation, keys, expiry: requests in, responses out, no sockets."""

from __future__ import annotations

import hashlib
import json

import pytest
import trio
import trio.testing
from tests.support.service import InProcessService, ServiceError
from tests.unit.server.conftest import Caller

VALID = {"name": "a"}


def upload(name: str, content: bytes) -> tuple[bytes, dict[str, str]]:
    body = (
        b'--B\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nuser_data\r\n'
        b'--B\r\nContent-Disposition: form-data; name="file"; filename="%s"\r\n'
        b"Content-Type: text/plain\r\n\r\n%s\r\n--B--\r\n"
    ) % (name.encode(), content)
    return body, {"content-type": "multipart/form-data; boundary=B"}


@pytest.mark.parametrize("prefix", ["", "/v1"])
async def test_routes_stand_with_and_without_a_version(call: Caller, prefix: str) -> None:
    assert (await call("GET", f"{prefix}/containers")).status == 200


async def test_every_answer_bears_the_headers_of_the_service(call: Caller) -> None:
    answer = await call("GET", "/v1/containers/cntr_x")

    assert list(answer.headers) == [
        "Content-Type",
        "X-Request-ID",
        "openai-processing-ms",
        "openai-version",
    ]
    assert answer.headers["openai-version"] == "2020-10-01"
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["X-Request-ID"].startswith("req_")


@pytest.mark.parametrize(
    ("content", "digest"),
    [
        (
            b"This is a test file content for container testing.",
            "bfe940181cd9f2193931fd77047b66bb",
        ),
        (b"Test file content for get/delete operations.", "946e6dc94ac6aca10fa2bda7a127cba8"),
    ],
)
async def test_an_upload_is_stored_under_the_hash_of_its_bytes(
    service: InProcessService, call: Caller, content: bytes, digest: str
) -> None:
    container = service.create_container("a")
    body, headers = upload("report.csv", content)

    answer = await call("POST", f"/v1/containers/{container}/files", body=body, headers=headers)

    assert answer.status == 200
    facts = json.loads(answer.body)
    assert facts["path"] == f"/mnt/data/{digest}-report.csv"
    assert facts["bytes"] == len(content)
    assert hashlib.blake2b(content, digest_size=16).hexdigest() == digest


async def test_content_bears_the_headers_of_a_download(
    service: InProcessService, call: Caller
) -> None:
    container = service.create_container("a")
    file = service.plant(container, "/mnt/data/notes.txt", b"hello")

    answer = await call(
        "GET", f"/containers/{container}/files/{file}/content", headers={"range": "bytes=1-2"}
    )

    assert (answer.status, answer.body) == (200, b"hello")
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert answer.headers["Content-Disposition"] == (
        "attachment; filename=\"file.txt\"; filename*=UTF-8''notes.txt"
    )
    unwanted = {"ETag", "Last-Modified", "Accept-Ranges", "Cache-Control", "Content-Range"}
    assert not unwanted & answer.headers.keys()


@pytest.mark.parametrize(
    ("query", "param", "code"),
    [
        ("limit=101", "limit", "integer_above_max_value"),
        ("limit=0", "limit", "integer_below_min_value"),
        ("limit=many", "limit", "invalid_type"),
        ("order=up", "order", "invalid_value"),
        ("after=cfile_never", "after", "invalid_value"),
    ],
)
@pytest.mark.parametrize("listing", ["containers", "files"])
async def test_a_wrong_query_is_refused(
    service: InProcessService, call: Caller, listing: str, query: str, param: str, code: str
) -> None:
    container = service.create_container("a")
    path = "/containers" if listing == "containers" else f"/containers/{container}/files"

    answer = await call("GET", f"{path}?{query}")

    assert answer.status == 400
    error = json.loads(answer.body)["error"]
    assert list(error) == ["message", "type", "param", "code"]
    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", param, code)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({}, "name"),
        ({"name": 7}, "name"),
        ({"name": "a", "memory_limit": "2g"}, "memory_limit"),
        ({"name": "a", "colour": "red"}, "colour"),
        ({"name": "a", "file_ids": "x"}, "file_ids"),
        ({"name": "a", "file_ids": [1]}, "file_ids[0]"),
        ({"name": "a", "skills": {}}, "skills"),
        ({"name": "a", "expires_after": 5}, "expires_after"),
        ({"name": "a", "expires_after": {"minutes": 5}}, "expires_after.anchor"),
        (
            {"name": "a", "expires_after": {"anchor": "created_at", "minutes": 5}},
            "expires_after.anchor",
        ),
        (
            {"name": "a", "expires_after": {"anchor": "last_active_at", "minutes": 21}},
            "expires_after.minutes",
        ),
        (
            {"name": "a", "expires_after": {"anchor": "last_active_at", "minutes": 0}},
            "expires_after.minutes",
        ),
        ({"name": "a", "network_policy": {"type": "open"}}, "network_policy.type"),
        (
            {"name": "a", "network_policy": {"type": "allowlist"}},
            "network_policy.allowed_domains",
        ),
        (
            {
                "name": "a",
                "network_policy": {
                    "type": "allowlist",
                    "allowed_domains": ["a.example"],
                    "domain_secrets": [{"domain": "b.example", "name": "n", "value": "v"}],
                },
            },
            "network_policy.domain_secrets.domain",
        ),
    ],
)
async def test_a_wrong_field_of_a_new_container_is_refused(
    service: InProcessService, call: Caller, fields: dict[str, object], param: str
) -> None:
    answer = await call("POST", "/containers", body=json.dumps(fields).encode())

    assert answer.status == 400
    assert json.loads(answer.body)["error"]["param"] == param
    assert service.containers() == []


@pytest.mark.parametrize("body", [b"{", b"\xff", b"[" * 100_000])
async def test_json_that_cannot_be_read_is_refused(call: Caller, body: bytes) -> None:
    answer = await call("POST", "/containers", body=body)

    assert answer.status == 400
    assert "could not parse the JSON body" in json.loads(answer.body)["error"]["message"]


async def test_a_domain_secret_is_never_shown(service: InProcessService, call: Caller) -> None:
    policy = {
        "type": "allowlist",
        "allowed_domains": ["a.example"],
        "domain_secrets": [{"domain": "a.example", "name": "n", "value": "very-secret"}],
    }

    answer = await call(
        "POST", "/containers", body=json.dumps({"name": "a", "network_policy": policy}).encode()
    )

    assert answer.status == 200
    assert b"very-secret" not in answer.body


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("HEAD", "/containers", 405),
        ("PUT", "/containers/c", 405),
        ("POST", "/containers/c/files/f/content", 405),
        ("GET", "/", 404),
        ("GET", "/v2/containers", 404),
        ("GET", "/containers/c/files/f/content/more", 404),
    ],
)
async def test_an_unknown_address_or_method_is_refused(
    call: Caller, method: str, path: str, status: int
) -> None:
    answer = await call(method, path)

    assert answer.status == status
    assert list(json.loads(answer.body)["error"]) == ["message", "type", "param", "code"]


async def test_a_missing_key_is_refused(call: Caller) -> None:
    answer = await call("GET", "/containers", headers={"authorization": ""})

    assert answer.status == 401


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": "Bearer sk-wrong-key-0123456789"},
        {"authorization": "", "api-key": "sk-wrong-key-0123456789"},
    ],
)
async def test_a_wrong_key_is_shown_masked(call: Caller, headers: dict[str, str]) -> None:
    answer = await call("GET", "/containers", headers=headers)

    error = json.loads(answer.body)["error"]
    assert (answer.status, error["code"]) == (401, "invalid_api_key")
    assert error["message"].startswith("Incorrect API key provided: sk-wrong***********6789.")


async def test_the_key_may_come_as_an_api_key_header(
    service: InProcessService, call: Caller
) -> None:
    answer = await call("GET", "/containers", headers={"authorization": "", "api-key": service.key})

    assert answer.status == 200


@pytest.mark.parametrize(("count", "limit", "pages"), [(0, 1, 1), (2, 2, 1), (3, 2, 2), (4, 2, 2)])
async def test_pages_end_exactly_with_the_last_row(
    service: InProcessService, call: Caller, count: int, limit: int, pages: int
) -> None:
    container = service.create_container("a")
    expected = [service.plant(container, f"/mnt/data/{n}") for n in range(count)]

    found: list[str] = []
    walked, after, has_more = 0, "", True
    while has_more:
        query = f"limit={limit}&order=asc{after}"
        page = json.loads((await call("GET", f"/containers/{container}/files?{query}")).body)
        found += [row["id"] for row in page["data"]]
        walked, after, has_more = walked + 1, f"&after={page['last_id']}", page["has_more"]

    assert found == expected
    assert walked == pages


async def test_twenty_rows_newest_first_are_the_default_page(
    service: InProcessService, call: Caller
) -> None:
    ids = [service.create_container(f"c{n}") for n in range(21)]

    page = json.loads((await call("GET", "/containers")).body)

    assert [row["id"] for row in page["data"]] == ids[:0:-1]
    assert page["has_more"] is True
    assert (page["first_id"], page["last_id"]) == (ids[20], ids[1])


async def test_a_container_expires_twenty_idle_minutes_later_and_not_before(
    service: InProcessService,
) -> None:
    container = service.create_container("a")
    file = service.plant(container, "/mnt/data/a", b"abc")

    service.advance(20 * 60 - 1)
    assert service.content(container, file) == b"abc"
    service.advance(20 * 60 - 1)
    assert service.retrieve_container(container)["status"] == "running"
    service.advance(20 * 60 + 1)

    assert [row["status"] for row in service.containers()] == ["expired"]
    assert service.retrieve_container(container)["status"] == "expired"
    with pytest.raises(ServiceError, match=r"400: (.|\n)*Container is expired\."):
        service.content(container, file)


async def test_listing_containers_shows_the_present_and_refreshes_nothing(
    service: InProcessService,
) -> None:
    container = service.create_container("a")
    created_at = service.retrieve_container(container)["created_at"]
    assert isinstance(created_at, int)

    service.advance(15 * 60)
    (row,) = service.containers()
    service.advance(6 * 60)

    assert row["last_active_at"] == pytest.approx(created_at + 15 * 60, abs=2)
    assert service.retrieve_container(container)["status"] == "expired"


async def test_an_expired_container_can_be_deleted(service: InProcessService) -> None:
    container = service.create_container("a")
    service.advance(21 * 60)

    service.delete_container(container)

    assert service.containers() == []


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("multipart/form-data", b""),
        ("multipart/form-data; boundary=B", b"--B\r\n"),
        ("multipart/form-data; boundary=B", b"no boundary at all"),
        (
            "multipart/form-data; boundary=B",
            b'--B\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\ncut off',
        ),
        (
            "multipart/form-data; boundary=B",
            b'--B\r\nContent-Disposition: form-data; name="other"; filename="a"\r\n\r\nx\r\n--B--',
        ),
        ("application/json", b"{}"),
        ("application/json", b'{"file_id": 7}'),
    ],
)
async def test_an_upload_that_holds_no_whole_file_is_refused_and_leaves_nothing(
    service: InProcessService, call: Caller, content_type: str, body: bytes
) -> None:
    container = service.create_container("a")

    answer = await call(
        "POST",
        f"/containers/{container}/files",
        body=body,
        headers={"content-type": content_type},
    )

    assert answer.status == 400
    assert service.files(container) == []
    assert service.state.blobs.names() == set()


async def test_a_name_keeps_its_letters_and_quotes(service: InProcessService) -> None:
    container = service.create_container("a")

    service.upload(container, "naïve %22 ☃.txt", b"")

    (row,) = service.files(container)
    assert str(row["path"]).endswith("-naïve %22 ☃.txt")


async def test_a_very_long_name_is_kept(service: InProcessService) -> None:
    container = service.create_container("a")
    name = "/".join(["é" * 120] * 16) + ".txt"

    service.upload(container, name, b"")

    (row,) = service.files(container)
    assert str(row["path"]).endswith("é" * 120 + ".txt")


async def test_an_unknown_stored_file_is_not_copied(
    service: InProcessService, call: Caller
) -> None:
    container = service.create_container("a")

    answer = await call(
        "POST", f"/containers/{container}/files", body=b'{"file_id": "file-unknown"}'
    )

    assert answer.status == 404


async def test_json_beyond_the_limit_is_refused(call: Caller) -> None:
    answer = await call("POST", "/containers", body=b" " * (1024 * 1024 + 1))

    assert answer.status == 413


async def test_a_container_deleted_during_an_upload_takes_no_file(
    service: InProcessService, call: Caller
) -> None:
    container = service.create_container("a")
    gate = trio.Event()
    refused: list[str] = []

    body, headers = upload("a.txt", b"abc")

    async def send() -> None:
        answer = await call(
            "POST", f"/containers/{container}/files", body=body, headers=headers, gate=gate
        )
        refused.append(json.loads(answer.body)["error"]["message"])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        await trio.testing.wait_all_tasks_blocked()
        service.delete_container(container)
        gate.set()

    assert refused == [f"Container with id '{container}' not found."]
    assert service.state.blobs.names() == set()
