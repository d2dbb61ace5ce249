"""The clients that are compared: how each is mounted, in each of its modes.

A mode mounts in the foreground, so that its process is known. All have their caches in a
directory that is fresh for each mount unless the task says that it stays.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from scripts.bench.processes import found
from scripts.bench.servers import API, BUCKET, HTTP, S3, SSH, WEBDAV, SshKeys
from tests.support.mounting import ctrfs, environment_for


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a mode is to be mounted, and over what.

    Attributes:
        home: A directory for caches and settings.
        port: The server's, or the line's before it.
    """

    point: Path
    home: Path
    port: int
    served: Path
    keys: SshKeys
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A command line and its environment."""

    command: Sequence[str | Path]
    environment: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mode:
    """One way in which a client is measured.

    Attributes:
        name: As in PEERS and in the table.
        client: Modes of one client compete: the best of them counts.
        server: The kind of server.
        program: What must be installed.
        call: How it is mounted.
        is_read_only: Whether tasks that write are left out.
        has_ranges: Whether the service honours ranges; for ctrfs only.
        only: The tasks that tell something new in this mode; all if empty.
    """

    name: str
    client: str
    server: str
    program: str
    call: Callable[[Place], Call]
    is_read_only: bool = False
    has_ranges: bool = True
    only: frozenset[str] = field(default_factory=frozenset)

    @property
    def is_ours(self) -> bool:
        """Whether this is ctrfs."""
        return self.client == "ctrfs"

    @property
    def is_installed(self) -> bool:
        """Whether its program is there."""
        return found(self.program) is not None


def _ctrfs(*options: str) -> Callable[[Place], Call]:
    def call(place: Place) -> Call:
        given = ["-o", ",".join(options)] if options else []
        environment = environment_for(place.home, service=None)
        environment |= {
            "OPENAI_BASE_URL": f"http://127.0.0.1:{place.port}/v1",
            "OPENAI_API_KEY": place.key,
        }
        return Call(
            command=ctrfs("mount", "openai:", place.point, *given, "--foreground"),
            environment=environment,
        )

    return call


def _rclone(remote: Callable[[Place], str], *options: str) -> Callable[[Place], Call]:
    def call(place: Place) -> Call:
        command: list[str | Path] = ["rclone", "mount", remote(place), place.point]
        # No settings of whoever runs this; as many transfers at once as ctrfs has connections;
        # what is written is sent at once instead of after five seconds.
        command += ["--config", "/dev/null", "--cache-dir", place.home / "cache"]
        command += ["--transfers", "16", "--vfs-write-back", "0s", *options]
        return Call(command=command, environment=_environment(place))

    return call


def _webdav(place: Place) -> str:
    return f":webdav,url='http://127.0.0.1:{place.port}',vendor=other:"


def _http(place: Place) -> str:
    return f":http,url='http://127.0.0.1:{place.port}':"


def _sftp(place: Place) -> str:
    return (
        f":sftp,host=127.0.0.1,port={place.port},user={_user()}"
        f",key_file='{place.keys.user_key}',shell_type=none:{place.served}"
    )


def _sshfs(*options: str) -> Callable[[Place], Call]:
    def call(place: Place) -> Call:
        words = [
            *(f"IdentityFile={place.keys.user_key}", "IdentitiesOnly=yes"),
            *(f"UserKnownHostsFile={place.keys.known_hosts}", "HostKeyAlias=bench"),
            *("StrictHostKeyChecking=yes", "BatchMode=yes", f"port={place.port}", *options),
        ]
        source = f"{_user()}@127.0.0.1:{place.served}"
        command: list[str | Path] = [
            "sshfs",
            source,
            place.point,
            "-f",
            "-F",
            "/dev/null",
            "-o",
            ",".join(words),
        ]
        return Call(command=command, environment=_environment(place))

    return call


def _s3fs(*options: str) -> Callable[[Place], Call]:
    def call(place: Place) -> Call:
        passwords = place.home / "passwords"
        passwords.touch(mode=0o600)
        # The one pair of keys that s3rver knows.
        passwords.write_text("S3RVER:S3RVER\n")
        words = [
            *(f"passwd_file={passwords}", f"url=http://127.0.0.1:{place.port}"),
            *("use_path_request_style", "parallel_count=16", "multireq_max=20"),
            *(each.format(home=place.home) for each in options),
        ]
        command: list[str | Path] = ["s3fs", BUCKET, place.point, "-f", "-o", ",".join(words)]
        return Call(command=command, environment=_environment(place))

    return call


def _environment(place: Place) -> dict[str, str]:
    return {**os.environ, "HOME": str(place.home), "LC_ALL": "C.UTF-8"}


def _user() -> str:
    return os.environ.get("USER") or os.environ.get("LOGNAME") or "root"


ALL: Final = (
    Mode(name="ctrfs", client="ctrfs", server=API, program="fusermount3", call=_ctrfs()),
    Mode(
        name="ctrfs-back",
        client="ctrfs",
        server=API,
        program="fusermount3",
        call=_ctrfs("write=back"),
        only=frozenset({"write", "rm", "clone", "edit", "growth"}),
    ),
    Mode(
        name="ctrfs-plain",
        client="ctrfs",
        server=API,
        program="fusermount3",
        call=_ctrfs(),
        has_ranges=False,
        only=frozenset({"read", "seek", "out"}),
    ),
    Mode(
        name="rclone-webdav",
        client="rclone",
        server=WEBDAV,
        program="rclone",
        call=_rclone(_webdav, "--vfs-cache-mode", "full"),
    ),
    Mode(
        name="rclone-sftp",
        client="rclone",
        server=SSH,
        program="rclone",
        call=_rclone(_sftp, "--vfs-cache-mode", "full"),
    ),
    Mode(
        name="rclone-http",
        client="rclone",
        server=HTTP,
        program="rclone",
        call=_rclone(_http, "--vfs-cache-mode", "full"),
        is_read_only=True,
    ),
    Mode(
        name="rclone-off",
        client="rclone",
        server=WEBDAV,
        program="rclone",
        call=_rclone(_webdav, "--vfs-cache-mode", "off"),
    ),
    Mode(name="sshfs", client="sshfs", server=SSH, program="sshfs", call=_sshfs()),
    Mode(
        name="sshfs-many",
        client="sshfs",
        server=SSH,
        program="sshfs",
        call=_sshfs("max_conns=8", "kernel_cache"),
    ),
    Mode(name="s3fs", client="s3fs", server=S3, program="s3fs", call=_s3fs()),
    Mode(
        name="s3fs-cache",
        client="s3fs",
        server=S3,
        program="s3fs",
        call=_s3fs("use_cache={home}/cache"),
    ),
)
CURL: Final = "curl"
