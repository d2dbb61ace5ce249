"""By when the request under way must have ended, known to everything that is done for it.

The kernel adapter says it once a request (``within``); each call to the service reads it
(``remaining_s``). It travels in a context variable, so that the floors between need no
argument for it. Tasks that trio starts inherit it: work that is shared by many requests, or
goes on behind one, is started inside ``none()``, lest the first request that asked for it
decides when it ends for all.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

import trio

# On trio's clock, in seconds.
_MOMENT_S: Final[ContextVar[float]] = ContextVar("deadline", default=math.inf)


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Let what is done inside the block end ``seconds`` from now, or earlier if it must anyway.

    Cancels nothing by itself: calls to the service end by then with an error of their own.
    """
    with _until(min(trio.current_time() + seconds, _MOMENT_S.get())):
        yield


@contextmanager
def none() -> Iterator[None]:
    """Let what is done inside the block take as long as its own limits allow."""
    with _until(math.inf):
        yield


def remaining_s() -> float:
    """Return the seconds that are left, never below 0; infinity where there is no deadline."""
    moment_s = _MOMENT_S.get()
    return moment_s if moment_s == math.inf else max(0.0, moment_s - trio.current_time())


@contextmanager
def _until(moment_s: float) -> Iterator[None]:
    before_s = _MOMENT_S.get()
    _MOMENT_S.set(moment_s)
    try:
        yield
    finally:
        _MOMENT_S.set(before_s)
