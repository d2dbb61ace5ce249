"""``-o opt,opt=value``: from the words of mount(8) to our frozen settings.

Only ``ConfigError`` ever leaves this module, with one line that names the option.
``docs/operations.md`` lists the options for users.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from ctrfs.config import (
    ApiConfig,
    ContainerDefaults,
    ContentConfig,
    FileSystemConfig,
    ReadAheadConfig,
    SlashMode,
    TreeConfig,
    WriteMode,
)
from ctrfs.errors import ConfigError
from ctrfs.mount.option_values import (
    cache_size_bytes,
    duration_s,
    expiry_minutes,
    local_only_patterns,
    memory_limit,
    network_policy,
    one_of,
    parts_of,
    path,
    permissions,
    printable,
    rate,
    size_bytes,
    waiting_s,
    whole_number,
    write_mode,
)

T = TypeVar("T")

# fstab and mount(8) pass these to every helper; they are for them, or are what we do anyway:
# there are no devices and no links, libfuse adds nosuid and nodev, and every close is a sync.
_IGNORED: Final = frozenset(
    {
        "_netdev", "async", "atime", "auto", "default_permissions", "defaults", "dev", "diratime",
        "dirsync", "group", "helper", "iversion", "lazytime", "loud", "mand", "noatime", "noauto",
        "nodev", "nodiratime", "nofail", "nogroup", "noiversion", "nolazytime", "nomand", "noowner",
        "norelatime", "nostrictatime", "nosuid", "nosymfollow", "nouser", "nousers", "owner",
        "relatime", "silent", "strictatime", "suid", "symfollow", "sync", "uhelper", "user", "users",
    }
)  # fmt: skip
_IGNORED_BEGINNINGS: Final = ("x-", "X-", "comment", "user=")

_FLAGS: Final = frozenset(
    {
        "allow_other", "allow_root", "debug", "exec", "insecure_http", "noexec", "nonempty", "ro",
        "rw",
    }
)  # fmt: skip
_OPPOSITES: Final = {"ro": "rw", "rw": "ro", "exec": "noexec", "noexec": "exec"}
_VALUES: Final = frozenset(
    {
        "base_url", "cache_min_free", "cache_size", "connect_timeout", "dir_mode", "drain_timeout", "expired", "expires_after",
        "file_mode", "gid", "key_command", "key_file", "local_only", "log_file", "log_level", "max_connections",
        "max_file_size", "max_open_files", "max_stale", "memory_limit",
        "metadata_timeout", "network_policy", "read_ahead_files", "read_ahead_size",
        "rename_dir_limit", "retries", "rps", "slashes", "spool_size", "stall_timeout", "state_dir",
        "transfer_timeout", "ttl", "uid", "umask", "write", "write_delay",
    }
)  # fmt: skip
_KEY_OPTIONS: Final = frozenset(
    {"key", "api_key", "apikey", "api-key", "openai_api_key", "OPENAI_API_KEY", "token", "password"}
)

# The first name was the only one once, and stays for the lines of an fstab.
_ALIASES: Final = {"timeout": "metadata_timeout"}

# Below these a healthy service of a second a call fails; above, nobody waits for a program.
_METADATA_TIMEOUT_S: Final = (1.0, 3600.0)
_STALL_TIMEOUT_S: Final = (1.0, 3600.0)
_TRANSFER_TIMEOUT_S: Final = (1.0, 7 * 86400.0)
_CONNECT_TIMEOUT_S: Final = (0.1, 120.0)
# Longer, and people would miss for minutes what they have just saved.
_WRITE_DELAY_S: Final = (0.0, 300.0)
_DRAIN_TIMEOUT_S: Final = (0.1, 86400.0)
_REFUSED: Final = {"remount": "a mount cannot be changed; unmount it and mount it again"}

# The kernel's uid_t and gid_t; the highest value means "nobody in particular".
_ID_MAX: Final = 2**32 - 2
_COUNT_MAX: Final = 2**31 - 1
# More than this is a mistake in writing, not a wish: 10 retries wait minutes.
_RETRIES_MAX: Final = 10
_CONNECTIONS_MAX: Final = 256
# Each holds a descriptor until it is opened.
_READ_AHEAD_FILES_MAX: Final = 1024
_LOG_LEVELS: Final = ("debug", "info", "warning", "error")


class MountOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that ``-o`` can say."""

    api: ApiConfig = msgspec.field(default_factory=ApiConfig)
    """Limits only: address and key come from the source and the environment."""
    tree: TreeConfig = msgspec.field(default_factory=TreeConfig)
    content: ContentConfig = msgspec.field(default_factory=ContentConfig)
    files: FileSystemConfig = msgspec.field(default_factory=FileSystemConfig)
    base_url: str | None = None
    key_file: Path | None = None
    key_command: str | None = None
    """Words of a command whose output is the key; never the key itself."""
    insecure_http: bool = False
    allow_other: bool = False
    allow_root: bool = False
    no_exec: bool = False
    """The kernel runs no program that lies in the mount."""
    nonempty: bool = False
    state_dir: Path | None = None
    log_file: Path | None = None
    log_level: str = "info"
    drain_timeout_s: float = 60.0
    """How long the end of the mount waits for bytes that are still on their way."""


def parse_options(texts: Iterable[str], *, uid: int, gid: int, umask: int) -> MountOptions:
    r"""Return what the ``-o`` arguments say; the last word on an option wins.

    Args:
        texts: Each a list of options separated by commas; ``\,`` is a comma in a value.
        uid: Owner of everything unless an option says otherwise: who mounts.
        gid: Likewise.
        umask: Likewise.

    Raises:
        ConfigError: An option is unknown, or its value cannot be used.
    """
    said = _Said()
    for text in texts:
        for option in parts_of(text, separator=","):
            said.hear(option)
    return MountOptions(
        api=_api(said),
        tree=_tree(said),
        content=_content(said),
        files=_files(said, FileSystemConfig(uid=uid, gid=gid, umask=umask)),
        base_url=said.read("base_url", str, None),
        key_file=said.read("key_file", path, None),
        key_command=said.read("key_command", str, None),
        insecure_http=said.has("insecure_http"),
        allow_other=said.has("allow_other"),
        allow_root=said.has("allow_root"),
        no_exec=said.has("noexec"),
        nonempty=said.has("nonempty"),
        state_dir=said.read("state_dir", path, None),
        log_file=said.read("log_file", path, None),
        log_level=said.read(
            "log_level", one_of(_LOG_LEVELS), "debug" if said.has("debug") else "info"
        ),
        drain_timeout_s=said.read("drain_timeout", waiting_s(*_DRAIN_TIMEOUT_S), 60.0),
    )


def split_unknown(text: str) -> tuple[str, tuple[str, ...]]:
    """Return a list of options without those that do not exist, and the names of these.

    For ``mount -s``, which tolerates them. What exists and is refused stays, and is refused.
    """
    known: list[str] = []
    unknown: list[str] = []
    for option in parts_of(text, separator=","):
        name = option.partition("=")[0]
        if _is_for_others(option) or name in _FLAGS | _VALUES | _KEY_OPTIONS | _REFUSED.keys():
            known.append(option.replace("\\", "\\\\").replace(",", "\\,"))
        else:
            unknown.append(name)
    return ",".join(known), tuple(unknown)


def _is_for_others(option: str) -> bool:
    name = option.partition("=")[0]
    return not option or name in _IGNORED or option.startswith(_IGNORED_BEGINNINGS)


class _Said:
    """The options as given: which flags, and which values by name."""

    def __init__(self) -> None:
        self._flags: set[str] = set()
        self._values: dict[str, str] = {}

    def hear(self, option: str) -> None:
        """Take in one option.

        Raises:
            ConfigError: There is no such option, or it is refused.
        """
        name, has_value, value = option.partition("=")
        name = _ALIASES.get(name, name)
        if _is_for_others(option):
            return
        if name in _REFUSED:
            raise ConfigError(f"option {name}: {_REFUSED[name]}")
        if name in _KEY_OPTIONS:
            raise ConfigError(
                f"option {name} is refused: a key in an option shows in the process list and "
                "the mount table; set OPENAI_API_KEY, or use -o key_file=FILE"
            )
        if name in _FLAGS:
            if has_value:
                raise ConfigError(f"option {name} takes no value")
            self._flags.add(name)
            self._flags.discard(_OPPOSITES.get(name, ""))
        elif name in _VALUES:
            if not value:
                raise ConfigError(f"option {name} needs a value: {name}=…")
            self._values[name] = value
        else:
            raise ConfigError(f"unknown option {printable(name)}{_suggestion(name)}")

    def has(self, name: str) -> bool:
        return name in self._flags

    def read(self, name: str, convert: Callable[[str], T], usual: T) -> T:
        """Return the value of an option, or the usual one where nothing was said.

        Raises:
            ConfigError: The value cannot be used.
        """
        if name not in self._values:
            return usual
        try:
            return convert(self._values[name])
        except (ValueError, OverflowError) as error:
            raise ConfigError(f"option {name}: {error}") from error


def _api(said: _Said) -> ApiConfig:
    usual = ApiConfig()
    return ApiConfig(
        connect_timeout_s=said.read(
            "connect_timeout", waiting_s(*_CONNECT_TIMEOUT_S), usual.connect_timeout_s
        ),
        metadata_timeout_s=said.read(
            "metadata_timeout", waiting_s(*_METADATA_TIMEOUT_S), usual.metadata_timeout_s
        ),
        stall_timeout_s=said.read(
            "stall_timeout", waiting_s(*_STALL_TIMEOUT_S), usual.stall_timeout_s
        ),
        transfer_timeout_s=said.read(
            "transfer_timeout", waiting_s(*_TRANSFER_TIMEOUT_S), usual.transfer_timeout_s
        ),
        connections_max=said.read(
            "max_connections", whole_number(1, _CONNECTIONS_MAX), usual.connections_max
        ),
        requests_per_s_max=said.read("rps", rate, usual.requests_per_s_max),
        retries_max=said.read("retries", whole_number(0, _RETRIES_MAX), usual.retries_max),
    )


def _tree(said: _Said) -> TreeConfig:
    usual = TreeConfig()
    ttl_s = said.read("ttl", duration_s, usual.ttl_s)
    return TreeConfig(
        ttl_s=ttl_s,
        # Who asks for a long ttl alone does not have to know of the second limit.
        max_stale_s=said.read("max_stale", duration_s, max(usual.max_stale_s, ttl_s)),
        show_expired=said.read("expired", one_of(("show", "hide")), "hide") == "show",
        slash_mode=SlashMode(
            said.read("slashes", one_of([mode.value for mode in SlashMode]), usual.slash_mode.value)
        ),
    )


def _content(said: _Said) -> ContentConfig:
    usual = ContentConfig()
    return ContentConfig(
        spool_bytes_max=said.read("spool_size", size_bytes, usual.spool_bytes_max),
        cache_bytes_max=said.read("cache_size", cache_size_bytes, usual.cache_bytes_max),
        cache_free_bytes_min=said.read("cache_min_free", size_bytes, usual.cache_free_bytes_min),
        file_bytes_max=said.read("max_file_size", size_bytes, usual.file_bytes_max),
        stall_timeout_s=said.read(
            "stall_timeout", waiting_s(*_STALL_TIMEOUT_S), usual.stall_timeout_s
        ),
        transfer_timeout_s=said.read(
            "transfer_timeout", waiting_s(*_TRANSFER_TIMEOUT_S), usual.transfer_timeout_s
        ),
        download_retries_max=said.read(
            "retries", whole_number(0, _RETRIES_MAX), usual.download_retries_max
        ),
    )


def _files(said: _Said, usual: FileSystemConfig) -> FileSystemConfig:
    return FileSystemConfig(
        uid=said.read("uid", whole_number(0, _ID_MAX), usual.uid),
        gid=said.read("gid", whole_number(0, _ID_MAX), usual.gid),
        umask=said.read("umask", permissions, usual.umask),
        file_mode=said.read("file_mode", permissions, usual.file_mode),
        directory_mode=said.read("dir_mode", permissions, usual.directory_mode),
        read_only=said.has("ro"),
        write_mode=said.read("write", write_mode, usual.write_mode),
        write_delay_s=said.read("write_delay", waiting_s(*_WRITE_DELAY_S), usual.write_delay_s),
        local_only=said.read("local_only", local_only_patterns, usual.local_only),
        rename_dir_limit=said.read(
            "rename_dir_limit", whole_number(0, _COUNT_MAX), usual.rename_dir_limit
        ),
        open_files_max=said.read(
            "max_open_files", whole_number(1, _COUNT_MAX), usual.open_files_max
        ),
        read_ahead=_read_ahead(said),
        defaults=ContainerDefaults(
            memory_limit=said.read("memory_limit", memory_limit, None),
            expires_after_minutes=said.read("expires_after", expiry_minutes, None),
            network_policy=said.read("network_policy", network_policy, None),
        ),
    )


def _read_ahead(said: _Said) -> ReadAheadConfig:
    usual = ReadAheadConfig()
    bytes_max = said.read("read_ahead_size", size_bytes, usual.bytes_max)
    return ReadAheadConfig(
        files_max=said.read(
            "read_ahead_files", whole_number(0, _READ_AHEAD_FILES_MAX), usual.files_max
        ),
        bytes_max=bytes_max,
        file_bytes_max=min(usual.file_bytes_max, bytes_max),
    )


def _suggestion(name: str) -> str:
    # Who writes write_back means a value of write.
    known = sorted({*_FLAGS, *_VALUES, *(f"write={mode.value}" for mode in WriteMode)})
    # Only the start: comparing is quadratic, and no option is longer.
    near = difflib.get_close_matches(name[:40], known, n=1)
    return f"; did you mean {near[0]}?" if near else ""
