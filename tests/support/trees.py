"""Folders full of files, made from a seed and compared byte for byte."""

from __future__ import annotations

import os
import random
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.support.service import ServiceControl

_PREFIX: Final = re.compile(r"^[0-9a-f]{32}-")


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a walk sees of one entry."""

    mode: int
    mtime_s: int
    content: bytes | None
    """None for a folder."""


def plant_tree(top: Path, *, seed: int = 1, files: int = 40) -> None:
    """Fill ``top`` with folders three deep and files of awkward sizes, modes and times."""
    chance = random.Random(seed)  # noqa: S311  # repeatable on purpose
    sizes = [0, 1, 4095, 4096, 4097, 100_000, 131_073]
    for number in range(files):
        folder = top / f"folder {number % 3}" / f"deep{number % 5}" if number % 4 else top
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"file-{number}.bin"
        path.write_bytes(chance.randbytes(chance.choice(sizes)))
        path.chmod(chance.choice([0o644, 0o600, 0o755, 0o444]))
        moment = 1_500_000_000 + number * 1000
        os.utime(path, (moment, moment))


def contents(top: Path) -> dict[str, bytes]:
    """Return the bytes of every file under ``top`` by its path from there."""
    return {name: seen.content for name, seen in walked(top).items() if seen.content is not None}


def stored(service: ServiceControl, container: str) -> dict[str, bytes]:
    """Return what the service itself holds in a container: bytes by path below /mnt/data.

    The hash that the service puts before an upload's name is cut; two rows of one name fail.
    """
    container_id = id_of(service, container)
    found: dict[str, bytes] = {}
    for row in service.files(container_id):
        folder, _, name = str(row["path"]).removeprefix("/mnt/data/").rpartition("/")
        path = "/".join(filter(None, [folder, _PREFIX.sub("", name)]))
        assert path not in found, f"two files {path!r}"
        found[path] = service.content(container_id, str(row["id"]))
    return found


def id_of(service: ServiceControl, container: str) -> str:
    """Return the id of the one container of that name."""
    ids = [str(row["id"]) for row in service.containers() if row["name"] == container]
    assert len(ids) == 1, f"{len(ids)} containers {container!r}"
    return ids[0]


def walked(top: Path) -> dict[str, Seen]:
    """Return what ``stat`` and ``read`` say of everything under ``top``."""
    entries: dict[str, Seen] = {}
    for folder, folders, files in os.walk(top, onerror=_raise):
        for name in [*folders, *files]:
            path = Path(folder) / name
            status = path.lstat()
            is_folder = stat.S_ISDIR(status.st_mode)
            entries[str(path.relative_to(top))] = Seen(
                mode=stat.S_IMODE(status.st_mode),
                mtime_s=0 if is_folder else int(status.st_mtime),
                content=None if is_folder else path.read_bytes(),
            )
    return entries


def _raise(error: OSError) -> None:
    raise error
