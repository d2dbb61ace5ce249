"""stress-ng's class of file system stressors, one after another, with their own verification."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

from scripts.conformance.arena import Arena, Ended, judged, last_words
from scripts.conformance.results import Case, failed, skipped

SECONDS_EACH: Final = 5
# It counts only after it has made a name of each length, which takes some 12 s.
SECONDS_OF: Final[Mapping[str, int]] = {"filename": 45}
# Some notice the end of their time only after a round of many requests.
LIMIT_S: Final = 90

# What runs, with the sizes that keep a file below max_file_size and a round short.
RUN: Final[Mapping[str, tuple[str, ...]]] = {
    "access": (), "chattr": (), "chdir": ("--chdir-dirs", "64"), "chmod": (), "chown": (),
    "copy-file": ("--copy-file-bytes", "128M"), "dentry": ("--dentries", "128"),
    "dir": ("--dir-dirs", "128"), "dirdeep": ("--dirdeep-inodes", "200"),
    "dirmany": (), "dnotify": (), "fallocate": ("--fallocate-bytes", "16M"), "fanotify": (),
    "fcntl": (), "file-ioctl": (), "filename": (), "flock": (), "fpunch": (), "fsize": (),
    "fstat": (), "getdent": (), "hdd": ("--hdd-bytes", "32M"), "inotify": (), "io": (),
    "iomix": ("--iomix-bytes", "32M"), "lease": (), "locka": (), "lockf": (), "lockofd": (),
    "mknod": (), "open": (), "rename": (), "sync-file": ("--sync-file-bytes", "16M"),
    "touch": (), "utime": (),
}  # fmt: skip

# What does not, and why; numbers are promises of docs/semantics.md.
SKIPPED: Final[Mapping[str, str]] = {
    "bind-mount": "mounts in a name space of its own; no file of ours is touched",
    "binderfs": "is about binderfs",
    "dup": "works on /dev/zero",
    "eventfd": "works on event descriptors",
    "fiemap": "asks where bytes lie on a disk; there is none (not supported by FUSE)",
    "handle": "works on handles of /dev/zero",
    "inode-flags": "FS_IOC_SETFLAGS: not supported, and stress-ng then counts nothing",
    "ioprio": "works on /dev/null",
    "link": "hard links are EPERM (20)",
    "procfs": "works on /proc",
    "symlink": "symbolic links are EPERM (20)",
    "verity": "fs-verity: not supported by FUSE",
    "xattr": "foreign attributes are EOPNOTSUPP (20)",
}


def play(arena: Arena) -> Iterator[Case]:
    """Run each stressor for some seconds, and demand that it did something."""
    offered = _offered(arena)
    for name in sorted(offered):
        if name in SKIPPED:
            yield skipped(name, SKIPPED[name])
        elif name in RUN:
            yield _stress(arena, name, RUN[name])
        else:
            yield failed(name, "is new in this stress-ng: run it or say why not")


def bogo_operations(words: str, name: str) -> int | None:
    """Return how many operations stress-ng counted for a stressor; None: it did not say."""
    found = re.search(rf"metrc: \[\d+\] {re.escape(name)} +(\d+) ", words)
    return int(found[1]) if found else None


def _offered(arena: Arena) -> list[str]:
    """Return the stressors of the class that this stress-ng has."""
    ended = arena.run("stress-ng", "--class", "filesystem?", cwd=arena.outside, limit_s=LIMIT_S)
    return ended.words.partition("stressors:")[2].split()


def _stress(arena: Arena, name: str, options: tuple[str, ...]) -> Case:
    ended = arena.run(
        *("stress-ng", f"--{name}", "1", *options, "--verify", "--metrics-brief"),
        *("--timeout", f"{SECONDS_OF.get(name, SECONDS_EACH)}s", "--temp-path", arena.folder(name)),
        cwd=arena.outside,
        limit_s=LIMIT_S,
    )

    def judge(ended: Ended) -> str | None:
        return None if bogo_operations(ended.words, name) else f"did nothing: {ended.words}"

    # Files that a stressor leaves behind are files that it could not delete.
    left = [path.name for path in (arena.place / name).iterdir()]
    if ended.code == 0 and left:
        return failed(name, f"left {left}: {last_words(ended.words)}")
    return judged(name, ended, judge, limit_s=LIMIT_S)
