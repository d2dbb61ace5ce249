"""The API key in use, and its successor once the service refuses it."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Final

import trio

from ctrfs import errors
from ctrfs.api.redaction import Redactor
from ctrfs.clock import Clock
from ctrfs.config import Secret

log = logging.getLogger("ctrfs.api")

# A key that is still the refused one is not asked for more often: the answer to each of a
# thousand calls would start a command.
ASK_AGAIN_S: Final = 10.0


class Keyring:
    """Holds the key; asks for another one where there is somebody to ask.

    Attributes:
        key: To be sent now; None where the service wants none.
    """

    def __init__(
        self,
        key: Secret | None,
        *,
        read_again: Callable[[], Secret] | None,
        redactor: Redactor,
        clock: Clock,
    ) -> None:
        """Begin with ``key``.

        Args:
            key: As configured.
            read_again: Reads the key where it came from; may block, raises ``ConfigError``.
            redactor: Is told each new key before it is used.
            clock: For ``ASK_AGAIN_S``.
        """
        self.key = key
        self._read_again = read_again
        self._redactor = redactor
        self._clock = clock
        self._lock = trio.Lock()
        self._asked_at_s = -math.inf

    async def renew(self, refused: Secret | None) -> bool:
        """Return whether there is another key than the one that was refused.

        Waits for the file or the command that the key comes from; callers wait for each other.
        Cancelling leaves a command running until its own time is over.
        """
        async with self._lock:
            if self.key != refused:
                return True  # one who was refused before us has asked
            now_s = self._clock.monotonic_s()
            if self._read_again is None or now_s - self._asked_at_s < ASK_AGAIN_S:
                return False
            self._asked_at_s = now_s
            try:
                key = await trio.to_thread.run_sync(self._read_again, abandon_on_cancel=True)
                check_key(key)
            except errors.ConfigError as error:
                log.warning("the service refuses the API key, and there is no other: %s", error)
                return False
            if key == refused:
                return False
            self._redactor.learn(key)
            self.key = key
            log.info("the service refused the API key; going on with the one that replaces it")
            return True


def check_key(key: Secret) -> None:
    """Make sure that ``key`` can be sent.

    Raises:
        ConfigError: It cannot; its text is not shown.
    """
    if not is_sendable(key.reveal()):
        raise errors.ConfigError("the API key holds characters that no key has")


def is_sendable(value: str) -> bool:
    """Return whether ``value`` can stand in a header.

    Checked here because the complaint of the HTTP library would quote the whole header.
    """
    return value.isascii() and value.isprintable() and value.strip() == value and value != ""
