"""``ctrfs status``: what is mounted, and what the service does not have yet."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from ctrfs.cli.inventory import Inventory, KeptState, take_inventory
from ctrfs.cli.output import JsonValue, local_time, print_json, print_table, printable
from ctrfs.cli.watching import watch
from ctrfs.mount.leftovers import shown_path
from ctrfs.units import text_from_size


@click.command()
@click.argument("place", metavar="[MOUNTPOINT|SOURCE]", required=False)
@click.option("--json", "as_json", is_flag=True, help="JSON instead of tables.")
@click.option("-w", "--watch", "is_watching", is_flag=True, help="Show the sending, as it goes on.")
def status(*, place: str | None, as_json: bool, is_watching: bool) -> None:
    """Show what is mounted, and what of it the service does not have yet.

    Covers every mount of this user and every source that was mounted before: files not yet
    sent, deletions and renames not yet made, and files that stay on this machine. Reads the
    local disk only, and works whether the daemons run, hang or are gone.

    \b
    Examples:
      ctrfs status
      ctrfs status ~/containers
      ctrfs status --watch
      ctrfs status openai: --json | jq '.sources[].unsent[].path'

    With --watch it shows what is being sent, how fast and how long it will take, until Ctrl-C:
    as bars on a terminal, else as a line now and then; with --json, one object a line.

    Exits 0 also when something is unsent, and after Ctrl-C; 1 if nothing is known of what was asked for, or if
    some state cannot be read.
    """  # noqa: D301  # click wants the character itself
    if is_watching:
        watch(place, as_json=as_json)
        return
    found = take_inventory(place)
    if as_json:
        print_json(as_values(found))
    else:
        _print(found)
    tell_problems(found)


def tell_problems(found: Inventory) -> None:
    """Say what could not be read; the command then fails."""
    for problem in found.problems:
        click.echo(f"ctrfs: {problem}", err=True)
    if found.problems:
        sys.exit(1)


def as_values(found: Inventory) -> JsonValue:
    """Return all that was found, for programs."""
    return {
        "mounts": [
            {
                "mountpoint": each.record.mountpoint,
                "source": each.record.source,
                "state": each.state.value,
                "pid": each.record.pid,
                "log_file": each.record.log_file or None,
                "state_path": each.record.state_path,
            }
            for each in found.mounts
        ],
        "sources": [_values_of(each) for each in found.kept],
    }


def _values_of(kept: KeptState) -> JsonValue:
    contents = kept.contents
    return {
        "source": kept.source,
        "state_path": str(kept.path),
        "mountpoint": kept.mountpoint,
        "unsent": [
            {
                "id": each.id,
                "container": each.container_name,
                "container_id": each.container_id,
                "path": shown_path(each.path),
                "bytes": each.size_bytes,
                "since": each.since_s,
                "error": each.error or None,
                "local": str(each.spool_path),
            }
            for each in contents.unsent
        ],
        "deletions": [
            {
                "container_id": each.container_id,
                "file_id": each.file_id,
                "path": each.stored_path or None,
            }
            for each in contents.deletes
        ],
        "container_deletions": list(contents.rmdirs),
        "folder_moves": [
            {
                "container_id": each.container_id,
                "from": shown_path(each.old_path),
                "to": shown_path(each.new_path),
            }
            for each in contents.folder_moves
        ],
        "local_only": [
            {
                "container_id": each.container_id,
                "path": shown_path(each.path),
                "bytes": each.size_bytes,
                "local": str(each.spool_path),
            }
            for each in contents.local_only
        ],
    }


def _print(found: Inventory) -> None:
    if found.mounts:
        print_table(
            ["MOUNTPOINT", "SOURCE", "STATE", "PID", "UNSENT"],
            [
                [
                    each.record.mountpoint,
                    each.record.source,
                    each.state.value,
                    str(each.record.pid),
                    str(_unsent_count(found.kept, Path(each.record.state_path))),
                ]
                for each in found.mounts
            ],
        )
    else:
        click.echo("nothing is mounted")
    for each in found.kept:
        if each.contents.unsent:
            click.echo()
            print_unsent(each)
        _print_other_work(each)
    if not any(each.contents.waits_for_the_service for each in found.kept):
        click.echo("nothing is unsent")


def print_unsent(kept: KeptState) -> None:
    """Show the unsent files of one slot as a table, with a heading."""
    unsent = kept.contents.unsent
    click.echo(f"{len(unsent)} file(s) not sent to {heading(kept)}")
    # Nobody outside knows which of them are on their way; --watch shows that.
    state = "the mount ended before it was sent" if kept.mount is None else "waits to be sent"
    print_table(
        ["CONTAINER", "PATH", "SIZE", "SINCE", "ERROR", "ID"],
        [
            [
                each.container_name,
                shown_path(each.path),
                text_from_size(each.size_bytes),
                local_time(each.since_s),
                each.error or state,
                each.id,
            ]
            for each in unsent
        ],
    )


def heading(kept: KeptState) -> str:
    """Return what to call one slot."""
    where = f"mounted at {kept.mountpoint}" if kept.mountpoint else "not mounted"
    return f"{kept.source} ({where}; {kept.path})"


def _print_other_work(kept: KeptState) -> None:
    contents = kept.contents
    lines = [
        *(
            f"delete {each.stored_path or each.file_id} in {each.container_id}"
            for each in contents.deletes
        ),
        *(f"delete the container {each}, if it is empty" for each in contents.rmdirs),
        *(
            f"rename {shown_path(each.old_path)} to {shown_path(each.new_path)} "
            f"in {each.container_id}"
            for each in contents.folder_moves
        ),
    ]
    _print_lines(f"{len(lines)} change(s) not made at {heading(kept)}", lines)
    _print_lines(
        f"{len(contents.local_only)} file(s) that stay on this machine, of {heading(kept)}",
        [
            f"{shown_path(each.path)} of {each.container_id}, {text_from_size(each.size_bytes)}"
            for each in contents.local_only
        ],
    )


def _print_lines(title: str, lines: Sequence[str]) -> None:
    if lines:
        click.echo(f"\n{title}")
        for line in lines:
            click.echo(f"  {printable(line)}")


def _unsent_count(kept: Sequence[KeptState], slot: Path) -> int:
    return sum(len(each.contents.unsent) for each in kept if each.path == slot)
