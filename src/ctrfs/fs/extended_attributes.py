"""The ``user.ctrfs.*`` attributes: what the service knows of an entry, and two buttons."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ctrfs.content.file_state import FileState
from ctrfs.errors import (
    NoSuchAttributeError,
    NotPermittedError,
    UnsupportedAttributeError,
)
from ctrfs.fs.discarding import Discarder
from ctrfs.fs.parts import Parts
from ctrfs.tree.nodes import ContainerDirectory, Directory, File, Node

PREFIX: Final = b"user.ctrfs."
REFRESH: Final = b"user.ctrfs.refresh"
DISCARD: Final = b"user.ctrfs.discard"


class ExtendedAttributes:
    """Get, list and set; only a refresh ever asks the service."""

    def __init__(self, parts: Parts, discarder: Discarder) -> None:
        self._parts = parts
        self._discarder = discarder

    def names(self, node: Node) -> list[bytes]:
        """Return the attributes that ``node`` has."""
        return [PREFIX + name.encode() for name in self._facts(node)]

    def get(self, node: Node, name: bytes) -> bytes:
        """Return the value of one attribute.

        Raises:
            NoSuchAttributeError: ``node`` has none of that name.
        """
        if name.startswith(PREFIX):
            value = self._facts(node).get(name.removeprefix(PREFIX).decode("utf-8", "replace"))
            if value is not None:
                return value.encode("utf-8", "surrogateescape")
        raise NoSuchAttributeError(f"no attribute {name!r}")

    async def set(self, node: Node, name: bytes, value: bytes) -> None:
        """Carry out what an attribute stands for.

        ``user.ctrfs.refresh``, whatever its value: fetch the listing now.
        ``user.ctrfs.discard``: give up the unsent bytes of that id, whichever entry it is set on.

        Raises:
            InvalidAttributeValueError: There are no unsent bytes of that id.
            UnsupportedAttributeError: It cannot be kept: it is not ours, or one of ours that
                tells and does not take. Copy tools pass over both without a word.
            RemoteError: The listing could not be fetched.
        """
        if name == REFRESH:
            await self._parts.namespace.refetch(node)
        elif name == DISCARD:
            await self._discarder.discard(value.decode("utf-8", "surrogateescape"))
        else:
            raise UnsupportedAttributeError(f"{name!r} cannot be kept")

    def remove(self, node: Node, name: bytes) -> None:
        """Refuse: ours tell facts, and there are no others.

        Raises:
            NotPermittedError: The attribute is one of ours.
            NoSuchAttributeError: There is none of that name.
        """
        self.get(node, name)
        raise NotPermittedError(f"{name!r} cannot be removed")

    def _facts(self, node: Node) -> Mapping[str, str]:
        facts: dict[str, str | int | None] = {}
        if isinstance(node, ContainerDirectory):
            container = node.container
            facts = {
                "id": container.id,
                "created_at": container.created_at_s,
                "status": container.status,
                "memory_limit": container.memory_limit,
                "expires_after": container.expires_after_minutes,
            }
        elif isinstance(node, Directory):
            facts = {"container_id": node.owner.container.id}
        elif isinstance(node, File):
            facts = self._file_facts(node)
        facts["error"] = self._parts.failures.get(node.inode)
        return {name: str(value) for name, value in facts.items() if value is not None}

    def _file_facts(self, file: File) -> dict[str, str | int | None]:
        facts: dict[str, str | int | None] = {
            "container_id": file.owner.container.id,
            "state": self._state(file),
            "hash": file.digest,
        }
        if file.remote is not None:
            facts |= {
                "id": file.remote.id,
                "path": file.remote.path,
                "source": file.remote.source,
                "created_at": file.remote.created_at_s,
            }
        return facts

    def _state(self, file: File) -> str:
        open_file = self._parts.store.get(file.inode)
        if file.is_local_only:
            return "local"
        if open_file is None:
            return "clean"
        match open_file.state:
            case FileState.SENDING:
                return "sending"
            case FileState.FAILED:
                return "failed"
            case FileState.DIRTY:
                return "local"
            case FileState.CLEAN:
                return "clean"
