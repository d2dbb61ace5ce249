"""What is listed and yet not there: docs/semantics.md, the row for 404 of the errno table."""

from __future__ import annotations

import pytest
import trio.testing
from tests.support.in_process import InProcessMount
from tests.support.service import InProcessService

from ctrfs.errors import StaleHandleError


async def test_a_read_of_a_file_that_is_gone_is_stale_and_fetches_the_listing_again(
    mount: InProcessMount, service: InProcessService, work: str
) -> None:
    file_id = service.plant(work, "/mnt/data/a.txt", b"theirs")
    handle = await mount.open("work/a.txt")
    service.delete_file(work, file_id)

    with pytest.raises(StaleHandleError):
        await mount.read_all(handle)
    await trio.testing.wait_all_tasks_blocked()

    assert not await mount.exists("work/a.txt")
    await mount.close(handle)
