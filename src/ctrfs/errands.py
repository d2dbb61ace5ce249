"""Requests that are made before anybody asks for their answer: reading ahead.

They come behind all others: ``api.pacing`` lets one in only where a place is left over, and
``api.retry`` does not repeat one. As soon as somebody waits for the answer (``joined``), the
request is one like any other. What is on an errand says so by a context variable, so that the
floors between need no argument for it; tasks that are started inside inherit it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

_ERRAND: Final[ContextVar[Errand | None]] = ContextVar("errand", default=None)


def _nothing() -> None:
    pass


class Errand:
    """Something fetched for the case that it will be wanted.

    Attributes:
        is_wanted: Whether somebody waits for it by now.
        on_wanted: Called when that happens; belongs to who keeps the request waiting.
    """

    __slots__ = ("is_wanted", "on_wanted")

    def __init__(self) -> None:
        self.is_wanted = False
        self.on_wanted: Callable[[], None] = _nothing

    def want(self) -> None:
        """Let it come as fast as what is asked for; harmless a second time."""
        if not self.is_wanted:
            self.is_wanted = True
            self.on_wanted()


@contextmanager
def on(errand: Errand) -> Iterator[None]:
    """Do what is done inside the block, and by tasks started there, on ``errand``."""
    token = _ERRAND.set(errand)
    try:
        yield
    finally:
        _ERRAND.reset(token)


def joined(errand: Errand | None) -> None:
    """Take note that the caller waits for what was begun on ``errand``, unless on one itself."""
    if errand is not None and unwanted() is None:
        errand.want()


def unwanted() -> Errand | None:
    """Return the errand that the caller is on, if nobody waits for its outcome."""
    errand = _ERRAND.get()
    return None if errand is None or errand.is_wanted else errand
