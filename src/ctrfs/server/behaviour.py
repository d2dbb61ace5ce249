"""How this service behaves where nobody knows how the real one does.

Each field answers one question that the published description leaves open; the defaults
are what the real service most likely does. See docs/api-notes.md.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import TypeVar

import msgspec

from ctrfs.errors import ConfigError

EnumT = TypeVar("EnumT", bound=enum.Enum)


class Slashes(enum.Enum):
    """What becomes of ``a/b.csv`` as the name of an upload."""

    KEEP = "keep"
    """``/mnt/data/a/<hash>-b.csv``."""
    PREFIX_FIRST = "prefix-first"
    """``/mnt/data/<hash>-a/b.csv``."""
    BASE = "base"
    """``/mnt/data/<hash>-b.csv``."""


class Duplicates(enum.Enum):
    """What the second upload of one name with the same bytes makes."""

    NEW = "new"
    SAME = "same"


class Ids(enum.Enum):
    """What ids look like."""

    OPENAI = "openai"
    OPAQUE = "opaque"
    """Some 200 characters, as proxies make them that keep their routing in the id."""
    PATH = "path"
    """``cfile_`` and the path in base64url, so one path is one id."""


class Behaviour(msgspec.Struct, frozen=True, kw_only=True):
    """One answer for each open question."""

    slashes: Slashes = Slashes.KEEP
    duplicates: Duplicates = Duplicates.NEW
    ids: Ids = Ids.OPENAI
    ranges: bool = False
    """Whether ``Range`` is honoured; else it is ignored, and the answer is 200."""
    refuse_empty: bool = False
    """Whether an upload of no bytes is refused."""
    hash_prefix: bool = True
    """Whether the stored name of an upload begins with the hash of its bytes."""
    expired_status: int = 400
    """Status of an operation on an expired container: 400 or 404."""
    ready_delay_s: float = 0.0
    """How long a new container answers 404."""
    delete_lag_s: float = 0.0
    """How long a deleted container stays listed."""
    list_lag_s: float = 0.0
    """How long a new file is missing from the listing."""
    empty_pages: bool = False
    """Whether an empty page with ``has_more`` stands before each page of a listing."""
    null_bytes: bool = False
    """Whether listings say null for the length of files."""
    rubbish: bool = False
    """Whether listings of files hold rows that stand for nothing."""

    def __post_init__(self) -> None:
        if self.expired_status not in {400, 404}:
            raise ConfigError("expired_status must be 400 or 404")
        if min(self.ready_delay_s, self.delete_lag_s, self.list_lag_s) < 0:
            raise ConfigError("a delay or lag must be 0 or more")


def changed_behaviour(current: Behaviour, changes: Mapping[str, object]) -> Behaviour:
    """Return ``current`` with ``changes`` made, given by field name with JSON values.

    Raises:
        ConfigError: A name is not a field, or a value is not one for it.
    """
    unknown = changes.keys() - set(Behaviour.__struct_fields__)
    if unknown:
        raise ConfigError(f"unknown behaviour: {', '.join(sorted(unknown))}")
    return Behaviour(
        slashes=_choice(changes, "slashes", current.slashes),
        duplicates=_choice(changes, "duplicates", current.duplicates),
        ids=_choice(changes, "ids", current.ids),
        ranges=_flag(changes, "ranges", current=current.ranges),
        refuse_empty=_flag(changes, "refuse_empty", current=current.refuse_empty),
        hash_prefix=_flag(changes, "hash_prefix", current=current.hash_prefix),
        expired_status=int(_number(changes, "expired_status", current.expired_status)),
        ready_delay_s=_number(changes, "ready_delay_s", current.ready_delay_s),
        delete_lag_s=_number(changes, "delete_lag_s", current.delete_lag_s),
        list_lag_s=_number(changes, "list_lag_s", current.list_lag_s),
        empty_pages=_flag(changes, "empty_pages", current=current.empty_pages),
        null_bytes=_flag(changes, "null_bytes", current=current.null_bytes),
        rubbish=_flag(changes, "rubbish", current=current.rubbish),
    )


def _flag(changes: Mapping[str, object], name: str, *, current: bool) -> bool:
    value = changes.get(name, current)
    if not isinstance(value, bool):
        raise ConfigError(f"{name} must be true or false")
    return value


def _number(changes: Mapping[str, object], name: str, current: float) -> float:
    value = changes.get(name, current)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(f"{name} must be a number")
    return value


def _choice(changes: Mapping[str, object], name: str, current: EnumT) -> EnumT:
    value = changes.get(name, current.value)
    if isinstance(value, type(current)):
        return value
    try:
        return type(current)(value)
    except ValueError:
        choices = ", ".join(str(each.value) for each in type(current))
        raise ConfigError(f"{name} must be one of {choices}") from None
