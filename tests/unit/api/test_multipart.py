from __future__ import annotations

import httpx
import pytest
import trio
import trio.testing

from ctrfs.api.multipart import MultipartBody, encoded_filename
from ctrfs.api.protocol import UploadBody
from ctrfs.errors import RemoteInvalidError

NAMES = [
    "report.csv",
    "two words.txt",
    "plots/fig1.png",
    "Grüße 世界 🎉.txt",
    'quoted "name".txt',
    "back\\slash",
    "new\nline\r\ttab\0nul\x1fus",
    "esc\x1b[0m",
    "100%22",
    "semi;colon=x",
    "'single'",
    "\x7f",
]


async def body_of(multipart: MultipartBody) -> bytes:
    return b"".join([piece async for piece in multipart.stream()])


@pytest.mark.parametrize("name", NAMES)
async def test_a_name_goes_out_as_the_official_client_sends_it(name: str) -> None:
    theirs = httpx.Request(
        "POST",
        "http://h/",
        files={"file": (name, b"hello", "application/octet-stream")},
        headers={"Content-Type": "multipart/form-data; boundary=b"},
    )
    ours = MultipartBody(
        name=name,
        body=UploadBody(size_bytes=5, open=lambda: iter([b"hello"])),
        boundary="b",
    )

    assert await body_of(ours) == await theirs.aread()
    assert str(ours.length_bytes) == theirs.headers["content-length"]


async def test_the_announced_length_is_that_of_what_is_sent() -> None:
    multipart = MultipartBody(
        name="ü.bin", body=UploadBody(size_bytes=7, open=lambda: iter([b"abc", b"", b"defg"]))
    )

    assert len(await body_of(multipart)) == multipart.length_bytes


async def test_an_empty_file_can_be_sent() -> None:
    multipart = MultipartBody(name="empty", body=UploadBody(size_bytes=0, open=lambda: iter([])))

    assert len(await body_of(multipart)) == multipart.length_bytes


async def test_a_small_file_goes_out_in_one_piece_and_a_large_one_uncopied() -> None:
    async def pieces_of(content: bytes) -> list[bytes]:
        body = UploadBody(size_bytes=len(content), open=lambda: iter([content]))
        return [piece async for piece in MultipartBody(name="a", body=body).stream()]

    large = bytes(1 << 20)

    assert len(await pieces_of(bytes(4096))) == 1
    assert any(piece is large for piece in await pieces_of(large))


@pytest.mark.parametrize("size", [3, 1 << 20], ids=["small", "large"])
async def test_the_end_of_a_body_waits_for_leave(size: int) -> None:
    may_end = trio.Event()
    body = UploadBody(size_bytes=size, open=lambda: iter([bytes(size)]), before_end=may_end.wait)
    multipart = MultipartBody(name="a", body=body)
    sent: list[bytes] = []

    async def send() -> None:
        sent.extend([piece async for piece in multipart.stream()])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        await trio.testing.wait_all_tasks_blocked()
        assert sent == []
        may_end.set()

    assert sum(map(len, sent)) == multipart.length_bytes


async def test_all_but_the_end_of_a_large_body_goes_out_before() -> None:
    async def never() -> None:
        raise AssertionError("nobody has asked for the end")

    body = UploadBody(size_bytes=1 << 20, open=lambda: iter([bytes(1 << 20)]), before_end=never)
    multipart = MultipartBody(name="a", body=body)
    stream = aiter(multipart.stream())

    first = [await anext(stream), await anext(stream)]

    assert len(b"".join(first)) == multipart.length_bytes - len(f"\r\n--{'0' * 32}--\r\n")


async def test_a_body_can_be_sent_twice() -> None:
    multipart = MultipartBody(name="a", body=UploadBody(size_bytes=3, open=lambda: iter([b"abc"])))

    assert await body_of(multipart) == await body_of(multipart)


@pytest.mark.parametrize("content", [b"ab", b"abcd"])
async def test_a_body_of_another_length_than_announced_is_our_own_mistake(content: bytes) -> None:
    multipart = MultipartBody(name="a", body=UploadBody(size_bytes=3, open=lambda: iter([content])))

    with pytest.raises(AssertionError):
        await body_of(multipart)


def test_a_name_that_is_no_unicode_is_refused_before_anything_is_sent() -> None:
    with pytest.raises(RemoteInvalidError):
        MultipartBody(name="\udcff", body=UploadBody(size_bytes=0, open=lambda: iter([])))


def test_no_name_can_end_the_header_that_holds_it() -> None:
    encoded = encoded_filename('a"\r\nX-Evil: 1\r\n\r\n')

    assert b'"' not in encoded
    assert b"\r" not in encoded
    assert b"\n" not in encoded
