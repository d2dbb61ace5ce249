"""What uploads have shown about this server's names: does it keep slashes, does it add a hash.

Learnt from the answers, kept across mounts as facts of the state directory.
"""

from __future__ import annotations

import enum
import logging

from ctrfs.api.models import ContainerFile
from ctrfs.config import SlashMode
from ctrfs.disk.facts import ServiceFacts
from ctrfs.errors import LocalDiskError
from ctrfs.tree.names import has_prefix, shown_path, stored_name
from ctrfs.tree.nodes import EntryPath

log = logging.getLogger(__name__)

_ADDS_PREFIX = "adds_prefix"
_SLASHES = "slashes"


class Landing(enum.Enum):
    """Where an upload went."""

    IN_PLACE = "in place"
    MISPLACED = "misplaced"
    """The server cut the folders off; send it again under an encoded name."""


class NamingRules:
    """The learnt rules. Not async on purpose: one answer is learnt from in one step."""

    def __init__(self, facts: ServiceFacts, *, slash_mode: SlashMode) -> None:
        self._facts = facts
        self._adds_prefix = facts.get(_ADDS_PREFIX)
        self._slash_mode = slash_mode
        if slash_mode is SlashMode.UNKNOWN:
            self._slash_mode = SlashMode(facts.get(_SLASHES) or SlashMode.UNKNOWN.value)

    @property
    def may_have_prefix(self) -> bool:
        """Whether a hash at the start of an upload's name is the server's."""
        return self._adds_prefix != "no"

    def stored_name(self, path: EntryPath) -> str:
        """Return the name to upload the file at ``path`` under.

        Raises:
            InvalidNameError: A name in ``path`` cannot be sent.
        """
        return stored_name(path, keeps_slashes=self._slash_mode is not SlashMode.CUT)

    def learn(self, path: EntryPath, *, name: str, digest: str, answer: ContainerFile) -> Landing:
        """Take what one answer shows of the server.

        Args:
            path: Where the file is to show.
            name: The name it was uploaded under.
            digest: Of the uploaded bytes.
            answer: What the server says it stored.
        """
        components = answer.path.split("/")
        if any(has_prefix(component, digest) for component in components):
            self._set_prefix("yes")
        elif components[-1] == name.rsplit("/", 1)[-1]:
            self._set_prefix("no")
        if "/" not in name:
            return Landing.IN_PLACE
        shown = shown_path(answer, may_have_prefix=self.may_have_prefix)
        if (*shown.folders, shown.name) == path:
            self._set_slashes(SlashMode.KEPT)
            return Landing.IN_PLACE
        if not shown.folders and self._slash_mode is not SlashMode.CUT:
            self._set_slashes(SlashMode.CUT)
            return Landing.MISPLACED
        return Landing.IN_PLACE

    def _set_prefix(self, value: str) -> None:
        if self._adds_prefix != value:
            log.info(
                "this server %s a hash to uploaded names",
                "adds" if value == "yes" else "does not add",
            )
            self._adds_prefix = value
            self._keep(_ADDS_PREFIX, value)

    def _set_slashes(self, mode: SlashMode) -> None:
        if self._slash_mode is not mode:
            log.info("slashes in uploaded names: this server %s them", mode.name.lower())
            self._slash_mode = mode
            self._keep(_SLASHES, mode.value)

    def _keep(self, name: str, value: str) -> None:
        try:
            self._facts.set(name, value)
        except LocalDiskError as error:
            # The upload that has shown it is made, and its close must not fail for that.
            log.warning("what uploads show of this server cannot be kept: %s", error)
