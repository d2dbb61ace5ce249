"""Having a file's bytes for the time of an operation, whether anybody has it open or not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ctrfs.content.open_file import OpenFile
from ctrfs.errors import NoSuchEntryError, StaleHandleError
from ctrfs.fs.parts import Parts, identity_of_remote
from ctrfs.tree.nodes import File


class Holder:
    """Takes references to open files. Each must be given back with ``ContentStore.release``."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def take(self, file: File) -> OpenFile:
        """Take a reference to a file's bytes; sends nothing.

        Raises:
            NoSuchEntryError: Neither this machine nor the service has them any more.
        """
        open_file = self._parts.store.get(file.inode)
        if open_file is not None:
            self._parts.store.retain(file.inode)
            return open_file
        identity = identity_of_remote(file)
        if identity is None:
            raise NoSuchEntryError("the bytes of this file are gone")
        return self._parts.store.open(file.inode, identity)

    @asynccontextmanager
    async def held(self, file: File) -> AsyncIterator[OpenFile]:
        """Hold a reference inside the block."""
        open_file = self.take(file)
        try:
            yield open_file
        finally:
            self._parts.store.release(file.inode)

    async def complete(self, file: File, open_file: OpenFile) -> None:
        """Have all bytes here; waits for their download.

        Raises:
            NoSuchEntryError: The service denies the file; its listing is fetched anew.
            RemoteError: They could not be had.
        """
        try:
            await open_file.complete()
        except StaleHandleError as error:
            self._parts.namespace.suspect(file)
            raise NoSuchEntryError(str(error)) from error
