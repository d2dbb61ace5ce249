"""``ctrfs refresh``: have a mount ask the service again."""

from __future__ import annotations

import sys

import click

from ctrfs.errors import MountError
from ctrfs.mount.refresh import refresh_path


@click.command()
@click.argument("paths", metavar="PATH…", nargs=-1, required=True)
def refresh(*, paths: tuple[str, ...]) -> None:
    """Ask the service again what is at each PATH inside a mount, at once.

    Without it a change made elsewhere shows after the mount's ttl. PATH stands for the whole
    container that it is in; a mount point stands for the list of containers and for every
    container that has been looked into. Each costs a request.

    \b
    Examples:
      ctrfs refresh ~/containers/analysis
      ctrfs refresh ~/containers
    """  # noqa: D301  # click wants the character itself
    has_failed = False
    for path in paths:
        try:
            refresh_path(path)
        except MountError as error:
            has_failed = True
            click.echo(f"ctrfs: {error}", err=True)
    if has_failed:
        sys.exit(1)
