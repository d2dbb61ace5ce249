"""Whatever a service answers: models that hold what they promise, or one of our own errors."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator, Iterable

import httpx
import trio
import trio.testing
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.support.service import TrioClock
from typing_extensions import override

from ctrfs.api.client import open_client
from ctrfs.api.decode import EXCERPT_CHARACTERS_MAX, SIZE_BYTES_MAX, TIME_S_MAX, Decoder
from ctrfs.api.models import ContainerFile, ContainerId, FileId
from ctrfs.api.redaction import Redactor
from ctrfs.config import ApiConfig, Secret
from ctrfs.errors import CtrfsError, RemoteProtocolError
from ctrfs.tree.names import shown_path

FUZZ = settings.get_profile("fuzz")
KEY = "Recognisable7Key7Of7These7Tests"
DECODER = Decoder(Redactor(Secret(KEY)))
CONTAINER = ContainerId("cntr_1")
NAMES = [
    "id", "path", "bytes", "created_at", "source", "name", "status", "expires_after", "minutes",
    "last_active_at", "memory_limit", "network_policy", "type", "data", "has_more", "last_id",
    "object", "deleted", "error", "message", "code",
]  # fmt: skip

texts = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        [
            KEY,
            "",
            ".",
            "..",
            "/",
            "/mnt/data/",
            "/mnt/data/../../etc",
            "\0",
            "a\nb",
            "\x1b[2J",
            "\u202efdp.exe",
            "\ud800",
            "n" * 70_000,
            "/mnt/data/" + "d/" * 300,
        ]
    ),
)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    texts,
    st.sampled_from([10**400, -(10**30), 2**63, 2**64, 1e308, -0.0]),
)
trees = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.sampled_from(NAMES) | texts, inner)
    ),
    max_leaves=20,
)
rows = st.dictionaries(st.sampled_from(NAMES), trees, max_size=8)
pages = st.fixed_dictionaries(
    {"data": st.lists(st.one_of(rows, trees), max_size=5)},
    optional={"has_more": trees, "last_id": trees},
)
bodies = st.one_of(
    st.binary(max_size=200),
    st.one_of(trees, rows, pages).map(lambda tree: json.dumps(tree).encode()),
    st.one_of(trees, rows, pages).map(
        lambda tree: json.dumps(tree, ensure_ascii=False).encode("utf-8", "surrogatepass")
    ),
)


def deep(opening: str, inner: str, closing: str, *, depth: int = 100_000) -> bytes:
    return (opening * depth + inner + closing * depth).encode()


def check_file(file: ContainerFile) -> None:
    """Raise AssertionError unless the rest of the program can rely on ``file``."""
    assert file.id not in {"", ".", ".."}
    assert file.path
    assert file.container_id == CONTAINER
    assert file.size_bytes is None or 0 <= file.size_bytes <= SIZE_BYTES_MAX
    assert 0 <= file.created_at_s <= TIME_S_MAX
    for text in (file.id, file.path, file.source):
        text.encode()  # what SQLite, the log and the kernel need
    try:
        shown = shown_path(file, may_have_prefix=True)
    except ValueError:
        return
    for name in (*shown.folders, shown.name, shown.full_name):
        assert 1 <= len(name) <= 255
        assert name not in {b".", b".."}
        assert not {0, ord("/")} & set(name)


def check_lines(lines: Iterable[str]) -> None:
    for line in lines:
        assert KEY not in line
        assert line.isprintable() or not any(ord(letter) < 32 for letter in line)
        assert len(line) <= EXCERPT_CHARACTERS_MAX


@settings(FUZZ)
@given(bodies)
@example(deep("[", "", "]"))
@example(deep('{"data":[', "", "]}"))
@example(b'{"data":[' + deep("[", "", "]") + b"]}")
@example(b'{"data":[{"id":"a","path":"/mnt/data/a","x":' + deep("[", "", "]") + b"}]}")
@example(b'{"data":[{"id":"a","path":' + deep('{"a":', "1", "}") + b',"y":"\\ud800"}]}')
@example(b'{"data":[{"id":"a","path":"p","bytes":1e999,"created_at":-1e999}]}')
@example(b'{"data":[{"id":"a","path":"p","bytes":NaN,"created_at":Infinity}]}')
@example(b'{"data":[{"id":"a","path":"p","bytes":' + b"9" * 5000 + b"}]}")
@example(b"\xef\xbb\xbf{}")
def test_a_list_becomes_rows_that_can_be_relied_on_or_a_protocol_error(body: bytes) -> None:
    for read in (
        lambda: DECODER.file_page(body, CONTAINER, limit=100),
        lambda: DECODER.container_page(body, limit=100),
    ):
        try:
            page = read()
        except RemoteProtocolError as error:
            assert KEY not in str(error)
            continue
        assert page.cursor is None or page.cursor.encode()
        check_lines(text for row in page.rejected for text in (row.reason, row.excerpt))
        for item in page.items:
            if isinstance(item, ContainerFile):
                check_file(item)
            else:
                assert item.id not in {"", ".", ".."}
                (item.name + item.status + (item.memory_limit or "")).encode()
                assert math.isfinite(item.created_at_s)


@settings(FUZZ)
@given(bodies)
@example(deep("[", "", "]"))
@example(deep('{"id":', "1", "}"))
def test_a_single_answer_becomes_a_model_or_a_protocol_error(body: bytes) -> None:
    for read in (lambda: DECODER.file(body, CONTAINER), lambda: DECODER.container(body)):
        try:
            model = read()
        except RemoteProtocolError as error:
            assert KEY not in str(error)
            continue
        if isinstance(model, ContainerFile):
            check_file(model)
    assert DECODER.confirms_deletion(body) in {True, False}


class _Body(httpx.AsyncByteStream):
    def __init__(self, body: bytes) -> None:
        self._body = body

    @override
    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._body


class AnyAnswer(httpx.AsyncBaseTransport):
    """Answers every request alike."""

    def __init__(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        self._status = status
        self._headers = headers
        self._body = body

    @override
    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        assert isinstance(request.stream, httpx.AsyncByteStream)
        async for _ in request.stream:
            pass
        return httpx.Response(self._status, headers=self._headers, stream=_Body(self._body))


headers = st.lists(
    st.tuples(
        st.sampled_from(
            [
                b"content-type",
                b"retry-after",
                b"retry-after-ms",
                b"x-should-retry",
                b"location",
                b"x-request-id",
                b"x-ratelimit-reset-requests",
                b"date",
                b"content-range",
            ]
        ),
        st.sampled_from(
            [
                b"",
                b"0",
                b"-1",
                b"1e400",
                b"nan",
                b"\xff",
                b"\x00\x1b",
                b"application/json",
                b"true",
                b"bytes 0-0/99",
                b"http://\xe2\x98\xba/",
                b"//",
                KEY.encode(),
            ]
        )
        | st.binary(max_size=12),
    ),
    max_size=4,
)


@settings(FUZZ)
@given(st.sampled_from([200, 201, 204, 206, 301, 304, 307, 400, 401, 404, 409, 410, 413, 416])
       | st.sampled_from([418, 429, 500, 503, 599, 999]), headers, bodies)  # fmt: skip
def test_any_http_answer_to_any_request_is_an_answer_or_an_error_of_ours(
    status: int, fields: list[tuple[bytes, bytes]], body: bytes
) -> None:
    async def ask() -> None:
        config = ApiConfig(base_url="http://127.0.0.1:1/v1", key=Secret(KEY), retries_max=1)
        transport = AnyAnswer(status, fields, body)
        async with open_client(
            config, clock=TrioClock(), transport_factory=lambda: transport
        ) as api:
            for request in (
                api.list_containers,
                lambda: api.list_files(CONTAINER),
                lambda: api.retrieve_file(CONTAINER, FileId("f/../..")),
                lambda: api.delete_file(CONTAINER, FileId("f")),
                lambda: api.retrieve_container(CONTAINER),
            ):
                try:
                    await request()
                except CtrfsError as error:
                    assert KEY not in str(error)
                    assert KEY not in repr(error)

    trio.run(ask, clock=trio.testing.MockClock(autojump_threshold=0))
