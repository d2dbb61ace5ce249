"""The service behind ``local:``: a process of its own that lives as long as it is needed.

A process, so that serving files and being the service do not share one interpreter. Its
standard input is a named pipe that every mount of the same data holds open: it ends with the
last of them, so not even SIGKILL to us leaves it behind, and no mount ends another's service.

A mount can come while the last one goes. The lock of the pipe tells whether it was in time: the
service takes it before it looks for users a last time, and ends with it.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import stat
import subprocess  # nosec B404  # for its constants
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import trio

from ctrfs.errors import ConfigError, MountError
from ctrfs.mount.file_lock import FileLock, try_lock
from ctrfs.mount.places import local_data_directory, make_private_directory
from ctrfs.mount.source import Source

log = logging.getLogger(__name__)

# Source: unix(7): a socket's path has room for 108 bytes, the last being zero.
_SOCKET_PATH_BYTES_MAX: Final = 107
_START_TIMEOUT_S: Final = 20.0
# Longer than a start may take, as another mount's is waited for.
_LOCK_TIMEOUT_S: Final = 25.0
_LOCK_POLL_S: Final = 0.02
# The service itself waits 5 s for answers under way.
_STOP_TIMEOUT_S: Final = 10.0
# How soon a service whose input has ended stops taking connections, at the latest.
_LOOK_AGAIN_S: Final = 1.0
_LINE_BYTES_MAX: Final = 4096


@asynccontextmanager
async def local_service(source: Source) -> AsyncIterator[Path]:
    """Provide the socket of the service of ``source``; starts it if it does not run yet.

    Mounts of one data directory share one service, which outlives whoever started it.

    Raises:
        ConfigError: The data directory cannot be made.
        MountError: The service does not start; the text holds its own words.
    """
    data = make_private_directory(source.directory or local_data_directory())
    socket_path = socket_path_for(data)
    process, users_fd = await _join_or_start(data, socket_path)
    if process is None:
        log.info("sharing the service that already runs on %s", data)
        try:
            yield socket_path
        finally:
            os.close(users_fd)
        return
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_log_lines, process)
            yield socket_path
            nursery.cancel_scope.cancel()
    finally:
        os.close(users_fd)
        await _leave(process, socket_path)


def socket_path_for(data: Path) -> Path:
    """Return where the service of a data directory listens: in it, if the path is short enough."""
    inside = data / "socket"
    if len(os.fsencode(inside)) <= _SOCKET_PATH_BYTES_MAX:
        return inside
    digest = hashlib.blake2b(os.fsencode(data.resolve()), digest_size=8).hexdigest()
    runtime = os.environ.get("XDG_RUNTIME_DIR") or f"{tempfile.gettempdir()}/ctrfs-{os.getuid()}"
    return _own_directory(Path(runtime)) / f"ctrfs-{digest}.socket"


def _own_directory(path: Path) -> Path:
    """Return ``path``, made if missing, in which nobody else can put a socket in place of ours.

    Raises:
        ConfigError: It is another user's, or others may enter it.
    """
    # The system's temporary directory takes names from everyone: whoever comes first has it.
    facts = make_private_directory(path).lstat()
    is_own = stat.S_ISDIR(facts.st_mode) and facts.st_uid == os.geteuid()
    if not is_own or facts.st_mode & 0o077:
        raise ConfigError(f"{path} must be a directory of this user that no other may enter")
    return path


def _users_path(socket_path: Path) -> Path:
    """Return the pipe that is the service's input: it ends when the last user closes it."""
    return socket_path.with_suffix(".users")


async def _join_or_start(data: Path, socket_path: Path) -> tuple[trio.Process | None, int]:
    """Return a descriptor that keeps the service alive, and its process if it is new."""
    with await _sole_starter(socket_path.with_suffix(".lock"), data):
        users_fd = await _join(data, socket_path)
        if users_fd is not None:
            return None, users_fd
        return await _start(data, socket_path)


async def _sole_starter(path: Path, data: Path) -> FileLock:
    """Wait until no other mount starts the service.

    Raises:
        MountError: It takes too long, or the lock cannot be had at all.
    """
    deadline_s = trio.current_time() + _LOCK_TIMEOUT_S
    while trio.current_time() < deadline_s:
        try:
            lock = try_lock(path)
        except OSError as error:
            raise MountError(f"cannot lock {path}: {error.strerror}") from error
        if lock is not None:
            return lock
        await trio.sleep(_LOCK_POLL_S)
    raise MountError(f"another mount is still starting the local service on {data}")


async def _join(data: Path, socket_path: Path) -> int | None:
    """Return a descriptor that keeps a running service alive; None if there is none to join.

    Waits for the end of a service that had lost its last user: it still has the data.

    Raises:
        MountError: It does not end in time.
    """
    try:
        # Without waiting, this succeeds only while a service has the other end.
        users_fd = os.open(_users_path(socket_path), os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        await _lock_pipe(users_fd, data)
        if await _answers(socket_path):
            # A service that waits for the lock finds us.
            fcntl.flock(users_fd, fcntl.LOCK_UN)
            return users_fd
    except BaseException:
        os.close(users_fd)
        raise
    os.close(users_fd)
    return None


async def _lock_pipe(users_fd: int, data: Path) -> None:
    """Wait until the service is not about to end, or has ended.

    Raises:
        MountError: It takes too long.
    """
    deadline_s = trio.current_time() + _STOP_TIMEOUT_S
    while trio.current_time() < deadline_s:
        try:
            fcntl.flock(users_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            await trio.sleep(_LOCK_POLL_S)
        else:
            return
    raise MountError(f"the former local service on {data} does not end")


async def _answers(socket_path: Path) -> bool:
    try:
        stream = await trio.open_unix_socket(socket_path)
    except OSError:
        return False
    await stream.aclose()
    return True


async def _start(data: Path, socket_path: Path) -> tuple[trio.Process, int]:
    """Start the service; return it with a descriptor that keeps it alive.

    Only under the lock: it takes the pipe away from under another service that is starting.
    """
    input_fd, users_fd = _users_pipe(_users_path(socket_path))
    try:
        process = await trio.lowlevel.open_process(
            [
                sys.executable,
                "-m",
                "ctrfs",
                "serve",
                "--listen",
                f"unix:{socket_path}",
                "--data",
                str(data),
                "--exit-with-stdin",
            ],
            stdin=input_fd,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            # Ctrl-C on the terminal is for us; we let the service go after the last byte.
            start_new_session=True,
        )
    except BaseException:
        os.close(users_fd)
        raise
    finally:
        os.close(input_fd)
    words = await _first_words(process)
    if words.startswith(b"serving "):
        return process, users_fd
    os.close(users_fd)
    await _leave(process, socket_path)
    reason = words.decode(errors="replace").strip().removeprefix("ctrfs serve: ")
    raise MountError(f"the local service does not start: {reason or 'it says nothing'}")


def _users_pipe(path: Path) -> tuple[int, int]:
    """Return both ends of the pipe at ``path``: one to read, one that is a user's."""
    path.unlink(missing_ok=True)
    os.mkfifo(path, 0o600)
    # The reading end first, without waiting for a writer, who would wait for a reader.
    input_fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    os.set_blocking(input_fd, True)
    return input_fd, os.open(path, os.O_WRONLY | os.O_CLOEXEC)


async def _first_words(process: trio.Process) -> bytes:
    assert process.stdout is not None
    words = b""
    with trio.move_on_after(_START_TIMEOUT_S):
        while b"\n" not in words and len(words) < _LINE_BYTES_MAX:
            piece = await process.stdout.receive_some(_LINE_BYTES_MAX)
            if not piece:
                break
            words += piece
    return words


async def _log_lines(process: trio.Process) -> None:
    assert process.stdout is not None
    async for piece in process.stdout:
        log.info("local service: %s", piece.decode(errors="replace").rstrip())


async def _leave(process: trio.Process, socket_path: Path) -> None:
    """Wait for the end of a service that has lost its last user; leave one that has others."""
    is_shared = False
    with trio.CancelScope(shield=True, deadline=trio.current_time() + _STOP_TIMEOUT_S):
        while not is_shared and not await _ends_within(process, _LOOK_AGAIN_S):
            # A service that is ending takes no connections any more.
            is_shared = await _answers(socket_path)
    if is_shared:
        log.info("others still use the local service; leaving it to them")
    elif process.returncode is None:
        log.warning("the local service does not end by itself; killing it")
        process.kill()
    if process.stdout is not None:
        await process.stdout.aclose()


async def _ends_within(process: trio.Process, timeout_s: float) -> bool:
    with trio.move_on_after(timeout_s):
        await process.wait()
        return True
    return False
