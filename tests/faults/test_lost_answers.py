"""What becomes of a file whose upload was carried out while its answer got lost."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
import trio.testing
from tests.support.in_process import TRUNCATE, mounted
from tests.support.service import InProcessService

from ctrfs.errors import RemoteError

OLD, NEW = b"the old bytes", b"the new bytes, longer"


async def test_listing_the_folder_while_an_answer_is_awaited_does_not_make_a_second_file(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    with InProcessService() as service:
        container = service.create_container("c")
        async with mounted(service, tmp_path) as mount:
            await mount.names("c")
            service.add_fault("create_file", "stall", when="after", count=1)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(mount.write_file, "c/report.csv", NEW)
                await trio.sleep(30)
                # The listing is older than its ttl by now, and has the stored file.
                await mount.names("c")

            assert await mount.walk() == {"c": None, "c/report.csv": NEW}
        assert [row["bytes"] for row in service.files(container)] == [len(NEW)]


@pytest.mark.parametrize("is_listed_between", [True, False], ids=["listed", "not-listed"])
async def test_closing_again_after_a_lost_answer_does_not_make_a_second_file(
    tmp_path: Path, autojump_clock: trio.testing.MockClock, *, is_listed_between: bool
) -> None:
    with InProcessService() as service:
        container = service.create_container("c")
        async with mounted(service, tmp_path) as mount:
            handle = await mount.create("c/report.csv")
            await mount.fs.write(handle, 0, NEW)
            service.add_fault("create_file", "reset", when="after")
            service.add_fault("list_files", "status", status=503)
            with pytest.raises(RemoteError):
                await mount.fs.flush(handle)
            service.clear_faults()
            if is_listed_between:
                await trio.sleep(30)
                await mount.names("c")

            await mount.close(handle)

            assert await mount.walk() == {"c": None, "c/report.csv": NEW}
        assert [row["bytes"] for row in service.files(container)] == [len(NEW)]


@pytest.mark.parametrize("deed", ["change", "remove", "rename"])
async def test_what_a_lost_answer_has_left_goes_with_what_is_done_next(
    tmp_path: Path, autojump_clock: trio.testing.MockClock, *, deed: str
) -> None:
    with InProcessService() as service:
        container = service.create_container("c")
        async with mounted(service, tmp_path) as mount:
            handle = await mount.create("c/report.csv")
            await mount.fs.write(handle, 0, NEW)
            service.add_fault("create_file", "reset", when="after")
            service.add_fault("list_files", "status", status=503)
            with pytest.raises(RemoteError):
                await mount.close(handle)
            service.clear_faults()

            expected: dict[str, bytes | None] = {"c": None}
            match deed:
                case "change":
                    await mount.write_file("c/report.csv", OLD)
                    expected["c/report.csv"] = OLD
                case "remove":
                    await mount.unlink("c/report.csv")
                case _:
                    await mount.rename("c/report.csv", "c/other.csv")
                    expected["c/other.csv"] = NEW

            await trio.sleep(60)
            assert await mount.walk() == expected
        assert len(service.files(container)) == len(expected) - 1


async def test_an_upload_cut_short_by_an_interrupt_is_not_made_twice(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    with InProcessService() as service:
        container = service.create_container("c")
        service.upload(container, "report.csv", OLD)
        async with mounted(service, tmp_path) as mount:
            handle = await mount.open("c/report.csv", TRUNCATE)
            await mount.fs.write(handle, 0, NEW)
            service.add_fault("create_file", "stall", when="after", count=1)
            with trio.move_on_after(5):
                await mount.fs.flush(handle)
            await mount.close(handle)

            assert await mount.walk() == {"c": None, "c/report.csv": NEW}
        assert [row["bytes"] for row in service.files(container)] == [len(NEW)]
