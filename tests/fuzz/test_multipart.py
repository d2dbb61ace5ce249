"""The local service under a hostile client: an upload, or a refusal, and no bytes left behind."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

import trio
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ctrfs.server.blobs import BlobStore
from ctrfs.server.multipart import receive_upload
from ctrfs.server.refusals import RefusedError

FUZZ = settings.get_profile("fuzz")
words = st.one_of(
    st.sampled_from(
        [b"--b", b"--b--", b"\r\n", b"\n", b"\r", b"--", b": ", b";", b'"', b"=", b"\0", b"\xff"]
    ),
    st.sampled_from(
        [
            b'--b\r\nContent-Disposition: form-data; name="file"; filename="n"\r\n\r\n',
            b'--b\r\nContent-Disposition: form-data; name="x"\r\n\r\n',
            b"Content-Disposition", b"; filename*=utf-8''%ff", b'filename="../../x"', b"name=",
            b"a" * 20_000,
        ]
    ),
    st.binary(max_size=8),
)  # fmt: skip
bodies = st.lists(words, max_size=12)
types = st.one_of(
    st.just("multipart/form-data; boundary=b"),
    st.text(st.characters(codec="latin-1"), max_size=30),
    st.sampled_from(
        [
            "", "multipart/form-data", "multipart/form-data; boundary=", 'multipart/form-data; boundary="',
            "multipart/form-data; boundary*=utf-8''%ff", "multipart/form-data; boundary=" + "b" * 5000,
            "; boundary=b", "multipart/form-data; boundary=b; boundary=c",
        ]
    ),
)  # fmt: skip


@settings(FUZZ)
@given(bodies, types)
@example([b'--b\r\nContent-Disposition: form-data; name="file"; filename="n"\r\n\r\n', b"x\r\n--b--"], "multipart/form-data; boundary=b")  # fmt: skip
def test_any_body_is_an_upload_or_a_refusal(pieces: list[bytes], content_type: str) -> None:
    async def body() -> AsyncGenerator[bytes, None]:
        for piece in pieces:
            yield piece

    async def receive(blobs: BlobStore) -> None:
        before = blobs.names()
        try:
            async with aclosing(body()) as sent:
                upload = await receive_upload(sent, content_type=content_type, blobs=blobs)
        except RefusedError as error:
            assert 400 <= error.status < 500
            assert blobs.names() == before
            return
        assert blobs.path(upload.blob.name).stat().st_size == upload.blob.size_bytes
        upload.name.encode()

    with tempfile.TemporaryDirectory() as scratch:
        store = BlobStore(Path(scratch) / "blobs", is_durable=False)
        trio.run(receive, store)
        assert not list((Path(scratch) / "blobs").glob("*.part"))
