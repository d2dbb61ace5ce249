"""What the kernel keeps of the mount is told when it changes, and only then."""

from __future__ import annotations

import ctypes
import os
import threading
import time
from pathlib import Path
from typing import Final

import pytest
from tests.support.mounting import MakeMount, fuse_mounts, pause
from tests.support.service import ServiceProcess
from tests.support.trees import contents, stored

pytestmark = pytest.mark.mounted

# The names of some 130 entries: a reader that begins with it has not seen the rest.
FIRST_PIECE_BYTES: Final = 4096
MANY: Final = 300
# Less than a name or a page is believed without being told otherwise.
SOON_S: Final = 5.0
SLOW_UPLOAD_S: Final = 1.0
_SYS_GETDENTS64: Final = {"x86_64": 217, "aarch64": 61}.get(os.uname().machine)


class DirectoryInPieces:
    """Reads a directory piece by piece, as the C library does with one too large for its buffer."""

    def __init__(self, path: Path) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)

    def read_piece(self) -> bool:
        """Read on; False at the end."""
        buffer = ctypes.create_string_buffer(FIRST_PIECE_BYTES)
        length: int = self._libc.syscall(_SYS_GETDENTS64, self._fd, buffer, FIRST_PIECE_BYTES)
        if length < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return length > 0

    def close(self) -> None:
        """End reading."""
        os.close(self._fd)


def wait_for_text(path: Path, expected: bytes) -> None:
    """Return once a file reads as expected, well before any time-out of the kernel."""
    deadline = time.monotonic() + SOON_S
    while path.read_bytes() != expected and time.monotonic() < deadline:
        pause(0.02)
    assert path.read_bytes() == expected


@pytest.mark.skipif(_SYS_GETDENTS64 is None, reason="the number of getdents64 is not known here")
def test_a_listing_read_to_its_end_leaves_newer_lengths_and_removals_as_they_are(
    service: ServiceProcess, make_mount: MakeMount
) -> None:
    """The kernel takes names and attributes over from what a reader of the directory is sent."""
    container = service.create_container("work")
    for number in range(MANY):
        service.plant(container, f"/mnt/data/many/{number:03}", b"1")
    folder = make_mount(service).point / "work" / "many"
    changed, removed = folder / f"{MANY - 1:03}", folder / f"{MANY - 2:03}"
    reader = DirectoryInPieces(folder)
    assert reader.read_piece()

    with changed.open("ab") as file:
        file.write(b"2" * 1000)
    removed.unlink()
    while reader.read_piece():
        pass
    reader.close()

    assert changed.stat().st_size == 1001
    assert changed.read_bytes() == b"1" + b"2" * 1000
    assert not removed.exists()
    with changed.open("ab") as file:
        file.write(b"3")
    assert stored(service, "work")[f"many/{changed.name}"] == b"1" + b"2" * 1000 + b"3"


def test_getcwd_works_right_after_cd_into_a_large_folder_that_nobody_has_seen(
    service: ServiceProcess, make_mount: MakeMount
) -> None:
    """Names that a first listing brings are no news to the kernel: it must not drop any."""
    container = service.create_container("work")
    for number in range(MANY):
        service.plant(container, f"/mnt/data/many/{number:03}", b"1")
    folder = make_mount(service).point / "work" / "many"
    before = Path.cwd()

    try:
        os.chdir(folder)
        for _ in range(100):
            assert Path.cwd() == folder
            pause(0.005)
    finally:
        os.chdir(before)


def test_what_is_written_while_another_copy_of_the_descriptor_closes_is_sent(
    service: ServiceProcess, make_mount: MakeMount
) -> None:
    """Each close of a copy is a flush; a forked child that ends makes one at any time."""
    service.create_container("work")
    path = make_mount(service).point / "work" / "log"
    fd = os.open(path, os.O_CREAT | os.O_WRONLY)
    os.write(fd, b"first\n")
    copy = os.dup(fd)
    service.add_fault("create_file", "delay", seconds=SLOW_UPLOAD_S)
    closer = threading.Thread(target=os.close, args=(copy,))

    closer.start()
    pause(SLOW_UPLOAD_S / 2)
    os.write(fd, b"last\n")
    closer.join()
    os.close(fd)

    assert stored(service, "work") == {"log": b"first\nlast\n"}
    assert path.read_bytes() == b"first\nlast\n"


def test_a_backup_and_a_folder_that_became_a_file_outlive_the_mount(
    service: ServiceProcess, make_mount: MakeMount
) -> None:
    """Promise 22."""
    container = service.create_container("work")
    service.upload(container, "a.txt", b"precious")
    inside = service.plant(container, "/mnt/data/x/y", b"inside")
    mount = make_mount(service, options=["ttl=1"])
    folder = mount.point / "work"
    assert (folder / "x" / "y").read_bytes() == b"inside"
    (folder / "a.txt").rename(folder / "a.txt~")

    service.delete_file(container, inside)
    service.plant(container, "/mnt/data/x", b"a file now")
    mount.run("refresh", folder)

    wait_for_text(folder / "x", b"a file now")
    mount.restart()
    assert contents(folder) == {"a.txt~": b"precious", "x": b"a file now"}


def test_new_bytes_under_an_old_id_and_of_the_same_length_are_read(
    service: ServiceProcess, make_mount: MakeMount
) -> None:
    """The kernel keeps the pages of an inode: another version must be another inode."""
    service.set_behaviour(hash_prefix=False, ids="path")
    container = service.create_container("work")
    service.upload(container, "a.txt", b"11111")
    mount = make_mount(service)
    path = mount.point / "work" / "a.txt"
    assert path.read_bytes() == b"11111"

    service.advance(100)
    service.upload(container, "a.txt", b"22222")
    mount.run("refresh", path.parent)
    wait_for_text(path, b"22222")
    service.advance(100)
    service.upload(container, "a.txt", b"333")
    mount.run("refresh", path.parent)

    wait_for_text(path, b"333")
    assert path.stat().st_size == 3


def test_a_file_unlinked_by_its_full_stored_name_is_gone_under_the_shown_one(
    service: ServiceProcess, make_mount: MakeMount
) -> None:
    container = service.create_container("work")
    service.upload(container, "a.txt", b"bytes")
    full_name = str(service.files(container)[0]["path"]).rpartition("/")[2]
    folder = make_mount(service).point / "work"
    (folder / "a.txt").stat()

    (folder / full_name).unlink()

    deadline = time.monotonic() + SOON_S
    while (folder / "a.txt").exists() and time.monotonic() < deadline:
        pause(0.02)
    assert contents(folder) == {}
    with pytest.raises(FileNotFoundError):
        (folder / "a.txt").stat()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may widen the kernel's windows")
def test_the_kernel_reads_ahead_in_steps_of_a_mib(
    service: ServiceProcess, make_mount: MakeMount
) -> None:
    mount = make_mount(service)
    device = f"0:{fuse_mounts()[mount.point].minor}"
    deadline = time.monotonic() + SOON_S

    read_ahead_kb = Path(f"/sys/class/bdi/{device}/read_ahead_kb")
    while read_ahead_kb.read_text() != "1024\n" and time.monotonic() < deadline:
        pause(0.02)

    assert read_ahead_kb.read_text() == "1024\n"
