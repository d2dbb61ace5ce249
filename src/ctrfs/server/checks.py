"""Queries and JSON bodies, checked as the service checks them. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

import msgspec

from ctrfs.server import refusals
from ctrfs.server.records import NetworkPolicy

LIMIT_DEFAULT: Final = 20
LIMIT_MAX: Final = 100
# 20 minutes are the default and the maximum in one.
MINUTES_MAX: Final = 20
MEMORY_LIMITS: Final = ("1g", "4g", "16g", "64g")
FILE_IDS_MAX: Final = 50
NAME_CHARACTERS_MAX: Final = 4096
_CONTAINER_FIELDS: Final = frozenset(
    {"name", "expires_after", "file_ids", "memory_limit", "network_policy", "skills"}
)


class PageQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which page of a listing is wanted."""

    limit: int
    newest_first: bool
    after: str | None


class ContainerCreation(msgspec.Struct, frozen=True, kw_only=True):
    """What a new container shall be."""

    name: str
    minutes: int
    memory_limit: str
    network_policy: NetworkPolicy
    file_ids: tuple[str, ...]


def page_query(query: Mapping[str, str]) -> PageQuery:
    """Return the page that ``query`` asks for, or raise RefusedError."""
    order = query.get("order", "desc")
    if order not in {"asc", "desc"}:
        raise refusals.wrong_choice("order", order, ("asc", "desc"))
    return PageQuery(
        limit=_limit(query.get("limit")),
        newest_first=order == "desc",
        after=query.get("after") or None,
    )


def container_creation(fields: Mapping[str, object]) -> ContainerCreation:
    """Return the container that ``fields`` ask for, or raise RefusedError."""
    for name in fields:
        if name not in _CONTAINER_FIELDS:
            raise refusals.unknown_parameter(name)
    if fields.get("name") is None:
        raise refusals.missing_parameter("name")
    name = _text(fields, "name", "")
    if len(name) > NAME_CHARACTERS_MAX:
        raise refusals.bad_request("Invalid 'name': string too long.")
    memory_limit = _text(fields, "memory_limit", MEMORY_LIMITS[0])
    if memory_limit not in MEMORY_LIMITS:
        raise refusals.wrong_choice("memory_limit", memory_limit, MEMORY_LIMITS)
    _array(fields.get("skills"), "skills")
    file_ids = _texts(fields.get("file_ids"), "file_ids")
    if len(file_ids) > FILE_IDS_MAX:
        raise refusals.bad_request(
            f"Invalid 'file_ids': array too long. Expected at most {FILE_IDS_MAX} items."
        )
    return ContainerCreation(
        name=name,
        minutes=_minutes(fields.get("expires_after")),
        memory_limit=memory_limit,
        network_policy=_network_policy(fields.get("network_policy")),
        file_ids=file_ids,
    )


def json_object(body: bytes) -> Mapping[str, object]:
    """Return the object that ``body`` holds, or raise RefusedError."""
    try:
        value: object = json.loads(body or b"{}")
    except (ValueError, RecursionError):
        raise refusals.bad_request(
            "We could not parse the JSON body of your request."
            " (HINT: This likely means you aren't using your HTTP library correctly."
            " The API expects a JSON payload, but what was sent was not valid JSON.)"
        ) from None
    return as_object(value, "body")


def as_object(value: object, name: str) -> Mapping[str, object]:
    """Return ``value`` if it is a JSON object, or raise RefusedError."""
    if not isinstance(value, dict):
        raise refusals.wrong_type(name, expected="an object", value=value)
    return value


def _limit(text: str | None) -> int:
    if text is None:
        return LIMIT_DEFAULT
    try:
        limit = int(text)
    except ValueError:
        raise refusals.wrong_type("limit", expected="an integer", value=text) from None
    if limit > LIMIT_MAX:
        raise refusals.above_maximum("limit", limit, LIMIT_MAX)
    if limit < 1:
        raise refusals.below_minimum("limit", limit, 1)
    return limit


def _minutes(value: object) -> int:
    if value is None:
        return MINUTES_MAX
    fields = as_object(value, "expires_after")
    anchor = fields.get("anchor")
    if anchor is None:
        raise refusals.missing_parameter("expires_after.anchor")
    if anchor != "last_active_at":
        raise refusals.wrong_choice("expires_after.anchor", str(anchor), ("last_active_at",))
    minutes = fields.get("minutes")
    if minutes is None:
        raise refusals.missing_parameter("expires_after.minutes")
    if isinstance(minutes, bool) or not isinstance(minutes, int):
        raise refusals.wrong_type("expires_after.minutes", expected="an integer", value=minutes)
    if minutes > MINUTES_MAX:
        raise refusals.above_maximum("expires_after.minutes", minutes, MINUTES_MAX)
    if minutes < 1:
        raise refusals.below_minimum("expires_after.minutes", minutes, 1)
    return minutes


def _network_policy(value: object) -> NetworkPolicy:
    if value is None:
        return NetworkPolicy(type="disabled")
    fields = as_object(value, "network_policy")
    kind = fields.get("type")
    if kind is None:
        raise refusals.missing_parameter("network_policy.type")
    if kind == "disabled":
        return NetworkPolicy(type="disabled")
    if kind != "allowlist":
        raise refusals.wrong_choice("network_policy.type", str(kind), ("disabled", "allowlist"))
    domains = _texts(fields.get("allowed_domains"), "network_policy.allowed_domains")
    if not domains:
        raise refusals.missing_parameter("network_policy.allowed_domains")
    for secret in _array(fields.get("domain_secrets"), "network_policy.domain_secrets"):
        _domain_secret(secret, domains)
    return NetworkPolicy(type="allowlist", allowed_domains=domains)


def _domain_secret(value: object, domains: tuple[str, ...]) -> None:
    # Checked and then forgotten: nothing runs here that could use a secret.
    name = "network_policy.domain_secrets"
    fields = as_object(value, name)
    for field in ("domain", "name", "value"):
        if not isinstance(fields.get(field), str):
            raise refusals.missing_parameter(f"{name}.{field}")
    if fields["domain"] not in domains:
        raise refusals.wrong_choice(f"{name}.domain", str(fields["domain"]), domains)


def _text(fields: Mapping[str, object], name: str, default: str) -> str:
    value = fields.get(name)
    if value is None:
        return default
    if not isinstance(value, str):
        raise refusals.wrong_type(name, expected="a string", value=value)
    return value


def _array(value: object, name: str) -> list[object]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise refusals.wrong_type(name, expected="an array", value=value)
    return value


def _texts(value: object, name: str) -> tuple[str, ...]:
    texts: list[str] = []
    for index, each in enumerate(_array(value, name)):
        if not isinstance(each, str):
            raise refusals.wrong_type(f"{name}[{index}]", expected="a string", value=each)
        texts.append(each)
    return tuple(texts)
