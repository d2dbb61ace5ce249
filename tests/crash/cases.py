"""What users do, and the failpoints on the way of each: the rows of the crash matrix.

Paths begin with a container whose name begins with ``TAG``, which a run replaces by a name of
its own: many runs share one service.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from tests.crash.ledger import Kind, Operation

from ctrfs.config import WriteMode

TAG: Final = "TAG"
# More than one page and more than one write; and another that is of another length.
SIZE: Final = 25_000
OTHER_SIZE: Final = 31_000
# So few that write=back keeps them with their record.
SMALL_SIZE: Final = 5_000
# So many that they are on their way to the service while this machine's disk takes them.
LARGE_SIZE: Final = 3_000_000
# Names ending so live on one machine only.
LOCAL_SUFFIX: Final = "~"

_SAVED: Final = (
    "spool.synced",
    "save.digested",
    "database.committed",
    "save.intended",
    "save.stored",
    "save.bound",
    "save.settled",
)
_REPLACED: Final = (*_SAVED, "save.deleted")
# With write=back the close, or the rename, keeps what is to be sent, and the rest follows.
_SAVED_LATER: Final = (
    "spool.synced",
    "database.committed",
    "close.kept",
    "save.intended",
    "save.stored",
    "save.bound",
    "save.settled",
)
_SAVED_SMALL_LATER: Final = tuple(point for point in _SAVED_LATER if point != "spool.synced")
_REPLACED_LATER: Final = (*_SAVED_LATER, "save.deleted")
_MOVED_LATER: Final = (*_REPLACED_LATER, "rename.kept")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One thing that users do.

    Attributes:
        setup: What is there before, acknowledged.
        steps: What is cut off, one call after another.
        points: Every failpoint that the steps pass with write=through, and no other.
        points_later: The same with write=back, to the end of what is sent behind the steps.
    """

    name: str
    setup: tuple[Operation, ...]
    steps: tuple[Operation, ...]
    points: tuple[str, ...]
    points_later: tuple[str, ...]

    def points_in(self, mode: WriteMode) -> tuple[str, ...]:
        """Return every failpoint that the steps, and what follows from them, pass."""
        return self.points if mode is WriteMode.THROUGH else self.points_later

    def tagged(self, tag: str, outside: Path) -> Case:
        """Return the case with names of its own; ``cp -r`` copies from ``outside``."""

        def named(operation: Operation) -> Operation:
            path = operation.path.replace(TAG, tag)
            if operation.kind is Kind.COPY_TREE:
                path = str(outside)
            return replace(operation, path=path, to=operation.to.replace(TAG, tag))

        return replace(
            self,
            setup=tuple(named(operation) for operation in self.setup),
            steps=tuple(named(operation) for operation in self.steps),
        )


def save(path: str, seed: int, *, size: int = SIZE) -> Operation:
    return Operation(kind=Kind.SAVE, path=f"{TAG}-{path}", seed=seed, size=size)


def step(kind: Kind, path: str, to: str = "", *, seed: int = 0, size: int = 0) -> Operation:
    target = f"{TAG}-{to}" if to else ""
    return Operation(kind=kind, path=f"{TAG}-{path}", to=target, seed=seed, size=size)


def _case(
    name: str,
    points: Sequence[str],
    *steps: Operation,
    setup: Sequence[Operation] = (),
    later: Sequence[str] | None = None,
) -> Case:
    return Case(
        name=name,
        setup=(step(Kind.MKDIR, "w"), *setup),
        steps=steps,
        points=tuple(points),
        points_later=tuple(points if later is None else later),
    )


_FOLDER: Final = (
    step(Kind.MKDIR, "w/d"),
    step(Kind.MKDIR, "w/d/deep"),
    save("w/d/a.txt", 1),
    save("w/d/b.txt", 2),
    save("w/d/deep/c.txt", 3),
)
_MOVED: Final = (
    "spool.synced",
    "save.digested",
    "database.committed",
    "rename.intended",
    "rename.stored",
    "rename.bound",
    "save.deleted",
    "rename.settled",
)
_REMOVED: Final = ("database.committed", "unlink.intended", "unlink.deleted", "unlink.settled")
_REMOVED_LATER: Final = ("database.committed", "unlink.intended", "unlink.settled", "save.deleted")

CASES: Final[tuple[Case, ...]] = (
    _case("create", _SAVED, save("w/a.txt", 1), later=_SAVED_LATER),
    _case(
        "create small",
        _SAVED,
        save("w/a.txt", 1, size=SMALL_SIZE),
        later=_SAVED_SMALL_LATER,
    ),
    _case(
        "overwrite small, and again",
        _REPLACED,
        save("w/a.txt", 2, size=SMALL_SIZE),
        save("w/a.txt", 3, size=SMALL_SIZE + 1),
        setup=[save("w/a.txt", 1, size=SMALL_SIZE)],
        later=(*_SAVED_SMALL_LATER, "save.deleted"),
    ),
    _case(
        "overwrite large",
        _REPLACED,
        save("w/a.txt", 2, size=LARGE_SIZE),
        setup=[save("w/a.txt", 1)],
        later=_REPLACED_LATER,
    ),
    _case("create empty", _SAVED, save("w/a.txt", 1, size=0), later=_SAVED_LATER),
    _case(
        "overwrite",
        _REPLACED,
        save("w/a.txt", 2, size=OTHER_SIZE),
        setup=[save("w/a.txt", 1)],
        later=_REPLACED_LATER,
    ),
    _case(
        "overwrite twice",
        _REPLACED,
        save("w/a.txt", 2, size=OTHER_SIZE),
        save("w/a.txt", 3),
        setup=[save("w/a.txt", 1)],
        later=_REPLACED_LATER,
    ),
    _case(
        "append",
        _REPLACED,
        step(Kind.APPEND, "w/a.txt", seed=2, size=SIZE),
        setup=[save("w/a.txt", 1)],
    ),
    _case(
        "rename",
        _MOVED,
        step(Kind.RENAME, "w/a.txt", "w/b.txt"),
        setup=[save("w/a.txt", 1)],
        later=_MOVED_LATER,
    ),
    _case(
        "rename over another",
        _MOVED,
        step(Kind.RENAME, "w/a.txt", "w/b.txt"),
        setup=[save("w/a.txt", 1), save("w/b.txt", 2, size=OTHER_SIZE)],
        later=_MOVED_LATER,
    ),
    _case(
        "rename over the same bytes",
        _MOVED,
        step(Kind.RENAME, "w/a.txt", "w/b.txt"),
        setup=[save("w/a.txt", 1), save("w/b.txt", 1)],
        later=_MOVED_LATER,
    ),
    _case(
        "rename into another container",
        _MOVED,
        step(Kind.RENAME, "w/a.txt", "v/b.txt"),
        setup=[
            step(Kind.MKDIR, "v"),
            save("w/a.txt", 1),
            save("v/b.txt", 2, size=OTHER_SIZE),
        ],
    ),
    _case(
        "rename before the close",
        _REPLACED,
        step(Kind.SAVE_RENAMED, "w/new", "w/a.txt", seed=2, size=OTHER_SIZE),
        setup=[save("w/a.txt", 1)],
        later=_REPLACED_LATER,
    ),
    _case(
        "rename over what was just saved, before the close",
        _REPLACED,
        save("w/a.txt", 1),
        step(Kind.SAVE_RENAMED, "w/new", "w/a.txt", seed=2, size=OTHER_SIZE),
        later=_SAVED_LATER,
    ),
    _case(
        "unlink",
        _REMOVED,
        step(Kind.UNLINK, "w/a.txt"),
        setup=[save("w/a.txt", 1)],
        later=_REMOVED_LATER,
    ),
    _case(
        "unlink and create again",
        (*_REMOVED, *_REPLACED),
        step(Kind.UNLINK, "w/a.txt"),
        save("w/a.txt", 2),
        save("w/a.txt", 1),
        setup=[save("w/a.txt", 1)],
        later=(*_REMOVED_LATER, *_REPLACED_LATER),
    ),
    _case(
        "rename a folder",
        (
            "database.committed",
            "folder.intended",
            "folder.copied",
            "folder.moved",
            "save.deleted",
            "folder.settled",
        ),
        step(Kind.RENAME, "w/d", "w/e"),
        setup=_FOLDER,
    ),
    _case("make a container", (), step(Kind.MKDIR, "v")),
    _case(
        "delete a container",
        ("database.committed", "rmdir.intended", "rmdir.deleted", "rmdir.settled"),
        step(Kind.RMDIR, "v"),
        setup=[step(Kind.MKDIR, "v")],
    ),
    _case(
        "rename a container over another",
        ("database.committed", "container.created", "container.replaced"),
        step(Kind.RENAME, "v", "u"),
        setup=[step(Kind.MKDIR, "v"), step(Kind.MKDIR, "u")],
    ),
    _case(
        "keep a local-only name",
        ("spool.synced", "local.synced", "database.committed", "local.kept"),
        save(f"w/notes{LOCAL_SUFFIX}", 1),
        save(f"w/notes{LOCAL_SUFFIX}", 2, size=OTHER_SIZE),
    ),
    _case(
        "send what was local-only",
        _MOVED,
        step(Kind.RENAME, f"w/notes{LOCAL_SUFFIX}", "w/notes"),
        setup=[save(f"w/notes{LOCAL_SUFFIX}", 1), save("w/notes", 2, size=OTHER_SIZE)],
        later=_MOVED_LATER,
    ),
    _case(
        "make a file local-only",
        ("spool.synced", "local.synced", "database.committed", "local.kept", "save.deleted"),
        step(Kind.RENAME, "w/notes", f"w/notes{LOCAL_SUFFIX}"),
        setup=[save(f"w/notes{LOCAL_SUFFIX}", 1), save("w/notes", 2, size=OTHER_SIZE)],
    ),
    _case("copy a tree", _SAVED, step(Kind.COPY_TREE, "outside", "w/tree"), later=_SAVED_LATER),
)

# What the next mount of the same source passes, beside what its sending passes; the tests of
# tests/crash/test_takeover.py die there.
POINTS_OF_A_START: Final = (
    "takeover.linked",
    "takeover.recorded",
    "takeover.released",
    "replay.restored",
)


# Those that are killed twice, again while the next mount repairs what the first kill left: where
# the first kill strikes, such that there is much to repair, and the same each time: of a folder
# several copies are under way at once, and which have arrived differs.
DIES_FIRST_AT: Final[dict[WriteMode, dict[str, str]]] = {
    WriteMode.THROUGH: {
        "overwrite": "save.stored",
        "rename over another": "rename.stored",
        "rename into another container": "rename.bound",
        "unlink": "unlink.intended",
        "rename a folder": "folder.intended",
        "delete a container": "rmdir.intended",
    },
    WriteMode.BACK: {
        "overwrite": "close.kept",
        "overwrite twice": "save.stored",
        "rename over another": "rename.kept",
        "rename into another container": "rename.bound",
        "unlink": "unlink.intended",
        "rename a folder": "folder.intended",
        "delete a container": "rmdir.intended",
    },
}


def cases_killed_twice(mode: WriteMode) -> list[Case]:
    """Return those cases."""
    return [case for case in CASES if case.name in DIES_FIRST_AT[mode]]


def plant_outside(folder: Path) -> Path:
    """Make the folder that ``cp -r`` copies: three files, one of them empty, one deeper."""
    (folder / "deep").mkdir(parents=True)
    (folder / "one").write_bytes(b"1" * SIZE)
    (folder / "empty").write_bytes(b"")
    (folder / "deep" / "two").write_bytes(b"2" * OTHER_SIZE)
    return folder
