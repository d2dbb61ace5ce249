"""The servers of a run, one for each kind of client, all on 127.0.0.1 over the same bytes.

None of them waits for the disk at a write: ``ctrfs serve`` is told not to, the others never do.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from scripts.bench.corpus import Corpus
from scripts.bench.processes import Program, found, free_port, listens
from scripts.bench.stores import BucketStore, FolderStore, ServiceStore, Store, fill_service
from tests.support.service import TEST_KEY, ServiceProcess

ROOT: Final = Path(__file__).parent.parent.parent
# Where scripts/bootstrap --bench puts s3rver.
S3RVER: Final = ROOT / ".bench/s3/node_modules/s3rver/bin/s3rver.js"
BUCKET: Final = "bench"
_START_S: Final = 20.0

API, WEBDAV, HTTP, SSH, S3 = "api", "webdav", "http", "ssh", "s3"


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A running server.

    Attributes:
        port: Where it listens, without a line before it.
        store: What it keeps.
    """

    port: int
    store: Store


@dataclass(frozen=True, slots=True, kw_only=True)
class SshKeys:
    """Throw-away keys: those of the server, and those that it lets in."""

    directory: Path

    @property
    def user_key(self) -> Path:
        """The key of the client."""
        return self.directory / "user"

    @property
    def known_hosts(self) -> Path:
        """Who the server is, under the name ``bench``."""
        return self.directory / "known_hosts"


class Servers:
    """All servers that are needed and can be had.

    Attributes:
        running: By kind.
        missing: Why a kind is not running.
        service: The service of ``ctrfs``, for its counters and failures.
    """

    def __init__(self, directory: Path, corpus: Corpus) -> None:
        self._directory = directory
        self._corpus = corpus
        self._programs: list[Program] = []
        self._folder: FolderStore | None = None
        self.running: dict[str, Server] = {}
        self.missing: dict[str, str] = {}
        self.service: ServiceProcess | None = None
        self.keys = SshKeys(directory=directory / "keys")

    def start(self, kinds: set[str]) -> None:
        """Start these kinds; what cannot be started is noted in ``missing``."""
        starts: dict[str, Callable[[], Server]] = {
            API: self._start_api,
            WEBDAV: lambda: self._start_rclone("webdav"),
            HTTP: lambda: self._start_rclone("http"),
            SSH: self._start_sshd,
            S3: self._start_s3,
        }
        for kind in sorted(kinds):
            try:
                self.running[kind] = starts[kind]()
            except (OSError, subprocess.SubprocessError, RuntimeError) as error:
                self.missing[kind] = str(error)

    def close(self) -> None:
        """End all."""
        for program in self._programs:
            program.end()
        if self.service is not None:
            self.service.__exit__(None, None, None)
            self.service = None

    def pids(self) -> list[int]:
        """Return the processes that run for the servers."""
        own = [self.service.pid] if self.service is not None else []
        return own + [program.pid for program in self._programs]

    def _start_api(self) -> Server:
        data = self._directory / "serve"
        fill_service(data, self._corpus)
        self.service = ServiceProcess(
            "--no-sync", data=data, environment={"CTRFS_SERVER_API_KEY": TEST_KEY}
        )
        self.service.__enter__()
        port = urlsplit(self.service.base_url).port
        assert port is not None
        return Server(port=port, store=ServiceStore(self.service))

    def _start_rclone(self, kind: str) -> Server:
        store = self._shared_folder()
        port = free_port()
        command: list[str | Path] = [
            _program("rclone"),
            "serve",
            kind,
            store.top,
            "--addr",
            f"127.0.0.1:{port}",
        ]
        # Else it shows a folder as it was up to five minutes ago, also to itself.
        self._run([*command, "--dir-cache-time", "0s"], port)
        return Server(port=port, store=store)

    def _start_sshd(self) -> Server:
        keys = self.keys.directory
        keys.mkdir(mode=0o700)
        for name in ("host", "user"):
            subprocess.run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", keys / name], check=True
            )
        host_key = (keys / "host.pub").read_text().split()
        self.keys.known_hosts.write_text(f"bench {host_key[0]} {host_key[1]}\n")
        (keys / "config").write_text(
            f"ListenAddress 127.0.0.1\nHostKey {keys / 'host'}\nPidFile none\nUsePAM no\n"
            f"AuthorizedKeysFile {keys / 'user.pub'}\nStrictModes no\n"
            "PasswordAuthentication no\nKbdInteractiveAuthentication no\n"
            "PermitRootLogin prohibit-password\nMaxStartups 100\nMaxSessions 100\n"
            "Subsystem sftp internal-sftp\n"
        )
        if os.geteuid() == 0:
            # Where sshd separates its privileges; made by the service, which does not run here.
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        port = free_port()
        command: list[str | Path] = [_program("sshd"), "-D", "-e", "-f", keys / "config"]
        self._run([*command, "-p", str(port)], port)
        return Server(port=port, store=self._shared_folder())

    def _start_s3(self) -> Server:
        if not S3RVER.exists():
            raise RuntimeError("s3rver is not installed: scripts/bootstrap --bench")
        top = self._directory / "s3" / BUCKET
        store = BucketStore(top)
        for folder, files in self._corpus.folders.items():
            store.plant(folder, files)
        port = free_port()
        command: list[str | Path] = [
            _program("node"),
            S3RVER,
            "--silent",
            "--directory",
            top.parent,
        ]
        command += ["--address", "127.0.0.1", "--port", str(port), "--no-vhost-buckets"]
        self._run([*command, "--configure-bucket", BUCKET], port)
        return Server(port=port, store=store)

    def _shared_folder(self) -> FolderStore:
        if self._folder is None:
            self._folder = FolderStore(self._directory / "folder")
            for folder, files in self._corpus.folders.items():
                self._folder.plant(folder, files)
        return self._folder

    def _run(self, command: list[str | Path], port: int) -> None:
        log = self._directory / f"server-{port}.log"
        program = Program(command, log=log)
        self._programs.append(program)
        deadline_s = time.monotonic() + _START_S
        program.wait_until(lambda: listens(port), within_s=max(0.1, deadline_s - time.monotonic()))


def _program(name: str) -> str:
    path = found(name)
    if path is None:
        raise RuntimeError(f"{name} is not installed: scripts/bootstrap --bench")
    return path
