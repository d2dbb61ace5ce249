"""The way into the background: fork before trio, and a pipe that tells how it went.

The parent returns only when the child has said that it is ready, or why it is not. So
``ctrfs mount`` can be followed by ``ls`` in a script.
"""

from __future__ import annotations

import json
import logging
import os
import select
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

log = logging.getLogger(__name__)

# A report is one line; more than this is no report.
_REPORT_BYTES_MAX: Final = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class StartReport:
    """How the start went: ready if ``exit_code`` is 0, else the line for the user."""

    exit_code: int
    message: str = ""


class Readiness:
    """The child's end of the pipe: ``tell`` once, later calls do nothing."""

    def __init__(self, fd: int | None) -> None:
        """Take ownership of ``fd``; None in the foreground, where nobody waits."""
        self._fd = fd
        self._is_awaited = fd is not None

    @property
    def is_awaited(self) -> bool:
        """Whether this is a daemon's, told or not: else somebody reads stderr."""
        return self._is_awaited

    def tell(self, report: StartReport) -> None:
        """Tell the parent, which then exits; it may be gone already."""
        if self._fd is None:
            return
        fd, self._fd = self._fd, None
        line = json.dumps([report.exit_code, report.message]).encode() + b"\n"
        try:
            os.write(fd, line)
        except BrokenPipeError:
            pass  # the parent gave up waiting, or was killed
        finally:
            os.close(fd)


def run_in_background(child: Callable[[Readiness], int], *, start_timeout_s: float) -> StartReport:
    """Run ``child`` as a daemon; return its report to the caller, which goes on in front.

    Must be called before any thread or trio loop exists. The daemon has its own session, its
    standard descriptors lead to ``/dev/null``, and it ends with what ``child`` returns.

    Args:
        child: The whole life of the daemon.
        start_timeout_s: How long to wait for the report; then the daemon is ended.
    """
    read_fd, write_fd = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    first_pid = os.fork()
    if first_pid == 0:
        os.close(read_fd)
        _become_daemon(child, write_fd)
    os.close(write_fd)
    os.waitpid(first_pid, 0)
    try:
        return _report_from(read_fd, start_timeout_s=start_timeout_s)
    finally:
        os.close(read_fd)


def redirect_standard_descriptors(*, output: Path | None = None) -> None:
    """Point 0 at ``/dev/null``, and 1 and 2 at ``output`` (``/dev/null`` without one)."""
    null_fd = os.open(os.devnull, os.O_RDWR)
    output_fd = null_fd
    if output is not None:
        output_fd = os.open(output, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.dup2(null_fd, 0)
    os.dup2(output_fd, 1)
    os.dup2(output_fd, 2)
    for fd in {null_fd, output_fd}:
        if fd > 2:
            os.close(fd)


def _become_daemon(child: Callable[[Readiness], int], write_fd: int) -> None:
    """Live and die as the daemon; never returns."""
    exit_code = 1
    try:
        os.setsid()
        if os.fork() != 0:
            os._exit(0)  # the first child: it exists so that the daemon leads no session
        # Its own process must be known before anything can hang.
        os.write(write_fd, json.dumps(os.getpid()).encode() + b"\n")
        os.chdir("/")  # keeps no other file system busy
        redirect_standard_descriptors()
        exit_code = child(Readiness(write_fd))
    except BaseException:
        # Nothing is above this: without a line in the log the daemon would just be gone.
        log.critical("the daemon ends by a bug", exc_info=True)
    finally:
        # No cleanup of the parent's (buffers, exit handlers) may run a second time here.
        os._exit(exit_code)


def _report_from(read_fd: int, *, start_timeout_s: float) -> StartReport:
    poller = select.poll()
    poller.register(read_fd, select.POLLIN)
    received = b""
    while received.count(b"\n") < 2 and len(received) < _REPORT_BYTES_MAX:
        if not poller.poll(start_timeout_s * 1000):
            _end(received)
            return StartReport(
                exit_code=32, message=f"the mount was not ready after {start_timeout_s:.0f} s"
            )
        piece = os.read(read_fd, _REPORT_BYTES_MAX)
        if not piece:
            return StartReport(exit_code=32, message="the daemon ended before it was ready")
        received += piece
    exit_code, message = json.loads(received.splitlines()[1])
    return StartReport(exit_code=int(exit_code), message=str(message))


def _end(received: bytes) -> None:
    """End a daemon that has said who it is, but not that it is ready."""
    if b"\n" in received:
        os.kill(int(json.loads(received.splitlines()[0])), signal.SIGTERM)
