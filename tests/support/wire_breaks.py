"""Every way in which one exchange with the service can go wrong, as data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

ENDS: Final = ("cut", "reset", "stall")
HTML: Final = "<html><body><h1>Please sign in to this network</h1></body></html>"
JSON_ERROR: Final = {"error": {"message": "Something broke.", "code": "server_error"}}
_ALWAYS: Final = 10**6


@dataclass(frozen=True, slots=True, kw_only=True)
class Break:
    """One way.

    Attributes:
        name: As it stands in the id of a test.
        action: Of ``ctrfs.server.faults``.
        fields: Of the rule; ``bytes`` of MID stands for the middle of the answer.
        is_unread: Strikes before the service has read anything: a matter of the line.
        may_be_done: Whether the client cannot know that the operation was not carried out.
        needs_body: Only for requests with a body.
        errnos: What a program may be told when it lasts.
    """

    name: str
    action: str
    fields: Mapping[str, object] = field(default_factory=dict)
    is_unread: bool = False
    may_be_done: bool = True
    needs_body: bool = False
    errnos: frozenset[str] = frozenset({"EIO"})

    @property
    def is_done(self) -> bool:
        """Whether the service has carried the operation out."""
        return self.action in {"surplus", "wrong-length"} or self.fields.get("when") == "after"

    @property
    def is_stall(self) -> bool:
        """Whether only patience ends it."""
        return self.action == "stall"


MID: Final = 777_777


def breaks() -> Iterator[Break]:
    """Yield all of them."""
    for end in ENDS:
        yield from _ends_of_the_connection(end)
    yield Break(name="one-byte-too-many", action="surplus", fields={"bytes": 1})
    for delta, name in ((-1, "length-1-too-small"), (1, "length-1-too-large"), (999, "length-off")):
        yield Break(name=name, action="wrong-length", fields={"delta": delta})
    yield _status(429, "429-with-retry-after", headers={"retry-after": "2"})
    yield _status(429, "429-without-retry-after")
    for status in (500, 503, 408, 409):
        yield _status(status, str(status))
    for status in (500, 503, 408):
        yield _status(status, f"{status}-though-done", when="after")
    for when, suffix in (("before", ""), ("after", "-though-done")):
        yield _status(200, f"200-with-json-error{suffix}", when=when, body=JSON_ERROR)
        yield _status(200, f"200-with-html{suffix}", when=when, body=HTML)
        yield _status(200, f"200-empty{suffix}", when=when, body="")


def _ends_of_the_connection(end: str) -> Iterator[Break]:
    errnos = frozenset({"EIO", "ETIMEDOUT"}) if end == "stall" else frozenset({"EIO"})

    def ending(where: str, *, needs_body: bool = False, **fields: object) -> Break:
        return Break(
            name=f"{end}-{where}",
            action=end,
            fields=fields,
            is_unread=where == "before-the-request",
            needs_body=needs_body,
            errnos=errnos,
        )

    yield ending("before-the-request")
    yield ending("after-the-request-head", when="before", bytes=0)
    yield ending("within-the-request-body", when="before", bytes=20, needs_body=True)
    yield ending("after-the-request-body", when="before", bytes=-1, needs_body=True)
    # A stall without bytes falls before the head, and lasts.
    if end == "stall":
        yield ending("before-the-answer-though-done", when="after", seconds=_ALWAYS)
    else:
        yield ending("before-the-answer-though-done", when="after")
    yield ending("after-the-answer-head", when="after", bytes=0)
    yield ending("within-the-answer", when="after", bytes=MID)
    yield ending("one-byte-short", when="after", bytes=-1)


def _status(
    status: int,
    name: str,
    *,
    when: str = "before",
    headers: Mapping[str, str] | None = None,
    body: object = None,
) -> Break:
    is_refusal = status in {409, 429}
    return Break(
        name=name,
        action="status",
        fields={"status": status, "when": when, "headers": headers or {}, "body": body},
        may_be_done=not is_refusal,
        errnos=frozenset({"EBUSY"} if is_refusal else {"EIO"}),
    )
