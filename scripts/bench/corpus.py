"""The files that are measured: deterministic pseudo-random bytes, made once, the same for all.

The bytes lie once on the disk; each store (``scripts.bench.stores``) holds hard links, so
that all of them read the same, equally warm, pages.
"""

from __future__ import annotations

import base64
import hashlib
import random
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

MIB: Final = 1 << 20
SMALL_BYTES: Final = 4096
FOLDERS: Final = tuple(f"small{number}" for number in range(10))
FILES_PER_FOLDER: Final = 100
BIG: Final = "big"
# One folder for each step of how cost grows.
GROWTH: Final = (10, 100, 1_000, 10_000)
MARK: Final = "this is the line that is looked for in"


@dataclass(frozen=True, slots=True, kw_only=True)
class Blob:
    """A file of the corpus.

    Attributes:
        path: Where its bytes lie.
        digest: blake2b, 16 bytes, in hex, as the service puts it before stored names.
    """

    path: Path
    size_bytes: int
    digest: str


Folder = Mapping[str, Blob]


class Corpus:
    """All files, by folder and name."""

    def __init__(self, directory: Path, *, giant_bytes: int, large_bytes: int) -> None:
        """Write all bytes below ``directory``; a gigabyte takes a few seconds."""
        self.directory = directory
        self.folders: dict[str, Folder] = {}
        for folder in FOLDERS:
            self.folders[folder] = self._small_files(folder)
        sizes = {
            "giant.bin": giant_bytes,
            "large.bin": large_bytes,
            "shared.bin": large_bytes // 8,
        }
        self.folders[BIG] = {name: self._random_file(name, size) for name, size in sizes.items()}
        self.upload = self._random_file("upload.bin", large_bytes)

    def add_growth(self, counts: tuple[int, ...] = GROWTH) -> None:
        """Add a folder ``growN`` for each count, of links to the small files."""
        blobs = [blob for folder in FOLDERS for blob in self.folders[folder].values()]
        for count in counts:
            self.folders[f"grow{count}"] = {
                f"entry{number:05}.txt": blobs[number % len(blobs)] for number in range(count)
            }

    def local(self, folder: str) -> Path:
        """Return where the files of one of ``FOLDERS`` lie under their names."""
        assert folder in FOLDERS
        return self.directory / folder

    def repository(self) -> Path:
        """Return a bare git repository with the small files of one folder in ten commits."""
        bare = self.directory / "repository.git"
        if bare.exists():
            return bare
        work = self.directory / "repository"
        shutil.copytree(self.directory / FOLDERS[1], work)
        _git(work, "init", "-q", "-b", "main")
        names = sorted(path.name for path in work.iterdir() if path.name != ".git")
        for start in range(0, len(names), len(names) // 10):
            _git(work, "add", *names[start : start + len(names) // 10])
            _git(work, "commit", "-qm", f"files from {start}")
        _git(self.directory, "clone", "-q", "--bare", str(work), str(bare))
        return bare

    def _small_files(self, folder: str) -> Folder:
        top = self.directory / folder
        top.mkdir(parents=True)
        return {
            name: _written(top / name, small_text(folder, name))
            for name in (f"file{number:03}.txt" for number in range(FILES_PER_FOLDER))
        }

    def _random_file(self, name: str, size_bytes: int) -> Blob:
        chance = random.Random(name)  # noqa: S311  # repeatable on purpose
        path = self.directory / name
        hashed = hashlib.blake2b(digest_size=16)
        left = size_bytes
        with path.open("wb") as file:
            while left > 0:
                piece = chance.randbytes(min(MIB, left))
                hashed.update(piece)
                file.write(piece)
                left -= len(piece)
        return Blob(path=path, size_bytes=size_bytes, digest=hashed.hexdigest())


def small_text(folder: str, name: str) -> bytes:
    """Return the content of a small file: lines of random letters, its own mark as the last."""
    last = f"\n{MARK} {folder}/{name}\n".encode()
    chance = random.Random(f"{folder}/{name}")  # noqa: S311  # repeatable on purpose
    text = base64.encodebytes(chance.randbytes(SMALL_BYTES))
    return text[: SMALL_BYTES - len(last)].replace(b"\n", b" ") + last


def _git(directory: Path, *words: str) -> None:
    identity = ["-c", "user.name=bench", "-c", "user.email=bench@localhost"]
    subprocess.run(["git", *identity, *words], cwd=directory, check=True, timeout=60)


def _written(path: Path, content: bytes) -> Blob:
    path.write_bytes(content)
    digest = hashlib.blake2b(content, digest_size=16).hexdigest()
    return Blob(path=path, size_bytes=len(content), digest=digest)
