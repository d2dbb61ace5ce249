"""Each switch for an open question does what it says; the defaults do the other thing."""

from __future__ import annotations

import json

import pytest
from tests.support.service import InProcessService, ServiceError
from tests.unit.server.conftest import Caller

from ctrfs.errors import ConfigError
from ctrfs.server.behaviour import Behaviour, Slashes, changed_behaviour

HASH_OF_ABC = "cf4ab791c62b8d2b2109c90275287816"


def paths(service: InProcessService, container: str) -> list[object]:
    return [row["path"] for row in service.files(container)]


def ids(service: InProcessService, container: str) -> list[object]:
    return [row["id"] for row in service.files(container)]


@pytest.mark.parametrize(
    ("slashes", "path"),
    [
        ("keep", f"/mnt/data/a/{HASH_OF_ABC}-b.txt"),
        ("prefix-first", f"/mnt/data/{HASH_OF_ABC}-a/b.txt"),
        ("base", f"/mnt/data/{HASH_OF_ABC}-b.txt"),
    ],
)
async def test_slashes(service: InProcessService, slashes: str, path: str) -> None:
    service.set_behaviour(slashes=slashes)
    container = service.create_container("a")

    service.upload(container, "a/b.txt", b"abc")

    assert paths(service, container) == [path]


async def test_the_same_upload_again_is_a_second_row(service: InProcessService) -> None:
    container = service.create_container("a")

    first = service.upload(container, "a.txt", b"abc")
    second = service.upload(container, "a.txt", b"abc")

    assert first != second
    assert paths(service, container) == [f"/mnt/data/{HASH_OF_ABC}-a.txt"] * 2


async def test_the_same_upload_again_can_be_the_same_row(service: InProcessService) -> None:
    service.set_behaviour(duplicates="same")
    container = service.create_container("a")

    first = service.upload(container, "a.txt", b"abc")
    second = service.upload(container, "a.txt", b"abc")
    service.upload(container, "a.txt", b"other bytes")

    assert first == second
    assert len(service.files(container)) == 2
    assert len(service.state.blobs.names()) == 2


async def test_other_bytes_under_the_same_name_never_overwrite(service: InProcessService) -> None:
    container = service.create_container("a")

    first = service.upload(container, "a.txt", b"abc")
    second = service.upload(container, "a.txt", b"def")

    assert service.content(container, first) == b"abc"
    assert service.content(container, second) == b"def"


async def test_without_prefix_one_path_may_have_many_rows(service: InProcessService) -> None:
    service.set_behaviour(hash_prefix=False)
    container = service.create_container("a")

    service.upload(container, "a.txt", b"abc")
    service.upload(container, "a.txt", b"def")

    assert paths(service, container) == ["/mnt/data/a.txt"] * 2


@pytest.mark.parametrize(
    ("header", "status", "body", "content_range"),
    [
        ("bytes=2-4", 206, b"234", "bytes 2-4/10"),
        ("bytes=7-", 206, b"789", "bytes 7-9/10"),
        ("bytes=7-99", 206, b"789", "bytes 7-9/10"),
        ("bytes=-4", 206, b"6789", "bytes 6-9/10"),
        ("bytes=-99", 206, b"0123456789", "bytes 0-9/10"),
        ("bytes=0-1,3-4", 200, b"0123456789", None),
        ("rows=0-1", 200, b"0123456789", None),
        ("bytes=-", 200, b"0123456789", None),
        ("bytes=10-", 416, None, "bytes */10"),
        ("bytes=-0", 416, None, "bytes */10"),
        ("bytes=5-2", 416, None, "bytes */10"),
    ],
)
async def test_ranges(
    service: InProcessService,
    call: Caller,
    header: str,
    status: int,
    body: bytes | None,
    content_range: str | None,
) -> None:
    service.set_behaviour(ranges=True)
    container = service.create_container("a")
    file = service.plant(container, "/mnt/data/a", b"0123456789")

    answer = await call(
        "GET", f"/containers/{container}/files/{file}/content", headers={"range": header}
    )

    assert answer.status == status
    assert body is None or answer.body == body
    assert answer.headers.get("Content-Range") == content_range


async def test_a_range_of_a_large_file(service: InProcessService, call: Caller) -> None:
    service.set_behaviour(ranges=True)
    container = service.create_container("a")
    content = bytes(range(256)) * 8192
    file = service.plant(container, "/mnt/data/a", content)

    answer = await call(
        "GET", f"/containers/{container}/files/{file}/content", headers={"range": "bytes=1000-"}
    )

    assert (answer.status, answer.body) == (206, content[1000:])


async def test_an_upload_of_nothing_is_taken(service: InProcessService) -> None:
    container = service.create_container("a")

    file = service.upload(container, "a.txt", b"")

    assert service.content(container, file) == b""


async def test_an_upload_of_nothing_can_be_refused(service: InProcessService) -> None:
    service.set_behaviour(refuse_empty=True)
    container = service.create_container("a")

    with pytest.raises(ServiceError, match="400"):
        service.upload(container, "a.txt", b"")

    assert service.state.blobs.names() == set()


async def test_an_expired_container_can_answer_404(service: InProcessService) -> None:
    service.set_behaviour(expired_status=404)
    container = service.create_container("a")
    service.advance(21 * 60)

    with pytest.raises(ServiceError, match=r"404: (.|\n)*not found"):
        service.files(container)

    assert service.retrieve_container(container)["status"] == "expired"


async def test_a_new_container_can_answer_404_for_a_while(service: InProcessService) -> None:
    service.set_behaviour(ready_delay_s=10)
    container = service.create_container("a")

    with pytest.raises(ServiceError, match="404"):
        service.files(container)
    assert [row["id"] for row in service.containers()] == [container]
    service.advance(10)

    assert service.files(container) == []


async def test_a_deleted_container_can_stay_listed_for_a_while(service: InProcessService) -> None:
    service.set_behaviour(delete_lag_s=60)
    container = service.create_container("a")

    service.delete_container(container)

    assert [(row["id"], row["status"]) for row in service.containers()] == [(container, "running")]
    with pytest.raises(ServiceError, match="404"):
        service.retrieve_container(container)
    service.advance(60)
    assert service.containers() == []


async def test_a_new_file_can_be_missing_from_the_listing_for_a_while(
    service: InProcessService,
) -> None:
    service.set_behaviour(list_lag_s=5)
    container = service.create_container("a")

    file = service.upload(container, "a.txt", b"abc")

    assert service.files(container) == []
    assert service.content(container, file) == b"abc"
    service.advance(5)
    assert ids(service, container) == [file]


async def test_opaque_ids_work_in_every_operation(service: InProcessService) -> None:
    service.set_behaviour(ids="opaque")
    container = service.create_container("a")
    file = service.upload(container, "a.txt", b"abc")

    assert len(file) > 190
    assert ids(service, container) == [file]
    assert service.content(container, file) == b"abc"
    service.delete_file(container, file)
    assert service.files(container) == []


async def test_path_ids_make_one_path_one_row(service: InProcessService) -> None:
    service.set_behaviour(ids="path", hash_prefix=False)
    container = service.create_container("a")

    first = service.upload(container, "a.txt", b"abc")
    second = service.upload(container, "a.txt", b"other bytes")

    assert first == second
    assert ids(service, container) == [first]
    assert service.content(container, first) == b"other bytes"


async def test_empty_pages_stand_between_real_ones(service: InProcessService, call: Caller) -> None:
    service.set_behaviour(empty_pages=True)
    container = service.create_container("a")
    files = [service.plant(container, f"/mnt/data/{n}") for n in range(3)]

    first = json.loads((await call("GET", f"/containers/{container}/files?limit=2")).body)

    assert (first["data"], first["first_id"], first["has_more"]) == ([], None, True)
    assert ids(service, container) == files[::-1]
    assert [row["id"] for row in service.containers()] == [container]


async def test_listings_can_hide_lengths(service: InProcessService, call: Caller) -> None:
    service.set_behaviour(null_bytes=True)
    container = service.create_container("a")
    file = service.upload(container, "a.txt", b"abc")

    alone = json.loads((await call("GET", f"/containers/{container}/files/{file}")).body)

    assert [row["bytes"] for row in service.files(container)] == [None]
    assert alone["bytes"] == 3


async def test_rubbish_stands_in_listings_and_answers_nothing(service: InProcessService) -> None:
    service.set_behaviour(rubbish=True)
    container = service.create_container("a")
    file = service.upload(container, "a.txt", b"abc")

    rows = service.files(container)

    assert len(rows) == 5
    assert any(row["id"] is None for row in rows)
    assert any("\n" in str(row["path"]) for row in rows)
    for ghost in [row["id"] for row in rows if row["id"] not in {file, None}]:
        with pytest.raises(ServiceError, match="404"):
            service.content(container, str(ghost))


def test_changes_are_made_by_field_name() -> None:
    changed = changed_behaviour(Behaviour(), {"slashes": "base", "ranges": True, "list_lag_s": 2})

    assert changed == Behaviour(slashes=Slashes.BASE, ranges=True, list_lag_s=2)


@pytest.mark.parametrize(
    "changes",
    [
        {"colour": "red"},
        {"slashes": "up"},
        {"ranges": "yes"},
        {"list_lag_s": "1"},
        {"list_lag_s": -1},
        {"expired_status": 500},
    ],
)
def test_a_change_that_means_nothing_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        changed_behaviour(Behaviour(), changes)
