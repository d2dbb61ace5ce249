"""What was read once is not asked for again: after a remount, a crash, beside another mount."""

from __future__ import annotations

import json
import os
import random
from contextlib import suppress
from pathlib import Path

import pytest
from tests.support.mounting import MakeMount, Mount, pause
from tests.support.service import ServiceProcess

from ctrfs.units import MIB

pytestmark = pytest.mark.mounted

ONE_MOMENT = ("ttl=300", "max_stale=300")
SMALL = b"a small file\n" * 50
LARGE = random.Random(3).randbytes(9 * MIB + 77)  # noqa: S311  # needs no secrecy


@pytest.fixture
def planted(service: ServiceProcess) -> ServiceProcess:
    """A service with two files that code inside a container has made: no hash is known of them."""
    container_id = service.create_container("work")
    service.plant(container_id, "/mnt/data/small.txt", SMALL)
    service.plant(container_id, "/mnt/data/large.bin", LARGE)
    return service


def content_requests(service: ServiceProcess) -> int:
    return service.counters().get("file_content", 0)


def read_both(mount: Mount) -> None:
    assert (mount.point / "work" / "small.txt").read_bytes() == SMALL
    assert (mount.point / "work" / "large.bin").read_bytes() == LARGE


def cache_of(mount: Mount) -> Path:
    (path,) = (mount.home / "state" / "ctrfs").glob("*/cache")
    return path


def wait_for_entries(mount: Mount, count: int) -> list[Path]:
    """The release that puts a copy away comes after the close has returned."""
    entries: list[Path] = []
    for _ in range(500):
        entries = list(cache_of(mount).iterdir())
        if len(entries) == count:
            break
        pause(0.02)
    assert len(entries) == count
    return entries


def test_each_file_is_asked_for_once_by_the_first_mount(
    planted: ServiceProcess, make_mount: MakeMount
) -> None:
    read_both(make_mount(planted, options=ONE_MOMENT))

    assert content_requests(planted) == 2


def test_after_a_remount_nothing_is_asked_for_but_the_listings(
    planted: ServiceProcess, make_mount: MakeMount
) -> None:
    mount = make_mount(planted, options=ONE_MOMENT)
    read_both(mount)
    mount.restart()
    planted.reset_counters()

    read_both(mount)

    assert {name: n for name, n in planted.counters().items() if n} == {"list_files": 1}


def test_what_was_written_here_is_not_asked_for_after_a_remount(
    planted: ServiceProcess, make_mount: MakeMount
) -> None:
    mount = make_mount(planted, options=ONE_MOMENT)
    written = mount.point / "work" / "written.bin"
    written.write_bytes(LARGE[::-1])
    mount.restart()
    planted.reset_counters()

    assert written.read_bytes() == LARGE[::-1]
    assert content_requests(planted) == 0


def test_after_a_crash_what_was_closed_is_not_asked_for_again(
    planted: ServiceProcess, make_mount: MakeMount
) -> None:
    mount = make_mount(planted, options=ONE_MOMENT)
    read_both(mount)
    wait_for_entries(mount, 2)
    mount.kill()
    mount.start()
    planted.reset_counters()

    read_both(mount)

    assert content_requests(planted) == 0


def test_after_a_crash_what_was_open_is_asked_for_again_and_whole(
    planted: ServiceProcess, make_mount: MakeMount
) -> None:
    mount = make_mount(planted, options=ONE_MOMENT)
    read_both(mount)
    wait_for_entries(mount, 2)
    fd = os.open(mount.point / "work" / "large.bin", os.O_RDONLY)
    try:
        os.pread(fd, 10, 0)
        mount.kill()
    finally:
        with suppress(OSError):  # nobody is there to be told
            os.close(fd)
    mount.start()

    read_both(mount)


def test_damaged_entries_are_asked_for_again_and_never_shown(
    planted: ServiceProcess, make_mount: MakeMount
) -> None:
    mount = make_mount(planted, options=ONE_MOMENT)
    read_both(mount)
    mount.stop()
    for path in wait_for_entries(mount, 2):
        with path.open("r+b") as file:
            file.seek(path.stat().st_size // 3)
            file.write(b"\0damage")
    planted.reset_counters()
    mount.start()

    read_both(mount)

    assert content_requests(planted) == 2
    assert "are damaged: fetched again" in mount.log_text()


def test_two_mounts_of_one_source_share_what_they_have_read(
    planted: ServiceProcess, tmp_path: Path
) -> None:
    with (
        Mount(tmp_path, service=planted, options=ONE_MOMENT) as first,
        Beside(first, tmp_path / "second") as second,
    ):
        read_both(first)
        wait_for_entries(first, 2)
        planted.reset_counters()

        read_both(second)
        wait_for_entries(second, 2)
        read_both(first)

        assert content_requests(planted) == 0


def test_two_mounts_of_one_source_read_one_file_at_the_same_time(
    planted: ServiceProcess, tmp_path: Path
) -> None:
    with (
        Mount(tmp_path, service=planted, options=ONE_MOMENT) as first,
        Beside(first, tmp_path / "second") as second,
    ):
        files = [mount.point / "work" / "large.bin" for mount in (first, second)]
        for _ in range(3):
            with files[0].open("rb") as here, files[1].open("rb") as there:
                assert here.read(MIB) == there.read(MIB) == LARGE[:MIB]
                assert there.read() == here.read() == LARGE[MIB:]
        (entry,) = wait_for_entries(first, 1)

    assert entry.stat().st_size > len(LARGE)


def test_writing_through_one_mount_leaves_what_the_other_reads(
    planted: ServiceProcess, tmp_path: Path
) -> None:
    with (
        Mount(tmp_path, service=planted, options=ONE_MOMENT) as first,
        Beside(first, tmp_path / "second") as second,
    ):
        read_both(first)
        wait_for_entries(first, 2)
        with (second.point / "work" / "large.bin").open("rb") as old:
            assert old.read(10) == LARGE[:10]
            with (first.point / "work" / "large.bin").open("r+b") as new:
                new.write(b"changed")
            assert old.read() == LARGE[10:]
        assert (first.point / "work" / "large.bin").read_bytes() == b"changed" + LARGE[7:]


def test_cache_size_none_keeps_nothing(planted: ServiceProcess, make_mount: MakeMount) -> None:
    mount = make_mount(planted, options=[*ONE_MOMENT, "cache_size=none"])
    read_both(mount)
    mount.restart()
    planted.reset_counters()

    read_both(mount)

    assert content_requests(planted) == 2
    assert list(cache_of(mount).iterdir()) == []


def test_nothing_is_kept_where_more_is_to_stay_free_than_there_is(
    planted: ServiceProcess, make_mount: MakeMount
) -> None:
    mount = make_mount(planted, options=[*ONE_MOMENT, "cache_min_free=9999999G"])
    read_both(mount)

    wait_for_entries(mount, 0)


def test_ctrfs_cache_shows_and_clears_under_a_mount_that_goes_on(
    planted: ServiceProcess, make_mount: MakeMount
) -> None:
    mount = make_mount(planted, options=ONE_MOMENT)
    read_both(mount)
    wait_for_entries(mount, 2)

    (shown,) = json.loads(mount.run("cache", "--json").stdout)
    assert (shown["source"], shown["files"]) == ("openai:", 2)
    assert len(LARGE) < shown["bytes"] < len(LARGE) + MIB
    cleared = mount.run("cache", "--clear", mount.point)

    assert "9.0" in cleared.stdout, cleared
    assert list(cache_of(mount).iterdir()) == []
    read_both(mount)


class Beside(Mount):
    """Another mount of the same user."""

    def __init__(self, first: Mount, directory: Path) -> None:
        directory.mkdir()
        super().__init__(directory, service=None, options=first.options)
        self.environment = first.environment
        self.home = first.home
