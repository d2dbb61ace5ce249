"""Stored paths, ids and content headers."""

from __future__ import annotations

import re

import pytest

from ctrfs.server import naming
from ctrfs.server.behaviour import Behaviour, Ids, Slashes

HASH = "bfe940181cd9f2193931fd77047b66bb"


@pytest.mark.parametrize(
    ("slashes", "path"),
    [
        (Slashes.KEEP, f"/mnt/data/a/b/{HASH}-c.txt"),
        (Slashes.PREFIX_FIRST, f"/mnt/data/{HASH}-a/b/c.txt"),
        (Slashes.BASE, f"/mnt/data/{HASH}-c.txt"),
    ],
)
def test_a_slash_in_a_name_becomes_what_the_behaviour_says(slashes: Slashes, path: str) -> None:
    assert naming.stored_path(Behaviour(slashes=slashes), "a/b/c.txt", HASH) == path


@pytest.mark.parametrize("name", ["../../c.txt", "/c.txt", "./c.txt", "c.txt", "c.txt/"])
def test_no_name_leaves_the_data_directory(name: str) -> None:
    assert naming.stored_path(Behaviour(), name, HASH) == f"/mnt/data/{HASH}-c.txt"


def test_a_name_of_nothing_is_still_a_file() -> None:
    assert naming.stored_path(Behaviour(), "..", HASH) == f"/mnt/data/{HASH}-upload"


def test_the_prefix_can_be_left_out() -> None:
    assert naming.stored_path(Behaviour(hash_prefix=False), "c.txt", HASH) == "/mnt/data/c.txt"


def test_ids_begin_with_the_second_of_creation() -> None:
    behaviour = Behaviour()

    assert re.fullmatch("cntr_68b92b40[0-9a-f]{40}", naming.new_container_id(behaviour, 0x68B92B40))
    assert re.fullmatch(
        "cfile_68b92b40[0-9a-f]{24}", naming.new_file_id(behaviour, 0x68B92B40, "/x")
    )


def test_opaque_ids_are_long_and_hold_a_character_that_addresses_escape() -> None:
    behaviour = Behaviour(ids=Ids.OPAQUE)

    assert len(naming.new_container_id(behaviour, 0)) > 190
    assert naming.new_file_id(behaviour, 0, "/x").endswith("=")


def test_path_ids_hold_the_path() -> None:
    assert naming.new_file_id(Behaviour(ids=Ids.PATH), 0, "/mnt/data/a") == "cfile_L21udC9kYXRhL2E"


@pytest.mark.parametrize(
    ("path", "content_type"),
    [
        ("/mnt/data/a.txt", "text/plain; charset=utf-8"),
        ("/mnt/data/a.CSV", "text/csv; charset=utf-8"),
        ("/mnt/data/a.png", "image/png"),
        ("/mnt/data/a.json", "application/json"),
        ("/mnt/data/a.tar.gz", "application/octet-stream"),
        ("/mnt/data/a", "application/octet-stream"),
        ("/mnt/data/.txt", "application/octet-stream"),
    ],
)
def test_the_type_is_guessed_from_the_name(path: str, content_type: str) -> None:
    assert naming.content_type(path) == content_type


def test_content_is_offered_under_its_name_with_a_fallback_in_ascii() -> None:
    assert naming.content_disposition(f"/mnt/data/{HASH}-naïve file.txt") == (
        f"attachment; filename=\"file.txt\"; filename*=UTF-8''{HASH}-na%C3%AFve%20file.txt"
    )


@pytest.mark.parametrize("path", ["/mnt/data/a.b\r\nX-Evil: 1", '/mnt/data/a."x"', "/\ud800.é"])
def test_no_name_breaks_out_of_its_header(path: str) -> None:
    header = naming.content_disposition(path)

    assert header.isascii()
    assert header.isprintable()
    assert header.count('"') == 2
