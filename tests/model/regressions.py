"""Lists of steps that once broke a promise, as ``test_two_mounts`` prints them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from tests.model.operations import (
    DeleteContainer,
    Fault,
    Open,
    Plant,
    Refresh,
    Remove,
    RemoveFolder,
    Rename,
    Save,
    Step,
    Write,
)

REGRESSIONS: Final[Sequence[tuple[bool, Sequence[Step]]]] = [
    # A file of the same bytes outside the folder was taken for the upload whose answer got lost:
    # the mount then thought that the server cuts folders off, and cleared that file away.
    (
        False,
        [
            Fault(route="create_file", kind="stall", count=2),
            Save(mount=0, path="one/f/a", content=b""),
            Save(mount=1, path="one/a", content=b""),
        ],
    ),
    (
        False,
        [
            Fault(route="create_file", kind="stall", count=2),
            Save(mount=0, path="one/f/a", content=b""),
            Save(mount=0, path="one/a", content=b""),
        ],
    ),
    # What code in the container wrote meanwhile was taken for the upload whose answer got lost.
    (
        False,
        [
            Save(mount=0, path="one/a", content=b""),
            Fault(route="create_file", kind="stall", count=2),
            Save(mount=0, path="one/f/a", content=b"one"),
            Plant(path="one/f/a", content=b"one"),
        ],
    ),
    # The list was wrong, not the mount: it looked for an open file under the name that a newer one
    # had taken meanwhile.
    (
        False,
        [
            Save(mount=0, path="one/a", content=b""),
            Open(mount=0, slot=0, path="one/f/a"),
            Plant(path="one/f/a", content=b""),
            Save(mount=0, path="one/a", content=b""),
            RemoveFolder(mount=0, path="one"),
            Rename(mount=0, old="one/f", new="one/f/h"),
        ],
    ),
    # Nor can a mount tell what another stores from its own upload of the same, answered with 500.
    (
        False,
        [
            Save(mount=0, path="one/a", content=b"one"),
            Fault(route="create_file", kind="500", count=40),
            Save(mount=0, path="one/a", content=b""),
            Save(mount=0, path="one/a", content=b""),
            Save(mount=1, path="one/a", content=b""),
            Save(mount=0, path="one/a", content=b"one"),
        ],
    ),
    # A removal that fails sends what is open; here that is what the service has.
    (
        False,
        [
            Save(mount=0, path="one/a", content=b""),
            Save(mount=1, path="one/a", content=b"two"),
            Open(mount=1, slot=1, path="one/a"),
            Fault(route="delete_file", kind="stall", count=1),
            Write(mount=1, slot=1, offset=0, content=b"two"),
            Remove(mount=1, path="one/a"),
            Save(mount=0, path="one/a", content=b""),
            Refresh(mount=1),
        ],
    ),
    # A copy that a failed renaming may have left under a name that began with a digest looked like
    # what the next renaming had stored, which was taken away: nothing was left.
    (
        False,
        [
            Plant(path="one/f/a", content=b""),
            Remove(mount=0, path="one/f/a"),
            Save(mount=0, path="one/a", content=b""),
            Fault(route="create_file", kind="500", count=8),
            Rename(mount=0, old="one/f", new="one/g"),
            Rename(mount=0, old="one/f", new="one/g"),
        ],
    ),
    # The list was wrong, not the mount: a file cannot go into a container that somebody has deleted.
    (
        False,
        [
            Save(mount=0, path="one/a", content=b""),
            Refresh(mount=1),
            DeleteContainer(container="two"),
            Rename(mount=1, old="one/a", new="two/a"),
        ],
    ),
    # Nor was the mount wrong here: a file that could not go elsewhere is sent to where it is.
    (
        False,
        [
            Fault(route="create_file", kind="429", count=3),
            Save(mount=0, path="one/a", content=b""),
            Rename(mount=0, old="one/a", new="two/a"),
        ],
    ),
    # Nor here: what takes the place of an unsent file takes that of what it was to replace.
    (
        False,
        [
            Save(mount=0, path="one/a", content=b""),
            Open(mount=1, slot=1, path="one/b"),
            Write(mount=1, slot=1, offset=0, content=b"one"),
            Rename(mount=1, old="one/b", new="one/f/a"),
            Rename(mount=1, old="one/a", new="one/f/a"),
        ],
    ),
]
