"""The API key shows nowhere: the whole machine is searched after a full run.

The key does not look like one, so that only the masking of this very key can hide it, and not
that of everything that begins with ``sk-``.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from tests.support.mounting import Mount, pause, run_ctrfs
from tests.support.service import ServiceProcess

pytestmark = pytest.mark.mounted

KEY: Final = "Recognisable7Key7Of7These7Tests"
KEY_BYTES: Final = KEY.encode("ascii")
# A part of it would help a thief almost as much.
PART_BYTES: Final = KEY_BYTES[6:24]
ATTRIBUTES: Final = (
    "id", "container_id", "path", "source", "created_at", "status", "memory_limit",
    "expires_after", "hash", "state", "error",
)  # fmt: skip
# A bug of ours, with the key in reach of whoever prints more of a traceback than its lines.
PROGRAM_WITH_A_BUG: Final = """
import sys
from ctrfs.cli.main import main
from ctrfs.fs.file_system import FileSystem

unlink = FileSystem.unlink

async def unlink_with_a_bug(self, parent, name, *more, **still_more):
    whole_graph = self
    if name == b"bug":
        raise ZeroDivisionError("a bug of ours")
    return await unlink(self, parent, name, *more, **still_more)

FileSystem.unlink = unlink_with_a_bug
sys.exit(main())
"""


@pytest.fixture
def service() -> Iterator[ServiceProcess]:
    with ServiceProcess(environment={"CTRFS_SERVER_API_KEY": KEY}) as started:
        started.key = KEY
        yield started


@pytest.fixture(params=["environment", "key_file"])
def mount(
    request: pytest.FixtureRequest, tmp_path: Path, service: ServiceProcess
) -> Iterator[Mount]:
    """A mount that logs all it can, has no cache and no patience."""
    options = ["debug", "ttl=0", "max_stale=0", "retries=0", "timeout=2"]
    options += ["stall_timeout=2", "drain_timeout=2"]
    environment = {"OPENAI_API_KEY": KEY}
    if request.param == "key_file":
        key_file = tmp_path / "key"
        key_file.touch(mode=0o600)
        key_file.write_text(KEY)
        options.append(f"key_file={key_file}")
        environment = {"OPENAI_API_KEY": ""}
    made = Mount(
        tmp_path,
        service=service,
        options=options,
        environment=environment,
    )
    made.program = [sys.executable, "-c", PROGRAM_WITH_A_BUG]
    made.start()
    yield made
    made.abandon()


def tried(*command: str | Path, environment: dict[str, str] | None = None) -> bytes:
    """Return everything that a command says, whether it succeeds or not."""
    done = subprocess.run(
        command,
        env=environment,
        capture_output=True,
        timeout=60,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    return done.stdout + done.stderr


def echo_the_key(service: ServiceProcess, status: int, *, to: str = "*") -> None:
    """Let the service answer with the key itself, in header and body."""
    service.add_fault(
        to,
        "status",
        status=status,
        headers={"x-request-id": f"req-{KEY}"},
        body=f'{{"error": {{"message": "key {KEY} refused: Bearer {KEY}", "code": "{KEY}"}}}}',
    )


def work_well_and_badly(mount: Mount, service: ServiceProcess) -> bytes:
    """Do everything once, and have everything fail once; return all that was said."""
    point, said = mount.point, b""
    said += tried("mkdir", point / "box", point / "gone")
    said += tried("sh", "-c", f"echo bytes > {point}/box/file; cat {point}/box/file")
    said += tried("sh", "-c", f"echo x > {point}/box/bug; rm {point}/box/bug")
    for status in (401, 403, 404, 429, 500):
        echo_the_key(service, status)
        said += tried("sh", "-c", f"echo {status} > {point}/box/refused{status}")
        said += tried("ls", "-la", point / "box") + tried("cat", point / "box" / "file")
        said += tried("mkdir", point / f"never{status}") + tried("rm", point / "box" / "file")
        said += tried("mv", point / "box" / "file", point / "box" / "moved")
        said += everything_in(point / "box")
        service.clear_faults()
    for operation in ("create_file", "delete_file", "file_content"):
        # Not 404 and the like, for which the upload is looked for, and sent again, at length.
        echo_the_key(service, 401, to=operation)
    said += tried("sh", "-c", f"echo unsent > {point}/box/unsent; rm {point}/box/file")
    said += everything_in(point / "box")
    service.clear_faults()
    service.add_fault("*", "reset")
    said += tried("ls", point / "box")
    service.clear_faults()
    service.advance(3600)
    said += tried("sh", "-c", f"echo late > {point}/gone/late; ls -R {point}")
    return said


def everything_in(folder: Path) -> bytes:
    """Return all attributes in and of a folder, and the mount's own files."""
    found = b""
    control = folder.parent / ".ctrfs"
    for path in [folder, folder / "file", folder / "bug", *control.glob("*")]:
        found += tried("getfattr", "-d", "-m", "-", "--", path)
        for attribute in ATTRIBUTES:
            try:
                found += os.getxattr(path, f"user.ctrfs.{attribute}")
            except OSError:
                continue
    for path in control.glob("*"):
        found += path.read_bytes()
    return found


def command_lines() -> bytes:
    """Return the arguments of every process of the machine."""
    found = b""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found += path.read_bytes()
        except OSError:  # ended meanwhile
            continue
    return found


def mount_tables() -> bytes:
    return b"".join(Path(f"/proc/self/{name}").read_bytes() for name in ("mountinfo", "mounts"))


def files_with_the_key(folder: Path, *, but: Path) -> list[Path]:
    return [
        path
        for path in folder.rglob("*")
        if path != but and path.is_file() and PART_BYTES in path.read_bytes()
    ]


def test_the_key_is_nowhere_after_a_full_run_with_every_failure(
    mount: Mount, service: ServiceProcess, tmp_path: Path
) -> None:
    said = work_well_and_badly(mount, service)
    for command in (["status"], ["status", "--json"], ["doctor"], ["ls"], ["ls", str(mount.point)]):
        done = mount.run(*command)
        said += (done.stdout + done.stderr).encode()
    said += everything_in(mount.point / "box") + command_lines() + mount_tables()
    mount.stop(may_leave_bytes=True)
    log = mount.log_text()

    assert PART_BYTES not in said
    assert files_with_the_key(tmp_path, but=tmp_path / "key") == []
    # All that was to fail did fail, and was written down.
    assert "ZeroDivisionError: a bug of ours" in log
    assert "[key]" in log
    assert "DEBUG" in log


def test_a_daemon_that_is_aborted_shows_where_it_was_and_not_the_key(
    mount: Mount, tmp_path: Path
) -> None:
    os.kill(mount.pid, signal.SIGABRT)
    while "Fatal Python error" not in mount.log_text():
        pause(0.02)
    pid = mount.pid
    mount.abandon()

    assert files_with_the_key(tmp_path, but=tmp_path / "key") == []
    assert not [path for path in tmp_path.rglob("core*") if path.is_file()]
    assert not Path(f"core.{pid}").exists()


def test_the_daemon_writes_no_core_and_only_root_may_look_into_it(mount: Mount) -> None:
    process = Path(f"/proc/{mount.pid}")

    limit = next(
        line
        for line in (process / "limits").read_text().splitlines()
        if line.startswith("Max core file size")
    )
    assert limit.split()[4] == "0"
    # Of root is what cannot be dumped, whoever runs it; dumpable, it belongs to its user.
    assert (process / "environ").stat().st_uid == 0
    mount.stop()


def test_a_mount_that_is_refused_does_not_quote_the_key(
    tmp_path: Path, service: ServiceProcess
) -> None:
    home = tmp_path / "home"
    (tmp_path / "mnt").mkdir()
    environment = {
        **os.environ,
        "HOME": str(home),
        "XDG_STATE_HOME": str(home / "state"),
        "OPENAI_BASE_URL": service.base_url,
        "OPENAI_API_KEY": KEY,
    }
    echo_the_key(service, 401)

    for command in (["mount", "openai:", str(tmp_path / "mnt")], ["ls"], ["doctor"]):
        done = run_ctrfs(*command, "-o", "debug", environment=environment)
        assert done.returncode != 0, command
        assert PART_BYTES not in (done.stdout + done.stderr).encode()
    assert files_with_the_key(tmp_path, but=home) == []


@pytest.mark.parametrize("option", ["key", "api_key", "token", "password"])
def test_a_key_among_the_options_is_refused_without_being_repeated(
    tmp_path: Path, option: str
) -> None:
    # Of its own: the tests beside this one look for theirs in every process's arguments.
    key = "Refusable3Key3Among3The3Options"
    done = run_ctrfs(
        "mount", "openai:", tmp_path, "-o", f"{option}={key}", environment=dict(os.environ)
    )

    assert done.returncode == 1
    assert key not in done.stdout + done.stderr
