"""Sizes and durations as people write them."""

from __future__ import annotations

import re
from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB
GIB: Final = 1024 * MIB
NS_PER_S: Final = 1_000_000_000

_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?", re.IGNORECASE | re.ASCII)
_SIZE_FACTOR: Final = {"": 1, "k": KIB, "m": MIB, "g": GIB, "t": 1024 * GIB}
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?", re.IGNORECASE | re.ASCII)
_DURATION_FACTOR: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def size_bytes_from_text(text: str) -> int:
    """Return the bytes that ``text`` names: ``4096``, ``64k``, ``1.5G``, ``512MiB``.

    Raises:
        ValueError: ``text`` is not a size.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"not a size: {text!r} (write 4096, 64k, 512M, 2G)")
    return int(float(match[1]) * _SIZE_FACTOR[match[2].lower()])


def duration_s_from_text(text: str) -> float:
    """Return the seconds that ``text`` names: ``10``, ``1.5s``, ``20m``, ``250ms``.

    Raises:
        ValueError: ``text`` is not a duration.
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"not a duration: {text!r} (write 10, 250ms, 20m, 1h)")
    return float(match[1]) * _DURATION_FACTOR[(match[2] or "s").lower()]


def text_from_size(size_bytes: int) -> str:
    """Return ``size_bytes`` for people: ``0 B``, ``1.5 KiB``, ``2.0 GiB``."""
    amount = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{size_bytes} B" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"
