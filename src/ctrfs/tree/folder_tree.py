"""The middle storey of the tree: what is inside the containers, and how it moves; single steps.

``tree.entries.EntryTree`` adds what entries stand for: listings, files stored and made here.
"""

from __future__ import annotations

import itertools
from abc import ABC
from collections.abc import Iterator

from ctrfs.tree.container_tree import ContainerTree
from ctrfs.tree.names import split_prefix, with_id
from ctrfs.tree.nodes import (
    ContainerDirectory,
    Directory,
    EntryPath,
    File,
    Folder,
    Parent,
    Root,
    owner_of,
)


class FolderTree(ContainerTree, ABC):
    """Folders and files with names, below the containers."""

    def child(self, parent: Parent, name: bytes) -> ContainerDirectory | Directory | File | None:
        """Return the entry called ``name``; a file also answers to its full stored name."""
        found = parent.children.get(name)
        if found is not None or isinstance(parent, Root):
            return found
        prefix = split_prefix(name)
        if prefix is None:
            return None
        digest, rest = prefix
        alias = parent.children.get(rest)
        return alias if isinstance(alias, File) and alias.digest == digest else None

    def files_below(self, folder: Folder) -> Iterator[File]:
        """Yield every file in ``folder``, at whatever depth."""
        for place in itertools.chain([folder], self.folders_below(folder)):
            for node in place.children.values():
                if isinstance(node, File):
                    yield node

    def folders_below(self, folder: Folder) -> Iterator[Directory]:
        """Yield every folder in ``folder``, inner ones after the outer.

        By a list of what is to do: users and services may nest folders deeper than Python
        lets functions call each other.
        """
        todo: list[Folder] = [folder]
        while todo:
            for node in todo.pop().children.values():
                if isinstance(node, Directory):
                    yield node
                    todo.append(node)

    def make_room(self, parent: Folder, name: bytes) -> None:
        """Free a name for an entry of ours; whoever has it takes the name with its id.

        A folder that nothing holds up any more goes instead.
        """
        other = parent.children.get(name)
        if other is None or self._drop_empty_folder(parent, name):
            return
        identity = identity_of(other)
        free = with_id(name, identity, whole=False)
        if free in parent.children:
            free = with_id(name, f"{identity}~{other.inode}", whole=True)
        self._unlink(other)
        self._link(other, parent, free)
        self._name_went(parent, name)
        self._name_came(parent, free)

    def folder_at(self, owner: ContainerDirectory, path: EntryPath) -> Folder:
        """Return the folder at ``path``, made if it is missing; a file there steps aside."""
        folder: Folder = owner
        for depth, name in enumerate(path, start=1):
            found = folder.children.get(name)
            if isinstance(found, Directory):
                folder = found
                continue
            self.make_room(folder, name)
            made = self._maker.directory(owner, path[:depth])
            self._link(made, folder, name)
            self._name_came(folder, name)
            folder = made
        return folder

    # -- pieces ----------------------------------------------------------------------------

    def _changed_name(self, file: File) -> None:
        if file.parent is not None:
            self._name_went(file.parent, file.name)

    def _link(self, node: Directory | File, parent: Folder, name: bytes) -> None:
        assert node.parent is None
        assert name not in parent.children
        # Nobody would ever see it, and its bytes would be sent to another place.
        assert not isinstance(parent, Directory) or parent.parent is not None
        owner_of(parent).is_as_listed = False
        node.parent = parent
        node.name = name
        parent.children[name] = node

    def _unlink(self, node: Directory | File) -> None:
        assert node.parent is not None
        assert node.parent.children[node.name] is node
        owner_of(node.parent).is_as_listed = False
        del node.parent.children[node.name]
        node.parent = None

    def _drop_empty_folder(self, parent: Folder, name: bytes) -> bool:
        """Drop the folder of that name if nothing holds it up; tell whether it went."""
        folder = parent.children.get(name)
        if not isinstance(folder, Directory):
            return False
        below = [folder, *self.folders_below(folder)]
        if any(each.is_local for each in below) or any(self.files_below(folder)):
            return False
        for each in reversed(below):
            self._drop(each)
        return True

    def _drop(self, folder: Directory) -> None:
        """Drop a folder that has nothing in it."""
        assert folder.parent is not None, "dropped twice"
        self._name_went(folder.parent, folder.name)
        self._unlink(folder)
        self.inodes.drop(folder.inode)


def identity_of(node: Directory | File) -> str:
    """Return what tells an entry from another of its name."""
    if isinstance(node, File) and node.remote is not None:
        return node.remote.id
    return str(node.inode)
