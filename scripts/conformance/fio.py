"""fio: writes with checksums in each block, read back and verified."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

from scripts.conformance.arena import Arena, Ended, Judge
from scripts.conformance.results import Case

LIMIT_S: Final = 120
VERIFY: Final = ("--verify=crc32c", "--verify_fatal=1", "--verify_state_save=0")

JOBS: Final[Mapping[str, tuple[str, ...]]] = {
    "random write, psync": ("--ioengine=psync", "--rw=randwrite", "--bs=4k", "--size=24M"),
    "sequential write, fsync now and then": (
        *("--ioengine=psync", "--rw=write", "--bs=64k", "--size=24M", "--fsync=64"),
    ),
    "random write, mmap": ("--ioengine=mmap", "--rw=randwrite", "--bs=4k", "--size=16M"),
    "sequential write, mmap": ("--ioengine=mmap", "--rw=write", "--bs=16k", "--size=16M"),
    "random write, O_DIRECT": (
        *("--ioengine=psync", "--direct=1", "--rw=randwrite", "--bs=4k", "--size=16M"),
    ),
    "random write, libaio and O_DIRECT, 16 at once": (
        *("--ioengine=libaio", "--direct=1", "--iodepth=16"),
        *("--rw=randwrite", "--bs=8k", "--size=16M"),
    ),
    "random write, threads of posixaio": (
        *("--ioengine=posixaio", "--iodepth=8", "--rw=randwrite", "--bs=4k", "--size=16M"),
    ),
    "odd block sizes, pwritev": (
        *("--ioengine=pvsync", "--rw=randwrite", "--bsrange=512-96k", "--bs_unaligned=1"),
        *("--norandommap=0", "--size=16M", "--verify_backlog=64"),
    ),
    "read and write mixed, four processes": (
        *("--ioengine=psync", "--rw=randrw", "--bs=4k", "--size=8M", "--numjobs=4"),
    ),
    "thirty files, four processes": (
        *("--ioengine=psync", "--rw=randwrite", "--bs=4k", "--numjobs=4"),
        *("--nrfiles=30", "--filesize=4k-512k", "--size=6M"),
    ),
    "thirty files open by turns, fsync at close": (
        *("--ioengine=psync", "--rw=write", "--bs=16k", "--nrfiles=30", "--openfiles=4"),
        *("--filesize=256k", "--size=7680k", "--file_service_type=sequential"),
        *("--fsync_on_close=1", "--create_on_open=1"),
    ),
    "overwrite in place": (
        *("--ioengine=psync", "--rw=randwrite", "--bs=4k", "--size=16M", "--overwrite=1"),
    ),
    "sha256 instead of crc, pattern between": (
        *("--ioengine=psync", "--rw=randwrite", "--bs=8k", "--size=8M"),
        *("--verify=sha256", "--verify_pattern=0xdeadbeef"),
    ),
}
# Without content: the engines that create, look at and delete files.
FILES: Final[Mapping[str, tuple[str, ...]]] = {
    engine: (f"--ioengine={engine}", "--nrfiles=200", "--filesize=4k", "--openfiles=1")
    for engine in ("filecreate", "filestat", "filedelete")
}


def play(arena: Arena) -> Iterator[Case]:
    """Run each job in a folder of its own, and one over a remount."""
    for name, options in JOBS.items():
        verify = () if "--verify=sha256" in options else VERIFY
        yield _job(arena, name, *options, *verify, judge=complaint_of_no_verification)
    for name, options in FILES.items():
        yield _job(arena, name, *options, "--rw=write", "--bs=4k", "--size=800k")
    yield from _over_a_remount(arena)


def _over_a_remount(arena: Arena) -> Iterator[Case]:
    """Write in one mount and verify in the next, so that all comes from the service."""
    name = "remount"
    options = ("--ioengine=psync", "--rw=randwrite", "--bs=4k", "--size=24M", "--randseed=5")
    yield _job(arena, name, *options, *VERIFY, "--do_verify=0")
    arena.mount.restart()
    folder = arena.place / name
    yield arena.case(
        "verify after a remount",
        *("fio", "--name=job", f"--directory={folder}", *options, *VERIFY, "--verify_only=1"),
        cwd=arena.outside,
        limit_s=LIMIT_S,
        judge=complaint_of_no_verification,
    )


def complaint_of_no_verification(ended: Ended) -> str | None:
    """Return a complaint if fio read nothing: what was not read was not verified."""
    return None if re.search(r"^ +READ: bw=", ended.words, re.MULTILINE) else "verified nothing"


def _job(arena: Arena, name: str, *options: str, judge: Judge = lambda _: None) -> Case:
    folder = arena.folder(name.replace(",", ""))
    return arena.case(
        name,
        *("fio", "--name=job", f"--directory={folder}", "--group_reporting", *options),
        cwd=arena.outside,
        limit_s=LIMIT_S,
        judge=judge,
    )
