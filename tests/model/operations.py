"""What two mounts, one client of the API and the world can do, as lists that can be pasted.

A list is drawn by Hypothesis, shrunk by it, printed as Python, and replayed from there. Paths
begin with the name of a container. A step that makes no sense where it stands does nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

from hypothesis import strategies as st

CONTAINERS: Final = ("one", "two")
# Names of folders and of files are never the same: see ``reference``.
FOLDERS: Final = ("f", "f/h", "g")
FILES: Final = ("a", "b", "f/a", "f/h/a", "g/b")
# Few and short, so that the same bytes come up again.
CONTENTS: Final = (b"", b"one", b"two", b"three")
MOUNTS: Final = (0, 1)
SLOTS: Final = (0, 1)


@dataclass(frozen=True, slots=True)
class Save:
    """Overwrite or make a file, as a shell's ``>`` does."""

    mount: int
    path: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Open:
    """Open a file for reading and writing, made if it is missing, and keep it open."""

    mount: int
    slot: int
    path: str


@dataclass(frozen=True, slots=True)
class Write:
    """Write to an open file."""

    mount: int
    slot: int
    offset: int
    content: bytes


@dataclass(frozen=True, slots=True)
class Truncate:
    """Change the length of an open file."""

    mount: int
    slot: int
    size: int


@dataclass(frozen=True, slots=True)
class Look:
    """Read all of an open file."""

    mount: int
    slot: int


@dataclass(frozen=True, slots=True)
class Sync:
    """Do fsync(2) on an open file."""

    mount: int
    slot: int


@dataclass(frozen=True, slots=True)
class Close:
    """Close an open file."""

    mount: int
    slot: int


@dataclass(frozen=True, slots=True)
class Read:
    """Open a file by name, read it, close it."""

    mount: int
    path: str


@dataclass(frozen=True, slots=True)
class Remove:
    """Unlink a file."""

    mount: int
    path: str


@dataclass(frozen=True, slots=True)
class Rename:
    """Give a file or a folder another name."""

    mount: int
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class MakeFolder:
    """Make a folder, or a container."""

    mount: int
    path: str


@dataclass(frozen=True, slots=True)
class RemoveFolder:
    """Remove a folder, or a container."""

    mount: int
    path: str


@dataclass(frozen=True, slots=True)
class Plant:
    """Let code inside the container write a file: its name is as it is."""

    path: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Upload:
    """Let the client of the API upload a file."""

    path: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Delete:
    """Let the client delete a file of a container: the ``nth`` of those there are."""

    container: str
    nth: int


@dataclass(frozen=True, slots=True)
class DeleteContainer:
    """Let the client delete a container and all that is in it."""

    container: str


@dataclass(frozen=True, slots=True)
class Refresh:
    """Have a mount fetch all its listings."""

    mount: int


@dataclass(frozen=True, slots=True)
class Pass:
    """Let time pass."""

    seconds: int


@dataclass(frozen=True, slots=True)
class Fault:
    """Let the next ``count`` requests of one kind fail."""

    route: str
    kind: str
    count: int


@dataclass(frozen=True, slots=True)
class Mend:
    """Let the service be well again."""


@dataclass(frozen=True, slots=True)
class Remount:
    """Unmount, as a user would, and mount again."""

    mount: int


@dataclass(frozen=True, slots=True)
class Kill:
    """End a mount with no chance to do anything, and mount again; the state directory stays."""

    mount: int


@dataclass(frozen=True, slots=True)
class Settle:
    """Mend, close everything, wait until all is sent and seen: now everything must be equal."""


FileStep: TypeAlias = Save | Open | Write | Truncate | Look | Sync | Close | Read
NameStep: TypeAlias = Remove | Rename | MakeFolder | RemoveFolder
OtherStep: TypeAlias = Plant | Upload | Delete | DeleteContainer
WorldStep: TypeAlias = Refresh | Pass | Fault | Mend | Remount | Kill | Settle
Step: TypeAlias = FileStep | NameStep | OtherStep | WorldStep

FAULT_KINDS: Final = ("500", "lost", "stall", "cut", "429")
ROUTES: Final = (
    "create_file", "delete_file", "list_files", "file_content", "list_containers", "*",
)  # fmt: skip


# Drawn one after another, each some six steps long: longer lists than one strategy would draw,
# and they shrink as well.
PARTS: Final = 5


def lists_of_steps(*, has_time: bool = True) -> st.SearchStrategy[list[Step]]:
    """Return the strategy; ``has_time=False`` where real time would have to pass."""
    step = st.one_of(*_often(), *_sometimes(has_time=has_time))
    parts = st.tuples(*[st.lists(step, max_size=12) for _ in range(PARTS)])
    return parts.map(lambda lists: [each for part in lists for each in part])


_MOUNT: Final = st.sampled_from(MOUNTS)
_SLOT: Final = st.sampled_from(SLOTS)
_CONTAINER: Final = st.sampled_from(CONTAINERS)
_FILE: Final = st.one_of(
    # Most of what goes wrong goes wrong between two who mean the same file.
    st.sampled_from(["one/a", "one/f/a"]),
    st.builds("{}/{}".format, _CONTAINER, st.sampled_from(FILES)),
)
_FOLDER: Final = st.builds("{}/{}".format, _CONTAINER, st.sampled_from(FOLDERS))
_CONTENT: Final = st.sampled_from(CONTENTS)
# One is got over, and so are some more; nothing gets over forty.
_COUNT: Final = st.sampled_from([1, 2, 3, 8, 40])


def _often() -> list[st.SearchStrategy[Step]]:
    # Each is built anew: a strategy that stands in a choice twice counts once.
    return [
        *(st.builds(Save, _MOUNT, _FILE, _CONTENT) for _ in range(4)),
        *(st.builds(Open, _MOUNT, _SLOT, _FILE) for _ in range(3)),
        *(
            st.builds(Write, _MOUNT, _SLOT, st.sampled_from([0, 0, 1, 4]), _CONTENT)
            for _ in range(3)
        ),
        *(st.builds(Close, _MOUNT, _SLOT) for _ in range(2)),
        *(st.builds(Rename, _MOUNT, _FILE, _FILE) for _ in range(2)),
        st.builds(Fault, st.sampled_from(ROUTES), st.sampled_from(FAULT_KINDS), _COUNT),
        st.builds(Fault, st.just("create_file"), st.sampled_from(FAULT_KINDS), _COUNT),
    ]


def _sometimes(*, has_time: bool) -> list[st.SearchStrategy[Step]]:
    return [
        st.builds(Truncate, _MOUNT, _SLOT, st.sampled_from([0, 2, 6])),
        st.builds(Look, _MOUNT, _SLOT),
        st.builds(Sync, _MOUNT, _SLOT),
        st.builds(Read, _MOUNT, _FILE),
        st.builds(Remove, _MOUNT, _FILE),
        st.builds(Rename, _MOUNT, _FOLDER, _FOLDER),
        st.builds(MakeFolder, _MOUNT, _FOLDER),
        st.builds(MakeFolder, _MOUNT, _CONTAINER),
        st.builds(RemoveFolder, _MOUNT, _FOLDER | _CONTAINER),
        st.builds(Plant, _FILE, _CONTENT),
        st.builds(Upload, _FILE, _CONTENT),
        st.builds(Delete, _CONTAINER, st.integers(0, 3)),
        st.builds(Refresh, _MOUNT),
        st.builds(Kill, _MOUNT),
        _seldom(has_time=has_time),
        *([st.builds(Pass, st.sampled_from([2, 11, 61, 61, 11, 400]))] if has_time else []),
    ]


def _seldom(*, has_time: bool) -> st.SearchStrategy[Step]:
    # Not as ways of their own: those would come up as often as all others.
    ways: list[st.SearchStrategy[Step]] = [
        st.builds(Mend),
        st.builds(Remount, _MOUNT),
        st.builds(DeleteContainer, _CONTAINER),
        *([st.builds(Settle)] if has_time else []),
    ]
    return st.integers(0, len(ways) - 1).flatmap(ways.__getitem__)
