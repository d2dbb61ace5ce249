"""The mapping of names under fire: one to one, never out of the mount, within NAME_MAX."""

from __future__ import annotations

import os

from hypothesis import example, given, settings
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

FUZZ = settings.get_profile("fuzz")
PREFIX = "0123456789abcdef" * 2 + "-"
# What the mapping treats specially, what terminals do, and everything else.
letters = st.one_of(
    st.sampled_from("‛␀／．∅.\0aF8/~-\n \x1b\x7f\u202e\u2028\ufeff@"),
    st.characters(codec="utf-8"),
)
texts = st.one_of(
    st.text(letters, max_size=300),
    st.lists(st.sampled_from(["..", "/", "‛", "‛‛", "FF", PREFIX, "．", "", "/mnt/data/"])).map(
        "".join
    ),
)
entries = (
    st.one_of(st.binary(min_size=1, max_size=255), texts.map(str.encode))
    .map(lambda name: name.replace(b"/", b"").replace(b"\0", b"")[:NAME_BYTES_MAX])
    .filter(lambda name: name not in {b"", b".", b".."})
)


def check_entry(name: bytes) -> None:
    assert 1 <= len(name) <= NAME_BYTES_MAX
    assert b"/" not in name
    assert b"\0" not in name
    assert name not in {b".", b".."}


@settings(FUZZ)
@given(texts)
@example("..")
@example("../../etc/passwd")
@example("‛．．")
def test_a_container_name_is_an_entry_name_and_comes_back_unless_shortened(text: str) -> None:
    entry = entry_name_for_container(text)

    check_entry(entry)
    if len(entry) < NAME_BYTES_MAX - 3:
        assert container_name_from_entry(entry) == text


@settings(FUZZ)
@given(entries)
def test_every_entry_name_comes_back_from_what_the_service_is_told(entry: bytes) -> None:
    assert entry_name_for_container(container_name_from_entry(entry)) == entry
    try:
        component = component_from_entry(entry)
    except InvalidNameError:
        return
    assert entry_name_for_component(component) == entry
    assert component.encode()


@settings(FUZZ)
@given(texts, texts)
def test_two_names_of_the_service_never_become_one_entry(first: str, second: str) -> None:
    if first != second:
        assert entry_name_for_container(first) != entry_name_for_container(second)
        if not {"/"} & set(first + second):
            assert entry_name_for_component(first) != entry_name_for_component(second)


@settings(FUZZ)
@given(texts, st.sampled_from(["user", "assistant", ""]), st.booleans())
@example("/mnt/data/../../../etc/passwd", "user", True)
@example("/mnt/data/" + PREFIX, "user", True)
@example("//" * 200 + "x", "assistant", False)
@example("/mnt/data/．．／．．／etc", "user", True)
def test_no_path_of_the_service_leads_out_of_its_container(
    path: str, source: str, may_have_prefix: bool
) -> None:
    row = ContainerFile(
        id=FileId("f"),
        container_id=ContainerId("c"),
        path=path,
        size_bytes=1,
        created_at_s=1,
        source=source,
    )

    try:
        shown = shown_path(row, may_have_prefix=may_have_prefix)
    except ValueError:
        return

    for name in (*shown.folders, shown.name, shown.full_name):
        check_entry(name)
    whole = os.path.normpath(b"/mnt/box/" + b"/".join([*shown.folders, shown.name]))
    assert whole.startswith(b"/mnt/box/")
    assert len(shown.folders) <= 201


@settings(FUZZ)
@given(st.lists(entries, min_size=1, max_size=4), st.booleans())
def test_what_is_uploaded_shows_where_it_was_put(path: list[bytes], keeps_slashes: bool) -> None:
    try:
        name = stored_name(tuple(path), keeps_slashes=keeps_slashes)
    except InvalidNameError:
        return
    row = ContainerFile(
        id=FileId("f"),
        container_id=ContainerId("c"),
        path=f"/mnt/data/{PREFIX}{name}",
        size_bytes=1,
        created_at_s=1,
        source="user",
    )

    shown = shown_path(row, may_have_prefix=True)

    assert (*shown.folders, shown.name) == tuple(path)


@settings(FUZZ)
@given(entries, texts, st.booleans())
def test_any_id_can_tell_two_entries_apart(name: bytes, entry_id: str, whole: bool) -> None:
    check_entry(with_id(name, entry_id, whole=whole))
