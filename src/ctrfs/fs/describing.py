"""Inodes and handles as paths, for the log: names could be anything, and come as ASCII."""

from __future__ import annotations

from ctrfs.errors import NoSuchEntryError
from ctrfs.fs.handles import HandleNumber
from ctrfs.fs.parts import Parts
from ctrfs.tree.nodes import ROOT_INODE, InodeNumber, Node, path_from_root


class Describer:
    """Never raises and asks nobody: it is called for lines about what has just gone wrong."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def inode(self, inode: InodeNumber) -> str:
        """Return the path below the mount point, ASCII only; with the number where it is gone."""
        try:
            node = self._parts.tree.inodes.node(inode)
        except NoSuchEntryError:
            return f"#{inode}"
        return described(node)

    def handle(self, handle: HandleNumber) -> str:
        """Return the path of what is open under a handle, or its number."""
        inode = self._parts.handles.inode_of(handle)
        return f"handle {handle}" if inode is None else self.inode(inode)


def described(node: Node) -> str:
    """Return the path of an entry below the mount point, as ``Describer.inode`` does."""
    path = ascii(path_from_root(node))[2:-1]
    is_shown = node.parent is not None or node.inode == ROOT_INODE
    return f"/{path}" if is_shown else f"#{node.inode}/{path}"
