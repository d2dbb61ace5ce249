"""Waiting until the daemon of an unmounted place has sent the rest, with something to look at."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Final

import click

from ctrfs.cli.meter import Meter, wall_s
from ctrfs.cli.sending import summary
from ctrfs.disk.progress import read_progress
from ctrfs.mount.records import MountRecord, wait_for_end

# After this long in silence a waiting user is told what is waited for.
_SILENCE_S: Final = 1.0
_INTERVAL_S: Final = 0.5
# In a log, a line now and then.
_LINE_INTERVAL_S: Final = 10.0


def wait_until_sent(record: MountRecord, *, timeout_s: float, is_quiet: bool) -> bool:
    """Block until the daemon of ``record`` has ended; return False if it has not in time.

    Draws progress bars on stderr if that is a terminal, and writes a line every ten seconds
    if not; nothing if ``is_quiet``.
    """
    deadline_s = time.monotonic() + timeout_s
    if wait_for_end(record, timeout_s=min(timeout_s, _SILENCE_S)):
        return True
    if is_quiet:
        return wait_for_end(record, timeout_s=max(0.0, deadline_s - time.monotonic()))
    with _display(record) as show:
        while (left_s := deadline_s - time.monotonic()) > 0:
            show()
            if wait_for_end(record, timeout_s=min(_INTERVAL_S, left_s)):
                return True
    return False


def _display(record: MountRecord) -> AbstractContextManager[Callable[[], None]]:
    return _bars(record) if sys.stderr.isatty() else _lines(record)


@contextmanager
def _lines(record: MountRecord) -> Iterator[Callable[[], None]]:
    meter = Meter()
    next_s = time.monotonic() + _LINE_INTERVAL_S - _SILENCE_S

    def show() -> None:
        nonlocal next_s
        progress = read_progress(Path(record.state_path), pid=record.pid)
        if progress is None:
            return
        reading = meter.read(progress, now_s=wall_s())
        if time.monotonic() >= next_s and not reading.is_done:
            next_s += _LINE_INTERVAL_S
            click.echo(f"ctrfs: sending the rest: {summary(progress, reading)}", err=True)

    yield show


@contextmanager
def _bars(record: MountRecord) -> Iterator[Callable[[], None]]:
    # Loaded here: most mounts end within the first second, and rich takes a tenth of one.
    from rich.console import Console  # noqa: PLC0415
    from rich.live import Live  # noqa: PLC0415

    from ctrfs.cli.sending_view import Shown, can_draw, drawing_of  # noqa: PLC0415

    console = Console(stderr=True)
    if not can_draw(console):
        with _lines(record) as show:
            yield show
        return
    meter = Meter()
    title = f"unmounted; sending the rest of {record.mountpoint}"
    with Live(console=console, auto_refresh=False, transient=True) as live:

        def draw() -> None:
            progress = read_progress(Path(record.state_path), pid=record.pid)
            reading = None if progress is None else meter.read(progress, now_s=wall_s())
            note = "waiting for the daemon …"
            shown = Shown(title=title, note=note, progress=progress, reading=reading)
            live.update(drawing_of([shown]), refresh=True)

        yield draw
