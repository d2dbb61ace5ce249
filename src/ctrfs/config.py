"""Frozen settings: each limit with its unit, its default and the reason for it.

Built from options, environment and defaults in ``ctrfs.mount`` and ``ctrfs.cli``;
everything below takes the record it needs and reads nothing else.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec
from typing_extensions import override

from ctrfs.errors import ConfigError
from ctrfs.units import GIB, KIB, MIB

DEFAULT_BASE_URL: Final = "https://api.openai.com/v1"


class Secret:
    """A text that no log, error or dump may show; only ``reveal`` gives it out."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the text itself; for the one place that sends it."""
        return self._text

    @override
    def __repr__(self) -> str:
        return "Secret(…)"

    @override
    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    @override
    def __hash__(self) -> int:
        return hash(self._text)


class AuthStyle(enum.Enum):
    """How the key travels."""

    BEARER = "bearer"
    API_KEY_HEADER = "api-key"


class WriteMode(enum.Enum):
    """When a close of a changed file returns."""

    THROUGH = "through"
    """Once the service has the bytes."""
    BACK = "back"
    """Once the journal on this machine's disk has them; they are sent a moment later."""


class SlashMode(enum.Enum):
    """What the server does with a slash in an uploaded name."""

    UNKNOWN = "learn"
    KEPT = "keep"
    CUT = "encode"


class ApiConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How to reach the service, and how long to wait for it."""

    base_url: str = DEFAULT_BASE_URL
    key: Secret | None = None
    read_key: Callable[[], Secret] | None = None
    """Reads the key again where it came from, once the service refuses it; may block, raises
    ``ConfigError``. None where it cannot change."""
    auth: AuthStyle = AuthStyle.BEARER
    organization: str | None = None
    project: str | None = None
    unix_socket: Path | None = None
    """Connect here instead of to the host of ``base_url``: the ``local:`` sources."""
    connect_timeout_s: float = 5.0  # the official clients' value
    metadata_timeout_s: float = 30.0
    """For a whole call that carries no file bytes, retries and waits included."""
    stall_timeout_s: float = 60.0
    """For the silence between two pieces of a body, either way."""
    transfer_timeout_s: float = 600.0
    """For one whole upload, retries included; the official clients' value."""
    connections_max: int = 16
    """Requests at once, at most; more only wait in the service's own queue."""
    requests_per_s_max: float | None = None
    """Requests a second on average; None for no limit but that of the answers."""
    retries_max: int = 6
    """Of what may be repeated, until the deadline of the call. The official clients' 2 would
    fail one call in a thousand of a service that fails one in ten; the waits before 6 retries
    are 24 s together."""
    json_bytes_max: int = 16 * MIB
    """A larger JSON answer is refused: 100 rows take some 30 KiB."""
    pages_max: int = 2000
    """Longest page walk: 200,000 rows, far above what a mount can use."""

    @override
    def __repr__(self) -> str:
        # Not what reads the key: it holds the user's command, and that may hold a secret.
        shown = (name for name in self.__struct_fields__ if name != "read_key")
        return f"ApiConfig({', '.join(f'{name}={getattr(self, name)!r}' for name in shown)})"


class TreeConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How old the shown names may be, and how names are mapped."""

    ttl_s: float = 10.0
    """A listing younger than this answers everything without a request."""
    max_stale_s: float = 60.0
    """An entry already known is answered from a listing up to this old."""
    show_expired: bool = False
    slash_mode: SlashMode = SlashMode.UNKNOWN
    listings_max: int = 4096
    """How many container listings are held as fresh at once."""
    listing_wait_max_s: float = 300.0
    """How long a request waits for a listing whose pages keep coming: some 20,000 rows."""

    def __post_init__(self) -> None:
        if self.ttl_s < 0 or self.max_stale_s < self.ttl_s:
            raise ConfigError("ttl must be 0 or more, and max_stale at least ttl")


class ContentConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of the local copies of file bytes."""

    spool_bytes_max: int = 8 * GIB
    """All local bytes together, open, unsent and cached; past it writes get ENOSPC."""
    cache_bytes_max: int = 4 * GIB
    """Copies kept after the last close, for later mounts too; 0 keeps none."""
    cache_free_bytes_min: int = 1 * GIB
    """So much of the disk stays free of copies: what else lives on it needs room to work."""
    file_bytes_max: int = 512 * MIB
    """Largest file that is sent. 512 MB is the limit of the service's sister API."""
    stall_timeout_s: float = 60.0
    """How long a read waits with no byte arriving."""
    transfer_timeout_s: float = 600.0
    """How long a read, or the upload of one file, may take in all, retries included."""
    download_retries_max: int = 2
    chunk_bytes: int = 256 * KIB
    near_bytes: int = 4 * MIB
    """A file up to this length comes whole, and a read so far ahead of a transfer waits for it: at
    a second a request a further one would cost more. The kernel reads up to 2 MiB ahead."""
    block_bytes_min: int = 128 * KIB
    """The least that is asked for around a byte far from all others."""


class ReadAheadConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How much is fetched before it is asked for, once a program walks over files or folders."""

    files_max: int = 64
    """Files at most, and listings; 0 for nothing at all. Some 13 requests are under way at once:
    four times that keeps them busy while a program opens what has come."""
    bytes_max: int = 32 * MIB
    """Of all files that wait to be opened."""
    file_bytes_max: int = 4 * MIB
    """Of one file: what takes longer to come than to be asked for gains next to nothing."""
    idle_s: float = 10.0
    """After so many seconds without an open of what was expected a walk has stopped."""


class ContainerDefaults(msgspec.Struct, frozen=True, kw_only=True):
    """What ``mkdir`` in the root asks of the service for the new container."""

    memory_limit: str | None = None
    expires_after_minutes: int | None = None
    network_policy: str | None = None
    """``disabled``, or the allowed domains separated by spaces; None is the service's default."""


# Names that editors, desktops and copy tools use for a moment. A file of such a name lives on
# this machine until it is renamed; docs/semantics.md, promise 22. A pattern with a slash is
# matched against the path inside the container, one without against the name alone. ``re:``
# introduces a regular expression: sed and rsync end their names in six random letters, of which
# 99.5 % hold a digit or a capital; a plain word of six letters is never taken for one of them.
DEFAULT_LOCAL_ONLY: Final[tuple[str, ...]] = (
    ".goutputstream-*", ".*.sw?", "4913", "*~", ".#*", "#*#", ".~lock.*#",
    ".DS_Store", "._*", "Thumbs.db", "desktop.ini",
    ".nfs*", ".fuse_hidden*",
    r"re:sed(?=[a-z]*[A-Z0-9])[A-Za-z0-9]{6}",
    r"re:\..+\.(?=[a-z]*[A-Z0-9])[A-Za-z0-9]{6}",
    ".git/*.lock", ".git/**/*.lock", ".git/**/tmp_*", "**/.git/*.lock", "**/.git/**/*.lock",
    "**/.git/**/tmp_*",
)  # fmt: skip


class FileSystemConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What the mount looks like, and what it refuses."""

    uid: int = 0
    gid: int = 0
    umask: int = 0o022
    file_mode: int | None = None
    """Permission bits of files; None: 0666 less the umask."""
    directory_mode: int | None = None
    """Permission bits of directories; None: 0777 less the umask."""
    read_only: bool = False
    write_mode: WriteMode = WriteMode.THROUGH
    write_delay_s: float = 1.0
    """With write=back, for how long a file must be left alone before it is sent: a file saved
    again and again is sent once, and one deleted meanwhile is not sent at all."""
    local_only: tuple[str, ...] = DEFAULT_LOCAL_ONLY
    rename_dir_limit: int = 1000
    open_files_max: int = 4096
    read_ahead: ReadAheadConfig = msgspec.field(default_factory=ReadAheadConfig)
    defaults: ContainerDefaults = msgspec.field(default_factory=ContainerDefaults)
