"""The bytes of one file on their way to the service."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec
import trio
from msgspec.structs import replace

from ctrfs.api.models import ContainerFile
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


async def ended_after(
    first: Callable[[], Awaitable[None]],
    upload: Callable[[Outgoing], Awaitable[ContainerFile]],
    outgoing: Outgoing,
) -> ContainerFile:
    """Do ``first``, and meanwhile send ``outgoing`` but for its end; then that.

    This machine's disk and the service so take the bytes at the same time. Cancelling it cancels
    both, and leaves open whether the service has the file.

    Raises:
        CtrfsError: What the upload raises; as it is, not in a group.
    """
    is_done = trio.Event()

    async def do_first() -> None:
        try:
            await first()
        finally:
            is_done.set()

    body = replace(outgoing.body, before_end=is_done.wait)
    stored: ContainerFile | CtrfsError
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(do_first)
            try:
                stored = await upload(replace(outgoing, body=body))
            except CtrfsError as error:
                stored = error
    except BaseExceptionGroup as group:
        # Whoever was cancelled is to get that, and no group of it.
        if group.split(trio.Cancelled)[1] is None:
            await trio.lowlevel.checkpoint_if_cancelled()
        raise
    if isinstance(stored, CtrfsError):
        raise stored
    return stored
