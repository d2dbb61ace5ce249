"""Compilers, scripts and media programs read and write on the mount."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import pytest
from tests.scenarios.programs import attempt, need, run
from tests.support.trees import contents, plant_tree

pytestmark = pytest.mark.both_write_modes

MAKEFILE = """\
greet: main.o greeting.o
\tgcc -o $@ $^
%.o: %.c greeting.h
\tgcc -c -o $@ $<
"""


def test_make_builds_a_program_that_runs_and_builds_nothing_twice(place: Path) -> None:
    need("make", "gcc")
    (place / "greeting.h").write_text("const char *greeting(void);\n")
    (place / "greeting.c").write_text(
        '#include "greeting.h"\nconst char *greeting(void) { return "hello"; }\n'
    )
    (place / "main.c").write_text(
        '#include <stdio.h>\n#include "greeting.h"\nint main(void) { puts(greeting()); }\n'
    )
    (place / "Makefile").write_text(MAKEFILE)

    run("make", "-j2", cwd=place)
    assert run(place / "greet", cwd=place) == "hello\n"
    assert "up to date" in run("make", cwd=place)


def test_a_script_runs_once_it_may(place: Path) -> None:
    script = place / "script.sh"
    script.write_text('#!/bin/sh\necho "ran $1"\n')
    assert attempt("sh", "-c", f"'{script}' 1", cwd=place).returncode == 126
    script.chmod(0o755)

    assert run("sh", "-c", f"'{script}' 1", cwd=place) == "ran 1\n"


def test_ffmpeg_writes_a_film_and_reads_it_again(place: Path) -> None:
    quiet = ("ffmpeg", "-v", "error", "-nostdin", "-y")
    source = ("-f", "lavfi", "-i", "testsrc=duration=1:size=160x120:rate=10")
    # faststart rewrites the file from its end to its start after the last frame.
    run(*quiet, *source, "-movflags", "+faststart", "film.mp4", cwd=place)
    run(*quiet, "-i", "film.mp4", "-frames:v", "1", "frame.png", cwd=place)
    run(*quiet, "-i", "film.mp4", "-f", "null", "-", cwd=place)

    assert (place / "film.mp4").read_bytes()[4:8] == b"ftyp"
    assert (place / "frame.png").read_bytes().startswith(b"\x89PNG")


def test_find_and_sha1sum_see_the_bytes_that_were_written(place: Path) -> None:
    plant_tree(place, files=30)
    printed = run("sh", "-c", "find . -type f -print0 | xargs -0 -P4 -n3 sha1sum", cwd=place)

    seen = {line[42:].removeprefix("./"): line[:40] for line in printed.splitlines()}
    assert seen == {
        name: hashlib.sha1(content, usedforsecurity=False).hexdigest()
        for name, content in contents(place).items()
    }
    assert len(seen) == 30


def test_many_processes_write_and_read_at_once(place: Path) -> None:
    program = (
        "import pathlib,sys; n=int(sys.argv[1]); d=pathlib.Path(f'worker {n}'); d.mkdir()\n"
        "for i in range(10): (d/f'{i}.bin').write_bytes(bytes([n,i])*3000)\n"
        "assert all((d/f'{i}.bin').read_bytes()==bytes([n,i])*3000 for i in range(10))\n"
        "(d/'9.bin').rename(d/'last.bin'); (d/'0.bin').unlink()\n"
    )
    run("sh", "-c", f'seq 8 | xargs -P8 -I% {sys.executable} -c "{program}" %', cwd=place)

    names = [f"{i}.bin" for i in range(1, 9)]
    expected = {
        f"worker {n}/{name}": bytes([n, i]) * 3000
        for n in range(1, 9)
        for i, name in enumerate([*names, "last.bin"], start=1)
    }
    assert contents(place) == expected
