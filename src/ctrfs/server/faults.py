"""Failures on demand: rules that say which request fails, and how.

A rule names an operation (``list_files``, or ``*`` for all) and an action. With ``nth`` it
strikes the nth matching request only, with ``count`` that many from then on, with neither
every one. Rules are asked in the order in which they were added; the first that strikes
decides, but each counts the request.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

import msgspec

from ctrfs.errors import ConfigError


class Action(enum.Enum):
    """What happens to a request that a rule strikes."""

    STATUS = "status"
    """``status``, ``headers`` and ``body`` are answered."""
    DELAY = "delay"
    """``seconds`` pass."""
    STALL = "stall"
    """Silence for ``seconds`` (without it: for good). With ``bytes`` the connection ends
    there, else all goes on as if nothing had been."""
    CUT = "cut"
    """The connection ends in good order."""
    RESET = "reset"
    """The connection is reset."""
    WRONG_LENGTH = "wrong-length"
    """``Content-Length`` is off by ``delta``; the bytes sent never exceed it."""
    SURPLUS = "surplus"
    """The answer is followed by ``bytes`` bytes that nobody announced; the connection stays."""
    DRIP = "drip"
    """The answer's body comes byte by byte, ``seconds`` before each."""


class Moment(enum.Enum):
    """Whether the operation has been carried out when the request fails: the field ``when``.

    What is said of stalls, cuts and resets with ``bytes`` holds for both: before, so much of
    the request's body is read first (none without); after, the answer's head and so much of
    its body goes out first (without: not even the head). A number below 0 counts from the
    end. Left out, ``when`` is after for what needs an answer: wrong lengths, surplus bytes,
    drips, cuts, and stalls with ``bytes``.
    """

    BEFORE = "before"
    AFTER = "after"


_OF_ANSWERS = frozenset({Action.CUT, Action.WRONG_LENGTH, Action.SURPLUS, Action.DRIP})


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """One failure."""

    action: Action
    status: int = 500
    headers: tuple[tuple[str, str], ...] = ()
    body: object = None
    """JSON to answer; a text goes out as it is; None: an error body of the usual shape."""
    seconds: float | None = None
    bytes: int | None = None
    delta: int = 0
    when: Moment = Moment.BEFORE


class WireFault(msgspec.Struct, frozen=True, kw_only=True):
    """What the wire must do to an answer.

    Attributes:
        action: STALL, CUT, RESET, WRONG_LENGTH, SURPLUS or DRIP.
        bytes: How much of the body goes out first, counted from its end if below 0; None: not
            even the head. For SURPLUS: how much goes out after it.
        seconds: How long a stall lasts; None: for good. How long each byte of a drip takes.
        delta: What is added to ``Content-Length``.
    """

    action: Action
    bytes: int | None = None
    seconds: float | None = None
    delta: int = 0

    def sent_bytes(self, length_bytes: int) -> int:
        """Return how much of a body of ``length_bytes`` goes out at most."""
        if self.action is Action.WRONG_LENGTH:
            return max(0, length_bytes + min(0, self.delta))
        if self.action in {Action.SURPLUS, Action.DRIP}:
            return length_bytes
        sent_bytes = self.bytes or 0
        return sent_bytes if sent_bytes >= 0 else max(0, length_bytes + sent_bytes)


class FaultRule(msgspec.Struct, kw_only=True):
    """Which requests a fault strikes.

    Invariant: ``seen`` is how many matching requests came since the rule was added.
    """

    route: str
    fault: Fault
    nth: int | None = None
    count: int | None = None
    seen: int = 0

    def strikes(self, route: str) -> bool:
        """Count a request for ``route`` and say whether it is struck."""
        if self.route not in {"*", route}:
            return False
        self.seen += 1
        first = self.nth or 1
        if self.count is not None:
            return first <= self.seen < first + self.count
        return self.nth is None or self.seen == self.nth


class FaultRules:
    """The rules in force."""

    def __init__(self) -> None:
        self._rules: list[FaultRule] = []

    def add(self, rule: FaultRule) -> None:
        """Put a rule behind those there are."""
        self._rules.append(rule)

    def clear(self) -> None:
        """Drop all rules."""
        self._rules.clear()

    def take(self, route: str) -> Fault | None:
        """Count a request for ``route`` and return the fault that strikes it."""
        struck: Fault | None = None
        for rule in self._rules:
            if rule.strikes(route) and struck is None:
                struck = rule.fault
        return struck


_RULE_KEYS = frozenset({"route", "nth", "count", "action"})
_ACTION_KEYS = frozenset({"status", "headers", "body", "seconds", "bytes", "delta", "when"})


def rule_from_json(fields: Mapping[str, object]) -> FaultRule:
    """Return the rule that ``fields`` describe.

    Raises:
        ConfigError: A field is unknown or has no value that fits.
    """
    unknown = fields.keys() - _RULE_KEYS - _ACTION_KEYS
    if unknown:
        raise ConfigError(f"unknown fields of a fault: {', '.join(sorted(unknown))}")
    try:
        action = Action(fields.get("action"))
        needs_answer = action in _OF_ANSWERS or (action is Action.STALL and "bytes" in fields)
        when = Moment(fields.get("when", "after" if needs_answer else "before"))
    except ValueError as error:
        raise ConfigError(str(error)) from None
    headers = fields.get("headers", {})
    if not isinstance(headers, Mapping):
        raise ConfigError("headers must be an object")
    seconds = fields.get("seconds")
    if seconds is not None and not isinstance(seconds, int | float):
        raise ConfigError("seconds must be a number")
    fault = Fault(
        action=action,
        status=_whole(fields, "status") or 500,
        headers=tuple((str(name), str(value)) for name, value in headers.items()),
        body=fields.get("body"),
        seconds=seconds,
        bytes=_whole(fields, "bytes"),
        delta=_whole(fields, "delta") or 0,
        when=when,
    )
    return FaultRule(
        route=str(fields.get("route", "*")),
        fault=fault,
        nth=_whole(fields, "nth"),
        count=_whole(fields, "count"),
    )


def _whole(fields: Mapping[str, object], name: str) -> int | None:
    value = fields.get(name)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
        raise ConfigError(f"{name} must be a whole number")
    return value
