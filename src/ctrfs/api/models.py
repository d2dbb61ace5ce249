"""What the service has, as this program sees it.

Source: the published OpenAPI description and recorded answers; docs/api-notes.md.
"""

from __future__ import annotations

from typing import Generic, NewType, TypeVar

import msgspec

ContainerId = NewType("ContainerId", str)
FileId = NewType("FileId", str)

T_co = TypeVar("T_co", covariant=True)


class Container(msgspec.Struct, frozen=True, kw_only=True):
    """A sandbox. Names are not unique; ids are opaque and never parsed."""

    id: ContainerId
    name: str
    created_at_s: int
    status: str
    expires_after_minutes: int | None = None
    last_active_at_s: int | None = None
    memory_limit: str | None = None
    network_policy: str | None = None
    """The policy's ``type``: ``disabled``, ``allowlist``."""

    @property
    def is_expired(self) -> bool:
        """Whether its data is gone for good; only ``status`` can be trusted for this."""
        return self.status == "expired"

    @property
    def is_alive(self) -> bool:
        """Whether it can be used; an unknown status counts as alive."""
        return self.status not in {"expired", "deleted"}


class ContainerFile(msgspec.Struct, frozen=True, kw_only=True):
    """One stored file: never changed in place, only created and deleted."""

    id: FileId
    container_id: ContainerId
    path: str
    """Absolute, inside the container: ``/mnt/data/<hash>-name`` for an upload."""
    size_bytes: int | None
    """None where the service does not say; the length then shows on download."""
    created_at_s: int
    source: str
    """``user`` for uploads, ``assistant`` for what code in the container made."""


class RejectedRow(msgspec.Struct, frozen=True, kw_only=True):
    """A row of a listing that could not be understood, kept for ``.ctrfs/errors``."""

    reason: str
    excerpt: str
    """The start of the row as sent, at most 200 characters, control characters escaped."""


class Page(msgspec.Struct, Generic[T_co], frozen=True, kw_only=True):
    """One answer of a listing."""

    items: tuple[T_co, ...]
    rejected: tuple[RejectedRow, ...] = ()
    has_more: bool = False
    cursor: str | None = None
    """What ``after`` must be for the next page; None on an empty page without a cursor."""


class Listing(msgspec.Struct, Generic[T_co], frozen=True, kw_only=True):
    """All pages of a listing together, in the order of creation, oldest first."""

    items: tuple[T_co, ...]
    rejected: tuple[RejectedRow, ...] = ()


class ContainerRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What can be asked of a new container; None leaves the service's default."""

    name: str
    expires_after_minutes: int | None = None
    memory_limit: str | None = None
    network_disabled: bool = False
    allowed_domains: tuple[str, ...] = ()
    domain_secrets: tuple[tuple[str, str, str], ...] = ()
    """Triples of domain, name, value; only with ``allowed_domains``. Never logged."""
    file_ids: tuple[str, ...] = ()
    skills: tuple[str, ...] = ()
    """Ids of skills, sent as skill references."""
