"""Keeps the API key out of every text that leaves this floor.

A service may echo the key in an error, a header or a listing, and a transport may quote a
header in its complaint. So texts are masked where they are made, not where they are shown.
"""

from __future__ import annotations

import re
from typing import Final

from ctrfs.config import Secret

MASK: Final = "[key]"
# Anything that looks like a key of the service, also one that the service has shortened
# itself (``sk-abc***xyz``): its ends are still of use to a thief.
_KEY_LIKE: Final = re.compile(r"\bsk-[A-Za-z0-9_*.…-]{4,}")
# A shorter key, as local services take, is no secret that could be kept: it is part of words.
KEY_CHARACTERS_MIN: Final = 8
# A command may give a new key every few minutes, for months.
KEYS_MAX: Final = 16
# Also what turns the direction of text around, and so shows another name than there is.
_CONTROL: Final = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]"
)


class Redactor:
    """Masks the keys of one session, whole or shortened, in any text."""

    def __init__(self, key: Secret | None) -> None:
        # The newest first; one that was replaced may still stand in an answer under way.
        self._keys: list[Secret] = []
        if key is not None:
            self.learn(key)

    def learn(self, key: Secret) -> None:
        """Mask ``key`` too, from now on."""
        if len(key.reveal()) >= KEY_CHARACTERS_MIN and key not in self._keys:
            self._keys = [key, *self._keys[: KEYS_MAX - 1]]

    def text(self, text: str) -> str:
        """Return ``text`` without the keys."""
        for key in self._keys:
            text = text.replace(key.reveal(), MASK)
        return _KEY_LIKE.sub(MASK, text)

    def line(self, text: str, *, characters_max: int) -> str:
        """Return the start of ``text`` without the key, on one line, for logs and errors.

        The key is masked before the text is cut, lest half of it remain at the end.
        """
        masked = escaped(self.text(text))
        return masked if len(masked) <= characters_max else masked[: characters_max - 1] + "…"

    def exception(self, error: BaseException) -> None:
        """Mask the key in the arguments of ``error`` and of all that caused it, in place.

        A traceback prints the whole chain, and a transport quotes what it could not parse.
        """
        seen: set[int] = set()
        pending: list[BaseException | None] = [error]
        while pending:
            current = pending.pop()
            if current is None or id(current) in seen:
                continue
            seen.add(id(current))
            if (masked := self.text(str(current))) != str(current):
                current.args = (masked,)
            pending += [current.__cause__, current.__context__]


def escaped(text: str) -> str:
    """Return ``text`` with control and direction characters and lone surrogates as escapes."""
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text)
