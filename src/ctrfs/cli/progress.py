"""A progress bar on stderr."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    ProgressColumn,
    Task,
    TimeRemainingColumn,
)
from rich.text import Text
from typing_extensions import override

from ctrfs.units import text_from_size


class _SpeedColumn(ProgressColumn):
    """Bytes a second in the units of all other output; rich's own knows decimal ones only."""

    @override
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{text_from_size(int(speed))}/s")


@contextmanager
def progress_bar(total_bytes: int) -> Iterator[Callable[[int], None]]:
    """Show how many of ``total_bytes`` are through; call what this gives with each piece's size."""
    progress = Progress(
        BarColumn(),
        DownloadColumn(binary_units=True),
        _SpeedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    with progress:
        task = progress.add_task("upload", total=total_bytes)
        yield lambda size_bytes: progress.advance(task, size_bytes)
