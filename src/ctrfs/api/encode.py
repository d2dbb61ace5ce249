"""Requests to JSON.

Source: the published OpenAPI description, 2026-08.
"""

from __future__ import annotations

import msgspec

from ctrfs.api.models import ContainerRequest
from ctrfs.errors import RemoteInvalidError


def container_body(request: ContainerRequest) -> bytes:
    """Return the body that asks for a new container; what is not set is not sent.

    Raises:
        RemoteInvalidError: A text cannot be written in UTF-8, or the network policy
            contradicts itself.
    """
    body: dict[str, object] = {"name": request.name}
    if request.expires_after_minutes is not None:
        body["expires_after"] = {
            "anchor": "last_active_at",
            "minutes": request.expires_after_minutes,
        }
    if request.file_ids:
        body["file_ids"] = list(request.file_ids)
    if request.memory_limit is not None:
        body["memory_limit"] = request.memory_limit
    policy = _network_policy(request)
    if policy is not None:
        body["network_policy"] = policy
    if request.skills:
        body["skills"] = [{"type": "skill_reference", "skill_id": id_} for id_ in request.skills]
    return _json(body)


def copy_body(source_id: str) -> bytes:
    """Return the body that asks for a copy of the account's file ``source_id``.

    Raises:
        RemoteInvalidError: The id cannot be written in UTF-8.
    """
    return _json({"file_id": source_id})


def _network_policy(request: ContainerRequest) -> dict[str, object] | None:
    if request.network_disabled:
        if request.allowed_domains or request.domain_secrets:
            raise RemoteInvalidError("a container without network cannot have allowed domains")
        return {"type": "disabled"}
    if not request.allowed_domains:
        if request.domain_secrets:
            raise RemoteInvalidError("secrets of domains need allowed domains")
        return None
    policy: dict[str, object] = {
        "type": "allowlist",
        "allowed_domains": list(request.allowed_domains),
    }
    if request.domain_secrets:
        policy["domain_secrets"] = [
            {"domain": domain, "name": name, "value": value}
            for domain, name, value in request.domain_secrets
        ]
    return policy


def _json(body: dict[str, object]) -> bytes:
    try:
        return msgspec.json.encode(body)
    except UnicodeEncodeError as error:
        raise RemoteInvalidError("a name or id is not valid Unicode") from error
