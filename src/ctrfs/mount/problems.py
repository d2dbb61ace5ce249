"""Failures in the words of the user's problem, one line each."""

from __future__ import annotations

from ctrfs import errors
from ctrfs.config import ApiConfig

EXIT_OK = 0
EXIT_USAGE = 1
"""A wrong option, source or argument; also the failure of a command that mounts nothing."""
EXIT_SYSTEM = 2
"""For the helpers of mount(8): out of memory, no process can be made, and the like."""
EXIT_INTERRUPTED = 8
"""For the helpers of mount(8): ended by whoever called them."""
EXIT_MOUNT_FAILED = 32
"""What mount(8) and its helpers use."""
EXIT_UNSENT = 64
"""Unmounted, but some bytes could not be sent and wait on this machine."""


def exit_code_for(error: BaseException) -> int:
    """Return how a mount that failed with ``error`` exits."""
    return EXIT_USAGE if isinstance(error, errors.ConfigError) else EXIT_MOUNT_FAILED


def place_of(config: ApiConfig) -> str:
    """Return what to call the service in a sentence; never the key."""
    return "the local service" if config.unix_socket is not None else config.base_url


def line_for(error: BaseException, *, place: str = "the service") -> str:
    """Return one line that says what went wrong, without the program's name.

    Args:
        error: What was raised.
        place: Which service was asked.
    """
    words = " ".join(str(error).split()) or type(error).__name__
    match error:
        case errors.RemoteRefusedError():
            line = f"{place} refuses the API key: {words}"
        case errors.RemoteStalledError():
            line = f"{place} does not answer in time: {words}"
        case errors.RemoteUnavailableError():
            line = f"cannot reach {place}: {words}"
        case errors.RemoteQuotaError():
            line = f"the account's quota is used up: {words}"
        case errors.RemoteBusyError():
            line = f"{place} has too many requests: {words}"
        case errors.RemoteProtocolError():
            line = f"{place} does not speak the Containers API: {words}"
        case errors.CtrfsError():
            line = words
        case OSError():
            line = f"{error.filename}: {error.strerror}" if error.filename else words
        case _:
            line = f"unexpected {type(error).__name__}: {words}"
    request_id = error.request_id if isinstance(error, errors.RemoteError) else None
    return f"{line} (request {request_id})" if request_id else line


def innermost(error: BaseException) -> BaseException:
    """Return the failure that matters out of what trio's nurseries have wrapped it in.

    Of several at once, one of ours is the most telling.
    """
    while isinstance(error, BaseExceptionGroup):
        members = list(error.exceptions)
        error = next((each for each in members if isinstance(each, errors.CtrfsError)), members[0])
    return error
