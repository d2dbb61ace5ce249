"""Which bytes: one version of one service file."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from ctrfs.api.models import ContainerId, FileId

CacheKey: TypeAlias = tuple[ContainerId, FileId, int | None, int]


class ContentIdentity(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a file, as the service's listing names it.

    Service files never change in place, so equal ids mean equal bytes; length and time are
    there for servers that keep an id across an overwrite.
    """

    container_id: ContainerId
    file_id: FileId
    size_bytes: int | None
    created_at_s: int
    digest: str | None
    """blake2b of the bytes in 32 hex digits, where it is known beforehand."""

    @property
    def key(self) -> CacheKey:
        """What a copy of these bytes is found by again; the digest says nothing more."""
        return (self.container_id, self.file_id, self.size_bytes, self.created_at_s)
