"""``ctrfs status --watch``: how the sending of all mounts goes on, again and again."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import click
import msgspec

from ctrfs.cli.inventory import Inventory, KeptState, KnownMount, MountState, take_inventory
from ctrfs.cli.meter import Meter, Reading, wall_s
from ctrfs.cli.output import printable
from ctrfs.cli.sending import summary
from ctrfs.disk.progress import MountProgress, read_progress
from ctrfs.errors import CtrfsError
from ctrfs.mount.records import is_alive
from ctrfs.units import text_from_size

_DRAWING_INTERVAL_S: Final = 0.5
_JSON_INTERVAL_S: Final = 1.0
# In a log, a line now and then.
_LINE_INTERVAL_S: Final = 10.0
# What is mounted changes seldom, and state directories may hold ten thousand rows.
_INVENTORY_INTERVAL_S: Final = 5.0
_EXIT_TERMINATED: Final = 143  # what a shell shows for SIGTERM


class _Seen(msgspec.Struct, frozen=True, kw_only=True):
    """One mount at one moment; without figures if its daemon says nothing."""

    mount: KnownMount
    progress: MountProgress | None
    reading: Reading | None

    @property
    def title(self) -> str:
        record = self.mount.record
        if self.mount.state is MountState.ENDING:
            return f"{record.source} unmounted; sending the rest of {record.mountpoint}"
        return f"{record.source} at {record.mountpoint}"

    @property
    def note(self) -> str:
        is_dead = self.mount.state is MountState.DEAD
        return "the daemon is gone" if is_dead else "the daemon says nothing yet"


class _Watch:
    """Looks at what there is; keeps a meter for each mount."""

    def __init__(self, place: str | None) -> None:
        """Take a first look.

        Raises:
            CtrfsError: Nothing is known of ``place``.
        """
        self._place = place
        self._meters: dict[tuple[int, str], Meter] = {}
        self._found = take_inventory(place)
        self._found_at_s = time.monotonic()

    def look(self) -> list[_Seen]:
        """Return how the mounts are now."""
        age_s = time.monotonic() - self._found_at_s
        if age_s > _INVENTORY_INTERVAL_S or self._has_lost_one():
            self._found_at_s = time.monotonic()
            self._found = Inventory(mounts=(), kept=(), problems=())
            with suppress(CtrfsError):  # the place has been unmounted, and all is sent
                self._found = take_inventory(self._place)
        return [self._seen(mount) for mount in self._found.mounts]

    def waiting(self) -> list[KeptState]:
        """Return what nobody sends: of sources that are not mounted."""
        return [
            each
            for each in self._found.kept
            if each.mount is None and each.contents.waits_for_the_service
        ]

    def _has_lost_one(self) -> bool:
        return any(
            mount.state is not MountState.DEAD and not is_alive(mount.record)
            for mount in self._found.mounts
        )

    def _seen(self, mount: KnownMount) -> _Seen:
        record = mount.record
        progress = read_progress(Path(record.state_path), pid=record.pid)
        if progress is None or mount.state is MountState.DEAD:
            return _Seen(mount=mount, progress=None, reading=None)
        meter = self._meters.setdefault((record.pid, record.state_path), Meter())
        return _Seen(mount=mount, progress=progress, reading=meter.read(progress, now_s=wall_s()))


def watch(place: str | None, *, as_json: bool) -> None:
    """Show how the sending goes on until the user has seen enough (Ctrl-C), which is no failure.

    Raises:
        CtrfsError: Nothing is known of ``place``.
    """
    # Else the terminal would be left without a cursor.
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(_EXIT_TERMINATED))
    watched = _Watch(place)
    with suppress(KeyboardInterrupt):
        if as_json:
            _write_json(watched)
        elif sys.stdout.isatty():
            _draw(watched)
        else:
            _write_lines(watched)


def _draw(watched: _Watch) -> None:
    from rich.console import Console  # noqa: PLC0415  # a tenth of a second
    from rich.live import Live  # noqa: PLC0415

    from ctrfs.cli.sending_view import Shown, can_draw, drawing_of  # noqa: PLC0415

    console = Console()
    if not can_draw(console):
        _write_lines(watched)
        return
    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
        while True:
            shown = [
                Shown(
                    title=each.title, note=each.note, progress=each.progress, reading=each.reading
                )
                for each in watched.look()
            ]
            shown += [Shown(title=each.source, note=_note(each)) for each in watched.waiting()]
            live.update(drawing_of(shown or [Shown(title="nothing is mounted")]), refresh=True)
            _pause(_DRAWING_INTERVAL_S)


def _write_lines(watched: _Watch) -> None:
    """Write a line a mount at once, then where something has changed, never more than now and then."""
    written: dict[str, str] = {}
    next_s = 0.0
    while True:
        lines = {each.title: _line(each) for each in watched.look()}
        lines |= {each.source: _note(each) for each in watched.waiting()}
        if time.monotonic() >= next_s:
            next_s = time.monotonic() + _LINE_INTERVAL_S
            for title, line in (lines or {"": "nothing is mounted"}).items():
                if written.get(title) != line:
                    click.echo(printable(f"{title}  {line}" if title else line))
            written = lines or {"": "nothing is mounted"}
            sys.stdout.flush()
        _pause(_DRAWING_INTERVAL_S)


def _write_json(watched: _Watch) -> None:
    """Write one JSON object a second, each on a line of its own."""
    while True:
        value = {"time": wall_s(), "mounts": [_values_of(each) for each in watched.look()]}
        click.echo(json.dumps(value))
        sys.stdout.flush()
        _pause(_JSON_INTERVAL_S)


def _values_of(seen: _Seen) -> dict[str, object]:
    record = seen.mount.record
    return {
        "mountpoint": record.mountpoint,
        "source": record.source,
        "state": seen.mount.state.value,
        "pid": record.pid,
        "progress": msgspec.to_builtins(seen.progress),
        "reading": msgspec.to_builtins(seen.reading),
    }


def _line(seen: _Seen) -> str:
    if seen.progress is None or seen.reading is None:
        return seen.note
    return summary(seen.progress, seen.reading)


def _note(kept: KeptState) -> str:
    files: Sequence[int] = [each.size_bytes for each in kept.contents.unsent]
    what = f"{len(files)} file(s), {text_from_size(sum(files))}" if files else "some changes"
    return f"not mounted; {what} not sent, see ctrfs status"


def _pause(seconds: float) -> None:
    time.sleep(seconds)  # noqa: TID251  # no event loop here: Ctrl-C is all there is to wait for
