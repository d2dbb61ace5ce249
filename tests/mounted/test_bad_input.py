"""Whatever the service or the machine does: a clear errno, a line in the log, a living mount."""

from __future__ import annotations

import errno
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.support.mounting import MakeMount, Mount
from tests.support.service import ServiceProcess
from tests.support.trees import contents, stored
from tests.support.trying import works_within

pytestmark = pytest.mark.mounted

# Nothing is kept that a test would have to wait for.
AT_ONCE = ("ttl=0", "max_stale=0")
MIB = 1024 * 1024
HOSTILE_PATHS = [
    "/mnt/data/../../../etc/passwd",
    "/mnt/data/..",
    "/mnt/data/.",
    "/mnt/data/./a",
    "/mnt/data/folder/../b",
    "/mnt/data//double//slash",
    "/mnt/data",
    "/mnt/data/nul\0inside",
    "/mnt/data/line\nbreak",
    "/mnt/data/" + "n" * 300,
    "/mnt/data/" + "é" * 200,
    "/mnt/data/" + "/".join(["deep"] * 60),
    "/mnt/data/file",
    "/mnt/data/file/below",
    "/mnt/data/␀／‛",
    "/etc/shadow",
    "relative",
    "/mnt/data/0123456789abcdef0123456789abcdef-x",
    "/mnt/data/fedcba98765432100123456789abcdef-x",
    "/mnt/data/same",
    "/mnt/data/same",
    "/mnt/data/.ctrfs",
]

# Rows that name no file, and one that is no text.
SENSELESS_PATHS = ["/mnt/data/", "/", "", "/mnt/data/\ud800"]


@contextmanager
def refused(*names: str) -> Iterator[None]:
    """Expect an ``OSError`` with one of these errnos."""
    with pytest.raises(OSError, match=r".") as caught:
        yield
    assert errno.errorcode[caught.value.errno or 0] in names


def is_well(mount: Mount) -> bool:
    """Whether the mount answers and its daemon has met no bug of its own."""
    return mount.is_serving and "Traceback" not in mount.log_text()


def test_hostile_names_are_all_visible_readable_and_inside_the_mount(
    service: ServiceProcess, make_mount: MakeMount
) -> None:
    """Promise 2."""
    container_id = service.create_container("hostile")
    for number, path in enumerate(HOSTILE_PATHS):
        service.plant(container_id, path, f"content {number}".encode())
    mount = make_mount(service)
    found = contents(mount.point / "hostile")

    assert sorted(found.values()) == sorted(
        f"content {number}".encode() for number in range(len(HOSTILE_PATHS))
    )
    assert not (mount.point / "etc").exists()
    assert is_well(mount)


def test_rows_that_name_no_file_are_counted_and_described(
    service: ServiceProcess, make_mount: MakeMount
) -> None:
    """Promise 4."""
    container_id = service.create_container("senseless")
    for path in SENSELESS_PATHS:
        service.plant(container_id, path, b"x")
    service.plant(container_id, "/mnt/data/good.txt", b"good")
    mount = make_mount(service)

    assert contents(mount.point / "senseless") == {"good.txt": b"good"}
    errors = (mount.point / ".ctrfs/errors").read_text().splitlines()
    assert errors[0].startswith(f"{len(SENSELESS_PATHS)} rows")
    assert len(errors) == 1 + len(SENSELESS_PATHS)
    assert is_well(mount)


def test_hostile_names_can_be_removed(service: ServiceProcess, make_mount: MakeMount) -> None:
    container_id = service.create_container("hostile")
    for path in HOSTILE_PATHS:
        service.plant(container_id, path, b"x")
    mount = make_mount(service)
    for name in contents(mount.point / "hostile"):
        (mount.point / "hostile" / name).unlink()

    assert service.files(container_id) == []
    assert is_well(mount)


def test_containers_of_hostile_names_are_directories_of_the_root(
    service: ServiceProcess, make_mount: MakeMount
) -> None:
    """Promise 2."""
    names = ["a/b", "..", ".", "", "nul\0", "n" * 300, "twin", "twin", ".Trash", ".ctrfs"]
    for name in names:
        service.plant(service.create_container(name), "/mnt/data/a.txt", name.encode())
    mount = make_mount(service)
    found = {folder.name: (folder / "a.txt").read_bytes() for folder in mount.point.iterdir()}

    assert sorted(found.values()) == sorted(name.encode() for name in names)
    assert is_well(mount)


@pytest.mark.parametrize("name", ["␀", "a␀b", "．", "．．", "∅"])
def test_a_name_that_stands_for_what_no_upload_can_be_called_is_refused_at_once(
    service: ServiceProcess, make_mount: MakeMount, name: str
) -> None:
    folder = make_mount(service).point / "work"
    folder.mkdir()
    (folder / "other").write_bytes(b"x")
    with refused("EINVAL"):
        os.close(os.open(folder / name, os.O_CREAT | os.O_WRONLY))
    with refused("EINVAL"):
        (folder / name).mkdir()
    with refused("EINVAL"):
        (folder / "other").rename(folder / name)

    assert contents(folder) == {"other": b"x"}
    assert stored(service, "work") == {"other": b"x"}


def test_a_folder_of_the_name_of_other_paths_takes_no_files(
    service: ServiceProcess, make_mount: MakeMount
) -> None:
    service.plant(service.create_container("work"), "/etc/shadow", b"theirs")
    mount = make_mount(service)
    with refused("EPERM"):
        (mount.point / "work/@root/etc/ours").write_bytes(b"x")

    assert contents(mount.point / "work") == {"@root/etc/shadow": b"theirs"}


def test_files_without_a_length_are_read_whole(
    service: ServiceProcess, make_mount: MakeMount
) -> None:
    service.set_behaviour(null_bytes=True)
    content = os.urandom(300_000)
    container_id = service.create_container("work")
    service.plant(container_id, "/mnt/data/unknown.bin", content)
    mount = make_mount(service)

    assert (mount.point / "work/unknown.bin").read_bytes() == content
    assert (mount.point / "work/unknown.bin").stat().st_size == len(content)
    subprocess.run(
        ["cp", mount.point / "work/unknown.bin", mount.point / "work/copy.bin"],
        check=True,
        timeout=30,
    )
    assert (mount.point / "work/copy.bin").read_bytes() == content
    assert is_well(mount)


def test_rubbish_rows_hide_nothing_that_makes_sense(
    service: ServiceProcess, make_mount: MakeMount
) -> None:
    service.set_behaviour(rubbish=True, empty_pages=True)
    container_id = service.create_container("work")
    service.plant(container_id, "/mnt/data/good.txt", b"good")
    mount = make_mount(service)
    found = {entry.name for entry in (mount.point / "work").iterdir()}

    assert "good.txt" in found
    assert (mount.point / "work/good.txt").read_bytes() == b"good"
    (mount.point / "work/new.txt").write_bytes(b"new")
    assert (mount.point / "work/new.txt").read_bytes() == b"new"
    assert is_well(mount)


@pytest.mark.parametrize(
    ("status", "names"),
    [(401, ["EACCES"]), (403, ["EACCES"]), (400, ["EINVAL"]), (500, ["EIO"]), (413, ["EFBIG"])],
)
def test_a_refused_upload_fails_the_close_and_the_mount_lives(
    service: ServiceProcess, make_mount: MakeMount, status: int, names: list[str]
) -> None:
    """Promise 12."""
    # A 500 leaves open whether the file is there: it is looked for, and sent again, for that long.
    mount = make_mount(service, options=["transfer_timeout=3"])
    (mount.point / "work").mkdir()
    service.add_fault("create_file", "status", status=status)
    with refused(*names):
        (mount.point / "work/a.txt").write_bytes(b"refused")
    service.clear_faults()

    (mount.point / "work/b.txt").write_bytes(b"accepted")
    assert (mount.point / "work/b.txt").read_bytes() == b"accepted"
    assert is_well(mount)


def test_a_failed_overwrite_leaves_the_old_bytes_on_the_service(
    service: ServiceProcess, make_mount: MakeMount
) -> None:
    """Promise 14."""
    mount = make_mount(service)
    (mount.point / "work").mkdir()
    (mount.point / "work/a.txt").write_bytes(b"old and safe")
    service.add_fault("create_file", "status", status=400)
    with refused("EINVAL"):
        (mount.point / "work/a.txt").write_bytes(b"new")

    assert stored(service, "work") == {"a.txt": b"old and safe"}
    assert os.getxattr(mount.point / "work/a.txt", "user.ctrfs.state") == b"failed"
    assert os.getxattr(mount.point / "work/a.txt", "user.ctrfs.error")
    assert is_well(mount)


def test_a_refused_listing_is_eacces(service: ServiceProcess, make_mount: MakeMount) -> None:
    service.create_container("work")
    mount = make_mount(service, options=AT_ONCE)
    service.add_fault("*", "status", status=401)
    with refused("EACCES"):
        list((mount.point / "work").iterdir())
    service.clear_faults()

    assert list((mount.point / "work").iterdir()) == []
    assert is_well(mount)


def test_a_dead_service_is_eio_and_comes_back(
    service: ServiceProcess, make_mount: MakeMount
) -> None:
    mount = make_mount(service)
    folder = mount.point / "work"
    folder.mkdir()
    (folder / "a.txt").write_bytes(b"before")
    service.kill()
    assert (folder / "a.txt").read_bytes() == b"before"
    with refused("EIO"):
        (folder / "b.txt").write_bytes(b"lost for now")
    with refused("EIO"):
        (mount.point / "another").mkdir()
    service.start()

    # For some seconds more nobody asks a service that did not answer.
    assert works_within(lambda: (folder / "c.txt").write_bytes(b"after"), 10)
    assert (folder / "a.txt").read_bytes() == b"before"
    assert (folder / "c.txt").read_bytes() == b"after"
    assert is_well(mount)


@pytest.mark.parametrize("action", ["cut", "reset"])
def test_a_download_that_breaks_is_retried_and_whole(
    service: ServiceProcess, make_mount: MakeMount, action: str
) -> None:
    content = os.urandom(500_000)
    service.plant(service.create_container("work"), "/mnt/data/a.bin", content)
    mount = make_mount(service)
    service.add_fault("file_content", action, bytes=100_000, nth=1)

    assert (mount.point / "work/a.bin").read_bytes() == content
    assert is_well(mount)


@pytest.mark.parametrize("bytes_before", [0, 100_000])
def test_a_download_that_falls_silent_is_etimedout_in_time(
    service: ServiceProcess, make_mount: MakeMount, bytes_before: int
) -> None:
    service.plant(service.create_container("work"), "/mnt/data/a.bin", bytes(500_000))
    mount = make_mount(service, options=["stall_timeout=1", "retries=0"])
    service.add_fault("file_content", "stall", bytes=bytes_before)
    began = time.monotonic()
    with refused("ETIMEDOUT"):
        (mount.point / "work/a.bin").read_bytes()

    assert time.monotonic() - began < 15
    service.clear_faults()
    assert (mount.point / "work/a.bin").read_bytes() == bytes(500_000)
    assert is_well(mount)


def test_a_download_of_other_length_is_eio(service: ServiceProcess, make_mount: MakeMount) -> None:
    """Promise 11."""
    service.plant(service.create_container("work"), "/mnt/data/a.bin", b"x" * 5000)
    mount = make_mount(service)
    service.add_fault("file_content", "wrong-length", delta=-1000)
    with refused("EIO"):
        (mount.point / "work/a.bin").read_bytes()

    assert is_well(mount)


def test_the_spool_quota_is_enospc_and_can_be_lived_with(
    service: ServiceProcess, make_mount: MakeMount
) -> None:
    mount = make_mount(service, options=["spool_size=2M", "cache_size=1M"])
    folder = mount.point / "work"
    folder.mkdir()
    with refused("ENOSPC"):
        (folder / "big.bin").write_bytes(bytes(4 * MIB))
    (folder / "big.bin").unlink(missing_ok=True)

    for number in range(6):
        (folder / f"{number}.bin").write_bytes(bytes([number]) * (MIB // 2))
    assert contents(folder) == {f"{n}.bin": bytes([n]) * (MIB // 2) for n in range(6)}
    assert is_well(mount)


def test_a_file_over_the_limit_is_efbig_at_the_write(
    service: ServiceProcess, make_mount: MakeMount
) -> None:
    mount = make_mount(service, options=["max_file_size=1M"])
    (mount.point / "work").mkdir()
    descriptor = os.open(mount.point / "work/big.bin", os.O_CREAT | os.O_WRONLY)
    try:
        assert os.write(descriptor, bytes(MIB // 2)) == MIB // 2
        with refused("EFBIG"):
            os.pwrite(descriptor, b"x", MIB)
    finally:
        os.close(descriptor)

    assert stored(service, "work") == {"big.bin": bytes(MIB // 2)}
    assert is_well(mount)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of eight mebibytes."""
    point = tmp_path / "small"
    point.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m,mode=700", "none", point],
        capture_output=True,
        timeout=10,
        check=False,
    )
    if made.returncode != 0:
        pytest.skip("only root can mount a small disk")
    yield point
    subprocess.run(["umount", "-l", point], timeout=10, check=True)


def test_a_full_local_disk_is_enospc_and_the_stored_bytes_are_safe(
    small_disk: Path, service: ServiceProcess, make_mount: MakeMount
) -> None:
    mount = make_mount(service, options=[f"state_dir={small_disk / 'state'}"])
    folder = mount.point / "work"
    folder.mkdir()
    (folder / "safe.txt").write_bytes(b"safe")
    with refused("ENOSPC"):
        (folder / "big.bin").write_bytes(bytes(16 * MIB))
    (folder / "big.bin").unlink(missing_ok=True)

    assert (folder / "safe.txt").read_bytes() == b"safe"
    (folder / "after.txt").write_bytes(b"after")
    assert stored(service, "work") == {"safe.txt": b"safe", "after.txt": b"after"}
    assert mount.is_serving


def test_a_full_local_disk_is_no_bug_of_ours(
    small_disk: Path, service: ServiceProcess, make_mount: MakeMount
) -> None:
    mount = make_mount(service, options=[f"state_dir={small_disk / 'state'}"])
    (mount.point / "work").mkdir()
    with refused("ENOSPC"):
        (mount.point / "work/big.bin").write_bytes(bytes(16 * MIB))

    assert is_well(mount)


def test_an_expired_container_disappears_and_its_open_file_is_stale(
    service: ServiceProcess, make_mount: MakeMount
) -> None:
    """Promise 1."""
    mount = make_mount(service, options=AT_ONCE)
    (mount.point / "work").mkdir()
    (mount.point / "work/a.txt").write_bytes(b"x")
    service.advance(3600)

    assert list(mount.point.iterdir()) == []
    assert not (mount.point / "work").exists()
    assert is_well(mount)
