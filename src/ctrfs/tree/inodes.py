"""Inode numbers: stable across remounts, counted while the kernel knows them.

A number is a hash of what the entry is on the service, so the same entry has the same number
at the next mount (backup tools and build tools compare them).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Final

from ctrfs.errors import NoSuchEntryError
from ctrfs.tree.nodes import ROOT_INODE, InodeNumber, Node

# Below: the root and the entries of the control directory.
FIRST_HASHED: Final = 64
# Numbers up to 2**53 are exact in programs that keep them in doubles (jq, JavaScript).
HASHED_BITS: Final = 53


class InodeTable:
    """Who has which number, and how often the kernel has looked it up.

    Attributes:
        is_held: Tells whether somebody holds bytes under a number that no node may have any more.
            Such a number is not given again: who opened the new entry would get the old bytes.

    Invariant: a number is in ``_nodes`` while its node has a name or the kernel knows it.
    Owner: every change comes from ``EntryTree`` (register, drop) or from the kernel's
    requests (remember, forget). Not async on purpose: all of it is atomic.
    """

    def __init__(self) -> None:
        self._nodes: dict[InodeNumber, Node] = {}
        self._lookups: dict[InodeNumber, int] = {}
        self._nameless: set[InodeNumber] = set()
        self.is_held: Callable[[InodeNumber], bool] = lambda _inode: False

    def __len__(self) -> int:
        return len(self._nodes)

    def number_for(self, key: str) -> InodeNumber:
        """Return a free number for the entry that ``key`` identifies; the same for the same key."""
        salt = 0
        while True:
            digest = hashlib.blake2b(
                f"{salt}:{key}".encode("utf-8", "surrogatepass"), digest_size=8
            )
            number = InodeNumber(int.from_bytes(digest.digest(), "big") % (1 << HASHED_BITS))
            is_free = number not in self._nodes and not self.is_held(number)
            if number >= FIRST_HASHED and is_free:
                return number
            salt += 1

    def register(self, node: Node) -> None:
        """Make ``node`` the one with its number."""
        assert node.inode not in self._nodes
        self._nodes[node.inode] = node

    def node(self, inode: InodeNumber) -> Node:
        """Return the node with this number.

        Raises:
            NoSuchEntryError: There is none, or no longer.
        """
        try:
            return self._nodes[inode]
        except KeyError:
            raise NoSuchEntryError(f"no entry has inode {inode}") from None

    def find(self, inode: InodeNumber) -> Node | None:
        """Return the node with this number, or None."""
        return self._nodes.get(inode)

    def remember(self, inode: InodeNumber) -> None:
        """Count one more lookup by the kernel; right before the reply that tells it."""
        self._lookups[inode] = self._lookups.get(inode, 0) + 1

    def forget(self, pairs: Sequence[tuple[InodeNumber, int]]) -> None:
        """Take lookups back; a nameless entry that the kernel no longer knows is gone."""
        for inode, count in pairs:
            left = self._lookups.get(inode, 0) - count
            if left > 0:
                self._lookups[inode] = left
                continue
            self._lookups.pop(inode, None)
            if inode in self._nameless:
                self._remove(inode)

    def drop(self, inode: InodeNumber) -> None:
        """Say that the node has lost its name; its number lives on while the kernel knows it."""
        if inode == ROOT_INODE or inode not in self._nodes:
            return
        if inode in self._lookups:
            self._nameless.add(inode)
        else:
            self._remove(inode)

    def restore(self, node: Node) -> None:
        """Say that a node has its name back."""
        self._nameless.discard(node.inode)
        self._nodes[node.inode] = node

    def _remove(self, inode: InodeNumber) -> None:
        self._nameless.discard(inode)
        del self._nodes[inode]

    def check_invariants(self) -> None:
        """Raise AssertionError if the state contradicts itself."""
        assert self._nameless <= self._nodes.keys()
        assert all(count > 0 for count in self._lookups.values())
        assert all(inode == node.inode for inode, node in self._nodes.items())
