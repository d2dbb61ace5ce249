from __future__ import annotations

import json
import logging

import pytest

from ctrfs.api.decode import SIZE_BYTES_MAX, Decoder
from ctrfs.api.models import Container, ContainerFile, ContainerId, FileId, Page
from ctrfs.api.redaction import Redactor
from ctrfs.config import Secret
from ctrfs.errors import RemoteProtocolError

KEY = "sk-test-0123456789abcdef"
DECODER = Decoder(Redactor(Secret(KEY)))
CONTAINER = ContainerId("cntr_asked")

CONTAINER_ROW: dict[str, object] = {
    "id": "cntr_1",
    "object": "container",
    "created_at": 1_757_000_000,
    "status": "running",
    "expires_after": {"anchor": "last_active_at", "minutes": 20},
    "last_active_at": 1_757_000_100,
    "memory_limit": "1g",
    "name": "analysis",
    "network_policy": {"type": "disabled"},
}
FILE_ROW: dict[str, object] = {
    "id": "cfile_1",
    "object": "container.file",
    "created_at": 1_757_000_000,
    "bytes": 50,
    "container_id": "cntr_asked",
    "path": "/mnt/data/bfe940181cd9f2193931fd77047b66bb-a.txt",
    "source": "user",
}


def list_body(*rows: object, **fields: object) -> bytes:
    return json.dumps({"object": "list", "data": list(rows), **fields}, indent=2).encode()


def file_page(body: bytes, *, limit: int = 100) -> Page[ContainerFile]:
    return DECODER.file_page(body, CONTAINER, limit=limit)


def file_with(**changes: object) -> ContainerFile:
    return DECODER.file(json.dumps({**FILE_ROW, **changes}).encode(), CONTAINER)


def container_with(**changes: object) -> Container:
    return DECODER.container(json.dumps({**CONTAINER_ROW, **changes}).encode())


def test_a_container_is_read_whole() -> None:
    assert container_with() == Container(
        id=ContainerId("cntr_1"),
        name="analysis",
        created_at_s=1_757_000_000,
        status="running",
        expires_after_minutes=20,
        last_active_at_s=1_757_000_100,
        memory_limit="1g",
        network_policy="disabled",
    )


def test_a_file_is_read_whole() -> None:
    assert file_with() == ContainerFile(
        id=FileId("cfile_1"),
        container_id=CONTAINER,
        path="/mnt/data/bfe940181cd9f2193931fd77047b66bb-a.txt",
        size_bytes=50,
        created_at_s=1_757_000_000,
        source="user",
    )


def test_an_older_container_without_the_newer_keys_is_read() -> None:
    container = DECODER.container(b'{"id":"cntr_1"}')

    assert container == Container(
        id=ContainerId("cntr_1"), name="", created_at_s=0, status="unknown"
    )
    assert container.is_alive


def test_a_file_with_nothing_but_id_and_path_is_read() -> None:
    file = DECODER.file(b'{"id":"cfile_1","path":"/mnt/data/a"}', CONTAINER)

    assert (file.size_bytes, file.created_at_s, file.source) == (None, 0, "unknown")


def test_unknown_keys_are_ignored() -> None:
    assert file_with(colour={"deep": [1, {}]}) == file_with()
    assert container_with(colour=None) == container_with()


@pytest.mark.parametrize("nothing", [None, 7, [], {}, "x", True])
def test_wrong_shapes_of_optional_keys_count_as_absent(nothing: object) -> None:
    container = container_with(expires_after=nothing, last_active_at="never")

    assert container.expires_after_minutes is None
    assert container.last_active_at_s is None


def test_a_network_policy_may_be_a_plain_word() -> None:
    assert container_with(network_policy="allowlist").network_policy == "allowlist"
    assert container_with(network_policy=[1]).network_policy is None


@pytest.mark.parametrize(
    ("created_at", "created_at_s"),
    [(5.9, 5), (None, 0), ("yesterday", 0), (-1, 0), (1e300, 0), (True, 0), (10**18, 0)],
)
def test_any_creation_time_is_survived(created_at: object, created_at_s: int) -> None:
    assert file_with(created_at=created_at).created_at_s == created_at_s


@pytest.mark.parametrize(("sent", "size_bytes"), [(None, None), (0, 0), (12.0, 12), (SIZE_BYTES_MAX, SIZE_BYTES_MAX)])  # fmt: skip
def test_a_length_that_can_be_is_taken(sent: object, size_bytes: int | None) -> None:
    assert file_with(bytes=sent).size_bytes == size_bytes


@pytest.mark.parametrize("sent", [-1, SIZE_BYTES_MAX + 1, 10**30, 1.5, "50", True, [], {}])
def test_a_row_with_a_length_that_cannot_be_is_left_out(sent: object) -> None:
    page = file_page(list_body(FILE_ROW, {**FILE_ROW, "bytes": sent}, has_more=False))

    assert len(page.items) == 1
    assert len(page.rejected) == 1


@pytest.mark.parametrize(
    "row",
    [
        None, 7, "cfile_1", [], {},
        {**FILE_ROW, "id": None}, {**FILE_ROW, "id": ""}, {**FILE_ROW, "id": 7},
        {**FILE_ROW, "id": "."}, {**FILE_ROW, "id": ".."},
        {**FILE_ROW, "path": None}, {**FILE_ROW, "path": ""}, {**FILE_ROW, "path": ["a"]},
        {**FILE_ROW, "path": "/mnt/data/\ud800"},
    ],
)  # fmt: skip
def test_one_bad_row_does_not_spoil_its_page(row: object, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="ctrfs.api")
    body = list_body(FILE_ROW, row, {**FILE_ROW, "id": "cfile_2"}, has_more=False)

    page = file_page(body)

    assert [file.id for file in page.items] == ["cfile_1", "cfile_2"]
    assert len(page.rejected) == 1
    assert page.rejected[0].reason
    assert page.rejected[0].excerpt
    assert "left out a listed row" in caplog.text


def test_a_row_is_quoted_short_on_one_line_and_without_the_key() -> None:
    row = {"note": f"{KEY}\nline two\u2028", "filler": "x" * 500}

    rejected = file_page(list_body(row)).rejected[0]

    assert len(rejected.excerpt) == 200
    assert rejected.excerpt.isprintable()
    assert KEY not in rejected.excerpt


def test_a_file_belongs_to_the_container_that_was_asked_for() -> None:
    assert file_with(container_id="cntr_of_another_proxy").container_id == CONTAINER


@pytest.mark.parametrize(
    "body",
    [b"", b"not json", b"[]", b"null", b'{"object":"list"}', b'{"data":null}', b'{"data":{}}',
     b'{"data":"x"}', b"<html>", b"\xff\xfe", b'{"data":[', b'{"data":[' + b"[" * 100_000],
)  # fmt: skip
def test_what_is_no_list_is_a_protocol_error(body: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        file_page(body)


@pytest.mark.parametrize("body", [b"", b"[]", b"<html>", b'{"id":""}', b'{"path":"/a"}', b"{"])
def test_what_is_no_single_object_is_a_protocol_error(body: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        DECODER.file(body, CONTAINER)


def test_an_empty_list_has_no_cursor() -> None:
    page = file_page(list_body(first_id=None, has_more=False, last_id=None))

    assert page == Page(items=(), rejected=(), has_more=False, cursor=None)


def test_the_cursor_is_the_id_of_the_last_row() -> None:
    page = file_page(list_body(FILE_ROW, has_more=True, last_id="something_else"))

    assert page.has_more
    assert page.cursor == "cfile_1"


def test_the_cursor_of_an_empty_page_is_the_one_it_names() -> None:
    page = file_page(list_body(has_more=True, last_id="cfile_9"))

    assert page.has_more
    assert page.cursor == "cfile_9"


def test_the_last_row_is_the_cursor_even_if_it_is_left_out() -> None:
    page = file_page(list_body(FILE_ROW, {"id": "cfile_2"}, has_more=True))

    assert page.cursor == "cfile_2"


@pytest.mark.parametrize(("rows", "has_more"), [(0, False), (1, False), (2, True), (3, False)])
def test_a_server_that_does_not_say_has_more_only_behind_a_page_filled_exactly(
    rows: int, has_more: bool
) -> None:
    page = file_page(list_body(*[{**FILE_ROW, "id": str(n)} for n in range(rows)]), limit=2)

    assert page.has_more is has_more


@pytest.mark.parametrize(
    ("body", "confirms"),
    [
        (b'{"id":"x","object":"container.deleted","deleted":true}', True),
        (b'{"deleted":false}', False),
        (b'{"deleted":"true"}', False),
        (b'{"id":"x"}', False),
        (b"", False),
        (b"[true]", False),
    ],
)
def test_only_a_clear_word_confirms_a_deletion(body: bytes, confirms: bool) -> None:
    assert DECODER.confirms_deletion(body) is confirms


def test_containers_are_listed_like_files() -> None:
    page = DECODER.container_page(list_body(CONTAINER_ROW, 7, has_more=True), limit=100)

    assert [container.name for container in page.items] == ["analysis"]
    assert len(page.rejected) == 1
    assert page.cursor == "cntr_1"


def test_half_a_surrogate_pair_is_no_cursor() -> None:
    """No address can hold it: paging on would fail for no reason that a reader could see."""
    page = DECODER.file_page(
        b'{"data":[],"has_more":true,"last_id":"\\ud800"}', CONTAINER, limit=100
    )

    assert page.cursor is None
