"""With real processes: what matters is who lives how long."""

from __future__ import annotations

import fcntl
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import trio
from tests.support.mounting import pause

from ctrfs.errors import ConfigError, MountError
from ctrfs.mount.local_service import local_service, socket_path_for
from ctrfs.mount.source import Source, SourceKind

FIRST_USER = """
import sys, trio
from pathlib import Path
from ctrfs.mount.local_service import local_service
from ctrfs.mount.source import Source, SourceKind

async def main():
    source = Source(kind=SourceKind.LOCAL, directory=Path(sys.argv[1]))
    async with local_service(source) as path:
        print(path, flush=True)
        sys.stdin.read()

trio.run(main)
"""


def source_in(directory: Path) -> Source:
    return Source(kind=SourceKind.LOCAL, directory=directory)


async def answers(socket_path: Path) -> bool:
    try:
        stream = await trio.open_unix_socket(socket_path)
    except OSError:
        return False
    await stream.aclose()
    return True


async def test_the_service_lives_exactly_as_long_as_it_is_used(tmp_path: Path) -> None:
    async with local_service(source_in(tmp_path)) as socket_path:
        assert await answers(socket_path)

    assert not await answers(socket_path)


async def test_a_second_user_joins_and_the_service_outlives_the_first(tmp_path: Path) -> None:
    """The first is a process of its own, as the parent of the service must have ended."""
    with subprocess.Popen(  # noqa: ASYNC220  # nothing else runs meanwhile
        [sys.executable, "-c", FIRST_USER, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as first:
        assert first.stdout is not None
        first_path = Path(os.fsdecode(first.stdout.readline().rstrip()))
        async with local_service(source_in(tmp_path)) as second_path:
            first.communicate(timeout=20)

            assert second_path == first_path
            assert await answers(second_path)

    deadline_s = time.monotonic() + 10
    while await answers(second_path) and time.monotonic() < deadline_s:
        pause(0.02)
    assert not await answers(second_path)


async def test_users_that_come_at_one_moment_share_one_service(tmp_path: Path) -> None:
    users = [
        subprocess.Popen(  # noqa: ASYNC220  # nothing else runs meanwhile
            [sys.executable, "-c", FIRST_USER, tmp_path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for _ in range(3)
    ]
    paths = [user.stdout.readline() for user in users if user.stdout is not None]
    for user in users:
        user.communicate(timeout=30)

    assert paths == [os.fsencode(tmp_path / "socket") + b"\n"] * 3
    assert [user.returncode for user in users] == [0, 0, 0]


async def test_a_user_that_comes_while_the_service_ends_starts_another(tmp_path: Path) -> None:
    """The one that ends is played here: it has its pipe yet, and takes connections."""
    socket_path = socket_path_for(tmp_path)
    os.mkfifo(tmp_path / "socket.users")
    input_fd = os.open(tmp_path / "socket.users", os.O_RDONLY | os.O_NONBLOCK)
    fcntl.flock(input_fd, fcntl.LOCK_EX)
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(socket_path))
    listening.listen()

    async def end_soon() -> None:
        await trio.sleep(0.1)
        listening.close()
        os.close(input_fd)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(end_soon)
        async with local_service(source_in(tmp_path)):
            await trio.sleep(0.2)

            assert await answers(socket_path)


async def test_a_service_that_cannot_start_says_why(tmp_path: Path) -> None:
    (tmp_path / "service.sqlite").write_bytes(b"this is no database, by far, as anyone can see")

    with pytest.raises((MountError, ExceptionGroup)) as caught:
        async with local_service(source_in(tmp_path)):
            pass

    assert "does not start" in str(caught.value)


def test_a_long_path_gets_a_socket_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    long_path = tmp_path / ("d" * 100)

    socket_path = socket_path_for(long_path)

    assert len(os.fsencode(socket_path)) < 108
    assert socket_path.parent == tmp_path
    assert socket_path_for(tmp_path) == tmp_path / "socket"


def test_a_socket_is_not_put_where_others_could_replace_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    (tmp_path / "link").symlink_to(tmp_path)

    for runtime in (shared, tmp_path / "link"):
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
        with pytest.raises(ConfigError, match=r"by others|no other may enter"):
            socket_path_for(tmp_path / ("d" * 100))
