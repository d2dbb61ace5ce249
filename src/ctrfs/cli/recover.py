"""``ctrfs recover``: what to do with bytes that could not be sent."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from ctrfs.cli.inventory import Inventory, take_inventory
from ctrfs.cli.output import print_json, printable
from ctrfs.cli.status import as_values, print_unsent, tell_problems


@click.command()
@click.argument("place", metavar="[SOURCE|MOUNTPOINT]", required=False)
@click.option("--list", "is_list", is_flag=True, help="Show the unsent files; the default.")
@click.option("--to", "directory", metavar="DIR", help="Copy them to DIR/CONTAINER/PATH.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of a table, with --list.")
def recover(
    *,
    place: str | None,
    is_list: bool,
    directory: str | None,
    as_json: bool,
) -> None:
    """List the files that could not be sent, or copy them out, send or forget them.

    Mounting the source again is what usually sends them; this is for when it cannot: the
    container has expired, the key is lost.

    --to overwrites nothing (a taken name gets a number), keeps modes and times, and checks
    the bytes; those that do not match are copied to PATH.damaged. Nothing is forgotten by it.

    \b
    Examples:
      ctrfs recover
      ctrfs recover --to ~/rescued
      ctrfs recover ~/containers --to ~/rescued

    Exits 0 if all was done, else 1.
    """  # noqa: D301  # click wants the character itself
    _check_one_action(is_list, directory is not None)
    found = take_inventory(place)
    if directory is not None:
        _copy_out(found, Path(os.path.abspath(directory)))  # noqa: PTH100  # keeps links
    else:
        _list(found, as_json=as_json)


def _check_one_action(*actions: bool) -> None:
    if sum(actions) > 1:
        raise click.UsageError("one of --list, --to, --send and --discard at a time")


def _list(found: Inventory, *, as_json: bool) -> None:
    if as_json:
        print_json(as_values(found))
    else:
        for each in found.kept:
            print_unsent(each)
        if not any(each.contents.unsent for each in found.kept):
            click.echo("nothing is unsent")
    tell_problems(found)


def _copy_out(found: Inventory, directory: Path) -> None:
    # Imported here: a list needs no more than the database.
    from ctrfs.cli.copying_out import copy_out  # noqa: PLC0415

    has_failed = False
    count = 0
    for kept in found.kept:
        for copied in copy_out(kept.path, directory):
            if copied.is_settled:
                continue
            count += copied.path is not None
            if copied.path is not None:
                click.echo(printable(str(copied.path)))
            if copied.problem is not None:
                has_failed = True
                where = f" (copied to {copied.path})" if copied.path is not None else ""
                _complain([f"{copied.name}: {copied.problem}{where}"])
    if not count and not has_failed:
        click.echo("nothing is unsent", err=True)
    tell_problems(found)
    if has_failed:
        sys.exit(1)


def _complain(lines: Sequence[str]) -> None:
    for line in lines:
        click.echo(f"ctrfs: {printable(line)}", err=True)
