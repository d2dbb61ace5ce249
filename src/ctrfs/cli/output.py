"""Tables for people and JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final, TypeAlias

import click

_WIDTH_MAX: Final = 1_000_000

JsonValue: TypeAlias = "str | int | Sequence[JsonValue] | Mapping[str, JsonValue] | None"


def print_json(value: JsonValue) -> None:
    """Print one JSON value."""
    click.echo(json.dumps(value, indent=2))


def print_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows under headers, each on one line however long: ids are cut out and copied."""
    # Imported here: rich takes as long to load as the rest of a small command.
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    cells = [[Text(printable(cell)) for cell in row] for row in rows]
    console = Console(highlight=False)
    table = Table(box=None, pad_edge=False, show_edge=False)
    for header in headers:
        table.add_column(header, no_wrap=True)
    for row in cells:
        table.add_row(*row)
    # As wide as the table is: at the terminal's width or COLUMNS it would fold its cells.
    boundless = console.options.update(max_width=_WIDTH_MAX)
    console.width = max(console.width, console.measure(table, options=boundless).maximum)
    console.print(table)


def printable(text: str) -> str:
    """Return ``text`` without what would control a terminal: names come from elsewhere."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )


def local_time(seconds: int) -> str:
    """Return a time of the service as a person here reads it."""
    try:
        moment = datetime.fromtimestamp(seconds, tz=UTC).astimezone()
    except (OverflowError, ValueError, OSError):
        return str(seconds)
    return moment.strftime("%Y-%m-%d %H:%M")
