"""SOURCE, the first word of ``ctrfs mount``: which service, and which part of it.

    openai:              the whole account
    openai:NAME_OR_ID    one container as the root
    local:               the service of this program, its data under the XDG data directory
    local:DIR            the same with its data in DIR

Address and key come from the environment and the options, never from SOURCE: it shows in the
process list and the mount table.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import msgspec
from msgspec.structs import replace

from ctrfs.api.hosts import is_loopback
from ctrfs.config import DEFAULT_BASE_URL, ApiConfig, Secret
from ctrfs.errors import ConfigError
from ctrfs.mount.keys import key_from, key_from_command, key_from_file
from ctrfs.mount.option_values import path as absolute_path
from ctrfs.mount.options import MountOptions

KEY_VARIABLE: Final = "OPENAI_API_KEY"
BASE_URL_VARIABLE: Final = "OPENAI_BASE_URL"
ORGANIZATION_VARIABLE: Final = "OPENAI_ORG_ID"
PROJECT_VARIABLE: Final = "OPENAI_PROJECT_ID"

# Over its socket the local service is reached by file permissions; the name only fills the URL.
_LOCAL_BASE_URL: Final = "http://localhost/v1"


class SourceKind(enum.Enum):
    """Who answers."""

    OPENAI = "openai"
    LOCAL = "local"


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """What SOURCE says."""

    kind: SourceKind
    container: str | None = None
    """Name or id of the one container that becomes the root; None: the whole account."""
    directory: Path | None = None
    """Where the local service keeps its data; None: under the XDG data directory."""

    @property
    def text(self) -> str:
        """SOURCE as it can be written again."""
        return f"{self.kind.value}:{self.container or self.directory or ''}"


def parse_source(text: str) -> Source:
    """Return what ``text`` names.

    Raises:
        ConfigError: It names nothing that can be mounted.
    """
    head, has_colon, rest = text.partition(":")
    if "\0" in text or "\n" in text:
        raise ConfigError("SOURCE holds a control character")
    if not has_colon:
        raise ConfigError(
            f"SOURCE {text!r} has no colon: write openai:, openai:CONTAINER, local: or local:DIR"
        )
    if head == SourceKind.OPENAI.value:
        return Source(kind=SourceKind.OPENAI, container=rest or None)
    if head == SourceKind.LOCAL.value:
        try:
            return Source(kind=SourceKind.LOCAL, directory=absolute_path(rest) if rest else None)
        except ValueError as error:
            raise ConfigError(f"SOURCE {text!r}: {error}") from error
    raise ConfigError(f"unknown kind of source {head + ':'!r}: there are openai: and local:")


def api_config_for(
    source: Source,
    options: MountOptions,
    *,
    environment: Mapping[str, str],
    unix_socket: Path | None = None,
) -> ApiConfig:
    """Return how to reach the service of ``source``.

    Args:
        source: Where to.
        options: Limits, and what overrides the environment.
        environment: The process's variables; empty ones count as unset.
        unix_socket: Where the local service listens; needed for ``local:`` only.

    Raises:
        ConfigError: No key, or none from its file or command; an address that cannot be used, a key that would leak.
    """
    if source.kind is SourceKind.LOCAL:
        return replace(
            options.api, base_url=_LOCAL_BASE_URL, key=Secret("local"), unix_socket=unix_socket
        )
    base_url = options.base_url or environment.get(BASE_URL_VARIABLE) or DEFAULT_BASE_URL
    is_local = _check_base_url(base_url, insecure_http=options.insecure_http)
    read_key = _key_reader(options)
    key = _key_of(environment) if read_key is None else read_key()
    if key is None and not is_local:
        # Who is sent elsewhere by a variable long forgotten learns it here.
        whose = "" if base_url == DEFAULT_BASE_URL else f" for {base_url}"
        raise ConfigError(
            f"no API key{whose}: set {KEY_VARIABLE}, or use -o key_file=FILE; "
            "for a trial, the source local: needs none"
        )
    return replace(
        options.api,
        base_url=base_url.rstrip("/"),
        key=key,
        read_key=read_key,
        organization=_header_text(environment, ORGANIZATION_VARIABLE),
        project=_header_text(environment, PROJECT_VARIABLE),
    )


def state_binding(source: Source, config: ApiConfig) -> str:
    """Return what names the local state of a source: the same at every mount of it.

    Independent of the key, which may be changed while bytes still wait to be sent. The local
    service has one state a data directory.
    """
    if source.kind is SourceKind.LOCAL:
        return source.text
    parts = (source.text, config.base_url, config.organization or "", config.project or "")
    return " ".join(parts).rstrip()


def _check_base_url(base_url: str, *, insecure_http: bool) -> bool:
    """Return whether ``base_url`` stays on this machine."""
    try:
        parts = urlsplit(base_url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigError(f"the base URL cannot be read: {error}") from error
    # The URL itself is not quoted in what follows: it may hold a password.
    if parts.username is not None or parts.password is not None:
        raise ConfigError("the base URL holds a user name or password; use OPENAI_API_KEY")
    if parts.scheme not in {"http", "https"} or not host or port == 0:
        raise ConfigError(f"the base URL must look like {DEFAULT_BASE_URL}, not {base_url!r}")
    if parts.fragment:
        raise ConfigError("the base URL cannot hold #")
    is_local = is_loopback(host)
    if parts.scheme == "http" and not (is_local or insecure_http):
        raise ConfigError(
            f"the base URL would send the key and all files unencrypted to {host}; "
            "use https, or allow it with -o insecure_http"
        )
    return is_local


def _key_reader(options: MountOptions) -> Callable[[], Secret] | None:
    """Return what reads the key; None where only the environment can have it."""
    if options.key_file is not None and options.key_command is not None:
        raise ConfigError("options key_file and key_command exclude each other")
    if options.key_file is not None:
        return partial(key_from_file, options.key_file)
    if options.key_command is not None:
        return partial(key_from_command, options.key_command)
    return None


def _key_of(environment: Mapping[str, str]) -> Secret | None:
    text = environment.get(KEY_VARIABLE, "").strip()
    return key_from(text, place=KEY_VARIABLE) if text else None


def _header_text(environment: Mapping[str, str], name: str) -> str | None:
    text = environment.get(name, "").strip()
    if not (text.isascii() and (text.isprintable() or not text)):
        raise ConfigError(f"{name} holds something that cannot be sent")
    return text or None
