"""Tables for people and JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TypeAlias

import click

JsonValue: TypeAlias = "str | int | Sequence[JsonValue] | Mapping[str, JsonValue] | None"


def print_json(value: JsonValue) -> None:
    """Print one JSON value."""
    click.echo(json.dumps(value, indent=2))


def print_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows under headers; plain columns where the output is no terminal."""
    # Imported here: rich takes as long to load as the rest of a small command.
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    console = Console(highlight=False)
    table = Table(box=None, pad_edge=False, show_edge=False)
    for header in headers:
        # A name is printed whole even where the line then breaks: scripts cut it out.
        table.add_column(header, no_wrap=False, overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    if not console.is_terminal:
        console.width = max(console.width, 4096)
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
