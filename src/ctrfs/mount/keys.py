"""Where the API key comes from, if not from the environment: a private file, or a command.

Both can be read again when the service refuses the key. No text that leaves this module holds
a key, also none of what a command writes to its standard error.
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import shlex
import signal
import stat
import subprocess  # nosec B404  # for -o key_command
import time
from collections.abc import MutableMapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from ctrfs.config import Secret
from ctrfs.errors import ConfigError
from ctrfs.mount.option_values import printable

# A key is some hundred characters; a longer text is something else.
KEY_BYTES_MAX: Final = 16 * 1024
# A password store may have to ask an agent; a person who is not there is not waited for.
COMMAND_TIMEOUT_S: Final = 30.0
_PR_SET_DUMPABLE: Final = 4  # linux/prctl.h


def key_from(text: str, *, place: str) -> Secret:
    """Return the key that ``text`` is.

    Args:
        text: As read; white space around it is dropped.
        place: Where it was read, for the error.

    Raises:
        ConfigError: It cannot be a key.
    """
    text = text.strip()
    if not text:
        raise ConfigError(f"{place} is empty: no API key")
    if not (text.isascii() and text.isprintable()) or " " in text:
        raise ConfigError(f"{place} holds something that is not an API key")
    return Secret(text)


def key_from_file(path: Path) -> Secret:
    """Return the key that a private file of ours holds; reads the disk.

    Raises:
        ConfigError: There is none, or others could have read or made it.
    """
    place = f"the key file {path}"
    try:
        # Without waiting for the other end of a pipe, before it is known to be none.
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise ConfigError(f"{place} is a link: name the file itself") from error
        raise ConfigError(f"{place} cannot be read: {error.strerror}") from error
    try:
        facts = os.fstat(fd)
        if not stat.S_ISREG(facts.st_mode):
            raise ConfigError(f"{place} is not a regular file")
        if facts.st_uid != os.geteuid():
            raise ConfigError(f"{place} belongs to somebody else (uid {facts.st_uid})")
        if facts.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise ConfigError(f"{place} is open to others: chmod 600 {path}")
        content = os.read(fd, KEY_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigError(f"{place} cannot be read: {error.strerror}") from error
    finally:
        os.close(fd)
    return key_from(_text(content, place=place), place=place)


def key_from_command(command: str, *, timeout_s: float = COMMAND_TIMEOUT_S) -> Secret:
    """Return the key that a command writes; waits for it, and kills it after ``timeout_s``.

    It runs without a shell, with nothing on its standard input; what it writes to its standard
    error is thrown away.

    Raises:
        ConfigError: It cannot be run, fails, takes too long, or writes no key.
    """
    words = command_words(command)
    # Its arguments are not quoted: somebody may have put a password there.
    place = f"the key command {printable(words[0])}"
    try:
        process = subprocess.Popen(  # noqa: S603  # nosec B603  # the user's own command
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "a word holds a NUL"
        raise ConfigError(f"{place} cannot be run: {reason}") from None
    try:
        content = _output(process, place=place, until_s=time.monotonic() + timeout_s)
    finally:
        # Also what it has left running: it holds our pipe, and perhaps the key.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        if process.stdout is not None:
            process.stdout.close()
        process.wait()
    if process.returncode != 0:
        raise ConfigError(f"{place} failed (exit code {process.returncode})")
    return key_from(_text(content, place=place), place=f"the output of {place}")


def hide_keys(environment: MutableMapping[str, str], *, variable: str) -> None:
    """Keep the key of this process, the daemon, from others of the same user, and from dumps.

    What it starts does not inherit the variable. The variables that it was itself started with
    stay in its memory, and ``/proc/PID/environ`` shows them; so that and the memory are closed
    to all but root, and no core is dumped.
    Source: prctl(2), PR_SET_DUMPABLE; proc_pid_environ(5), 2026-11.
    """
    environment.pop(variable, None)
    # Where the C library has no prctl, the rest still holds.
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def command_words(command: str) -> list[str]:
    """Return the words of a command, as a shell would split them.

    Raises:
        ConfigError: There are none, or a quotation does not end.
    """
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise ConfigError(f"the key command cannot be read: {error}") from error
    if not words:
        raise ConfigError("the key command is empty")
    return words


def _output(process: subprocess.Popen[bytes], *, place: str, until_s: float) -> bytes:
    """Return all that ``process`` writes until it has ended."""
    assert process.stdout is not None
    fd = process.stdout.fileno()
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    content = bytearray()
    while len(content) <= KEY_BYTES_MAX:
        if not poller.poll(max(0.0, until_s - time.monotonic()) * 1000):
            raise ConfigError(f"{place} did not end in time")
        piece = os.read(fd, KEY_BYTES_MAX)
        if not piece:
            break
        content += piece
    else:
        raise ConfigError(f"{place} writes too much for a key")
    try:
        process.wait(timeout=max(0.0, until_s - time.monotonic()))
    except subprocess.TimeoutExpired:
        raise ConfigError(f"{place} did not end in time") from None
    return bytes(content)


def _text(content: bytes, *, place: str) -> str:
    if len(content) > KEY_BYTES_MAX:
        raise ConfigError(f"{place} is too long for a key")
    return content.decode("ascii", errors="replace")
