"""What a program may expect of an open file: maps, locks, holes, appends, names taken away."""

from __future__ import annotations

import fcntl
import mmap
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.scenarios.programs import run

pytestmark = pytest.mark.both_write_modes

PAGE = mmap.PAGESIZE


@contextmanager
def opened(path: Path, flags: int) -> Iterator[int]:
    descriptor = os.open(path, flags, 0o644)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def test_a_map_reads_the_file(place: Path) -> None:
    content = os.urandom(5 * PAGE + 100)
    (place / "mapped").write_bytes(content)

    with (place / "mapped").open("rb") as file:
        with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as pages:
            assert pages[:] == content


def test_a_shared_map_writes_the_file_before_and_after_the_close(place: Path) -> None:
    """Promises 12a and 17."""
    path = place / "mapped"
    path.write_bytes(bytes(4 * PAGE))

    descriptor = os.open(path, os.O_RDWR)
    pages = mmap.mmap(descriptor, 4 * PAGE)
    pages[10:15] = b"first"
    pages.flush()
    os.close(descriptor)
    assert path.read_bytes()[10:15] == b"first"
    pages[2 * PAGE : 2 * PAGE + 6] = b"second"
    pages.flush()
    pages.close()

    content = path.read_bytes()
    assert content[10:15] == b"first"
    assert content[2 * PAGE : 2 * PAGE + 6] == b"second"
    assert len(content) == 4 * PAGE


def test_direct_reads_and_writes_go_through(place: Path) -> None:
    path = place / "direct"
    with mmap.mmap(-1, 2 * PAGE) as buffer:
        buffer[:] = os.urandom(2 * PAGE)
        with opened(path, os.O_CREAT | os.O_WRONLY | os.O_DIRECT) as descriptor:
            assert os.write(descriptor, buffer) == 2 * PAGE
        expected = buffer[:]
        buffer[:] = bytes(2 * PAGE)
        with opened(path, os.O_RDONLY | os.O_DIRECT) as descriptor:
            assert os.preadv(descriptor, [buffer], 0) == 2 * PAGE
        assert buffer[:] == expected


def test_flock_keeps_a_second_process_out(place: Path) -> None:
    """Promise 17."""
    path = place / "lock"
    path.touch()
    program = (
        "import fcntl,sys\nf=open(sys.argv[1],'r+')\n"
        "try: fcntl.flock(f, fcntl.LOCK_EX|fcntl.LOCK_NB); print('got')\n"
        "except BlockingIOError: print('busy')"
    )
    with path.open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert run(sys.executable, "-c", program, path, cwd=place) == "busy\n"
        fcntl.flock(file, fcntl.LOCK_UN)
        assert run(sys.executable, "-c", program, path, cwd=place) == "got\n"


def test_fcntl_locks_keep_a_second_process_out_of_a_range(place: Path) -> None:
    """Promise 17."""
    path = place / "lock"
    path.write_bytes(bytes(100))
    program = (
        "import fcntl,sys\nf=open(sys.argv[1],'r+')\n"
        "for start in (0, 50):\n"
        " try: fcntl.lockf(f, fcntl.LOCK_EX|fcntl.LOCK_NB, 10, start); print('got')\n"
        " except OSError: print('busy')"
    )
    with path.open("r+") as file:
        fcntl.lockf(file, fcntl.LOCK_EX, 10, 0)
        assert run(sys.executable, "-c", program, path, cwd=place) == "busy\ngot\n"


def test_an_open_file_outlives_its_name(place: Path) -> None:
    path = place / "gone"
    path.write_bytes(b"still here")

    with opened(path, os.O_RDWR) as descriptor:
        path.unlink()
        assert not path.exists()
        assert os.pread(descriptor, 100, 0) == b"still here"
        os.pwrite(descriptor, b"STILL", 0)
        assert os.pread(descriptor, 100, 0) == b"STILL here"
        assert os.fstat(descriptor).st_size == 10

    assert list(place.iterdir()) == []


def test_a_new_file_removed_before_its_close_stays_away(place: Path) -> None:
    path = place / "temporary"
    with opened(path, os.O_RDWR | os.O_CREAT) as descriptor:
        path.unlink()
        os.write(descriptor, b"x" * 10000)
        path.write_bytes(b"another of the same name")
        assert os.pread(descriptor, 4, 9996) == b"xxxx"

    assert path.read_bytes() == b"another of the same name"


def test_an_open_file_keeps_its_bytes_when_another_takes_its_name(place: Path) -> None:
    (place / "old").write_bytes(b"old content")
    (place / "new").write_bytes(b"new")

    with opened(place / "old", os.O_RDONLY) as descriptor:
        (place / "new").rename(place / "old")
        assert os.read(descriptor, 100) == b"old content"

    assert (place / "old").read_bytes() == b"new"
    assert [entry.name for entry in place.iterdir()] == ["old"]


def test_an_open_file_follows_its_new_name(place: Path) -> None:
    with opened(place / "first", os.O_RDWR | os.O_CREAT) as descriptor:
        os.write(descriptor, b"before ")
        (place / "first").rename(place / "second")
        os.write(descriptor, b"after")
        assert (place / "second").stat().st_size == 12

    assert (place / "second").read_bytes() == b"before after"
    assert not (place / "first").exists()


def test_exclusive_creation_has_one_winner(place: Path) -> None:
    """Promise 17."""
    program = (
        "import os,sys\n"
        "try: os.close(os.open(sys.argv[1], os.O_CREAT|os.O_EXCL|os.O_WRONLY)); print('won')\n"
        "except FileExistsError: print('lost')"
    )
    children = [
        subprocess.Popen([sys.executable, "-c", program, place / "one"], stdout=subprocess.PIPE)
        for _ in range(6)
    ]
    outcomes = [child.communicate(timeout=30)[0].strip() for child in children]

    assert sorted(outcomes) == [b"lost"] * 5 + [b"won"]


def test_two_processes_append_without_losing_a_line(place: Path) -> None:
    """Promise 17."""
    path = place / "log"
    path.touch()
    program = (
        "import os,sys\n"
        "d=os.open(sys.argv[1], os.O_APPEND|os.O_WRONLY)\n"
        "for i in range(100): os.write(d, f'{sys.argv[2]} {i:04}\\n'.encode())\n"
        "os.close(d)"
    )
    children = [
        subprocess.Popen([sys.executable, "-c", program, path, name]) for name in ("a", "b")
    ]
    assert [child.wait(30) for child in children] == [0, 0]

    lines = path.read_text().splitlines()
    assert sorted(lines) == [f"{name} {i:04}" for name in ("a", "b") for i in range(100)]


def test_a_hole_reads_as_zeros(place: Path) -> None:
    path = place / "sparse"
    with path.open("wb") as file:
        file.write(b"start")
        file.seek(3_000_000)
        file.write(b"end")

    assert path.read_bytes() == b"start" + bytes(3_000_000 - 5) + b"end"


def test_truncating_shortens_and_extends(place: Path) -> None:
    path = place / "cut"
    path.write_bytes(b"0123456789")

    os.truncate(path, 4)
    assert path.read_bytes() == b"0123"
    os.truncate(path, 8)
    assert path.read_bytes() == b"0123\0\0\0\0"
    with path.open("r+b") as file:
        file.truncate(2)
        file.seek(3)
        file.write(b"X")
        file.truncate(6)
    assert path.read_bytes() == b"01\0X\0\0"
    os.truncate(path, 0)
    assert path.stat().st_size == 0


def test_two_descriptors_of_one_file_see_each_other_at_once(place: Path) -> None:
    """Promise 7."""
    path = place / "both"
    with opened(path, os.O_RDWR | os.O_CREAT) as first, opened(path, os.O_RDWR) as second:
        os.pwrite(first, b"from the first", 0)
        assert os.pread(second, 100, 0) == b"from the first"
        os.pwrite(second, b"FROM", 0)
        assert os.pread(first, 100, 0) == b"FROM the first"
        os.ftruncate(second, 4)
        assert os.fstat(first).st_size == 4

    assert path.read_bytes() == b"FROM"


def test_fsync_of_a_file_and_of_its_folder_succeeds(place: Path) -> None:
    with opened(place / "synced", os.O_WRONLY | os.O_CREAT) as descriptor:
        os.write(descriptor, b"safe")
        os.fsync(descriptor)
        os.fdatasync(descriptor)
        os.write(descriptor, b" and sound")
    with opened(place, os.O_RDONLY | os.O_DIRECTORY) as folder:
        os.fsync(folder)

    assert (place / "synced").read_bytes() == b"safe and sound"


def test_times_and_modes_stay_as_they_were_set(place: Path) -> None:
    """Promise 19."""
    path = place / "dated"
    path.write_bytes(b"x")
    os.utime(path, ns=(1_234_567_890_123_456_000, 1_234_567_890_123_456_000))
    path.chmod(0o640)

    assert path.stat().st_mtime_ns == 1_234_567_890_123_456_000
    assert path.stat().st_mode & 0o7777 == 0o640


@pytest.mark.parametrize("step", [1, 7, 4095])
def test_a_file_written_in_odd_pieces_is_whole(place: Path, step: int) -> None:
    content = os.urandom(20_000 if step < 100 else 400_000)
    with (place / "pieces").open("wb", buffering=0) as file:
        for start in range(0, len(content), step):
            file.write(content[start : start + step])

    assert (place / "pieces").read_bytes() == content
