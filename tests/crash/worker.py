"""A process that works on a mount, and writes down before and after each call how it went.

Run as a file, with the mount point, the ledger and a list of operations as JSON. It ends when
all is done, or when the file system is gone. Only the standard library is imported: it starts
in some 20 ms.
"""

# System calls by their own names, as a program makes them.
# ruff: noqa: PTH102, PTH104, PTH106, PTH108
from __future__ import annotations

import errno
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

# What a program sees when the process behind a mount dies.
GONE: Final = {errno.ENOTCONN, errno.ECONNABORTED, errno.ENODEV, errno.ESHUTDOWN}
# More than one write for all but the smallest, so that a half-written file is possible.
PIECE_BYTES: Final = 10_000


class GoneError(Exception):
    """The file system is gone: what was being done is in flight for ever."""


def content_of(seed: int, size: int) -> bytes:
    """Return the bytes that an operation writes; no two seeds share a page of them."""
    return random.Random(seed).randbytes(size)  # noqa: S311  # repeatable on purpose


def write_all(fd: int, content: bytes) -> None:
    for start in range(0, len(content), PIECE_BYTES):
        os.write(fd, content[start : start + PIECE_BYTES])


def save(path: str, _to: str, content: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        write_all(fd, content)
    finally:
        os.close(fd)


def append(path: str, _to: str, content: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_APPEND)
    try:
        write_all(fd, content)
        os.fsync(fd)
    finally:
        os.close(fd)


def save_renamed(path: str, to: str, content: bytes) -> None:
    """Write ``path`` and rename it over ``to`` before it is closed."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        write_all(fd, content)
        try:
            os.rename(path, to)
        except OSError as error:
            if error.errno not in GONE:
                os.unlink(path)  # or the close would send it under this name
            raise
    finally:
        os.close(fd)


def copy_tree(path: str, to: str, _content: bytes) -> None:
    ended = subprocess.run(["cp", "-r", path, to], capture_output=True, text=True, check=False)
    if ended.returncode != 0:
        raise OSError(errno.EIO, ended.stderr)


CALLS: Final[dict[str, Callable[[str, str, bytes], None]]] = {
    "save": save,
    "append": append,
    "save_renamed": save_renamed,
    "copy_tree": copy_tree,
    "rename": lambda path, to, _content: os.rename(path, to),
    "unlink": lambda path, _to, _content: os.unlink(path),
    "mkdir": lambda path, _to, _content: os.mkdir(path),
    "rmdir": lambda path, _to, _content: os.rmdir(path),
}


def work(point: Path, ledger_fd: int, operations: list[tuple[str, str, str, int, int]]) -> None:
    """Carry out operations one after another.

    Raises:
        GoneError: The file system ended; the last operation has begun and not ended.
    """
    for number, (kind, path, to, seed, size) in enumerate(operations):
        os.write(ledger_fd, f"begin {number}\n".encode())
        try:
            # A path from the root (what cp copies from) stays as it is.
            CALLS[kind](str(point / path), str(point / to), content_of(seed, size))
        except OSError as error:
            if error.errno in GONE:
                raise GoneError from error
            os.write(ledger_fd, f"failed {number} {error.errno}\n".encode())
        else:
            os.write(ledger_fd, f"done {number}\n".encode())


def main() -> int:
    """Work; exit with 3 if the file system went away."""
    point, ledger, operations = sys.argv[1:]
    ledger_fd = os.open(ledger, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        work(Path(point), ledger_fd, json.loads(Path(operations).read_text()))
    except GoneError:
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
