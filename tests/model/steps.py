"""Random file operations, and two players that carry them out with system calls.

What is drawn here is what a mounted container promises to do exactly as a local folder does.
Left out on purpose, because the answers differ by design (docs/semantics.md):

- symbolic and hard links and device nodes: EPERM on the mount;
- RENAME_EXCHANGE: EINVAL on the mount; moves between containers: EXDEV for folders;
- names that never leave this machine (``*~``, ``.*.swp``): their bytes are not the service's;
- inode numbers, link counts, allocated blocks, access and change times: not compared;
- times and modes of folders: the service knows no folders;
- a modification time that was not set by ``utime``: compared as "recent".
"""

from __future__ import annotations

import errno
import os
import random
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeAlias

FOLDERS: Final = ("", "red/", "green/", "red/blue/", "green/red/")
NAMES: Final = ("a", "b", "c.txt", "Zo\u00eb")
SLOTS: Final = 4
SIZES: Final = (0, 1, 100, 4095, 4096, 4097, 20_000, 140_000)
# Everything in 2001 or before was set by a step; a file that a step wrote is younger.
SET_BEFORE_NS: Final = 1_000_000_000_000_000_000
OPEN_FLAGS: Final = (
    os.O_RDONLY,
    os.O_RDWR,
    os.O_RDWR | os.O_CREAT,
    os.O_RDWR | os.O_CREAT | os.O_TRUNC,
    os.O_RDWR | os.O_CREAT | os.O_APPEND,
    os.O_WRONLY | os.O_CREAT | os.O_EXCL,
)
# How often each kind comes up; writing and naming matter most.
WEIGHTS: Final = {
    "save": 10, "write": 8, "append": 4, "truncate": 4, "read": 8, "rename": 9, "unlink": 5,
    "mkdir": 6, "rmdir": 3, "stat": 6, "list": 4, "chmod": 2, "utime": 2, "exclusive": 2,
    "open": 7, "slot read": 7, "slot write": 9, "slot truncate": 3, "slot stat": 3,
    "slot sync": 2, "slot close": 6,
}  # fmt: skip

Outcome: TypeAlias = object


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One operation with all it needs, so that both players do the very same."""

    kind: str
    path: str
    other: str
    slot: int
    offset: int
    content: bytes = field(repr=False)
    flags: int
    number: int


def draw(chance: random.Random) -> Step:
    """Return a step; whether it can succeed is for the file systems to say."""
    kinds, weights = zip(*WEIGHTS.items(), strict=True)
    kind = chance.choices(kinds, weights)[0]
    return Step(
        kind=kind,
        path=_draw_path(chance, kind),
        other=_draw_path(chance, kind),
        slot=chance.randrange(SLOTS),
        offset=chance.choice([0, 0, 1, 50, 4096, 10_000, 150_000]),
        content=chance.randbytes(chance.choice(SIZES)),
        flags=chance.choice(OPEN_FLAGS),
        number=chance.randrange(1, 1000),
    )


def _draw_path(chance: random.Random, kind: str) -> str:
    folder = chance.choice(FOLDERS)
    wants_folder = kind in {"mkdir", "rmdir", "list"} or chance.random() < 0.1
    if wants_folder and folder:
        return folder.rstrip("/")
    return folder + chance.choice(NAMES)


class Player:
    """Carries out steps in one directory.

    Invariant: ``slots`` holds descriptors that are open.
    """

    def __init__(self, top: Path) -> None:
        self._top = top
        self._slots: dict[int, int] = {}

    def play(self, step: Step) -> Outcome:
        """Do the step; return what a program would have seen, an errno's name included."""
        try:
            if step.kind.startswith("slot "):
                return self._play_on_slot(step)
            if step.kind in {"rename", "unlink", "mkdir", "rmdir", "list", "chmod", "utime"}:
                return self._play_on_names(step)
            return self._play_on_file(step)
        except OSError as error:
            return errno.errorcode[error.errno or 0]

    def close(self) -> None:
        """Close whatever is still open."""
        while self._slots:
            os.close(self._slots.popitem()[1])

    def _play_on_names(self, step: Step) -> Outcome:
        path = self._top / step.path
        match step.kind:
            case "rename":
                path.rename(self._top / step.other)
            case "unlink":
                path.unlink()
            case "mkdir":
                path.mkdir()
            case "rmdir":
                path.rmdir()
            case "list":
                return sorted(entry.name for entry in path.iterdir())
            case "chmod":
                if not path.is_dir():
                    path.chmod(0o600 | step.number % 0o200)
            case _:
                if not path.is_dir():
                    os.utime(path, (step.number * 10_000, step.number * 10_000))
        return "done"

    def _play_on_file(self, step: Step) -> Outcome:
        path = self._top / step.path
        match step.kind:
            case "stat":
                return facts(path.stat())
            case "read":
                return path.read_bytes()
            case "open":
                return self._open(step)
            case "truncate":
                os.truncate(path, step.offset)
                return "done"
            case _:
                return self._write(step)

    def _write(self, step: Step) -> Outcome:
        flags = {
            "save": os.O_WRONLY | os.O_CREAT | os.O_TRUNC,
            "write": os.O_WRONLY,
            "append": os.O_WRONLY | os.O_APPEND,
            "exclusive": os.O_WRONLY | os.O_CREAT | os.O_EXCL,
        }[step.kind]
        descriptor = os.open(self._top / step.path, flags, 0o644)
        try:
            if step.kind == "write":
                return os.pwrite(descriptor, step.content, step.offset)
            return os.write(descriptor, step.content)
        finally:
            os.close(descriptor)

    def _open(self, step: Step) -> Outcome:
        if step.slot in self._slots:
            return "slot taken"
        self._slots[step.slot] = os.open(self._top / step.path, step.flags, 0o644)
        return facts(os.fstat(self._slots[step.slot]))

    def _play_on_slot(self, step: Step) -> Outcome:
        if step.slot not in self._slots:
            return "slot free"
        descriptor = self._slots[step.slot]
        match step.kind:
            case "slot read":
                return os.pread(descriptor, 200_000, step.offset)
            case "slot write":
                return os.pwrite(descriptor, step.content, step.offset)
            case "slot stat":
                return facts(os.fstat(descriptor))
            case "slot truncate":
                os.ftruncate(descriptor, step.offset)
            case "slot sync":
                os.fsync(descriptor)
            case _:
                os.close(self._slots.pop(step.slot))
        return "done"


def facts(status: os.stat_result) -> Outcome:
    """Return what both sides must agree on."""
    if stat.S_ISDIR(status.st_mode):
        return "folder"
    mtime_ns = status.st_mtime_ns if status.st_mtime_ns < SET_BEFORE_NS else "recent"
    return status.st_size, stat.S_IMODE(status.st_mode), mtime_ns


def shown(top: Path) -> dict[str, Outcome]:
    """Return everything there is under ``top``, with the bytes of the files."""
    entries: dict[str, Outcome] = {}
    for folder, folders, files in os.walk(top):
        for name in folders:
            entries[str((Path(folder) / name).relative_to(top))] = "folder"
        for name in files:
            path = Path(folder) / name
            entries[str(path.relative_to(top))] = (facts(path.stat()), path.read_bytes())
    return entries
