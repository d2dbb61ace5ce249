"""What the next mount makes of what an earlier one has left: docs/durability.md, promise 14.

A mount that ends here ends without a drain, as one that is killed does; what it has left is
what the journal says.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
import trio.testing
from tests.support.in_process import WRITE, InProcessMount, Settings, mounted
from tests.support.service import InProcessService
from tests.support.trees import stored

from ctrfs import failpoints
from ctrfs.config import FileSystemConfig
from ctrfs.errors import RemoteRefusedError

# Longer than the first pause before something is tried again.
RETRIED_S = 6.0


# Everything that changes the service.
CHANGES = ("create_container", "delete_container", "create_file", "delete_file")


class CrashError(BaseException):
    """The process would be gone."""


class Crasher:
    """Ends a mount at a failpoint: what its end still does reaches neither service nor disk."""

    def __init__(
        self, service: InProcessService, state: Path, settings: Settings | None = None
    ) -> None:
        self._service = service
        self._settings = settings
        self._state = state
        self._snapshot = state.with_name("snapshot")

    async def run(
        self,
        point: str,
        work: Callable[[InProcessMount], Awaitable[None]],
        *,
        after: str | None = None,
    ) -> None:
        """Do ``work`` in a mount of its own until it passes ``point``, once it has ``after``."""
        self._has_crashed = False
        is_near = after is None

        def listener(name: str, _detail: str) -> None:
            nonlocal is_near
            is_near = is_near or name == after
            if is_near and name == point and not self._has_crashed:
                self._has_crashed = True
                shutil.copytree(self._state, self._snapshot)
                for route in CHANGES:
                    self._service.add_fault(route, "status", status=403)
                raise CrashError(name)

        failpoints.install(listener)
        try:
            async with mounted(self._service, self._state, self._settings) as mount:
                await work(mount)
        except BaseExceptionGroup as group:
            if group.subgroup(CrashError) is None:
                raise
        finally:
            failpoints.install(None)
            self._service.clear_faults()
        assert self._has_crashed, f"{point} was not reached"
        shutil.rmtree(self._state)
        self._snapshot.rename(self._state)


@pytest.fixture
def crasher(service: InProcessService, state: Path) -> Crasher:
    return Crasher(service, state)


async def settled(mount: InProcessMount) -> None:
    """Wait until nothing is left to be sent, moved or deleted."""
    journal = mount.parts.journal
    for _second in range(120):
        if not (len(journal) or journal.deletes() or journal.folder_moves() or journal.rmdirs()):
            return
        await trio.sleep(1)
    raise AssertionError("something is left in the journal")


def spooled(state: Path) -> list[Path]:
    """Return the local copies of a state directory."""
    return [path for path in state.rglob("*") if path.parent.name == "spool"]


async def test_bytes_that_could_not_be_sent_are_there_at_the_next_mount_and_sent(
    service: InProcessService, state: Path, work: str, autojump_clock: trio.testing.MockClock
) -> None:
    service.upload(work, "a.txt", b"old")
    async with mounted(service, state) as mount:
        service.add_fault("create_file", "status", status=403)
        with pytest.raises(RemoteRefusedError):
            await mount.write_file("work/a.txt", b"new")
    assert stored(service, "work") == {"a.txt": b"old"}

    async with mounted(service, state) as mount:
        assert await mount.walk("work") == {"work/a.txt": b"new"}
        service.clear_faults()
        await settled(mount)
        assert await mount.walk("work") == {"work/a.txt": b"new"}
    assert stored(service, "work") == {"a.txt": b"new"}


async def test_what_failed_is_sent_again_behind_the_users_back(
    service: InProcessService, state: Path, work: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with mounted(service, state) as mount:
        service.add_fault("create_file", "status", status=403)
        with pytest.raises(RemoteRefusedError):
            await mount.write_file("work/a.txt", b"new")
        service.clear_faults()
        assert stored(service, "work") == {}

        await trio.sleep(RETRIED_S)

        assert stored(service, "work") == {"a.txt": b"new"}
        assert len(mount.parts.journal) == 0


async def test_the_log_names_what_could_not_be_sent_by_its_path(
    service: InProcessService,
    state: Path,
    work: str,
    caplog: pytest.LogCaptureFixture,
    autojump_clock: trio.testing.MockClock,
) -> None:
    caplog.set_level(logging.INFO, logger="ctrfs.fs")
    async with mounted(service, state) as mount:
        await mount.mkdir("work/deep")
        service.add_fault("create_file", "status", status=403)
        with pytest.raises(RemoteRefusedError):
            await mount.write_file("work/deep/a\x1b[2J\udcff", b"new")
        await trio.sleep(RETRIED_S)
        assert await mount.fs.drain() == 1
    shown = r"/work/deep/a\x1b[2J\xff could not be sent"
    assert f"{shown} yet: " in caplog.text
    assert f"{shown} before the end: " in caplog.text
    assert "inode" not in caplog.text


async def test_the_log_says_how_much_an_earlier_mount_has_left(
    service: InProcessService, state: Path, work: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="ctrfs.fs")
    async with mounted(service, state) as mount:
        service.add_fault("create_file", "status", status=403)
        with pytest.raises(RemoteRefusedError):
            await mount.write_file("work/a.txt", b"new")
    caplog.clear()

    async with mounted(service, state):
        assert "1 file(s) that an earlier mount has left unsent are to be sent" in caplog.text


async def test_a_file_that_somebody_writes_is_not_sent_behind_his_back(
    service: InProcessService, state: Path, work: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with mounted(service, state) as mount:
        service.add_fault("create_file", "status", status=403)
        with pytest.raises(RemoteRefusedError):
            await mount.write_file("work/a.txt", b"whole")
        service.clear_faults()
        handle = await mount.open("work/a.txt", WRITE)
        await mount.fs.write(handle, 0, b"ha")
        await trio.sleep(1000)
        assert stored(service, "work") == {}
        await mount.fs.write(handle, 2, b"lf!")
        await mount.close(handle)
        assert stored(service, "work") == {"a.txt": b"half!"}


async def test_the_pauses_between_attempts_grow(
    service: InProcessService, state: Path, work: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with mounted(service, state) as mount:
        service.add_fault("create_file", "status", status=403)
        with pytest.raises(RemoteRefusedError):
            await mount.write_file("work/a.txt", b"new")
        service.reset_counters()
        await trio.sleep(3600)
        assert 10 <= service.counters().get("create_file", 0) <= 25


@pytest.mark.parametrize(
    "point", ["save.digested", "save.intended", "save.stored", "save.bound", "save.deleted"]
)
async def test_an_overwrite_ends_with_one_file_wherever_it_is_interrupted(
    service: InProcessService,
    state: Path,
    work: str,
    point: str,
    crasher: Crasher,
    autojump_clock: trio.testing.MockClock,
) -> None:
    service.upload(work, "a.txt", b"old")
    await crasher.run(point, lambda mount: mount.write_file("work/a.txt", b"new"))

    async with mounted(service, state) as mount:
        await settled(mount)
        shown = await mount.walk("work")
    expected = b"old" if point == "save.digested" else b"new"
    assert shown == {"work/a.txt": expected}
    assert stored(service, "work") == {"a.txt": expected}


@pytest.mark.parametrize(
    "point", ["rename.intended", "rename.stored", "rename.bound", "save.deleted"]
)
async def test_a_renaming_over_a_file_is_finished_wherever_it_is_interrupted(
    service: InProcessService,
    state: Path,
    work: str,
    point: str,
    crasher: Crasher,
    autojump_clock: trio.testing.MockClock,
) -> None:
    service.upload(work, "a.txt", b"a")
    service.upload(work, "b.txt", b"b")
    await crasher.run(point, lambda mount: mount.rename("work/a.txt", "work/b.txt"))

    async with mounted(service, state) as mount:
        await settled(mount)
        assert await mount.walk("work") == {"work/b.txt": b"a"}
    assert stored(service, "work") == {"b.txt": b"a"}


@pytest.mark.parametrize("point", ["rename.intended", "rename.stored", "rename.bound"])
async def test_a_renaming_over_the_same_bytes_leaves_one_file_wherever_it_is_interrupted(
    service: InProcessService,
    state: Path,
    work: str,
    crasher: Crasher,
    autojump_clock: trio.testing.MockClock,
    point: str,
) -> None:
    service.upload(work, "a.txt", b"same")
    service.upload(work, "b.txt", b"same")
    await crasher.run(point, lambda mount: mount.rename("work/a.txt", "work/b.txt"))

    async with mounted(service, state) as mount:
        await settled(mount)
        assert await mount.walk("work") == {"work/b.txt": b"same"}
    assert stored(service, "work") == {"b.txt": b"same"}


@pytest.mark.parametrize(("source", "target"), [("work", "other"), ("other", "work")])
async def test_what_was_renamed_into_another_container_is_not_shown_in_both(
    service: InProcessService,
    state: Path,
    work: str,
    crasher: Crasher,
    autojump_clock: trio.testing.MockClock,
    source: str,
    target: str,
) -> None:
    ids = {"work": work, "other": service.create_container("other")}
    service.upload(ids[source], "a.txt", b"new")
    service.upload(ids[target], "b.txt", b"old")
    await crasher.run(
        "rename.intended", lambda mount: mount.rename(f"{source}/a.txt", f"{target}/b.txt")
    )

    async with mounted(service, state) as mount:
        assert await mount.walk(source) == {}
        assert await mount.walk(target) == {f"{target}/b.txt": b"new"}
        await settled(mount)
        assert await mount.walk(source) == {}
    assert stored(service, source) == {}
    assert stored(service, target) == {"b.txt": b"new"}


@pytest.mark.parametrize("point", ["rename.intended", "rename.stored", "rename.bound"])
async def test_an_editors_save_by_rename_is_finished_wherever_it_is_interrupted(
    service: InProcessService,
    state: Path,
    work: str,
    point: str,
    crasher: Crasher,
    autojump_clock: trio.testing.MockClock,
) -> None:
    service.upload(work, "a.txt", b"old")

    async def save(mount: InProcessMount) -> None:
        await mount.write_file("work/.goutputstream-ABC", b"new")
        await mount.rename("work/.goutputstream-ABC", "work/a.txt")

    await crasher.run(point, save)

    async with mounted(service, state) as mount:
        await settled(mount)
        assert await mount.walk("work") == {"work/a.txt": b"new"}
    assert stored(service, "work") == {"a.txt": b"new"}


@pytest.mark.parametrize(
    ("point", "left"),
    [
        ("local.synced", {"work/a~": b"source", "work/b~": b"target"}),
        ("local.kept", {"work/b~": b"source"}),
    ],
)
async def test_a_local_only_file_renamed_over_another_takes_its_place_in_one_step(
    service: InProcessService,
    state: Path,
    work: str,
    point: str,
    left: dict[str, bytes],
    crasher: Crasher,
) -> None:
    async with mounted(service, state) as mount:
        await mount.write_file("work/a~", b"source")
        await mount.write_file("work/b~", b"target")

    await crasher.run(point, lambda mount: mount.rename("work/a~", "work/b~"))

    async with mounted(service, state) as mount:
        assert await mount.walk("work") == left


@pytest.mark.parametrize("point", ["unlink.intended", "unlink.deleted"])
async def test_a_removal_is_finished_wherever_it_is_interrupted(
    service: InProcessService,
    state: Path,
    work: str,
    point: str,
    crasher: Crasher,
    autojump_clock: trio.testing.MockClock,
) -> None:
    service.upload(work, "a.txt", b"a")
    await crasher.run(point, lambda mount: mount.unlink("work/a.txt"))

    async with mounted(service, state) as mount:
        await settled(mount)
        assert await mount.walk("work") == {}
    assert stored(service, "work") == {}


@pytest.mark.parametrize(
    "point", ["folder.intended", "folder.copied", "folder.moved", "save.deleted"]
)
async def test_the_renaming_of_a_folder_is_finished_wherever_it_is_interrupted(
    service: InProcessService,
    state: Path,
    work: str,
    point: str,
    crasher: Crasher,
    autojump_clock: trio.testing.MockClock,
) -> None:
    service.upload(work, "d/a.txt", b"a")
    service.upload(work, "d/e/b.txt", b"b")
    await crasher.run(point, lambda mount: mount.rename("work/d", "work/f"))

    async with mounted(service, state) as mount:
        await settled(mount)
        assert await mount.walk("work") == {
            "work/f": None,
            "work/f/a.txt": b"a",
            "work/f/e": None,
            "work/f/e/b.txt": b"b",
        }
    assert stored(service, "work") == {"f/a.txt": b"a", "f/e/b.txt": b"b"}


async def test_local_only_files_go_with_their_folder_in_the_step_that_decides_its_renaming(
    service: InProcessService,
    state: Path,
    work: str,
    crasher: Crasher,
    autojump_clock: trio.testing.MockClock,
) -> None:
    service.upload(work, "d/a.txt", b"a")
    async with mounted(service, state) as mount:
        await mount.write_file("work/d/a.txt~", b"backup")
        await mount.mkdir("work/d/empty")

    await crasher.run(
        "database.committed", lambda mount: mount.rename("work/d", "work/f"), after="folder.copied"
    )

    async with mounted(service, state) as mount:
        await mount.names("work")
        await settled(mount)
        await mount.refresh("work")
        assert await mount.walk("work") == {
            "work/f": None,
            "work/f/a.txt": b"a",
            "work/f/a.txt~": b"backup",
            "work/f/empty": None,
        }


@pytest.mark.parametrize("point", ["rmdir.intended", "rmdir.deleted"])
async def test_the_removal_of_a_container_is_finished_wherever_it_is_interrupted(
    service: InProcessService,
    state: Path,
    work: str,
    point: str,
    crasher: Crasher,
    autojump_clock: trio.testing.MockClock,
) -> None:
    await crasher.run(point, lambda mount: mount.rmdir("work"))

    async with mounted(service, state) as mount:
        await settled(mount)
    assert service.containers() == []


async def test_a_container_that_has_been_filled_since_is_not_removed(
    service: InProcessService,
    state: Path,
    work: str,
    crasher: Crasher,
    autojump_clock: trio.testing.MockClock,
) -> None:
    await crasher.run("rmdir.intended", lambda mount: mount.rmdir("work"))
    service.upload(work, "a.txt", b"a")

    async with mounted(service, state) as mount:
        await settled(mount)
        assert await mount.walk("work") == {"work/a.txt": b"a"}


async def test_both_versions_are_kept_where_somebody_else_has_changed_the_file_since(
    service: InProcessService,
    state: Path,
    work: str,
    crasher: Crasher,
    autojump_clock: trio.testing.MockClock,
) -> None:
    old = service.upload(work, "a.txt", b"old")
    await crasher.run("save.intended", lambda mount: mount.write_file("work/a.txt", b"ours"))
    service.delete_file(work, old)
    service.upload(work, "a.txt", b"theirs")

    async with mounted(service, state) as mount:
        await settled(mount)
        shown = await mount.walk("work")
    assert sorted(content or b"" for content in shown.values()) == [b"ours", b"theirs"]
    assert shown["work/a.txt"] == b"ours"


async def test_a_mount_takes_over_what_another_slot_has_left(
    service: InProcessService, state: Path, work: str, autojump_clock: trio.testing.MockClock
) -> None:
    service.upload(work, "a.txt", b"old")
    service.upload(work, "gone.txt", b"gone")
    async with mounted(service, state), mounted(service, state) as second:
        assert await second.names("work") == ["a.txt", "gone.txt"]
        service.add_fault("create_file", "status", status=403)
        service.add_fault("delete_file", "status", status=403)
        await second.write_file("work/.x.swp", b"local")
        with pytest.raises(RemoteRefusedError):
            await second.write_file("work/a.txt", b"new")
        service.clear_faults()

    async with mounted(service, state) as alone:
        await settled(alone)
        assert await alone.walk("work") == {
            "work/.x.swp": b"local",
            "work/a.txt": b"new",
            "work/gone.txt": b"gone",
        }
        await alone.unlink("work/.x.swp")
    assert spooled(state) == []


async def test_unsent_bytes_of_a_container_that_is_gone_stay(
    service: InProcessService, state: Path, work: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with mounted(service, state) as mount:
        service.add_fault("create_file", "status", status=403)
        with pytest.raises(RemoteRefusedError):
            await mount.write_file("work/a.txt", b"new")
    service.clear_faults()
    service.delete_container(work)

    for _mount in range(2):
        async with mounted(service, state) as mount:
            await trio.sleep(400)
            (row,) = mount.parts.journal.rows()
            assert row.path == b"a.txt"
    assert [path.read_bytes() for path in spooled(state)] == [b"new"]


async def test_a_file_changed_again_after_it_failed_and_not_closed_is_sent_as_it_was_closed(
    service: InProcessService, state: Path, work: str, autojump_clock: trio.testing.MockClock
) -> None:
    service.upload(work, "a.txt", b"old")
    async with mounted(service, state) as mount:
        service.add_fault("create_file", "status", status=403)
        with pytest.raises(RemoteRefusedError):
            await mount.write_file("work/a.txt", b"new")
        handle = await mount.open("work/a.txt", WRITE)
        await mount.fs.write(handle, 0, b"NEWER")
    service.clear_faults()

    async with mounted(service, state) as mount:
        await settled(mount)
        shown = await mount.walk("work")
    assert shown == {"work/a.txt": b"new"}


async def test_damaged_bytes_are_never_sent(
    service: InProcessService, state: Path, work: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with mounted(service, state) as mount:
        service.add_fault("create_file", "status", status=403)
        with pytest.raises(RemoteRefusedError):
            await mount.write_file("work/a.txt", b"new")
    service.clear_faults()
    for path in spooled(state):
        path.write_bytes(b"NEW")

    async with mounted(service, state) as mount:
        await trio.sleep(1000)
        (row,) = mount.parts.journal.rows()
        assert "damaged" in row.error
    assert stored(service, "work") == {}


async def test_a_read_only_mount_replays_nothing_and_forgets_nothing(
    service: InProcessService, state: Path, work: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with mounted(service, state) as mount:
        service.add_fault("create_file", "status", status=403)
        with pytest.raises(RemoteRefusedError):
            await mount.write_file("work/a.txt", b"new")
    service.clear_faults()
    settings = Settings(files=FileSystemConfig(read_only=True))
    async with mounted(service, state, settings) as mount:
        await trio.sleep(1000)
        assert await mount.walk("work") == {}
        assert len(mount.parts.journal) == 1
    async with mounted(service, state) as mount:
        await settled(mount)
    assert stored(service, "work") == {"a.txt": b"new"}


async def test_unsent_bytes_can_be_discarded_by_their_id(
    service: InProcessService, state: Path, work: str, autojump_clock: trio.testing.MockClock
) -> None:
    service.upload(work, "a.txt", b"old")
    async with mounted(service, state) as mount:
        service.add_fault("create_file", "status", status=403)
        with pytest.raises(RemoteRefusedError):
            await mount.write_file("work/a.txt", b"new")
        (row,) = mount.parts.journal.rows()

        await mount.fs.setxattr(
            mount.parts.tree.root.inode, b"user.ctrfs.discard", row.key.encode()
        )

        assert mount.parts.journal.rows() == []
        assert await mount.walk("work") == {"work/a.txt": b"old"}
    assert spooled(state) == []


async def test_a_later_close_tries_again_at_once(
    service: InProcessService, state: Path, work: str
) -> None:
    async with mounted(service, state) as mount:
        service.add_fault("create_file", "status", status=403)
        with pytest.raises(RemoteRefusedError):
            await mount.write_file("work/a.txt", b"new")
        service.clear_faults()
        handle = await mount.open("work/a.txt", WRITE)
        await mount.close(handle)
        assert stored(service, "work") == {"a.txt": b"new"}


async def test_an_upload_that_an_earlier_mount_has_made_is_not_made_again(
    service: InProcessService,
    state: Path,
    work: str,
    crasher: Crasher,
    autojump_clock: trio.testing.MockClock,
) -> None:
    await crasher.run("save.stored", lambda mount: mount.write_file("work/a.txt", b"new"))
    service.reset_counters()

    async with mounted(service, state) as mount:
        await settled(mount)
    assert service.counters().get("create_file", 0) == 0
    assert stored(service, "work") == {"a.txt": b"new"}


@pytest.mark.parametrize("lag_s", [0.0, 3.0])
@pytest.mark.parametrize("operation", ["remove", "rename", "change", "rename over"])
async def test_an_upload_of_an_earlier_mount_is_seen_before_anything_else_is_done_to_the_file(
    service: InProcessService,
    state: Path,
    work: str,
    crasher: Crasher,
    operation: str,
    lag_s: float,
    autojump_clock: trio.testing.MockClock,
) -> None:
    service.set_behaviour(list_lag_s=lag_s)
    await crasher.run("save.stored", lambda mount: mount.write_file("work/a", b"new"))

    async with mounted(service, state) as mount:
        expected: dict[str, bytes | None] = {}
        match operation:
            case "remove":
                await mount.unlink("work/a")
            case "rename":
                await mount.rename("work/a", "work/b")
                expected = {"work/b": b"new"}
            case "change":
                await mount.write_file("work/a", b"newer")
                expected = {"work/a": b"newer"}
            case _:
                await mount.write_file("work/b", b"other")
                await mount.rename("work/b", "work/a")
                expected = {"work/a": b"other"}
        await settled(mount)
        await trio.sleep(60)
        assert await mount.walk("work") == expected
    assert stored(service, "work") == {
        path.removeprefix("work/"): content for path, content in expected.items()
    }


async def test_what_was_replaced_and_is_born_again_is_not_deleted(
    service: InProcessService,
    state: Path,
    work: str,
    crasher: Crasher,
    autojump_clock: trio.testing.MockClock,
) -> None:
    """On a server that makes ids of names, an id may come to stand for another file."""
    service.set_behaviour(hash_prefix=False, ids="path")
    service.upload(work, "a.txt", b"a")
    service.upload(work, "b.txt", b"b")
    await crasher.run("rename.intended", lambda mount: mount.rename("work/a.txt", "work/b.txt"))
    service.advance(5)
    service.upload(work, "a.txt", b"born again")

    async with mounted(service, state) as mount:
        await settled(mount)
        assert await mount.walk("work") == {"work/a.txt": b"born again", "work/b.txt": b"a"}


async def test_deletions_in_a_container_that_is_gone_are_forgotten(
    service: InProcessService,
    state: Path,
    work: str,
    crasher: Crasher,
    autojump_clock: trio.testing.MockClock,
) -> None:
    service.upload(work, "a.txt", b"a")
    await crasher.run("unlink.intended", lambda mount: mount.unlink("work/a.txt"))
    service.delete_container(work)

    async with mounted(service, state) as mount:
        await settled(mount)
