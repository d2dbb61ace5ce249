"""What the service stores, as records. No HTTP, no SQL."""

from __future__ import annotations

import msgspec

from ctrfs.units import NS_PER_S

RUNNING = "running"
EXPIRED = "expired"
DELETED = "deleted"


class NetworkPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Which hosts a container may reach; kept and shown, as nothing runs here."""

    type: str
    allowed_domains: tuple[str, ...] = ()


class ContainerRecord(msgspec.Struct, kw_only=True):
    """A container; changed only by ``ServiceState``.

    A deleted one is kept until ``listed_until_ns``, and never answers again.
    """

    sequence: int
    id: str
    name: str
    created_at_ns: int
    ready_at_ns: int
    """Before this it answers 404, and is listed all the same."""
    status: str
    minutes: int
    last_active_at_ns: int
    memory_limit: str
    network_policy: NetworkPolicy
    listed_until_ns: int | None = None

    @property
    def position(self) -> tuple[int, int]:
        """Where it stands in a listing: by the second of creation, then by arrival."""
        return (self.created_at_ns // NS_PER_S, self.sequence)

    def is_listed(self, now_ns: int) -> bool:
        """Whether listings show it: always, unless it was deleted a while ago."""
        return self.listed_until_ns is None or now_ns < self.listed_until_ns

    def is_due(self, now_ns: int) -> bool:
        """Whether it ran and has now been idle for too long."""
        idle_ns = now_ns - self.last_active_at_ns
        return self.status == RUNNING and idle_ns >= self.minutes * 60 * NS_PER_S


class FileRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A file of a container; never changed, only added and removed."""

    sequence: int
    id: str
    container_id: str
    path: str
    size_bytes: int
    source: str
    created_at_s: int
    listed_from_ns: int
    """Before this it is missing from the listing, and answers all the same."""
    blob: str
    digest: str


class StoredFileRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A file of the account's own file store, which containers copy from."""

    id: str
    name: str
    purpose: str
    size_bytes: int
    created_at_s: int
    blob: str
    digest: str
