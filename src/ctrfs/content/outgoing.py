"""The bytes of one file on their way to the service."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from ctrfs.api.protocol import UploadBody
from ctrfs.content.identity import ContentIdentity
from ctrfs.errors import CtrfsError


class Outgoing(msgspec.Struct, frozen=True, kw_only=True):
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


class Settlement:
    """What has become of one attempt to send: nothing, a version of the service, or a failure."""

    def __init__(self) -> None:
        self.identity: ContentIdentity | None = None
        self.error: CtrfsError | None = None

    def settle(self, identity: ContentIdentity) -> None:
        """Note what the service calls the bytes now."""
        self.identity = identity
