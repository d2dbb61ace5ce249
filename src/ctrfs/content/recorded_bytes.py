"""Bytes that a record of the journal speaks of, which nobody may change any more.

They were acknowledged, and the service does not have them yet: until newer ones are recorded in
their place, a crash has to leave exactly these.
"""

from __future__ import annotations

from collections.abc import Callable

from ctrfs.content.whole_file import copy_of
from ctrfs.disk.spool import SpoolDirectory, SpoolFile


class RecordedBytes:
    """What the journal has of one open file.

    Attributes:
        are_present: Whether that are the file's present bytes.
    """

    def __init__(self) -> None:
        self.are_present = False
        self._aside: SpoolFile | None = None
        self._give_back: Callable[[], None] | None = None

    @property
    def are_aside(self) -> bool:
        """Whether other bytes than the file's present ones are still kept for a record."""
        return self._aside is not None or self._give_back is not None

    def note(self, *, keeps_earlier: bool = False) -> None:
        """Say that a record speaks of the present bytes.

        Args:
            keeps_earlier: Whether that may yet be taken back, in favour of earlier ones.
        """
        if not keeps_earlier:
            self.forget()
        self.are_present = True

    def borrow(self, give_back: Callable[[], None]) -> None:
        """Say that a record, from now on of this file, speaks of the bytes of another one.

        Args:
            give_back: Called when they are not wanted for it any more.
        """
        assert not self.are_present, "a file has one record"
        assert not self.are_aside, "a file has one record"
        self._give_back = give_back

    def forget(self) -> None:
        """Say that no record is left."""
        self.are_present = False
        aside, self._aside = self._aside, None
        if aside is not None:
            aside.delete()
        give_back, self._give_back = self._give_back, None
        if give_back is not None:
            give_back()

    async def set_aside(
        self, spool_file: SpoolFile, spool: SpoolDirectory, *, is_wanted: bool = True
    ) -> SpoolFile:
        """Leave the bytes in ``spool_file`` as they are if they are recorded; return what to change.

        That is a copy, or an empty file where nothing of them ``is_wanted``. Many bytes are
        copied in a thread; nobody may change them meanwhile. Cancelled, nothing has happened.

        Raises:
            LocalDiskFullError: There is no room for a copy; nothing has happened.
        """
        if not self.are_present:
            return spool_file
        changing = await copy_of(spool_file, spool) if is_wanted else spool.create()
        spool_file.rest()
        self._aside, self.are_present = spool_file, False
        return changing
