"""What of this user's is mounted, and what its state directories keep: for several commands."""

from __future__ import annotations

import enum
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from ctrfs.disk.reading import SlotContents, read_slot, slots_below
from ctrfs.errors import CtrfsError, LocalDiskError
from ctrfs.mount.mountinfo import current_mounts
from ctrfs.mount.places import state_base
from ctrfs.mount.preflight import resolve_mountpoint
from ctrfs.mount.records import MountRecord, MountRecords, is_alive
from ctrfs.mount.source import parse_source


class MountState(enum.Enum):
    """What has become of a mount."""

    MOUNTED = "mounted"
    ENDING = "ending"
    """Unmounted; its daemon still sends."""
    DEAD = "dead"
    """Its daemon is gone, the mount point is not."""


class KnownMount(msgspec.Struct, frozen=True, kw_only=True):
    """A mount of this user that has not ended well."""

    record: MountRecord
    state: MountState


class KeptState(msgspec.Struct, frozen=True, kw_only=True):
    """One slot of a state directory, and who works with it."""

    path: Path
    source: str
    """SOURCE as it was mounted, or the directory's name where nobody wrote that down."""
    mount: KnownMount | None
    """The mount that holds the slot, if its daemon lives."""
    contents: SlotContents

    @property
    def mountpoint(self) -> str | None:
        """Where the slot's source is mounted, if it is."""
        if self.mount is None or self.mount.state is not MountState.MOUNTED:
            return None
        return self.mount.record.mountpoint


class Inventory(msgspec.Struct, frozen=True, kw_only=True):
    """All that was found."""

    mounts: tuple[KnownMount, ...]
    kept: tuple[KeptState, ...]
    problems: tuple[str, ...]
    """State that could not be read, a line each."""


def take_inventory(place: str | None = None) -> Inventory:
    """Return all mounts of this user and all their state, or those of one source.

    Waits for the local disk only: neither a service nor a mount is asked.

    Args:
        place: SOURCE, a mount point, or a state directory; None: everything.

    Raises:
        CtrfsError: Nothing is known of ``place``.
    """
    records = MountRecords(state_base()).read_all()
    mounts = list(_known_mounts(records))
    slots = {*slots_below(state_base())}
    # A mount may keep its state elsewhere (-o state_dir).
    slots |= {Path(each.state_path) for each in records if Path(each.state_path).is_dir()}
    kept: list[KeptState] = []
    problems: list[str] = []
    for slot in sorted(slots):
        try:
            state = _kept_state(slot, records, mounts)
        except LocalDiskError as error:
            problems.append(str(error))
            continue
        if state is None:
            continue
        kept.append(state)
        if damaged := state.contents.damaged_rows:
            problems.append(f"{damaged} row(s) of {slot / 'state.db'} are damaged")
    found = Inventory(mounts=tuple(mounts), kept=tuple(kept), problems=tuple(problems))
    return found if place is None else _only(place, found, records)


def _known_mounts(records: Sequence[MountRecord]) -> Iterator[KnownMount]:
    ours = {str(mount.mountpoint) for mount in current_mounts() if mount.is_ours}
    for record in records:
        if is_alive(record):
            is_mounted = record.mountpoint in ours and not record.has_ended
            state = MountState.MOUNTED if is_mounted else MountState.ENDING
            yield KnownMount(record=record, state=state)
        elif record.mountpoint in ours:
            yield KnownMount(record=record, state=MountState.DEAD)


def _kept_state(
    slot: Path, records: Sequence[MountRecord], mounts: Sequence[KnownMount]
) -> KeptState | None:
    """Return what a slot keeps; None if all that ever came of it was a mount that failed."""
    contents = read_slot(slot)
    written = [each.source for each in records if each.state_path == str(slot)]
    if contents == SlotContents(source=None) and not written:
        return None
    source = contents.source or (written[0] if written else slot.parent.name)
    alive = [
        each
        for each in mounts
        if each.record.state_path == str(slot) and each.state is not MountState.DEAD
    ]
    return KeptState(path=slot, source=source, mount=next(iter(alive), None), contents=contents)


def _only(place: str, found: Inventory, records: Sequence[MountRecord]) -> Inventory:
    """Return what belongs to one source: with a mount point, to the source mounted there."""
    if ":" in place and "/" not in place.partition(":")[0]:
        source = parse_source(place).text
        homes = {each.path.parent for each in found.kept if each.source == source}
    else:
        homes = _homes_of_path(place, records)
    mounts = [each for each in found.mounts if Path(each.record.state_path).parent in homes]
    kept = [each for each in found.kept if each.path.parent in homes]
    if not mounts and not kept:
        raise CtrfsError(f"nothing is known of {place}; ctrfs status lists what is")
    return Inventory(mounts=tuple(mounts), kept=tuple(kept), problems=found.problems)


def _homes_of_path(place: str, records: Sequence[MountRecord]) -> set[Path]:
    given = Path(os.path.abspath(place))  # noqa: PTH100  # the last part stays as it is
    mountpoint = given.parent.resolve() / given.name
    # Only what is no mount point of ours may be looked at: a daemon that hangs does not answer.
    if all(each.mountpoint != str(mountpoint) for each in records):
        mountpoint = resolve_mountpoint(place)
    homes = {Path(each.state_path).parent for each in records if each.mountpoint == str(mountpoint)}
    return homes | {given, given.parent}
