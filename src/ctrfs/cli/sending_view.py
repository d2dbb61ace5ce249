"""Progress bars for the sending of mounts, as wide as the terminal is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ctrfs.cli.meter import Reading
from ctrfs.cli.output import printable
from ctrfs.cli.sending import figures, file_state, remarks
from ctrfs.disk.progress import MountProgress

# More lines than that are not read, and a small terminal has 24 in all.
_FILES_MAX: Final = 5


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """What one mount has to show."""

    title: str
    note: str = ""
    """Said where there are no figures."""
    progress: MountProgress | None = None
    reading: Reading | None = None


def can_draw(console: Console) -> bool:
    """Whether lines can be drawn over: on a terminal that is more than a printer."""
    return console.is_terminal and not console.is_dumb_terminal


def drawing_of(mounts: Sequence[Shown]) -> RenderableType:
    """Return everything to be shown of some mounts."""
    return Group(*(part for mount in mounts for part in _parts_of(mount)))


def _parts_of(shown: Shown) -> list[RenderableType]:
    progress, reading = shown.progress, shown.reading
    title = Text(printable(shown.title), style="bold", no_wrap=True, overflow="ellipsis")
    if progress is None or reading is None:
        return [title, Text(f"  {shown.note}")]
    if reading.is_done:
        return [title, Text("  everything is sent"), *_remarks(progress, reading)]
    return [
        title,
        _bar(reading),
        _indented(Text(figures(reading))),
        *_files(progress),
        *_remarks(progress, reading),
    ]


def _bar(reading: Reading) -> RenderableType:
    row = Table.grid(padding=(0, 1), expand=True)
    row.add_column(ratio=1)
    row.add_column(justify="right", no_wrap=True, width=5)
    row.add_row(
        ProgressBar(total=1.0, completed=reading.share, width=None),
        Text(f"{int(reading.share * 100)}%"),
    )
    return _indented(row)


def _files(progress: MountProgress) -> list[RenderableType]:
    if not progress.sending:
        return []
    rows = Table.grid(padding=(0, 2))
    rows.add_column(justify="right", no_wrap=True)
    rows.add_column(no_wrap=True, overflow="ellipsis")
    for each in progress.sending[:_FILES_MAX]:
        rows.add_row(Text(file_state(each)), Text(printable(each.name)))
    more = progress.sending_files - min(len(progress.sending), _FILES_MAX)
    if more:
        rows.add_row("", Text(f"and {more} more at once"))
    return [_indented(rows, by=4)]


def _remarks(progress: MountProgress, reading: Reading) -> list[RenderableType]:
    return [_indented(Text(each, style="yellow")) for each in remarks(progress, reading)]


def _indented(content: RenderableType, *, by: int = 2) -> RenderableType:
    return Padding(content, (0, 0, 0, by))
