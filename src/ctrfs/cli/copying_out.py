"""``ctrfs recover --to``: unsent files from the spool to a directory, checked while they are copied.

Nothing is forgotten by it, nothing in the directory is overwritten, and a mount may be at
work meanwhile: a file that it has sent in the time between is no failure.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from ctrfs.clock import SystemClock
from ctrfs.disk.reading import UnsentFile, open_spool_file, read_slot
from ctrfs.disk.state_dir import StateDirectory
from ctrfs.disk.syncing import sync_directory
from ctrfs.errors import CtrfsError
from ctrfs.mount.leftovers import shown_path
from ctrfs.mount.problems import line_for
from ctrfs.running_digest import new_hasher
from ctrfs.tree.names import (
    NAME_BYTES_MAX,
    entry_name_for_component,
    entry_name_for_container,
)

_PIECE_BYTES: Final = 1024 * 1024
# A file that is written to in the mount may change under a copy; by then it is being sent.
_TRIES_MAX: Final = 3
_NUMBERS_MAX: Final = 10_000
_DAMAGED: Final = b".damaged"


class Copied(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one unsent file."""

    name: str
    """Container and path, for people."""
    path: Path | None = None
    """Where its copy is; None if there is none."""
    problem: str | None = None
    """What a user must know; without it the copy has the very bytes that were saved."""
    is_settled: bool = False
    """A mount has sent it in the meantime, so that nothing is to be copied."""


class _NoMatchError(CtrfsError):
    """The bytes in the spool are not those of the row."""


def copy_out(slot: Path, directory: Path) -> Iterator[Copied]:
    """Copy all unsent files of a slot to ``directory/<container name>/<path>``, one at a time.

    Each copy is on the disk when it is yielded, with its mode and its time.

    Args:
        slot: Of the state directory.
        directory: Made if it is missing.
    """
    with suppress(CtrfsError):  # a mount holds it, and has the bytes
        # After a power cut some bytes are in the database alone, until somebody opens the slot.
        with StateDirectory.open_slot(slot, clock=SystemClock()):
            pass
    for row in read_slot(slot).unsent:
        yield _copy(slot, row, directory)


def _copy(slot: Path, row: UnsentFile, directory: Path) -> Copied:
    name = f"{row.container_name}/{shown_path(row.path)}"
    try:
        for _ in range(_TRIES_MAX):
            try:
                return Copied(name=name, path=_copy_once(row, directory))
            except (_NoMatchError, FileNotFoundError):
                now = _row_now(slot, row.id)
                if now is None:
                    return Copied(name=name, is_settled=True)
                if now == row:
                    break
                row = now
        path = _copy_once(row, directory, is_damaged=True)
    except (CtrfsError, OSError) as error:
        return Copied(name=name, problem=line_for(error))
    return Copied(name=name, path=path, problem="its bytes are not those that were saved")


def _copy_once(row: UnsentFile, directory: Path, *, is_damaged: bool = False) -> Path:
    """Return where the bytes of ``row`` now are, under a name that was free.

    Raises:
        _NoMatchError: They are not those of the row, and ``is_damaged`` does not allow that.
        FileNotFoundError: They are gone.
        CtrfsError, OSError: They cannot be read, or not be written.
    """
    with open_spool_file(row.spool_path) as reader:
        # Looked at before anything is made: what does not match gets another name.
        digest = _digest_of(reader)
        if not is_damaged and not _matches(row, reader, digest):
            raise _NoMatchError("the bytes are not those that were saved")
        target = directory / os.fsdecode(_inner_path(row))
        if is_damaged:
            target = target.with_name(os.fsdecode(_with_suffix(os.fsencode(target.name), _DAMAGED)))
        target.parent.mkdir(parents=True, exist_ok=True)
        path, writer = _new_file(target, digest)
        if writer is None:
            return path
        try:
            with writer:
                _copy_bytes(reader, writer, digest)
                _keep_facts(row, writer)
                os.fsync(writer.fileno())
        except BaseException:
            path.unlink(missing_ok=True)
            raise
    _sync_folders(path.parent, directory)
    return path


def _matches(row: UnsentFile, reader: BinaryIO, digest: str) -> bool:
    # Without a digest the bytes were being changed when the daemon ended: they are the newest.
    return not row.digest or (
        digest == row.digest and os.fstat(reader.fileno()).st_size == row.size_bytes
    )


def _row_now(slot: Path, row_id: str) -> UnsentFile | None:
    return next((row for row in read_slot(slot).unsent if row.id == row_id), None)


def _inner_path(row: UnsentFile) -> bytes:
    """Return container name and path such that they stay below where they are put."""
    container = entry_name_for_container(row.container_name or row.container_id)
    return b"/".join([container, *(_safe(part) for part in row.path.split(b"/"))])


def _safe(part: bytes) -> bytes:
    if part in {b"", b".", b".."} or b"\0" in part or len(part) > NAME_BYTES_MAX:
        return entry_name_for_component(part.decode("utf-8", "replace"))
    return part


def _new_file(target: Path, digest: str) -> tuple[Path, BinaryIO | None]:
    """Open a new file at ``target``, or beside it under a number; None if it holds the bytes."""
    for number in range(_NUMBERS_MAX):
        path = target
        if number:
            ending = os.fsencode(f"-{number}{target.suffix}")
            path = target.with_name(os.fsdecode(_with_suffix(os.fsencode(target.stem), ending)))
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            if _holds(path, digest):
                return path, None
            continue
        return path, os.fdopen(fd, "wb")
    raise CtrfsError(f"{target} and {_NUMBERS_MAX} names beside it are taken")


def _with_suffix(name: bytes, suffix: bytes) -> bytes:
    suffix = suffix[:NAME_BYTES_MAX]
    return name[: NAME_BYTES_MAX - len(suffix)] + suffix


def _holds(path: Path, digest: str) -> bool:
    """Tell whether an earlier copy is there already."""
    if path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as file:
        return _digest_of(file) == digest


def _digest_of(file: BinaryIO) -> str:
    hasher = new_hasher()
    _each_piece(file, hasher.update)
    return hasher.hexdigest()


def _copy_bytes(reader: BinaryIO, writer: BinaryIO, digest: str) -> None:
    hasher: hashlib.blake2b = new_hasher()

    def take(piece: bytes) -> None:
        hasher.update(piece)
        writer.write(piece)

    _each_piece(reader, take)
    writer.flush()
    if hasher.hexdigest() != digest:
        raise _NoMatchError("the bytes changed while they were copied")


def _each_piece(file: BinaryIO, take: Callable[[bytes], object]) -> None:
    file.seek(0)
    while piece := file.read(_PIECE_BYTES):
        take(piece)


def _keep_facts(row: UnsentFile, writer: BinaryIO) -> None:
    umask = os.umask(0o077)
    os.umask(umask)
    os.fchmod(writer.fileno(), 0o666 & ~umask if row.mode is None else row.mode & 0o777)
    with suppress(OverflowError):  # a time that this file system cannot hold
        os.utime(writer.fileno(), ns=(row.mtime_ns, row.mtime_ns))


def _sync_folders(folder: Path, top: Path) -> None:
    """Put the names on the disk, too, up to that of ``top``."""
    for path in [folder, *folder.parents]:
        # Some file systems cannot sync a folder, and not everyone may read the one above.
        with suppress(OSError):
            sync_directory(path)
        if path == top.parent:
            return
