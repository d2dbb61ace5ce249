"""What is measured: each task takes one arena and returns figures of one run.

Every task checks what it has read or written: a fast wrong answer is a failure.
"""

from __future__ import annotations

import hashlib
import os
import random
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from scripts.bench.arena import Arena
from scripts.bench.corpus import BIG, FILES_PER_FOLDER, FOLDERS, GROWTH, MARK, MIB, Folder
from scripts.bench.processes import cpu_s, memory_mib
from tests.support.mounting import pause

LIMIT_S: Final = 180.0
RANDOM_READS: Final = 60
RANDOM_BYTES: Final = 4096
READERS: Final = 16
REMOVED: Final = 200
GREPPED: Final = FOLDERS[:4]
# How many files are copied in one growing step; and how many programs read at once.
COPIED: Final = (10, 100, 1_000)
CLIENTS: Final = (1, 4, 16, 64)
SAVES: Final = 3
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
    "git clone, 100 files, durable": SECONDS,
    "git status": MILLISECONDS,
    "vim, save": MILLISECONDS,
    "memory idle": MIB_SIZE,
    "memory at most": MIB_SIZE,
    "processor time of reading": SECONDS,
    **{f"ls -l of {count} files": SECONDS for count in GROWTH},
    **{f"grep -r of {count} files, cold": FILES for count in GROWTH},
    **{f"memory after grep of {count}": MIB_SIZE for count in GROWTH},
    **{f"cp -r of {count} files, durable": FILES for count in COPIED},
    **{f"cold reads, {count} clients": FILES for count in CLIENTS},
}

Record = Callable[[str, float], None]


def names(arena: Arena, record: Record) -> None:
    """Mount, list, stat."""
    with arena.mounted():
        pass  # the program is in memory from here on, as that of any command that is used
    arena.start(is_cold=True)
    try:
        shown = set(os.listdir(arena.point))  # noqa: PTH208  # as ls does
        record("mount + first ls", time.perf_counter() - arena.started_s)
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
        ready = threading.Barrier(READERS + 1)

        def one() -> None:
            path = point / BIG / "shared.bin"
            rates.append(_read_all(path, shared.digest, before=lambda: ready.wait(LIMIT_S)))

        threads = [threading.Thread(target=one) for _ in range(READERS)]
        for thread in threads:
            thread.start()
        ready.wait(LIMIT_S)
        for thread in threads:
            thread.join()
        _check(len(rates) == READERS, "a reader got wrong bytes")
        record("16 readers of one file", READERS * min(rates))


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


def clone(arena: Arena, record: Record) -> None:
    """Clone a repository into the mount, and ask git what has changed."""
    if arena.mode.is_read_only:
        return
    store = arena.servers.running[arena.mode.server].store
    folder = f"{arena.folder}-git"
    store.remove(folder)
    with arena.mounted() as point:
        target = point / folder
        target.mkdir()
        arena.count_from_zero()
        began_s = time.perf_counter()
        _timed("git", "clone", "-q", "--no-hardlinks", arena.corpus.repository(), target / "r")
        _durable(arena, f"{folder}/r", arena.corpus.folders[FOLDERS[1]])
        record("git clone, 100 files, durable", time.perf_counter() - began_s)
        _timed("git", "-C", target / "r", "status", "--porcelain")
        seconds, text = _timed("git", "-C", target / "r", "status", "--porcelain")
        record("git status", 1000 * seconds)
        _check(not text, f"git sees changes: {text[:200]}")
    store.remove(folder)


def edit(arena: Arena, record: Record) -> None:
    """Open a file in vim, change it and save it."""
    if arena.mode.is_read_only:
        return
    store = arena.servers.running[arena.mode.server].store
    folder = f"{arena.folder}-vim"
    store.remove(folder)
    with arena.mounted() as point:
        (point / folder).mkdir()
        path = point / folder / "notes.txt"
        path.write_text("first line\n")
        arena.count_from_zero()
        taken: list[float] = []
        for number in range(SAVES):
            change = f"normal Goline {number}"
            seconds, _text = _timed(
                "vim", "-u", "NONE", "-N", "-es", "-c", change, "-c", "wq", path
            )
            taken.append(1000 * seconds)
        record("vim, save", statistics.median(taken))
        lines = ["first line", *(f"line {number}" for number in range(SAVES))]
        _check(path.read_text().splitlines() == lines, "vim has saved something else")
    store.remove(folder)


def growth(arena: Arena, record: Record) -> None:
    """See how cost grows with the number of files; for ctrfs alone."""
    if arena.mode.only:
        for count in COPIED:
            _copy_many(arena, record, count)
        return
    for count in GROWTH:
        with arena.mounted() as point:
            seconds, text = _timed("ls", "-l", point / f"grow{count}")
            _check(text.count(".txt") == count, "names are missing")
            record(f"ls -l of {count} files", seconds)
            seconds, text = _timed("grep", "-rl", MARK, point / f"grow{count}")
            _check(len(text.splitlines()) == count, "grep has not found all files")
            record(f"grep -r of {count} files, cold", count / seconds)
            assert arena.program is not None
            record(f"memory after grep of {count}", memory_mib(arena.program.pid, most=True))


def clients(arena: Arena, record: Record) -> None:
    """Read small files with more and more programs at once; for ctrfs alone."""
    if arena.mode.only:
        return
    for count in CLIENTS:
        with arena.mounted() as point:
            names = [
                f"{folder}/{name}" for folder in GREPPED for name in arena.corpus.folders[folder]
            ]
            os.listdir(point)  # noqa: PTH208
            began_s = time.perf_counter()
            with ThreadPoolExecutor(count) as pool:
                found = list(pool.map(lambda name: (point / name).read_bytes(), names))
            record(f"cold reads, {count} clients", len(names) / (time.perf_counter() - began_s))
            _check(all(MARK.encode() in content for content in found), "wrong bytes")


def _copy_many(arena: Arena, record: Record, count: int) -> None:
    store = arena.servers.running[arena.mode.server].store
    folder = f"{arena.folder}-grow"
    store.remove(folder)
    source = arena.directory / f"grow{count}"
    files = arena.corpus.folders[f"grow{count}"]
    source.mkdir(exist_ok=True)
    for name, blob in files.items():
        (source / name).unlink(missing_ok=True)
        (source / name).hardlink_to(blob.path)
    with arena.mounted() as point:
        (point / folder).mkdir()
        began_s = time.perf_counter()
        _timed("cp", "-r", source, point / folder / "tree")
        _durable(arena, f"{folder}/tree", files)
        record(f"cp -r of {count} files, durable", count / (time.perf_counter() - began_s))
    _check(len(store.contents(folder)) == count, "files are missing on the server")
    store.remove(folder)


TASKS: Final[Mapping[str, Callable[[Arena, Record], None]]] = {
    "names": names,
    "grep": grep,
    "read": read,
    "seek": seek,
    "out": copy_out,
    "write": write,
    "rm": remove,
    "clone": clone,
    "edit": edit,
    "growth": growth,
    "clients": clients,
}
# What is measured without peers.
OURS: Final = frozenset({"growth", "clients"})


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


def _read_all(path: Path, digest: str, *, before: Callable[[], object] = lambda: None) -> float:
    """Return MB/s; the bytes are checked once the clock has stopped.

    Args:
        path: The file.
        digest: Of its bytes.
        before: Called when all is ready, before the clock runs.
    """
    size_bytes = path.stat().st_size
    # Written to, so that the kernel does not have to find memory for it while the clock runs.
    content = bytearray(b"\1") * size_bytes
    with path.open("rb", buffering=0) as file, memoryview(content) as room:
        position = 0
        before()
        began_s = time.perf_counter()
        while count := file.readinto(room[position : position + MIB]):
            position += count
        seconds = time.perf_counter() - began_s
    _check(position == size_bytes and _digest(content) == digest, f"{path.name} has other bytes")
    return size_bytes / 1e6 / seconds


def _digest(content: bytes | bytearray) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def _check(is_right: bool, why: str) -> None:  # noqa: FBT001  # reads as an assertion
    if not is_right:
        raise WrongResultError(why)
