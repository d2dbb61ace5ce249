"""What is still to be deleted, where ids come back to life: docs/semantics.md, promise 10.

On some servers an id is made of the path, or of name and bytes: what is stored anew may bear
the id of what could not be deleted before, and must never be deleted in its place.
"""

from __future__ import annotations

from tests.support.in_process import InProcessMount
from tests.support.service import InProcessService
from tests.support.trees import stored


async def test_bytes_stored_anew_under_an_id_that_was_to_be_deleted_are_kept(
    mount: InProcessMount, service: InProcessService
) -> None:
    """The server knows name and bytes again."""
    service.set_behaviour(duplicates="same")
    await mount.write_file("work/a", b"first")
    service.add_fault("delete_file", "status", status=403)
    await mount.write_file("work/a", b"second")
    service.clear_faults()

    await mount.write_file("work/a", b"first")
    assert await mount.fs.drain() == 0

    assert stored(service, "work") == {"a": b"first"}
    assert await mount.walk("work") == {"work/a": b"first"}
    await mount.refresh("work")
    assert await mount.walk("work") == {"work/a": b"first"}


async def test_a_new_file_at_a_path_whose_old_file_was_to_be_deleted_is_kept(
    mount: InProcessMount, service: InProcessService
) -> None:
    """The server makes ids of paths."""
    service.set_behaviour(ids="path", hash_prefix=False)
    await mount.write_file("work/a", b"moved")
    service.add_fault("delete_file", "status", status=403)
    await mount.rename("work/a", "work/b")
    service.clear_faults()

    await mount.write_file("work/a", b"new")
    assert await mount.fs.drain() == 0

    assert stored(service, "work") == {"a": b"new", "b": b"moved"}
    await mount.refresh("work")
    assert await mount.walk("work") == {"work/a": b"new", "work/b": b"moved"}


async def test_a_file_of_others_under_an_id_that_was_to_be_deleted_is_shown_and_kept(
    mount: InProcessMount, service: InProcessService, work: str
) -> None:
    """It is another version: this mount never showed it under the name that was given up."""
    service.set_behaviour(ids="path", hash_prefix=False)
    await mount.write_file("work/a", b"moved")
    service.add_fault("delete_file", "status", status=403)
    await mount.rename("work/a", "work/b")
    service.clear_faults()
    service.advance(100)
    service.upload(work, "a", b"theirs")

    await mount.refresh("work")

    assert await mount.walk("work") == {"work/a": b"theirs", "work/b": b"moved"}
    assert await mount.fs.drain() == 0
    assert stored(service, "work") == {"a": b"theirs", "b": b"moved"}
