"""The last failure of each entry, in words, for ``user.ctrfs.error`` and ``.ctrfs/errors``."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from ctrfs.errors import ContentError, CtrfsError, HandleError, LocalDiskError, RemoteError
from ctrfs.tree.nodes import InodeNumber

ENTRIES_MAX: Final = 1000


class FailureLog:
    """Texts by inode; the oldest goes first. Not async on purpose: all of it is atomic."""

    def __init__(self) -> None:
        self._texts: OrderedDict[InodeNumber, str] = OrderedDict()

    @contextmanager
    def noting(self, inode: InodeNumber) -> Iterator[None]:
        """Note a failure of the service or the disk that leaves the block; it goes on its way."""
        try:
            yield
        except (RemoteError, ContentError, LocalDiskError, HandleError) as error:
            self.note(inode, error)
            raise

    def note(self, inode: InodeNumber, error: CtrfsError) -> None:
        """Remember ``error`` as the last failure of an entry."""
        self._texts[inode] = text_of(error)
        self._texts.move_to_end(inode)
        if len(self._texts) > ENTRIES_MAX:
            self._texts.popitem(last=False)

    def clear(self, inode: InodeNumber) -> None:
        """Forget the failure of an entry that has since gone well."""
        self._texts.pop(inode, None)

    def get(self, inode: InodeNumber) -> str | None:
        """Return the last failure of an entry in words."""
        return self._texts.get(inode)


def text_of(error: BaseException) -> str:
    """Return a failure in words, with the service's request id where there is one."""
    cause = error
    while not isinstance(cause, RemoteError) and cause.__cause__ is not None:
        cause = cause.__cause__
    text = str(error) or type(error).__name__
    if isinstance(cause, RemoteError) and cause.request_id is not None:
        of_request = f" (request {cause.request_id})"
        # What was raised from it may quote it, with the id.
        return text if of_request in text else text + of_request
    return text
