from __future__ import annotations

from pathlib import Path

import pytest
import trio
import trio.testing
from msgspec.structs import replace
from tests.unit.content.conftest import Bench, store_over
from tests.unit.content.fake_service import Transfer, identity_of

from ctrfs.api.models import FileId
from ctrfs.content.file_state import FileState
from ctrfs.disk.spool import SpoolDirectory
from ctrfs.errors import BadHandleError, LocalDiskError, RemoteBusyError, ShuttingDownError
from ctrfs.tree.nodes import InodeNumber

INODE = InodeNumber(7)
CONTENT = bytes(range(95))


async def test_a_file_that_was_read_and_closed_is_read_again_without_a_download(
    bench: Bench,
) -> None:
    bench.service.transfers = [Transfer(content=CONTENT)]
    store = await bench.start()
    await store.open(INODE, identity_of(CONTENT)).complete()
    store.release(INODE)
    assert store.get(INODE) is None

    again = store.open(InodeNumber(8), identity_of(CONTENT))

    assert again.is_complete
    assert await again.read(0, 1000) == CONTENT
    assert bench.service.offsets == [0]


async def test_another_version_of_a_file_is_not_read_from_the_copy_of_the_first(
    bench: Bench,
) -> None:
    bench.service.transfers = [Transfer(content=CONTENT)]
    store = await bench.start()
    await store.open(INODE, identity_of(CONTENT)).complete()
    store.release(INODE)

    other = store.open(INODE, replace(identity_of(CONTENT), created_at_s=2))

    assert not other.is_complete


async def test_all_handles_of_an_inode_share_one_file(bench: Bench) -> None:
    store = await bench.start()
    first = store.open(INODE, identity_of(CONTENT))
    second = store.open(INODE, identity_of(CONTENT))
    store.retain(INODE)

    for _ in range(2):
        store.release(INODE)
        assert store.get(INODE) is first is second
    store.release(INODE)
    assert store.get(INODE) is None


async def test_unsent_bytes_stay_after_the_last_close(bench: Bench) -> None:
    store = await bench.start()
    file = store.create(INODE)
    await file.write(0, b"unsent")

    store.release(INODE)

    store.check_invariants()
    assert store.unsent_inodes() == [INODE]
    assert await file.read(0, 10) == b"unsent"


async def test_a_file_that_is_sent_after_its_last_close_goes_to_the_cache(bench: Bench) -> None:
    store = await bench.start()
    file = store.create(INODE)
    await file.write(0, CONTENT)
    store.release(INODE)

    async with file.sending() as outgoing:
        outgoing.settle(identity_of(CONTENT))

    assert (store.get(INODE), store.unsent_inodes()) == (None, [])
    assert store.open(INODE, identity_of(CONTENT)).is_complete


async def test_a_closed_file_that_failed_to_be_sent_stays(bench: Bench) -> None:
    store = await bench.start()
    file = store.create(INODE)
    store.release(INODE)

    with pytest.raises(RemoteBusyError):
        async with file.sending():
            raise RemoteBusyError("too many requests")

    assert (file.state, store.unsent_inodes()) == (FileState.FAILED, [INODE])


async def test_a_resident_file_is_kept_and_not_counted_as_unsent(bench: Bench) -> None:
    store = await bench.start()
    file = store.create(INODE)
    file.is_resident = True
    store.release(INODE)

    assert (store.get(INODE), store.unsent_inodes()) == (file, [])
    file.is_resident = False
    assert store.unsent_inodes() == [INODE]


async def test_bytes_that_an_earlier_mount_left_are_adopted(
    bench: Bench, spool: SpoolDirectory
) -> None:
    left = spool.create()
    left.pwrite(0, b"left")
    left.close()
    store = await bench.start()

    file = store.adopt(INODE, left.name)

    store.check_invariants()
    assert (file.size_bytes, file.references, file.spool_name) == (4, 0, left.name)
    assert await file.read(0, 10) == b"left"
    with pytest.raises(LocalDiskError):
        store.adopt(InodeNumber(8), "0" * 32)
    assert store.get(InodeNumber(8)) is None


async def test_the_bytes_of_an_unlinked_file_are_gone_at_its_last_release(bench: Bench) -> None:
    store = await bench.start()
    file = store.create(INODE)
    await file.write(0, b"bytes")

    store.discard(INODE)
    assert await file.read(0, 10) == b"bytes"
    assert store.unsent_inodes() == []
    store.release(INODE)

    assert (store.get(INODE), store.bytes_used) == (None, 0)
    with pytest.raises(BadHandleError):
        await file.read(0, 10)


async def test_the_bytes_of_an_unlinked_file_that_nobody_holds_are_gone_at_once(
    bench: Bench,
) -> None:
    store = await bench.start()
    await store.create(INODE).write(0, b"bytes")
    store.release(INODE)

    store.discard(INODE)
    store.discard(INODE)

    assert (store.get(INODE), store.bytes_used) == (None, 0)


async def test_a_file_discarded_while_it_is_sent_is_sent_to_its_end(bench: Bench) -> None:
    store = await bench.start()
    file = store.create(INODE)
    await file.write(0, b"bytes")
    store.release(INODE)

    async with file.sending() as outgoing:
        store.discard(INODE)
        assert b"".join(outgoing.body.open()) == b"bytes"
        outgoing.settle(identity_of(b"bytes"))

    assert (store.get(INODE), store.bytes_used) == (None, 0)


async def test_only_what_the_service_lacks_is_left_when_the_mount_ends(
    bench: Bench, tmp_path: Path
) -> None:
    bench.service.transfers = [Transfer(content=CONTENT)]
    async with trio.open_nursery() as owner:
        store = store_over(bench.spool, bench.service)
        await owner.start(store.run)
        unsent = store.create(InodeNumber(1))
        await unsent.write(0, b"unsent")
        await store.open(InodeNumber(2), identity_of(CONTENT)).complete()
        await store.open(InodeNumber(3), identity_of(CONTENT, file_id=FileId("cfile_3"))).complete()
        store.release(InodeNumber(3))
        owner.cancel_scope.cancel()

    assert _names_in(tmp_path / "spool") == [unsent.spool_name]
    store.release(InodeNumber(2))
    with pytest.raises(ShuttingDownError):
        await store.open(InodeNumber(4), identity_of(b"other bytes")).read(0, 1)


def _names_in(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir()]
