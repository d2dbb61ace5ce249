"""``ctrfs install-helpers``: links by which mount(8) and umount(8) find this program."""

from __future__ import annotations

import os
import shutil
import stat
import sys
from pathlib import Path
from typing import Final

import click

from ctrfs.errors import ConfigError
from ctrfs.mount.helper_names import HELPER_DIRECTORY, HELPERS

_PROGRAM: Final = "ctrfs"


@click.command("install-helpers")
@click.option(
    "--directory",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=HELPER_DIRECTORY,
    show_default=True,
    help="Where the links go; mount(8) looks in no other place than /sbin.",
)
@click.option("--remove", is_flag=True, help="Take the links away again.")
def install_helpers(*, directory: Path, remove: bool) -> None:
    """Link mount.ctrfs, umount.ctrfs, mount.fuse.ctrfs and umount.fuse.ctrfs to this program.

    Needs root. Then mount -t ctrfs, /etc/fstab and systemd can mount, and umount sends what is
    unsent before it returns. A second run changes nothing; files of others under these names
    are left alone.

    \b
    Examples:
      sudo ctrfs install-helpers
      sudo ctrfs install-helpers --remove
    """  # noqa: D301  # click wants the character itself
    foreign = [name for name in HELPERS if not _may_be_replaced(directory / name)]
    if foreign:
        raise ConfigError(f"{directory / foreign[0]} exists and is not a link to ctrfs")
    program = None if remove else _program()
    for name in HELPERS:
        link = directory / name
        if program is None:
            link.unlink(missing_ok=True)
            continue
        draft = link.with_name(f".{name}.{os.getpid()}")
        draft.symlink_to(program)
        draft.replace(link)
    click.echo(
        f"removed {', '.join(HELPERS)} from {directory}"
        if program is None
        else f"linked {', '.join(HELPERS)} in {directory} to {program}"
    )


def _may_be_replaced(link: Path) -> bool:
    """Whether nothing is there, or a link to a program of our name, be it gone or not."""
    try:
        return link.readlink().name == _PROGRAM
    except FileNotFoundError:
        return True
    except OSError:
        return False  # something, and no link


def _program() -> Path:
    """Return the path of this program, which root may start without asking who owns it.

    Raises:
        ConfigError: It is nowhere, or another user could put something else in its place.
    """
    beside = Path(sys.executable).parent / _PROGRAM
    called = shutil.which(sys.argv[0]) if Path(sys.argv[0]).name == _PROGRAM else None
    program = Path(called) if called is not None else beside
    program = Path(os.path.abspath(program))  # noqa: PTH100  # a link of a package manager stays
    if not program.exists():
        raise ConfigError(f"no program {program}: install ctrfs with pip or pipx first")
    writable = _writable_by_others(program.resolve()) or _writable_by_others(program)
    if writable is not None:
        raise ConfigError(
            f"{writable} can be changed by others than root, who would start it at each mount: "
            "install ctrfs for all users (sudo pipx install --global, or a venv in /opt)"
        )
    return program


def _writable_by_others(program: Path) -> Path | None:
    """Return what on the way to ``program`` somebody else than root can change, or None."""
    for path in (program, *program.parents):
        facts = path.lstat()
        is_open = facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        # In a sticky directory nobody can put another thing in place of root's.
        is_sticky = stat.S_ISDIR(facts.st_mode) and facts.st_mode & stat.S_ISVTX
        if facts.st_uid != 0 or (is_open and not is_sticky and not stat.S_ISLNK(facts.st_mode)):
            return path
    return None
