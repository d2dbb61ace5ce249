from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ctrfs.api.models import ContainerFile, ContainerId, FileId
from ctrfs.errors import InvalidNameError
from ctrfs.tree.names import (
    NAME_BYTES_MAX,
    component_from_entry,
    container_name_from_entry,
    entry_name_for_component,
    entry_name_for_container,
    shown_path,
    stored_name,
    with_id,
)

HASH = "bfe940181cd9f2193931fd77047b66bb"
OTHER_HASH = "946e6dc94ac6aca10fa2bda7a127cba8"

# Drawn mostly from what the mapping treats specially.
texts = st.text(
    alphabet=st.sampled_from("‛␀／．∅.\0aF8/~-\n ") | st.characters(codec="utf-8"), max_size=12
)
entry_names = st.lists(
    st.sampled_from(
        [*(c.encode() for c in "‛␀／．∅.aF8~-\n "), b"FF", b"80", b"\xff", b"\x80", b"\xe2", b"\xe2\x80"]
    ),
    min_size=1,
    max_size=8,
).map(b"".join).filter(lambda name: name not in {b".", b".."})  # fmt: skip


def row(path: str, *, source: str = "user") -> ContainerFile:
    return ContainerFile(
        id=FileId("cfile_1"),
        container_id=ContainerId("cntr_1"),
        path=path,
        size_bytes=1,
        created_at_s=1,
        source=source,
    )


@given(texts)
@example("‛FF")
@example("‛‛FF")
@example("‛\0")
@example("‛.")
def test_a_container_name_comes_back_from_its_entry_name(name: str) -> None:
    entry = entry_name_for_container(name)

    assert b"/" not in entry
    assert b"\0" not in entry
    assert entry not in {b"", b".", b".."}
    assert container_name_from_entry(entry) == name


@given(entry_names)
@example(b"\xe2\x80\x9bFF")
@example(b"\xe2\x80\x9b\xff")
@example(b"\xff")
def test_an_entry_name_comes_back_from_its_container_name(entry: bytes) -> None:
    assert entry_name_for_container(container_name_from_entry(entry)) == entry


@given(st.lists(entry_names, min_size=1, max_size=4), st.booleans())
def test_an_upload_shows_where_it_was_put(path: list[bytes], keeps_slashes: bool) -> None:
    try:
        name = stored_name(tuple(path), keeps_slashes=keeps_slashes)
    except InvalidNameError:
        return

    first = shown_path(row(f"/mnt/data/{HASH}-{name}"), may_have_prefix=True)

    assert (*first.folders, first.name) == tuple(path)
    assert first.digest == HASH


@pytest.mark.parametrize(
    "name", ["report.csv", "a%20b.txt", "über.txt", "日本.png", "a b\nc", "~x"]
)
def test_an_ordinary_name_is_the_same_on_both_sides(name: str) -> None:
    assert entry_name_for_component(name) == name.encode()
    assert component_from_entry(name.encode()) == name
    assert entry_name_for_container(name) == name.encode()


def test_an_upload_shows_without_its_prefix_and_a_made_file_as_it_is() -> None:
    uploaded = shown_path(row(f"/mnt/data/{HASH}-report.csv"), may_have_prefix=True)
    made = shown_path(row(f"/mnt/data/{HASH}-x", source="assistant"), may_have_prefix=True)

    assert (uploaded.name, uploaded.full_name) == (b"report.csv", f"{HASH}-report.csv".encode())
    assert (made.name, made.digest) == (f"{HASH}-x".encode(), None)


def test_only_the_first_prefix_is_cut() -> None:
    shown = shown_path(row(f"/mnt/data/{HASH}-{OTHER_HASH}-x"), may_have_prefix=True)

    assert (shown.name, shown.digest) == (f"{OTHER_HASH}-x".encode(), HASH)


def test_no_prefix_is_cut_on_a_server_that_adds_none() -> None:
    shown = shown_path(row(f"/mnt/data/{HASH}-x"), may_have_prefix=False)

    assert (shown.name, shown.digest) == (f"{HASH}-x".encode(), None)


@pytest.mark.parametrize(
    "path", [f"{HASH}-plots/fig.png", f"plots/{HASH}-fig.png", f"{HASH}-plots／fig.png"]
)
def test_the_prefix_is_found_wherever_a_server_puts_it(path: str) -> None:
    shown = shown_path(row(f"/mnt/data/{path}"), may_have_prefix=True)

    assert (shown.folders, shown.name, shown.digest) == ((b"plots",), b"fig.png", HASH)


def test_a_path_outside_the_data_folder_shows_under_root() -> None:
    shown = shown_path(row("/tmp/out.txt", source="assistant"), may_have_prefix=True)  # noqa: S108

    assert (shown.folders, shown.name) == ((b"@root", b"tmp"), b"out.txt")


def test_dots_in_a_service_path_never_climb() -> None:
    shown = shown_path(row("/mnt/data/../../etc/passwd"), may_have_prefix=True)

    assert shown.folders == ("．．".encode(), "．．".encode(), b"etc")


@pytest.mark.parametrize("path", ["", "/", "/mnt/data/", "/mnt/data/" + "a/" * 300 + "b"])
def test_a_path_that_names_no_file_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="path"):
        shown_path(row(path), may_have_prefix=True)


def test_a_name_of_300_bytes_is_shortened_and_stays_unique() -> None:
    first = entry_name_for_component("é" * 200 + "1")
    second = entry_name_for_component("é" * 200 + "2")

    assert len(first) <= NAME_BYTES_MAX
    assert first != second
    first.decode("utf-8")


def test_an_id_tells_two_entries_apart_within_255_bytes() -> None:
    assert with_id(b"a", "cntr_68c9dde6aaaa", whole=False) == b"a~cntr_68c9dde6"
    assert len(with_id(b"x" * 255, "i" * 400, whole=True)) <= NAME_BYTES_MAX
