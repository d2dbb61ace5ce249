"""The service behind ``local:``: a process of its own that lives as long as it is needed.

A process, so that serving files and being the service do not share one interpreter. It ends
when its standard input ends, so not even SIGKILL to us leaves it behind.
"""

from __future__ import annotations

import hashlib
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import trio

from ctrfs.errors import MountError
from ctrfs.mount.places import local_data_directory, make_private_directory
from ctrfs.mount.source import Source

log = logging.getLogger(__name__)

# Source: unix(7): a socket's path has room for 108 bytes, the last being zero.
_SOCKET_PATH_BYTES_MAX: Final = 107
_START_TIMEOUT_S: Final = 20.0
# The service itself waits 5 s for answers under way.
_STOP_TIMEOUT_S: Final = 10.0
_LINE_BYTES_MAX: Final = 4096


@asynccontextmanager
async def local_service(source: Source) -> AsyncIterator[Path]:
    """Provide the socket of the service of ``source``; starts it if it does not run yet.

    Two mounts of one data directory share the service of the first.

    Raises:
        ConfigError: The data directory cannot be made.
        MountError: The service does not start; the text holds its own words.
    """
    data = make_private_directory(source.directory or local_data_directory())
    socket_path = socket_path_for(data)
    if await _answers(socket_path):
        log.info("sharing the service that already runs on %s", data)
        yield socket_path
        return
    process = await _start(data, socket_path)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_log_lines, process)
            yield socket_path
            nursery.cancel_scope.cancel()
    finally:
        await _stop(process)


def socket_path_for(data: Path) -> Path:
    """Return where the service of a data directory listens: in it, if the path is short enough."""
    inside = data / "socket"
    if len(os.fsencode(inside)) <= _SOCKET_PATH_BYTES_MAX:
        return inside
    digest = hashlib.blake2b(os.fsencode(data.resolve()), digest_size=8).hexdigest()
    runtime = os.environ.get("XDG_RUNTIME_DIR") or f"{tempfile.gettempdir()}/ctrfs-{os.getuid()}"
    return make_private_directory(Path(runtime)) / f"ctrfs-{digest}.socket"


async def _answers(socket_path: Path) -> bool:
    try:
        stream = await trio.open_unix_socket(socket_path)
    except OSError:
        return False
    await stream.aclose()
    return True


async def _start(data: Path, socket_path: Path) -> trio.Process:
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
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        # Ctrl-C on the terminal is for us; we stop the service after the last byte is sent.
        start_new_session=True,
    )
    assert process.stdout is not None
    words = b""
    with trio.move_on_after(_START_TIMEOUT_S):
        while b"\n" not in words and len(words) < _LINE_BYTES_MAX:
            piece = await process.stdout.receive_some(_LINE_BYTES_MAX)
            if not piece:
                break
            words += piece
    if words.startswith(b"serving "):
        return process
    await _stop(process)
    reason = words.decode(errors="replace").strip().removeprefix("ctrfs serve: ")
    raise MountError(f"the local service does not start: {reason or 'it says nothing'}")


async def _log_lines(process: trio.Process) -> None:
    assert process.stdout is not None
    async for piece in process.stdout:
        log.info("local service: %s", piece.decode(errors="replace").rstrip())


async def _stop(process: trio.Process) -> None:
    """End the service: by the end of its input, then by signals."""
    with trio.CancelScope(shield=True, deadline=trio.current_time() + 2 * _STOP_TIMEOUT_S):
        assert process.stdin is not None
        await process.stdin.aclose()
        with trio.move_on_after(_STOP_TIMEOUT_S):
            await process.wait()
        if process.returncode is None:
            log.warning("the local service does not end by itself; killing it")
            process.kill()
            await process.wait()
        if process.stdout is not None:
            await process.stdout.aclose()
