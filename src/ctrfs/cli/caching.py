"""``ctrfs cache``: the copies that mounts keep on this disk."""

from __future__ import annotations

import click

from ctrfs.cli.inventory import Inventory, take_inventory
from ctrfs.cli.output import print_json, print_table
from ctrfs.disk.content_cache import clear as clear_entries
from ctrfs.disk.content_cache import measure
from ctrfs.disk.state_dir import cache_beside
from ctrfs.units import text_from_size


@click.command()
@click.argument("place", metavar="[MOUNTPOINT|SOURCE]", required=False)
@click.option("--clear", is_flag=True, help="Delete the copies; mounts may go on.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of a table.")
def cache(*, place: str | None, clear: bool, as_json: bool) -> None:
    """Show how much is kept on this disk of what was read, or delete it.

    Deleting loses nothing: the service has all of it. What is not sent yet is not touched, nor
    what is open right now.

    \b
    Examples:
      ctrfs cache
      ctrfs cache --clear
      ctrfs cache --clear openai:analysis
    """  # noqa: D301  # click wants the character itself
    rows = _rows(take_inventory(place), clear=clear)
    if as_json:
        print_json(
            [
                {"source": source, "path": path, "files": files, "bytes": size, "cleared": clear}
                for source, path, files, size in rows
            ]
        )
        return
    print_table(
        ["SOURCE", "DELETED" if clear else "KEPT", "FILES", "PATH"],
        [[source, text_from_size(size), str(files), path] for source, path, files, size in rows],
    )


def _rows(found: Inventory, *, clear: bool) -> list[tuple[str, str, int, int]]:
    """Return source, directory, number of files and bytes of each cache."""
    sources = {cache_beside(kept.path): kept.source for kept in found.kept}
    rows: list[tuple[str, str, int, int]] = []
    for path, source in sources.items():
        if path is None:
            continue
        files, size = measure(path)
        if clear:
            size = clear_entries(path)
        rows.append((source, str(path), files, size))
    return rows
