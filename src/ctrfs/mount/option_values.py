"""The values that options take: text to number, size, path or pattern.

Each function raises ``ValueError`` with a text that can stand behind the option's name. Used
for ``-o`` and for the commands that take the same values.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from ctrfs.config import DEFAULT_LOCAL_ONLY, WriteMode
from ctrfs.units import duration_s_from_text, size_bytes_from_text

_SIZE_BYTES_MAX: Final = 2**63 - 1
# Longest time that can be asked for; a year already means "never".
_DURATION_S_MAX: Final = 366 * 86400.0
# Source: the service refuses more with integer_above_max_value; docs/api-notes.md.
_EXPIRES_AFTER_MINUTES_MAX: Final = 20
_RATE_MIN: Final = 0.01
_RATE_MAX: Final = 1000
# Source: the published OpenAPI description; docs/api-notes.md.
_MEMORY_LIMITS: Final = ("1g", "4g", "16g", "64g")
_DOMAIN: Final = re.compile(r"(?:\*\.)?[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*", re.ASCII)


def printable(text: str) -> str:
    """Return ``text`` as a quotation that fits on one line."""
    return repr(text[:80])


def parts_of(text: str, *, separator: str) -> list[str]:
    r"""Return the parts of ``text``; a backslash makes a separator or a backslash ordinary."""
    parts = [""]
    position = 0
    while position < len(text):
        character = text[position]
        if character == "\\" and text[position + 1 : position + 2] in {separator, "\\"}:
            position += 1
            parts[-1] += text[position]
        elif character == separator:
            parts.append("")
        else:
            parts[-1] += character
        position += 1
    return parts


def duration_s(text: str) -> float:
    """Return seconds: ``10``, ``250ms``, ``20m``; at most a year."""
    seconds = duration_s_from_text(text)
    if not math.isfinite(seconds) or seconds > _DURATION_S_MAX:
        raise ValueError(f"longer than a year: {printable(text)}")
    return seconds


def waiting_s(least_s: float, most_s: float) -> Callable[[str], float]:
    """Return a reader of the seconds that something may wait, both ends included."""

    def read(text: str) -> float:
        seconds = duration_s(text)
        if not least_s <= seconds <= most_s:
            raise ValueError(f"must be from {least_s:g} to {most_s:g} seconds")
        return seconds

    return read


def size_bytes(text: str) -> int:
    """Return bytes: ``4096``, ``64k``, ``1.5G``."""
    size = size_bytes_from_text(text)
    if size > _SIZE_BYTES_MAX:
        raise ValueError(f"too large: {printable(text)}")
    return size


def cache_size_bytes(text: str) -> int:
    """Return bytes, where ``none`` means that nothing is kept."""
    return 0 if text == "none" else size_bytes(text)


def whole_number(least: int, most: int) -> Callable[[str], int]:
    """Return a reader of decimal numbers in a range, both ends included."""

    def read(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,19}", text, re.ASCII):
            raise ValueError(f"not a whole number: {printable(text)}")
        number = int(text)
        if not least <= number <= most:
            raise ValueError(f"must be from {least} to {most}")
        return number

    return read


def rate(text: str) -> float:
    """Return how many times a second: ``5``, ``0.5``; from one in 100 s to a thousand."""
    if not re.fullmatch(r"[0-9]{1,4}(?:\.[0-9]{1,3})?", text, re.ASCII):
        raise ValueError(f"not a number: {printable(text)}")
    number = float(text)
    if not _RATE_MIN <= number <= _RATE_MAX:
        raise ValueError(f"must be from {_RATE_MIN} to {_RATE_MAX}")
    return number


def permissions(text: str) -> int:
    """Return permission bits written in octal: ``644``, ``0750``."""
    if not re.fullmatch(r"0?[0-7]{1,3}", text, re.ASCII):
        raise ValueError(f"not octal permissions: {printable(text)} (write 644)")
    return int(text, 8)


def path(text: str) -> Path:
    """Return an absolute path; ``~`` is the home directory, links are kept as they are."""
    if "\0" in text:
        raise ValueError("a path holds no NUL")
    try:
        return Path(os.path.abspath(Path(text).expanduser()))  # noqa: PTH100  # keeps links
    except RuntimeError as error:
        raise ValueError(f"no such home directory: {printable(text)}") from error


def one_of(words: Iterable[str]) -> Callable[[str], str]:
    """Return a reader of one out of some words."""
    known = tuple(words)

    def read(text: str) -> str:
        if text not in known:
            raise ValueError(f"must be one of {', '.join(known)}, not {printable(text)}")
        return text

    return read


def memory_limit(text: str) -> str:
    """Return a memory limit in the service's words: ``1g``, ``4g``, ``16g``, ``64g``."""
    if text.lower() not in _MEMORY_LIMITS:
        raise ValueError(f"must be 1g, 4g, 16g or 64g, not {printable(text)}")
    return text.lower()


def expiry_minutes(text: str) -> int:
    """Return the idle minutes after which a container expires: ``20``, ``20m``."""
    return whole_number(1, _EXPIRES_AFTER_MINUTES_MAX)(text.removesuffix("m"))


def network_policy(text: str) -> str:
    """Return ``disabled``, or the allowed domains separated by spaces."""
    domains = re.split(r"[\s:,]+", text.strip())
    for domain in domains:
        if not _DOMAIN.fullmatch(domain):
            raise ValueError(f"not a domain: {printable(domain)} (write disabled, or a.com:b.com)")
    return " ".join(domains)


def local_only_patterns(text: str) -> tuple[str, ...]:
    r"""Return the patterns of ``GLOB:GLOB``: ``none`` for none, a leading ``+`` adds to the usual.

    A part ``re:…`` is a regular expression; ``\:`` is a colon inside a part.
    """
    patterns: list[str] = []
    for part in parts_of(text.removeprefix("+"), separator=":"):
        if patterns and patterns[-1] == "re":
            patterns[-1] = f"re:{part}"
        elif part and part != "none":
            patterns.append(part)
    for pattern in patterns:
        if pattern.startswith("re:"):
            _check_expression(pattern.removeprefix("re:"))
    return (*(DEFAULT_LOCAL_ONLY if text.startswith("+") else ()), *patterns)


def write_mode(text: str) -> WriteMode:
    """Return when a close of changed bytes returns."""
    return WriteMode(one_of([mode.value for mode in WriteMode])(text))


def _check_expression(text: str) -> None:
    try:
        re.compile(text)
    except (re.error, RecursionError) as error:
        raise ValueError(f"not a regular expression: {printable(text)}") from error
