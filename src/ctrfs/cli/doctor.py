"""``ctrfs doctor``: what a mount needs, looked at one by one."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from typing import Final

import click
import msgspec

from ctrfs.errors import CtrfsError
from ctrfs.mount.mountinfo import current_mounts, is_dead
from ctrfs.mount.places import make_private_directory, state_base
from ctrfs.mount.preflight import FUSERMOUNT, allow_other_problem, fuse_problem
from ctrfs.mount.problems import line_for

_PYTHON_LEAST: Final = (3, 11)


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the report."""

    subject: str
    is_fine: bool
    words: str


@click.command()
@click.argument("source", default="openai:")
@click.option("-o", "options", metavar="OPTION[,…]", multiple=True, help="As for mount.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of a table.")
def doctor(*, source: str, options: tuple[str, ...], as_json: bool) -> None:
    """Check what a mount of SOURCE needs; exit 1 if something wants attention.

    Looks at this machine (Python, FUSE), asks the service once with the key, and looks for
    dead mounts and for files that are not sent.

    \b
    Examples:
      ctrfs doctor
      ctrfs doctor openai:analysis
      ctrfs doctor local:
    """  # noqa: D301  # click wants the character itself
    from ctrfs.cli.output import print_json, print_table  # noqa: PLC0415  # rich is slow to load

    findings = [*_machine(), _service(source, options), *_state(), *_mounts()]
    if as_json:
        print_json(
            [
                {"check": each.subject, "ok": int(each.is_fine), "message": each.words}
                for each in findings
            ]
        )
    else:
        print_table(
            ["CHECK", "", "RESULT"],
            [
                [each.subject, "ok" if each.is_fine else "ATTENTION", each.words]
                for each in findings
            ],
        )
    if not all(each.is_fine for each in findings):
        sys.exit(1)


def _machine() -> Iterator[Finding]:
    yield Finding(
        subject="Python",
        is_fine=sys.version_info >= _PYTHON_LEAST,
        words=".".join(str(part) for part in sys.version_info[:3]),
    )
    yield _check("pyfuse3", lambda: importlib.metadata.version("pyfuse3"))
    problem = fuse_problem()
    yield Finding(subject="FUSE", is_fine=problem is None, words=problem or "/dev/fuse can be used")
    tool = shutil.which(FUSERMOUNT)
    # Root mounts by itself, so its absence is then no fault.
    yield Finding(
        subject=FUSERMOUNT,
        is_fine=tool is not None or os.geteuid() == 0,
        words=tool or "not found: install fuse3",
    )
    other = allow_other_problem()
    # No fault: few mounts are for other users, too.
    words = "can be used" if other is None else f"cannot be used, should you want it: {other}"
    yield Finding(subject="allow_other", is_fine=True, words=words)


def _service(source_text: str, options: tuple[str, ...]) -> Finding:
    # Imported here: the rest of the checks must run even if the HTTP library does not load.
    from ctrfs.api.protocol import ContainersApi  # noqa: PLC0415
    from ctrfs.cli.service import source_for, with_service  # noqa: PLC0415
    from ctrfs.mount.one_container import container_named  # noqa: PLC0415

    def look() -> str:
        source = source_for(source_text)

        async def ask(api: ContainersApi) -> str:
            if source.container is not None:
                container = await container_named(api, source.container)
                return (
                    f"answers, and accepts the key; container {container.id} is {container.status}"
                )
            listing = await api.list_containers()
            alive = sum(container.is_alive for container in listing.items)
            return f"answers, and accepts the key; {alive} container(s)"

        return with_service(source, options, ask)

    return _check("service", look)


def _state() -> Iterator[Finding]:
    base = state_base()
    yield _check("state directory", lambda: str(make_private_directory(base)))
    # Imported here: few directories hold a database at all.
    from ctrfs.cli.inventory import take_inventory  # noqa: PLC0415

    found = take_inventory()
    for problem in found.problems:
        yield Finding(subject="state", is_fine=False, words=problem)
    for kept in found.kept:
        unsent = kept.contents.unsent
        if not unsent:
            continue
        failed = sum(bool(each.error) for each in unsent)
        todo = (
            f"of which {failed} could not be sent so far and are tried again"
            if kept.mountpoint
            else "which the next mount of it sends"
        )
        yield Finding(
            subject="unsent files",
            is_fine=kept.mountpoint is not None and not failed,
            words=f"{len(unsent)} of {kept.source}, {todo}; ctrfs status lists them",
        )


def _mounts() -> Iterator[Finding]:
    ours = [mount for mount in current_mounts() if mount.is_ours]
    dead = [mount for mount in ours if is_dead(mount)]
    for mount in dead:
        yield Finding(
            subject="dead mount",
            is_fine=False,
            words=f"{mount.mountpoint}: ctrfs umount it, or mount there again",
        )
    yield Finding(subject="mounts", is_fine=True, words=f"{len(ours) - len(dead)} alive")


def _check(subject: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(subject=subject, is_fine=True, words=look())
    except (CtrfsError, OSError, importlib.metadata.PackageNotFoundError) as error:
        return Finding(subject=subject, is_fine=False, words=line_for(error))
