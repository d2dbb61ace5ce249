"""What comes next in a walk."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.support.in_process import InProcessMount, mounted
from tests.support.service import InProcessService

from ctrfs.api.models import Container, ContainerId
from ctrfs.fs.walks import ORDERS, Entry, Order, Rank
from ctrfs.tree.nodes import (
    ContainerDirectory,
    File,
    InodeNumber,
    Node,
    path_from_root,
)

NAME, LANGUAGE, INODE = ORDERS
TREE = {
    "c1": ["/mnt/data/a", "/mnt/data/d/x", "/mnt/data/d/y", "/mnt/data/e"],
    "c2": ["/mnt/data/B", "/mnt/data/a", "/mnt/data/_c"],
    "c3": ["/mnt/data/z"],
}
# Those in folders that have been listed.
PATHS = ["c1/a", "c1/d/x", "c1/d/y", "c1/e", "c2/B", "c2/a", "c2/_c"]


class Tree:
    """A tree of which all containers but ``c3`` have been listed."""

    def __init__(self, mount: InProcessMount) -> None:
        self.mount = mount
        self._root = mount.parts.namespace.tree.root
        self._is_listed = mount.parts.namespace.is_listed

    def file(self, path: str) -> File:
        node: Node = self._root
        for part in path.split("/"):
            assert not isinstance(node, File)
            node = node.children[part.encode()]
        assert isinstance(node, File)
        return node

    def following(self, path: str, order: Order) -> list[str]:
        return [
            path_from_root(file).decode()
            for file in order.following(self.file(path), self._is_listed)
        ]

    def next_of(self, path: str, order: Order) -> list[str]:
        """Return which of all files are the next."""
        return [
            other
            for other in PATHS
            if order.is_next(self.file(path), self.file(other), self._is_listed)
        ]


@pytest.fixture
async def tree(service: InProcessService, state: Path) -> AsyncIterator[Tree]:
    for name, paths in TREE.items():
        container_id = service.create_container(name)
        for path in paths:
            service.plant(container_id, path, b"x")
    async with mounted(service, state) as mount:
        await mount.names("c1")
        await mount.names("c2")
        yield Tree(mount)


async def test_a_walk_by_name_enters_a_folder_where_it_stands_among_the_files(tree: Tree) -> None:
    assert tree.following("c1/a", NAME)[:3] == ["c1/d/x", "c1/d/y", "c1/e"]


async def test_a_walk_goes_on_in_the_next_container_and_ends_before_one_that_is_not_listed(
    tree: Tree,
) -> None:
    assert tree.following("c1/d/y", NAME) == ["c1/e", "c2/B", "c2/_c", "c2/a"]


async def test_a_walk_by_language_looks_at_letters_first(tree: Tree) -> None:
    assert tree.following("c2/a", LANGUAGE) == ["c2/B", "c2/_c"]


async def test_a_walk_by_inode_number_takes_the_files_as_they_are_numbered(tree: Tree) -> None:
    inodes = {path: tree.file(path).inode for path in ("c2/B", "c2/_c", "c2/a")}
    by_inode = sorted(inodes, key=inodes.__getitem__)

    assert tree.following(by_inode[0], INODE)[:2] == by_inode[1:]


async def test_the_first_file_of_a_folder_is_the_one_before_all_other_files(tree: Tree) -> None:
    assert NAME.is_first(tree.file("c1/d/x"))
    assert not NAME.is_first(tree.file("c1/d/y"))
    assert LANGUAGE.is_first(tree.file("c2/a"))
    assert not NAME.is_first(tree.file("c2/a"))


async def test_nothing_follows_a_file_that_has_lost_its_name(tree: Tree) -> None:
    file = tree.file("c1/a")
    await tree.mount.unlink("c1/a")

    assert list(NAME.following(file, lambda _folder: True)) == []
    assert not NAME.is_next(file, tree.file("c1/e"), lambda _folder: True)
    assert NAME.is_first(file)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("path", PATHS)
async def test_one_file_is_next_and_that_is_the_first_of_those_that_follow(
    tree: Tree, path: str, order: Order
) -> None:
    assert tree.next_of(path, order) == tree.following(path, order)[:1]


def test_that_a_file_is_not_the_next_shows_without_looking_at_the_whole_folder() -> None:
    container = ContainerDirectory(
        Container(id=ContainerId("cntr_1"), name="c", created_at_s=0, status="running"),
        inode=InodeNumber(2),
        mtime_ns=0,
    )
    looked_at: list[Entry] = []

    def rank(node: Entry) -> Rank:
        looked_at.append(node)
        return (node.name,)

    files = [
        File(inode=InodeNumber(3 + number), owner=container, remote=None, mtime_ns=0)
        for number in range(1000)
    ]
    for number, file in enumerate(files):
        file.parent, file.name = container, b"%03d" % number
        container.children[file.name] = file
    order = Order("counted", rank)

    assert not order.is_next(files[3], files[900], lambda _folder: True)
    assert not order.is_next(files[900], files[3], lambda _folder: True)

    assert len(looked_at) < 20
