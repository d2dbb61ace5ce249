"""Ids, stored paths and content headers: what the service makes of a name. Pure but for ids."""

from __future__ import annotations

import base64
import mimetypes
import re
import secrets
from typing import Final
from urllib.parse import quote

from ctrfs.server.behaviour import Behaviour, Ids, Slashes

DATA_DIRECTORY: Final = "/mnt/data"
# The table of the standard library alone: what a machine adds to it must not change answers.
_TYPES: Final = mimetypes.MimeTypes()
# OpenAI ids are 48 and 32 hex digits, of which the first 8 are the second of creation.
_CONTAINER_RANDOM_BYTES: Final = 20
_FILE_RANDOM_BYTES: Final = 12
# base64 of 146 bytes ends in "=": an id may hold characters that addresses escape.
_OPAQUE_BYTES: Final = 146


def new_container_id(behaviour: Behaviour, created_at_s: int) -> str:
    """Return an id for a new container."""
    if behaviour.ids is Ids.OPAQUE:
        return "cntr_" + _opaque()
    return f"cntr_{created_at_s:08x}{secrets.token_hex(_CONTAINER_RANDOM_BYTES)}"


def new_file_id(behaviour: Behaviour, created_at_s: int, path: str) -> str:
    """Return an id for a new file of a container."""
    match behaviour.ids:
        case Ids.OPAQUE:
            return "cfile_" + _opaque()
        case Ids.PATH:
            encoded = base64.urlsafe_b64encode(path.encode("utf-8", "surrogatepass"))
            return "cfile_" + encoded.decode("ascii").rstrip("=")
        case Ids.OPENAI:
            return f"cfile_{created_at_s:08x}{secrets.token_hex(_FILE_RANDOM_BYTES)}"


def new_stored_file_id() -> str:
    """Return an id for a file of the account's file store."""
    return "file-" + secrets.token_hex(11)


def stored_path(behaviour: Behaviour, name: str, digest: str) -> str:
    """Return where an upload called ``name`` with bytes of ``digest`` lies in a container."""
    parts = [part for part in name.split("/") if part not in {"", ".", ".."}] or ["upload"]
    prefix = f"{digest}-" if behaviour.hash_prefix else ""
    match behaviour.slashes:
        case Slashes.KEEP:
            parts[-1] = prefix + parts[-1]
        case Slashes.PREFIX_FIRST:
            parts[0] = prefix + parts[0]
        case Slashes.BASE:
            parts = [prefix + parts[-1]]
    return "/".join([DATA_DIRECTORY, *parts])


def content_type(path: str) -> str:
    """Return the type that the name suggests, with a charset for texts."""
    guessed, encoding = _TYPES.guess_type("file" + _extension(path))
    if guessed is None or encoding is not None:
        return "application/octet-stream"
    return f"{guessed}; charset=utf-8" if guessed.startswith("text/") else guessed


def content_disposition(path: str) -> str:
    """Return the header that offers the content under its name."""
    name = path.rsplit("/", 1)[-1]
    encoded = quote(name.encode("utf-8", "replace"), safe="")
    return f"attachment; filename=\"file{_extension(path)}\"; filename*=UTF-8''{encoded}"


def _extension(path: str) -> str:
    match = re.search(r"[^/](\.[A-Za-z0-9]{1,16})$", path)
    return match[1] if match else ""


def _opaque() -> str:
    return base64.urlsafe_b64encode(secrets.token_bytes(_OPAQUE_BYTES)).decode("ascii")
