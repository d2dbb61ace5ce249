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
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Final

import msgspec

log = logging.getLogger(__name__)

# A report is one line; more than this is no report.
_REPORT_BYTES_MAX: Final = 64 * 1024
# A daemon says who it is as soon as it lives.
_NAME_TIMEOUT_S: Final = 1.0
# SIGINT raises by itself.
_END_SIGNALS: Final = (signal.SIGTERM, signal.SIGHUP)
_LEAVING_SIGNALS: Final = (signal.SIGINT, *_END_SIGNALS)


class StartReport(msgspec.Struct, frozen=True, kw_only=True):
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

    Raises:
        KeyboardInterrupt: Ctrl-C while waiting; the daemon is ended, too.
        SystemExit: The same for SIGTERM and SIGHUP.
    """
    read_fd, write_fd = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    # One that comes before its handler is there would leave the daemon behind: it waits.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _LEAVING_SIGNALS)
    first_pid = os.fork()
    if first_pid == 0:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os.close(read_fd)
        _become_daemon(child, write_fd)
    os.close(write_fd)
    # Whoever ends the command has not seen a mount yet, and wants none.
    handlers = {number: signal.signal(number, _leave) for number in _END_SIGNALS}
    lines = _Lines(read_fd)
    try:
        os.waitpid(first_pid, 0)  # soon over: it only makes the daemon
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        return _report_from(lines, start_timeout_s=start_timeout_s)
    except BaseException:
        lines.end_sender()
        raise
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
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


def _leave(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)  # what a shell shows for the signal


def _report_from(lines: _Lines, *, start_timeout_s: float) -> StartReport:
    try:
        is_whole = lines.wait_for(2, timeout_s=start_timeout_s)
    except TimeoutError:
        lines.end_sender()
        return StartReport(
            exit_code=32, message=f"the mount was not ready after {start_timeout_s:.0f} s"
        )
    if not is_whole:
        return StartReport(exit_code=32, message="the daemon ended before it was ready")
    exit_code, message = json.loads(lines.received.splitlines()[1])
    return StartReport(exit_code=int(exit_code), message=str(message))


class _Lines:
    """What a daemon says: first who it is, then how its start went."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._poller = select.poll()
        self._poller.register(fd, select.POLLIN)
        self.received = b""

    def wait_for(self, count: int, *, timeout_s: float) -> bool:
        """Wait until that many lines are there; return False if no more will come.

        Raises:
            TimeoutError: Nothing came for so long.
        """
        while self.received.count(b"\n") < count and len(self.received) < _REPORT_BYTES_MAX:
            if not self._poller.poll(timeout_s * 1000):
                raise TimeoutError
            piece = os.read(self._fd, _REPORT_BYTES_MAX)
            if not piece:
                return False
            self.received += piece
        return True

    def end_sender(self) -> None:
        """End a daemon that may not have said yet that it is ready."""
        with suppress(TimeoutError, ProcessLookupError):
            if self.wait_for(1, timeout_s=_NAME_TIMEOUT_S):
                os.kill(int(json.loads(self.received.splitlines()[0])), signal.SIGTERM)
