"""How the service does, as far as the requests of this process have shown; sends nothing."""

from __future__ import annotations

import msgspec


class ServiceHealth(msgspec.Struct, frozen=True, kw_only=True):
    """What ``.ctrfs/status`` tells of the line to the service.

    Attributes:
        is_answering: False while calls are refused at once, as nothing comes back.
        silent_since_ns: Since when no attempt has been answered, on the wall clock; None if the
            last one was.
        last_error: How the last attempt without an answer ended; empty if it was answered.
        limit: How many requests may be under way at once, at present.
        under_way: How many are.
        waiting: How many wait for their turn.
        paused_s: For how many seconds more the service wants no requests; 0 for none.
    """

    is_answering: bool = True
    silent_since_ns: int | None = None
    last_error: str = ""
    limit: int = 0
    under_way: int = 0
    waiting: int = 0
    paused_s: float = 0.0
