"""The bytes of one file on their way to the service."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ctrfs.api.protocol import UploadBody
from ctrfs.content.identity import ContentIdentity


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """The bytes of a file while they hold still for an upload.

    Attributes:
        size_bytes: How many.
        digest: Their blake2b, 32 hex digits.
        body: Gives them, only inside the ``sending`` block that this came from.
        settle: To be told what the bytes are called on the service, once it has them.
    """

    size_bytes: int
    digest: str
    body: UploadBody
    settle: Callable[[ContentIdentity], None]
