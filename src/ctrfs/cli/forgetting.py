"""``ctrfs recover --discard``: unsent bytes given up on a user's word."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import click

from ctrfs.cli.inventory import Inventory, KeptState
from ctrfs.cli.output import printable
from ctrfs.clock import SystemClock
from ctrfs.disk.journal import Journal
from ctrfs.disk.reading import UnsentFile
from ctrfs.disk.state_dir import StateDirectory
from ctrfs.errors import ConfigError, CtrfsError
from ctrfs.mount.leftovers import shown_path
from ctrfs.mount.refresh import discard_in_mount

EVERYTHING: Final = "all"


def chosen_files(found: Inventory, ids: Sequence[str]) -> list[tuple[KeptState, UnsentFile]]:
    """Return the unsent files of those ids; ``all`` stands for each.

    Raises:
        CtrfsError: There is none of one of the ids.
    """
    files = {each.id: (kept, each) for kept in found.kept for each in kept.contents.unsent}
    if EVERYTHING in ids:
        return list(files.values())
    for each in ids:
        if each not in files:
            raise CtrfsError(f"no unsent file has the id {each}; ctrfs recover lists them")
    return [files[each] for each in dict.fromkeys(ids)]


def confirm(files: Sequence[tuple[KeptState, UnsentFile]]) -> None:
    """Ask whether these may be forgotten.

    Raises:
        ConfigError: Nobody can be asked.
        click.Abort: They may not.
    """
    if not sys.stdin.isatty():
        raise ConfigError("--discard needs --yes where there is no terminal to ask at")
    for _, file in files:
        click.echo(printable(f"  {file.container_name}/{shown_path(file.path)}"), err=True)
    click.confirm(
        f"Forget these {len(files)} file(s)? Nobody else has their bytes.", abort=True, err=True
    )


def forget(kept: KeptState, file: UnsentFile) -> None:
    """Give up one file: through the mount that has it, else in the state directory itself.

    Raises:
        MountError: It is being sent, or the mount does not answer as it should.
        LocalDiskError: The journal cannot be written; nothing has changed.
    """
    if kept.mountpoint is not None:
        discard_in_mount(kept.mountpoint, file.id)
        return
    with StateDirectory.open_slot(kept.path, clock=SystemClock()) as state:
        Journal(state.database).settle(file.id)
        with suppress(OSError):  # the next mount removes what no row names
            (state.spool_path / file.spool_path.name).unlink(missing_ok=True)
