"""Asking a mount again and again, and how long it takes to say no."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import pytest
from tests.support.mounting import pause

_AGAIN_AFTER_S: Final = 0.2


def works_within(call: Callable[[], object], seconds: float) -> bool:
    """Tell whether ``call`` comes to succeed in time; its failures on the way do not count."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            call()
        except OSError:
            if time.monotonic() > deadline:
                return False
            pause(_AGAIN_AFTER_S)
        else:
            return True


def comes_true(what: Callable[[], bool], seconds: float) -> bool:
    """Tell whether something comes to be so in time."""
    deadline = time.monotonic() + seconds
    while not what():
        if time.monotonic() > deadline:
            return False
        pause(_AGAIN_AFTER_S)
    return True


def errno_and_seconds_of(call: Callable[[], object]) -> tuple[int, float]:
    """Return the errno that ``call`` fails with, and after how long."""
    began = time.monotonic()
    try:
        call()
    except OSError as error:
        return error.errno or 0, time.monotonic() - began
    pytest.fail("it has succeeded")
