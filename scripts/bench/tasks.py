"""What is measured: each task takes one arena and returns figures of one run.

Every task checks what it has read or written: a fast wrong answer is a failure.
"""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from scripts.bench.arena import Arena
from scripts.bench.corpus import BIG, FILES_PER_FOLDER, FOLDERS, MARK, MIB, Folder
from scripts.bench.processes import cpu_s, memory_mib
from tests.support.mounting import pause

LIMIT_S: Final = 180.0
RANDOM_READS: Final = 60
RANDOM_BYTES: Final = 4096
READERS: Final = 16
REMOVED: Final = 200
GREPPED: Final = FOLDERS[:4]
_POLL_S: Final = 0.005


class WrongResultError(Exception):
    """A client returned or stored other bytes than it was given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One kind of figure.

    Attributes:
        unit: For the table.
        is_rate: Whether more is better.
    """

    unit: str
    is_rate: bool


SECONDS: Final = Figure(unit="s", is_rate=False)
MILLISECONDS: Final = Figure(unit="ms", is_rate=False)
MIB_SIZE: Final = Figure(unit="MiB", is_rate=False)
FILES: Final = Figure(unit="files/s", is_rate=True)
MB: Final = Figure(unit="MB/s", is_rate=True)
EACH: Final = Figure(unit="/s", is_rate=True)

FIGURES: Final[Mapping[str, Figure]] = {
    "mount + first ls": SECONDS,
    "ls -lR 1000 files": SECONDS,
    "stat of known files": EACH,
    "grep -r cold": FILES,
    "grep -r warm": FILES,
    "first 4 KiB of a big file": MILLISECONDS,
    "read 256 MiB cold": MB,
    "read 256 MiB again": MB,
    "read 256 MiB after a remount": MB,
    "random 4 KiB": EACH,
    "cp -r out": FILES,
    "16 readers of one file": MB,
    "cp -r in, durable": FILES,
    "write 256 MiB, durable": MB,
    "rm -r of 200": FILES,
    "sed -i": MILLISECONDS,
    "memory idle": MIB_SIZE,
    "memory at most": MIB_SIZE,
    "processor time of reading": SECONDS,
}

Record = Callable[[str, float], None]


def names(arena: Arena, record: Record) -> None:
    """Mount, list, stat."""
    began_s = time.perf_counter()
    arena.start(is_cold=True)
    try:
        shown = set(os.listdir(arena.point))  # noqa: PTH208  # as ls does
        record("mount + first ls", time.perf_counter() - began_s)
        _check(set(FOLDERS) <= shown, f"folders are missing: {sorted(shown)}")
        assert arena.program is not None
        record("memory idle", memory_mib(arena.program.pid, most=False))
        folders = [arena.point / folder for folder in FOLDERS]
        arena.count_from_zero()
        seconds, text = _timed("ls", "-lR", *folders)
        record("ls -lR 1000 files", seconds)
        _check(text.count(".txt") == len(FOLDERS) * FILES_PER_FOLDER, "names are missing")
        paths = [arena.point / FOLDERS[0] / name for name in arena.corpus.folders[FOLDERS[0]]]
        began_s = time.perf_counter()
        for _round in range(20):
            for path in paths:
                os.stat(path)  # noqa: PTH116  # the cost of Path is not what is measured
        record("stat of known files", 20 * len(paths) / (time.perf_counter() - began_s))
    finally:
        arena.stop()


def grep(arena: Arena, record: Record) -> None:
    """Read many small files, cold and again."""
    with arena.mounted() as point:
        folders = [point / folder for folder in GREPPED]
        for how in ("cold", "warm"):
            seconds, text = _timed("grep", "-rl", MARK, *folders)
            count = len(GREPPED) * FILES_PER_FOLDER
            _check(len(text.splitlines()) == count, "grep has not found all files")
            record(f"grep -r {how}", count / seconds)


def read(arena: Arena, record: Record) -> None:
    """Read a big file: cold, again, after a remount; and the first bytes of a bigger one."""
    large = arena.corpus.folders[BIG]["large.bin"]
    with arena.mounted() as point:
        with (point / BIG / "giant.bin").open("rb", buffering=0) as file:
            began_s = time.perf_counter()
            first = file.read(RANDOM_BYTES)
            record("first 4 KiB of a big file", 1000 * (time.perf_counter() - began_s))
        with arena.corpus.folders[BIG]["giant.bin"].path.open("rb") as source:
            _check(first == source.read(RANDOM_BYTES), "the first bytes are wrong")
    with arena.mounted() as point:
        os.listdir(point / BIG)  # noqa: PTH208
        assert arena.program is not None
        used_s = cpu_s(arena.program.pid)
        record("read 256 MiB cold", _read_all(point / BIG / "large.bin", large.digest))
        record("processor time of reading", cpu_s(arena.program.pid) - used_s)
        record("memory at most", memory_mib(arena.program.pid, most=True))
        record("read 256 MiB again", _read_all(point / BIG / "large.bin", large.digest))
    with arena.mounted(is_cold=False) as point:
        os.listdir(point / BIG)  # noqa: PTH208
        path = point / BIG / "large.bin"
        record("read 256 MiB after a remount", _read_all(path, large.digest))


def seek(arena: Arena, record: Record) -> None:
    """Read here and there in a big file."""
    chance = random.Random(7)  # noqa: S311  # repeatable on purpose
    large = arena.corpus.folders[BIG]["large.bin"]
    pages = large.size_bytes // RANDOM_BYTES
    offsets = [chance.randrange(pages) * RANDOM_BYTES for _ in range(RANDOM_READS)]
    with arena.mounted() as point, (point / BIG / "large.bin").open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        began_s = time.perf_counter()
        pieces = [os.pread(file.fileno(), RANDOM_BYTES, offset) for offset in offsets]
        record("random 4 KiB", len(offsets) / (time.perf_counter() - began_s))
    with large.path.open("rb") as source:
        for offset, piece in zip(offsets, pieces, strict=True):
            _check(piece == os.pread(source.fileno(), RANDOM_BYTES, offset), "wrong bytes")


def copy_out(arena: Arena, record: Record) -> None:
    """Copy a folder out of the mount, and read one file from many programs."""
    out = arena.directory / "out"
    with arena.mounted() as point:
        subprocess.run(["rm", "-rf", out], check=True)
        seconds, _text = _timed("cp", "-r", point / FOLDERS[-1], out)
        wanted = {name: blob.digest for name, blob in arena.corpus.folders[FOLDERS[-1]].items()}
        _check({p.name: _digest(p.read_bytes()) for p in out.iterdir()} == wanted, "wrong copies")
        record("cp -r out", FILES_PER_FOLDER / seconds)
    shared = arena.corpus.folders[BIG]["shared.bin"]
    with arena.mounted() as point:
        rates: list[float] = []

        def one() -> None:
            rates.append(_read_all(point / BIG / "shared.bin", shared.digest))

        threads = [threading.Thread(target=one) for _ in range(READERS)]
        began_s = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        seconds = time.perf_counter() - began_s
        _check(len(rates) == READERS, "a reader got wrong bytes")
        record("16 readers of one file", READERS * shared.size_bytes / 1e6 / seconds)


def write(arena: Arena, record: Record) -> None:
    """Copy a folder in, write a big file, save a small one: until the server has it all."""
    if arena.mode.is_read_only:
        return
    store = arena.servers.running[arena.mode.server].store
    store.remove(arena.folder)
    small = arena.corpus.folders[FOLDERS[0]]
    with arena.mounted() as point:
        target = point / arena.folder
        target.mkdir()
        arena.count_from_zero()
        began_s = time.perf_counter()
        _timed("cp", "-r", arena.corpus.local(FOLDERS[0]), target / "tree")
        _durable(arena, f"{arena.folder}/tree", small)
        record("cp -r in, durable", FILES_PER_FOLDER / (time.perf_counter() - began_s))
        upload = arena.corpus.upload
        began_s = time.perf_counter()
        _timed("dd", f"if={upload.path}", f"of={target}/big", "bs=1M", "status=none")
        _durable(arena, arena.folder, {"big": upload})
        rate = upload.size_bytes / 1e6 / (time.perf_counter() - began_s)
        record("write 256 MiB, durable", rate)
        seconds, _text = _timed("sed", "-i", "1s/^/x/", target / "tree" / next(iter(small)))
        record("sed -i", 1000 * seconds)
    stored = store.contents(arena.folder)
    wanted = {f"tree/{name}": blob.digest for name, blob in small.items()}
    wanted = {**wanted, "big": upload.digest}
    del wanted[f"tree/{next(iter(small))}"]
    _check(wanted.items() <= stored.items(), "the server has other bytes")
    store.remove(arena.folder)


def remove(arena: Arena, record: Record) -> None:
    """Remove a folder with many files in it, until the server has none of them."""
    if arena.mode.is_read_only:
        return
    store = arena.servers.running[arena.mode.server].store
    folder = f"{arena.folder}-rm"
    store.remove(folder)
    blobs = [blob for each in FOLDERS for blob in arena.corpus.folders[each].values()][:REMOVED]
    store.plant(folder, {f"{number:03}": blob for number, blob in enumerate(blobs)})
    with arena.mounted() as point:
        os.listdir(point)  # noqa: PTH208
        arena.count_from_zero()
        began_s = time.perf_counter()
        _timed("rm", "-r", point / folder)
        while store.contents(folder):
            _check(time.perf_counter() - began_s < LIMIT_S, "files are left on the server")
            pause(_POLL_S)
        record("rm -r of 200", REMOVED / (time.perf_counter() - began_s))


TASKS: Final[Mapping[str, Callable[[Arena, Record], None]]] = {
    "names": names,
    "grep": grep,
    "read": read,
    "seek": seek,
    "out": copy_out,
    "write": write,
    "rm": remove,
}


def _durable(arena: Arena, folder: str, files: Folder) -> None:
    """Return when the server has these files: ours says so, others are looked after."""
    if arena.mode.is_ours:
        descriptor = os.open(arena.point / folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        return
    store = arena.servers.running[arena.mode.server].store
    paths = store.paths(folder, {name: blob.size_bytes for name, blob in files.items()}) or {}
    deadline_s = time.perf_counter() + LIMIT_S
    while not all(_size(path) == size for path, size in paths.items()):
        _check(time.perf_counter() < deadline_s, "files have not reached the server")
        pause(_POLL_S)


def _size(path: str) -> int:
    try:
        return Path(path).stat().st_size
    except OSError:
        return -1


def _timed(*command: str | Path) -> tuple[float, str]:
    began_s = time.perf_counter()
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=LIMIT_S)
    seconds = time.perf_counter() - began_s
    _check(done.returncode == 0, f"{command[0]}: {done.stderr.strip()[-200:]}")
    return seconds, done.stdout


def _read_all(path: Path, digest: str) -> float:
    """Return MB/s; the bytes are checked once the clock has stopped."""
    with path.open("rb", buffering=0) as file:
        began_s = time.perf_counter()
        pieces = []
        while piece := file.read(MIB):
            pieces.append(piece)
        seconds = time.perf_counter() - began_s
    content = b"".join(pieces)
    _check(_digest(content) == digest, f"{path.name} has other bytes")
    return len(content) / 1e6 / seconds


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def _check(is_right: bool, why: str) -> None:  # noqa: FBT001  # reads as an assertion
    if not is_right:
        raise WrongResultError(why)
