"""``ctrfs mount`` and ``ctrfs umount``."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import click

from ctrfs.api.quick_import import leave_out_console
from ctrfs.errors import CtrfsError, MountError
from ctrfs.mount.daemon import Readiness, StartReport, run_in_background
from ctrfs.mount.file_lock import FileLock
from ctrfs.mount.helper import UmountCall
from ctrfs.mount.keys import hide_keys
from ctrfs.mount.logs import log_to_file, log_to_standard_error
from ctrfs.mount.mountinfo import is_dead, mount_at
from ctrfs.mount.places import make_private_directory, state_base
from ctrfs.mount.plan import MountPlan, check_place, plan_mount
from ctrfs.mount.preflight import our_mount, resolve_mountpoint, unmount
from ctrfs.mount.problems import (
    EXIT_MOUNT_FAILED,
    EXIT_OK,
    EXIT_UNSENT,
    exit_code_for,
    line_for,
)
from ctrfs.mount.records import MountRecord, MountRecords, is_alive, is_same_mount
from ctrfs.mount.source import KEY_VARIABLE
from ctrfs.mount.umount_note import tell_umount


@click.command()
@click.argument("source")
@click.argument("mountpoint")
@click.option(
    "-o",
    "options",
    metavar="OPTION[,OPTION=VALUE…]",
    multiple=True,
    help="Mount options: ro, ttl=30, key_file=FILE … (docs/operations.md). May be repeated.",
)
@click.option("--rps", metavar="N", help="The same as -o rps=N: requests a second at most.")
@click.option(
    "--max-connections",
    metavar="N",
    help="The same as -o max_connections=N: requests at once at most.",
)
@click.option("-f", "--foreground", is_flag=True, help="Stay in front, and log to stderr.")
def mount(
    *,
    source: str,
    mountpoint: str,
    options: tuple[str, ...],
    rps: str | None,
    max_connections: str | None,
    foreground: bool,
) -> int:
    """Mount SOURCE at the directory MOUNTPOINT.

    \b
    SOURCE is one of
      openai:             the whole account; the key comes from OPENAI_API_KEY
      openai:NAME_OR_ID   one container as the root
      local:              a service on this machine that starts with the mount
      local:DIR           the same with its data in DIR

    \b
    Examples:
      ctrfs mount openai: ~/containers
      ctrfs mount openai:analysis ~/work -o ro,ttl=30
      ctrfs mount local: ~/trial --foreground -o debug

    Returns once the mounted directory answers. Exit codes: 1 a wrong source or option, 32 a
    mount that could not be made.
    """  # noqa: D301  # click wants the character itself
    limits = {"rps": rps, "max_connections": max_connections}
    options += tuple(f"{name}={text}" for name, text in limits.items() if text is not None)
    try:
        plan = plan_mount(source, mountpoint, options, environment=os.environ)
        report = start_mount(plan, foreground=foreground)
        if report.exit_code == EXIT_OK and not foreground:
            tell_umount(source, plan.mountpoint)
    except (CtrfsError, OSError) as error:
        report = StartReport(exit_code=exit_code_for(error), message=line_for(error))
    if report.message:
        click.echo(f"ctrfs: {report.message}", err=True)
    return report.exit_code


@click.command()
@click.argument("mountpoint")
@click.option(
    "--timeout",
    metavar="SECONDS",
    type=click.FloatRange(min=0),
    default=120.0,
    show_default=True,
    help="How long to wait for the daemon to send the rest and end.",
)
@click.option("-q", "--quiet", is_flag=True, help="No progress while waiting.")
def umount(*, mountpoint: str, timeout: float, quiet: bool) -> int:
    """Unmount MOUNTPOINT, and wait until its daemon has sent everything and ended.

    Shows what is still being sent: as bars on a terminal, else as a line now and then. Ctrl-C
    ends the waiting only; the daemon goes on sending, and the same command waits again.

    \b
    Exit codes:
      0    unmounted, everything is on the service
      32   still mounted: in use, or not a mount of ctrfs
      64   unmounted, but some bytes are not sent; the message says where they are and what
           to do, ctrfs status lists them

    Also clears a mount point whose daemon was killed.

    \b
    Example:
      ctrfs umount ~/containers --timeout 300
    """  # noqa: D301  # click wants the character itself
    return end_mount(UmountCall(mountpoint=mountpoint), timeout_s=timeout, is_quiet=quiet)


def start_mount(plan: MountPlan, *, foreground: bool = False) -> StartReport:
    """Make a mount; return when its root answers, in front when it has ended.

    Raises:
        CtrfsError: It cannot be made.
        OSError: This machine lacks something for it.
    """
    # Until the mount stands: of two that find the place free, one would cover the other.
    with MountRecords(state_base()).claim(plan.mountpoint) as claim:
        check_place(plan)
        if foreground:
            return StartReport(exit_code=_mount_in_front(plan, claim))
        report = run_in_background(
            lambda readiness: _daemon(plan, readiness, claim), start_timeout_s=plan.start_timeout_s
        )
    if report.exit_code == EXIT_OK:
        _check_root(plan.mountpoint)
    return report


def end_mount(call: UmountCall, *, timeout_s: float, is_quiet: bool = False) -> int:
    """Unmount, wait until the daemon has ended, and say what it has left; return the exit code.

    Args:
        call: What, and how.
        timeout_s: How long to wait for the daemon. Nobody waits after a lazy unmount: it ends
            when the last program has left the mount.
        is_quiet: Whether nothing is shown of how the sending goes on.

    Raises:
        KeyboardInterrupt: The user does not wait any more; the daemon goes on sending.
    """
    settings = [
        *(["-f"] if call.is_forced else []),
        *(["-n"] if call.leaves_no_note else []),
        *(["-N", call.namespace] if call.namespace is not None else []),
    ]
    records = MountRecords(state_base())
    try:
        ending = _still_sending(records, call)
        if ending is not None:
            return _wait(records, ending, timeout_s=timeout_s, is_quiet=is_quiet)
        place, is_gone = _place_to_unmount(call)
        record = records.read(place)
        unmount(place, lazily=call.is_lazy or is_gone, settings=settings)
    except MountError as error:
        click.echo(f"ctrfs: {line_for(error)}", err=True)
        return EXIT_MOUNT_FAILED
    if record is None or (call.is_lazy and is_alive(record)):
        return EXIT_OK
    return (
        _settle(records, record, least=0)
        if is_gone
        else _wait(records, record, timeout_s=timeout_s, is_quiet=is_quiet)
    )


def _still_sending(records: MountRecords, call: UmountCall) -> MountRecord | None:
    """Return the record of a daemon that still sends what was unmounted before, if it does.

    Its user has not waited, or no longer, and asks again now.

    Raises:
        MountError: There is no such place.
    """
    if call.namespace is not None or call.is_lazy:
        return None
    place = resolve_mountpoint(call.mountpoint)
    if mount_at(place) is not None:
        return None
    record = records.read(place)
    return record if record is not None and is_alive(record) else None


def _place_to_unmount(call: UmountCall) -> tuple[Path, bool]:
    """Return the mount point, and whether its daemon is gone.

    Raises:
        MountError: Nothing of ours is mounted there.
    """
    if call.namespace is not None:
        # Another table of mounts, which umount(8) has read before it called us.
        return Path(call.mountpoint), False
    place = resolve_mountpoint(call.mountpoint)
    mounted = our_mount(place)
    # A daemon that hangs must not be asked by who wants to be rid of it.
    return place, not (call.is_lazy or call.is_forced) and is_dead(mounted)


def _mount_in_front(plan: MountPlan, claim: FileLock) -> int:
    log_to_standard_error(level=plan.options.log_level)
    return _serve(plan, Readiness(None), claim)


def _daemon(plan: MountPlan, readiness: Readiness, claim: FileLock) -> int:
    try:
        if plan.options.log_file is None:
            make_private_directory(plan.log_file.parent)
        log_to_file(plan.log_file, level=plan.options.log_level)
    except CtrfsError as error:
        readiness.tell(StartReport(exit_code=exit_code_for(error), message=line_for(error)))
        return exit_code_for(error)
    return _serve(plan, readiness, claim)


def _serve(plan: MountPlan, readiness: Readiness, claim: FileLock) -> int:
    hide_keys(os.environ, variable=KEY_VARIABLE)
    # Nothing that is loaded here is ever garbage: looking for some costs a tenth of the start,
    # and later a look through all of it each time.
    gc.disable()
    leave_out_console()
    # Loaded here: the parent of a daemon needs neither the HTTP library nor the kernel's.
    from ctrfs.mount.run import serve_mount  # noqa: PLC0415

    gc.freeze()
    gc.enable()
    return serve_mount(plan, readiness, claim)


def _check_root(mountpoint: Path) -> None:
    """Ask the mount from outside, as the first program would.

    Raises:
        MountError: It does not answer.
    """
    try:
        with os.scandir(mountpoint) as entries:
            next(entries, None)
    except OSError as error:
        raise MountError(
            f"{mountpoint} is mounted but does not answer: {error.strerror}"
        ) from error


def _wait(records: MountRecords, record: MountRecord, *, timeout_s: float, is_quiet: bool) -> int:
    # Loads the database's library, which most commands of this module do without.
    from ctrfs.cli.draining import wait_until_sent  # noqa: PLC0415

    try:
        has_ended = wait_until_sent(record, timeout_s=timeout_s, is_quiet=is_quiet)
    except KeyboardInterrupt:
        _say_who_sends(record)
        raise
    if not has_ended:
        _say_who_sends(record)
        return EXIT_UNSENT
    last = records.read(Path(record.mountpoint))
    if last is None or not is_same_mount(last, record):
        # A newer mount has the record of the place, or had: what ours left, its slot tells.
        return _settle(records, record, least=0)
    code = _settle(records, last, least=last.unsent_files)
    if not last.has_ended:
        click.echo(f"ctrfs: the daemon ended unexpectedly; see {last.log_file}", err=True)
        return EXIT_UNSENT
    return code


def _say_who_sends(record: MountRecord) -> None:
    click.echo(
        f"ctrfs: {record.mountpoint} is unmounted; process {record.pid} is still sending "
        f"(ctrfs status --watch shows it), its log is {record.log_file or 'on its stderr'}",
        err=True,
    )


def _settle(records: MountRecords, record: MountRecord, *, least: int) -> int:
    """Forget a mount that has ended, or say what it leaves; its record then says where that is."""
    from ctrfs.mount.leftovers import unsent_line  # noqa: PLC0415  # loads the database's library

    line = unsent_line(record, least=least)
    if line is None:
        records.remove(record)
        return EXIT_OK
    click.echo(f"ctrfs: {line}", err=True)
    return EXIT_UNSENT
