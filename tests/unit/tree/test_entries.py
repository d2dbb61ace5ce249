"""Listings laid over the tree while operations change it: docs/semantics.md, promises 3, 9, 10."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from typing_extensions import override

from ctrfs.api.models import Container, ContainerFile, ContainerId, FileId
from ctrfs.clock import Clock
from ctrfs.config import SlashMode
from ctrfs.disk.database import StateDatabase
from ctrfs.disk.facts import ServiceFacts
from ctrfs.disk.local_entries import LocalEntries, LocalFileRow
from ctrfs.disk.overlay import Overlay
from ctrfs.tree.entries import EntryTree
from ctrfs.tree.naming import NamingRules
from ctrfs.tree.nodes import (
    ContainerDirectory,
    Directory,
    File,
    Folder,
    is_attached,
    path_in_container,
)

HASH = "a" * 32
OWNER = Container(id=ContainerId("cntr_1"), name="work", created_at_s=1, status="running")


class StillClock(Clock):
    """It is always the same time."""

    @override
    def monotonic_s(self) -> float:
        return 0.0

    @override
    def wall_ns(self) -> int:
        return 1_000_000_000


class Place:
    """A tree with one container."""

    def __init__(self, database: StateDatabase) -> None:
        self.local = LocalEntries(database)
        self.adopted: list[LocalFileRow] = []
        self.tree = EntryTree(
            clock=StillClock(),
            overlay=Overlay(database),
            local=self.local,
            naming=NamingRules(ServiceFacts(database), slash_mode=SlashMode.UNKNOWN),
            adopt=self._adopt,
        )
        self.tree.apply_containers([OWNER])
        owner = self.tree.container(OWNER.id)
        assert owner is not None
        self.owner: ContainerDirectory = owner

    def lay(self, *rows: ContainerFile) -> None:
        self.tree.apply_files(self.owner, rows)
        self.tree.check_invariants()

    def file(self, *path: bytes) -> File:
        node = self.at(*path)
        assert isinstance(node, File)
        return node

    def at(self, *path: bytes) -> ContainerDirectory | Directory | File:
        node: ContainerDirectory | Directory | File = self.owner
        for name in path:
            assert not isinstance(node, File)
            node = node.children[name]
        return node

    def shown(self) -> dict[bytes, str | None]:
        return {
            b"/".join(path_in_container(file)): None if file.remote is None else file.remote.id
            for file in self.tree.files_below(self.owner)
        }

    def folders(self) -> set[bytes]:
        return {b"/".join(path_in_container(each)) for each in self.tree.folders_below(self.owner)}

    def _adopt(self, _file: File, row: LocalFileRow) -> int | None:
        self.adopted.append(row)
        return None if row.spool_name == "lost" else row.size_bytes


@contextmanager
def database() -> Iterator[StateDatabase]:
    with tempfile.TemporaryDirectory() as scratch:
        opened = StateDatabase(Path(scratch) / "state.db")
        try:
            yield opened
        finally:
            opened.close()


@pytest.fixture
def place() -> Iterator[Place]:
    with database() as opened:
        yield Place(opened)


def row(
    file_id: str, path: str, *, source: str = "assistant", size_bytes: int = 1
) -> ContainerFile:
    return ContainerFile(
        id=FileId(file_id),
        container_id=OWNER.id,
        path=f"/mnt/data/{path}",
        size_bytes=size_bytes,
        created_at_s=1,
        source=source,
    )


def test_files_and_the_folders_above_them_appear_and_vanish(place: Place) -> None:
    place.lay(row("1", "a"), row("2", "x/y/b"))
    assert place.shown() == {b"a": "1", b"x/y/b": "2"}
    assert place.folders() == {b"x", b"x/y"}

    place.lay(row("1", "a"))
    assert place.shown() == {b"a": "1"}
    assert place.folders() == set()


def test_a_file_that_stays_keeps_its_node_and_a_replaced_one_is_new(place: Place) -> None:
    """Promise 9."""
    place.lay(row("1", "a"), row("2", "b"))
    stays, goes = place.file(b"a"), place.file(b"b")

    place.lay(row("1", "a"), row("3", "b"))

    assert place.file(b"a") is stays
    assert place.file(b"b").inode != goes.inode
    assert goes.parent is None


def test_an_id_with_other_content_is_another_version(place: Place) -> None:
    """Promise 9: a server whose ids are paths keeps the id across an overwrite."""
    place.lay(row("1", "a", size_bytes=1))
    before = place.file(b"a")
    place.tree.inodes.remember(before.inode)

    place.lay(row("1", "a", size_bytes=2))

    assert place.file(b"a").inode != before.inode
    assert place.file(b"a").size_bytes == 2


def test_the_same_listing_again_changes_nothing(place: Place) -> None:
    rows = [row("1", "a"), row("2", "a"), row("3", "x/b"), row("4", "x")]
    place.lay(*rows)
    before = place.shown()
    place.tree.take_changes()

    place.lay(*rows)

    assert place.shown() == before
    assert place.tree.take_changes() == []


def test_rows_that_come_again_are_kept_once(place: Place) -> None:
    """A row takes some 300 bytes, and a listing of 10,000 comes anew every ten seconds."""
    place.lay(row("1", "a"), row("2", "b"))
    first = place.file(b"a").remote

    place.lay(row("1", "a"), row("2", "b"))
    place.lay(row("1", "a"), row("2", "b"), row("3", "c"))

    assert place.file(b"a").remote is first


def test_a_file_that_stepped_aside_is_put_back_by_the_same_listing(place: Place) -> None:
    place.lay(row("1", "a"))
    place.tree.make_room(place.owner, b"a")
    assert place.shown() == {b"a~1": "1"}

    place.lay(row("1", "a"))

    assert place.shown() == {b"a": "1"}


def test_the_same_listing_makes_room_for_what_this_machine_has_made_since(place: Place) -> None:
    place.lay(row("1", "a"), row("2", "x/b"))
    place.tree.make_room(place.owner, b"a")
    ours = place.tree.new_file(place.owner, b"a")

    place.lay(row("1", "a"), row("2", "x/b"))

    assert place.file(b"a") is ours
    assert sorted(place.shown().values(), key=str) == ["1", "2", None]


def test_a_length_that_a_later_listing_knows_is_news_to_the_kernel(place: Place) -> None:
    unknown = replace(row("1", "a"), size_bytes=None)
    place.lay(unknown)
    place.tree.take_changes()

    place.lay(row("1", "a", size_bytes=7))

    assert place.file(b"a").size_bytes == 7
    assert [change.name for change in place.tree.take_changes()] == [b"a"]


def test_listed_ids_leave_out_what_was_removed_here(place: Place) -> None:
    assert place.tree.listed_ids(place.owner) == []
    place.lay(row("1", "a"), row("2", "b"), row("3", "c"))

    place.tree.take_name(place.file(b"b"))

    assert place.tree.listed_ids(place.owner) == ["1", "3"]


def test_the_kernel_is_told_of_names_that_went_and_of_names_it_believes_missing(
    place: Place,
) -> None:
    """Promise 8."""
    place.lay(row("1", "a"))
    place.tree.note_denied(place.owner, b"b")
    place.tree.take_changes()

    place.lay(row("2", "b"), row("3", "c"))

    assert [(change.parent, change.name) for change in place.tree.take_changes()] == [
        (place.owner.inode, b"a"),
        (place.owner.inode, b"b"),
    ]


def test_a_claimed_name_survives_any_listing(place: Place) -> None:
    """Promise 10."""
    place.lay(row("1", "a"))
    ours = place.file(b"a")
    ours.is_claimed = True

    place.lay(row("2", "a"))
    assert place.file(b"a") is ours
    assert place.shown() == {b"a": "1", b"a~2": "2"}
    place.lay()
    assert place.shown() == {b"a": "1"}


def test_a_new_file_keeps_its_name_and_its_folder(place: Place) -> None:
    folder = place.tree.new_folder(place.owner, b"x")
    ours = place.tree.new_file(folder, b"a")

    place.lay(row("1", "x/a"), row("2", "x"))

    assert place.file(b"x", b"a") is ours
    assert place.shown() == {b"x/a": None, b"x/a~1": "1", b"x~2": "2"}


def test_an_uploaded_file_keeps_its_inode_through_the_listing_that_has_it(place: Place) -> None:
    """Promise 12."""
    ours = place.tree.new_file(place.owner, b"a")
    ours.size_bytes = 1
    stored = row("1", f"{HASH}-a", source="user")
    place.tree.bind(ours, stored, digest=HASH)

    place.lay(stored)

    assert place.file(b"a") is ours
    assert not ours.is_claimed


def test_binding_takes_the_place_of_what_a_listing_has_already_shown(place: Place) -> None:
    """A listing may overtake the answer to the upload."""
    ours = place.tree.new_file(place.owner, b"a")
    stored = row("1", f"{HASH}-a", source="user")
    place.lay(stored)
    assert len(place.shown()) == 2

    place.tree.bind(ours, stored, digest=HASH)

    place.tree.check_invariants()
    assert place.shown() == {b"a": "1"}


def test_a_file_answers_to_its_full_stored_name(place: Place) -> None:
    """Promise 3."""
    place.lay(row("1", f"{HASH}-a", source="user"))

    assert place.tree.child(place.owner, f"{HASH}-a".encode()) is place.file(b"a")
    assert place.tree.child(place.owner, f"{'b' * 32}-a".encode()) is None
    assert place.tree.child(place.owner, f"{HASH}-b".encode()) is None


def test_a_name_given_back_makes_the_other_step_aside(place: Place) -> None:
    """Promise 10."""
    place.lay(row("1", "x/a"))
    ours = place.file(b"x", b"a")
    place.tree.inodes.remember(ours.inode)
    place.lay(row("2", "x/a"))

    place.tree.give_name_back(ours)

    place.tree.check_invariants()
    assert place.shown() == {b"x/a": "1", b"x/a~2": "2"}


def test_a_name_is_given_back_in_its_folder_even_if_that_has_vanished(place: Place) -> None:
    """Promise 10."""
    place.lay(row("1", "x/y/a"))
    ours = place.file(b"x", b"y", b"a")
    place.tree.inodes.remember(ours.inode)
    place.lay()
    assert place.folders() == set()

    place.tree.give_name_back(ours)

    place.tree.check_invariants()
    assert place.shown() == {b"x/y/a": "1"}


def test_a_local_folder_stays_without_files_until_it_is_removed(place: Place) -> None:
    """Promise 5."""
    folder = place.tree.new_folder(place.owner, b"x")
    inner = place.tree.new_folder(folder, b"y")
    place.lay()
    assert place.folders() == {b"x", b"x/y"}

    place.tree.remove_folder(inner)
    place.tree.remove_folder(folder)

    assert place.folders() == set()
    assert place.local.folders(OWNER.id) == []


def test_a_folder_that_has_gone_is_not_kept_under_the_name_that_is_left_of_its_path(
    place: Place,
) -> None:
    """Promise 5: the last of its files was removed here just when it went elsewhere."""
    place.lay(row("1", "x/y/a"))
    folder = place.at(b"x", b"y")
    assert isinstance(folder, Directory)
    place.lay()

    place.tree.keep_folder(folder)

    assert not is_attached(folder)
    assert place.local.folders(OWNER.id) == []


def test_folders_may_lie_in_each_other_deeper_than_functions_may_call_each_other(
    place: Place,
) -> None:
    depth = 2 * sys.getrecursionlimit()
    folder: Folder = place.owner
    for _ in range(depth):
        folder = place.tree.new_folder(folder, b"d")
    place.tree.new_file(folder, b"deep")
    place.lay(row("f", "x/y/z"))

    assert len(list(place.tree.folders_below(place.owner))) == depth + 2
    assert {len(path) for path in place.shown()} == {len(b"x/y/z"), 2 * depth + len(b"deep")}

    place.lay()
    assert len(list(place.tree.folders_below(place.owner))) == depth


def test_what_this_machine_kept_comes_back_with_the_container() -> None:
    """Promises 5 and 22."""
    with database() as opened:
        local = LocalEntries(opened)
        local.add_folder(OWNER.id, b"x/empty")
        for path, spool_name in ((b"x/a~", "kept"), (b"b~", "lost")):
            local.put_file(
                LocalFileRow(
                    container_id=OWNER.id, path=path, spool_name=spool_name, size_bytes=3,
                    mtime_ns=7, mode=0o600,
                )
            )  # fmt: skip

        place = Place(opened)
        place.lay(row("1", "x/a~"))

        assert len(place.adopted) == 2
        assert place.shown() == {b"x/a~": None, b"x/a~~1": "1"}
        assert place.folders() == {b"x", b"x/empty"}
        restored = place.file(b"x", b"a~")
        assert (restored.mtime_ns, restored.mode, restored.size_bytes) == (7, 0o600, 3)
        assert restored.is_local_only
        assert not restored.is_claimed


def test_a_container_that_goes_takes_all_its_entries_along(place: Place) -> None:
    place.lay(row("1", "x/a"))

    place.tree.apply_containers([])

    place.tree.check_invariants()
    assert place.owner.is_gone
    assert place.tree.container(OWNER.id) is None
    assert len(place.tree.inodes) == 1


def test_a_container_whose_name_is_taken_by_an_older_one_gets_another(place: Place) -> None:
    """Promise 2."""
    older = Container(id=ContainerId("cntr_0"), name="work", created_at_s=0, status="running")

    place.tree.apply_containers([OWNER, older])

    place.tree.check_invariants()
    assert place.owner.name == b"work~cntr_1"
    place.tree.apply_containers([OWNER])
    assert place.owner.name == b"work"


NAMES = [b"a", b"b", b"x"]
PATHS = ["a", "b", "x", "x/a", "x/b", "x/y/a", "a/b", f"{HASH}-a", f"x/{HASH}-a", "@root/a"]
listings = st.lists(
    st.builds(
        row, st.sampled_from("12345678"), st.sampled_from(PATHS),
        source=st.sampled_from(["user", "assistant"]), size_bytes=st.sampled_from([1, 2]),
    ),
    max_size=6, unique_by=lambda each: each.id,
)  # fmt: skip
choices = st.integers(min_value=0, max_value=7)
changes = st.tuples(
    st.sampled_from(
        ["claim", "settle", "store", "take", "back", "place", "folder", "unfolder", "file"]
    ),
    choices,
    choices,
)


class Player:
    """Changes a place as operations do, by number; what cannot be done is left."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.nameless: list[File] = []
        self.stored = 0

    def play(self, kind: str, first: int, second: int) -> None:
        tree, owner = self.place.tree, self.place.owner
        folders: list[ContainerDirectory | Directory] = [owner, *tree.folders_below(owner)]
        files = list(tree.files_below(owner))
        folder = folders[first % len(folders)]
        name = NAMES[second % len(NAMES)]
        if kind == "folder" and name not in folder.children:
            tree.new_folder(folder, name)
        elif kind == "file" and name not in folder.children:
            tree.new_file(folder, name)
        elif kind == "unfolder" and isinstance(folder, Directory) and not folder.children:
            tree.remove_folder(folder)
        elif kind == "back" and self.nameless:
            tree.give_name_back(self.nameless.pop(second % len(self.nameless)))
        elif files:
            self._play_on_file(kind, files[first % len(files)], folders[second % len(folders)])

    def _play_on_file(self, kind: str, file: File, folder: ContainerDirectory | Directory) -> None:
        tree = self.place.tree
        if kind == "claim":
            file.is_claimed = True
        elif kind == "settle" and file.remote is not None:
            file.is_claimed = False
        elif kind == "store":
            self.stored += 1
            path = b"/".join(path_in_container(file)).decode()
            tree.bind(file, row(f"new{self.stored}", path), digest=None)
        elif kind == "take":
            tree.inodes.remember(file.inode)
            tree.take_name(file)
            self.nameless.append(file)
        elif kind == "place" and file.is_claimed:
            tree.place(file, folder, NAMES[0])


@settings(max_examples=200, deadline=None)
@given(st.lists(st.one_of(listings, changes, st.none()), max_size=12))
def test_listings_and_operations_in_any_order_leave_every_entry_reachable(
    steps: list[list[ContainerFile] | tuple[str, int, int] | None],
) -> None:
    """Promises 3 and 10. None stands for the last listing, once more."""
    with database() as opened:
        place = Place(opened)
        player = Player(place)
        last: list[ContainerFile] = []
        for each in steps:
            step = last if each is None else each
            ours = {file for file in place.tree.files_below(place.owner) if file.is_claimed}
            if isinstance(step, tuple):
                player.play(*step)
                place.tree.check_invariants()
                continue
            last = step
            before = {file: path_in_container(file) for file in ours}
            place.lay(*step)
            assert {file: path_in_container(file) for file in ours} == before
            shown_ids = set(place.shown().values())
            assert {listed.id for listed in step} <= shown_ids
            again = place.shown()
            place.lay(*step)
            assert place.shown() == again
            place.owner.is_as_listed = False  # as if something had moved: nothing may be left out
            place.lay(*step)
            assert place.shown() == again
