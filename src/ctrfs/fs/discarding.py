"""Giving up unsent bytes on a user's explicit word: the one way in which ctrfs drops any."""

from __future__ import annotations

import logging

from ctrfs.errors import InvalidAttributeValueError
from ctrfs.fs.parts import Parts
from ctrfs.fs.recording import replaced_by
from ctrfs.fs.removing import Remover
from ctrfs.tree.nodes import File

log = logging.getLogger(__name__)


class Discarder:
    """Drops what the journal has under an id, as ``ctrfs status`` shows it."""

    def __init__(self, parts: Parts, remover: Remover) -> None:
        self._parts = parts
        self._remover = remover

    async def discard(self, key: str) -> None:
        """Give up unsent bytes; what they were to replace shows again. Sends nothing.

        Waits for a save of the file that is under way.

        Raises:
            InvalidAttributeValueError: There are no unsent bytes of that id.
        """
        row = self._parts.journal.row(key)
        if row is None:
            raise InvalidAttributeValueError(f"no unsent bytes have the id {key!r}")
        file = self._file_of(key)
        if file is None:
            self._parts.journal.settle(key)
            self._parts.store.delete_unsent(row.spool_name)
        else:
            async with self._parts.file_locks.hold(file.inode):
                if file.journal_key != key:
                    raise InvalidAttributeValueError("the bytes have just been sent")
                self._give_up(file)
        log.info("unsent bytes %s of %r were discarded", key, row.path)

    def _give_up(self, file: File) -> None:
        owner, replaced = file.owner, replaced_by(file)
        self._parts.tree.take_name(file)
        self._remover.forget_bytes(file)
        self._parts.namespace.suspect(owner)
        for row in replaced:
            # What was on its way from another container is there.
            other = self._parts.tree.container(row.container_id)
            if other is not None:
                self._parts.namespace.unhide(other, row.id)
                self._parts.namespace.suspect(other)

    def _file_of(self, key: str) -> File | None:
        for inode in self._parts.store.unsent_inodes():
            node = self._parts.tree.inodes.find(inode)
            if isinstance(node, File) and node.journal_key == key:
                return node
        return None
