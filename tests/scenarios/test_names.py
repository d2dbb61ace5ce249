"""Any name that Linux allows is kept, byte for byte."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.scenarios.programs import run

pytestmark = pytest.mark.both_write_modes

NAMES = [
    b"with space",
    b" leading and trailing ",
    b"line\nbreak",
    b"tab\tand\x01control\x7f",
    b"quotes ' and \" and `",
    "Zo\u00eb composed".encode(),
    "Zoe\u0308 decomposed".encode(),
    "Zo\u00eb".encode(),
    "Zoe\u0308".encode(),
    "emoji \U0001f980\U0001f469\u200d\U0001f680".encode(),
    "\u0639\u0631\u0628\u064a \u200frtl".encode(),
    b"-rf",
    b"--help",
    b"back\\slash",
    b"not utf-8 \xff\xfe",
    b"\xc3",
    b"x" * 255,
    "é".encode() * 127,
    b"0123456789abcdef0123456789abcdef-x",
    b"0123456789abcdef0123456789abcdef-fedcba9876543210fedcba9876543210-x",
    b"0123456789abcdef0123456789abcdef-",
    b"a%20b",
    b"a%2Fb%00",
    b"~",
    b"~cntr_1",
    b"name~cfile_12345678",
    b"@",
    b"@rooted",
    "full width ／ slash".encode(),
    "‛".encode(),
    "‛ quote ‛‛ and ‛␀".encode(),
    "‛FF".encode(),
    "．． and more".encode(),
    b"...",
    b". ",
    b"*?[a]{b}$HOME;|&<>",
    b'semi;colon="x"; filename="y"',
    b"percent%",
    b"plus+and#hash?query",
    b"CON",
    b".hidden",
    b".ctrfs-not",
    b"UPPER",
    b"upper",
]


def entry(folder: Path, name: bytes) -> Path:
    return folder / os.fsdecode(name)


def names_in(folder: Path) -> list[bytes]:
    return sorted(os.fsencode(found.name) for found in folder.iterdir())


def test_every_odd_name_is_kept_listed_renamed_and_removed(place: Path) -> None:
    for number, name in enumerate(NAMES):
        entry(place, name).write_bytes(f"content {number}".encode())

    assert names_in(place) == sorted(NAMES)
    for number, name in enumerate(NAMES):
        assert entry(place, name).read_bytes() == f"content {number}".encode()

    for name in NAMES:
        entry(place, name).rename(place / "other")
        (place / "other").rename(entry(place, name))
    assert names_in(place) == sorted(NAMES)
    for name in NAMES:
        entry(place, name).unlink()
    assert names_in(place) == []


def test_folders_of_odd_names_hold_files_of_odd_names(place: Path) -> None:
    for name in NAMES:
        entry(place, name).mkdir()
        entry(entry(place, name), name).write_bytes(name)

    assert names_in(place) == sorted(NAMES)
    for name in NAMES:
        assert names_in(entry(place, name)) == [name]
        assert entry(entry(place, name), name).read_bytes() == name


def test_a_file_may_bear_the_name_of_the_folder_of_other_paths(place: Path) -> None:
    (place / "@root").write_bytes(b"a file")

    assert (place / "@root").read_bytes() == b"a file"
    assert names_in(place) == [b"@root"]


def test_a_name_of_256_bytes_is_refused(place: Path) -> None:
    with pytest.raises(OSError, match="File name too long"):
        (place / ("x" * 256)).write_bytes(b"")
    with pytest.raises(OSError, match="File name too long"):
        (place / ("x" * 256)).mkdir()


def test_shell_tools_find_odd_names(place: Path) -> None:
    for name in (b"-rf", b"line\nbreak", b"not utf-8 \xff"):
        entry(place, name).write_bytes(name)

    assert run("sh", "-c", "find . -type f -print0 | sort -z | xargs -0 cat --", cwd=place) == (
        "-rfline\nbreaknot utf-8 \\xff"
    )
    run("sh", "-c", "find . -type f -print0 | xargs -0 rm --", cwd=place)
    assert list(place.iterdir()) == []
