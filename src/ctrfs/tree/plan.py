"""From the rows of a listing to the entries they show as; pure.

docs/semantics.md, promises 1 to 4: of files with one shown name the newest has it, the others
keep their full stored name, rows of one stored path are told apart by their ids; of containers
with one name the oldest keeps it. Every row that can be understood gets exactly one entry.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence

import msgspec

from ctrfs.api.models import Container, ContainerFile, ContainerId, FileId, RejectedRow
from ctrfs.tree.names import ShownPath, entry_name_for_container, shown_path, with_id
from ctrfs.tree.nodes import EntryPath


class PlannedFile(msgspec.Struct, frozen=True, kw_only=True):
    """One file and the entry it shows as."""

    file: ContainerFile
    path: EntryPath
    digest: str | None


class FilePlan(msgspec.Struct):
    """What a container shows."""

    files: dict[FileId, PlannedFile] = msgspec.field(default_factory=dict)
    rejected: list[RejectedRow] = msgspec.field(default_factory=list)


class Reserved(msgspec.Struct, frozen=True, kw_only=True):
    """Paths that entries of this machine have, which no row may take."""

    files: Collection[EntryPath] = ()
    folders: Collection[EntryPath] = ()


def plan_containers(
    containers: Iterable[Container], *, show_expired: bool, reserved: Collection[bytes]
) -> dict[ContainerId, bytes]:
    """Return the entry name of each container to show, the oldest first."""
    names: dict[ContainerId, bytes] = {}
    taken = set(reserved)
    for container in sorted(containers, key=lambda row: row.created_at_s):
        if not (container.is_alive or (show_expired and container.is_expired)):
            continue
        name = entry_name_for_container(container.name)
        name = next(free for free in _with_ids(name, container.id) if free not in taken)
        taken.add(name)
        names[container.id] = name
    return names


def plan_files(
    rows: Sequence[ContainerFile], *, reserved: Reserved, may_have_prefix: bool
) -> FilePlan:
    """Return where each row shows.

    Args:
        rows: Oldest first; rows of one second in the service's order.
        reserved: What this machine already has in the container.
        may_have_prefix: False once the server is known to add no hash to names.
    """
    plan = FilePlan()
    wishes: list[tuple[ContainerFile, ShownPath]] = []
    for row in reversed(rows):
        try:
            wishes.append(
                (row, _clear_of_files(shown_path(row, may_have_prefix=may_have_prefix), reserved))
            )
        except ValueError as error:
            plan.rejected.append(RejectedRow(reason=str(error), excerpt=ascii(row.path)[:200]))
    taken = {*reserved.files, *reserved.folders, *_folders_above(shown for _, shown in wishes)}
    winners: dict[EntryPath, ContainerFile] = {}
    losers: list[tuple[ContainerFile, ShownPath]] = []
    for row, shown in wishes:
        path = (*shown.folders, shown.name)
        if path in taken:
            losers.append((row, shown))
        else:
            taken.add(path)
            winners[path] = row
            plan.files[row.id] = PlannedFile(file=row, path=path, digest=shown.digest)
    for row, shown in losers:
        winner = winners.get((*shown.folders, shown.name))
        path = next(free for free in _other_paths(row, shown, winner) if free not in taken)
        taken.add(path)
        plan.files[row.id] = PlannedFile(file=row, path=path, digest=shown.digest)
    return plan


def _folders_above(paths: Iterable[ShownPath]) -> Iterator[EntryPath]:
    for shown in paths:
        for depth in range(1, len(shown.folders) + 1):
            yield shown.folders[:depth]


def _clear_of_files(shown: ShownPath, reserved: Reserved) -> ShownPath:
    """Lead the folders of a row around files of this machine that stand in their place."""
    if not reserved.files:
        return shown
    folders: EntryPath = ()
    for name in shown.folders:
        clear = name
        while (*folders, clear) in reserved.files:
            clear += b"~"
        folders = (*folders, clear)
    if folders == shown.folders:
        return shown
    return ShownPath(
        folders=folders, name=shown.name, full_name=shown.full_name, digest=shown.digest
    )


def _other_paths(
    row: ContainerFile, shown: ShownPath, winner: ContainerFile | None
) -> Iterator[EntryPath]:
    is_same_path = winner is not None and winner.path == row.path
    if shown.full_name != shown.name and not is_same_path:
        yield (*shown.folders, shown.full_name)
    for name in _with_ids(shown.name, row.id):
        yield (*shown.folders, name)


def _with_ids(name: bytes, entry_id: str) -> Iterator[bytes]:
    yield name
    yield with_id(name, entry_id, whole=False)
    yield with_id(name, entry_id, whole=True)
    serial = 2
    while True:
        yield with_id(name, f"{entry_id}~{serial}", whole=True)
        serial += 1
