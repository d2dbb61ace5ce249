"""What mount(8) and umount(8) call: this program under the names of their helpers.

Exit codes are those of mount(8): 0, 1 for wrong words or options, 2 for what this machine lacks,
8 when ended by the caller, 32 for a failure, and 64 when unmounted with something unsent.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import MutableMapping, Sequence
from contextlib import suppress
from typing import Final

import click

from ctrfs.cli.mounting import end_mount, start_mount
from ctrfs.errors import CtrfsError
from ctrfs.mount.daemon import StartReport
from ctrfs.mount.helper import (
    MOUNT_USAGE,
    UMOUNT_USAGE,
    MountCall,
    mount_call_from,
    umount_call_from,
)
from ctrfs.mount.helper_names import MOUNT_HELPERS
from ctrfs.mount.plan import check_place, plan_mount
from ctrfs.mount.problems import (
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_SYSTEM,
    exit_code_for,
    line_for,
)
from ctrfs.mount.umount_note import tell_umount

# As the usual of ``ctrfs umount``. systemd gives a mount unit 90 s by itself (TimeoutSec=).
_END_TIMEOUT_S: Final = 120.0
# What root finds in a shell; a key command may need more than /bin.
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_HELP: Final = frozenset({"-h", "--help"})


def run_helper(called: str, arguments: Sequence[str]) -> int:
    """Do what mount(8) or umount(8) wants, and return the exit code.

    Args:
        called: The name of the helper.
        arguments: The words behind it.
    """
    is_mount = called in MOUNT_HELPERS
    if _HELP.intersection(arguments):
        click.echo(f"Usage: {MOUNT_USAGE if is_mount else UMOUNT_USAGE}")
        click.echo("Called by mount(8) and umount(8); ctrfs --help has the commands for people.")
        return EXIT_OK
    _fill(os.environ)
    try:
        return _mount(arguments) if is_mount else _umount(arguments)
    except (KeyboardInterrupt, SystemExit):
        return EXIT_INTERRUPTED
    except CtrfsError as error:
        return _failure(line_for(error), exit_code_for(error))
    except OSError as error:
        return _failure(line_for(error), EXIT_SYSTEM)


def _mount(arguments: Sequence[str]) -> int:
    call = mount_call_from(arguments)
    if call.unknown:
        names = ", ".join(map(repr, call.unknown))
        _explain(call, f"unknown and ignored: {names}")
    plan = plan_mount(call.source, call.mountpoint, call.options, environment=os.environ)
    if call.is_fake:
        check_place(plan, clears_dead_mount=False)
        _explain(call, f"{call.source} can be mounted at {plan.mountpoint}")
        return EXIT_OK
    report: StartReport = start_mount(plan)
    if report.exit_code != EXIT_OK:
        return _failure(report.message, report.exit_code)
    if not call.is_noted_by_mount:
        tell_umount(call.source, plan.mountpoint)
    _explain(call, f"{call.source} is mounted at {plan.mountpoint}; it logs to {plan.log_file}")
    return EXIT_OK


def _umount(arguments: Sequence[str]) -> int:
    call = umount_call_from(arguments)
    code = end_mount(call, timeout_s=_END_TIMEOUT_S)
    if code == EXIT_OK and call.is_verbose:
        click.echo(f"ctrfs: {call.mountpoint} is unmounted")
    return code


def _fill(environment: MutableMapping[str, str]) -> None:
    """Put back what mount(8) has taken out of the environment, and a program may need.

    Source: util-linux 2.38, lib/env.c: HOME and PATH are among what it drops, for root as well.
    """
    environment.setdefault("PATH", _PATH)
    with suppress(KeyError):  # nobody with this number is known
        environment.setdefault("HOME", pwd.getpwuid(os.getuid()).pw_dir)


def _explain(call: MountCall, line: str) -> None:
    if call.is_verbose:
        click.echo(f"ctrfs: {line}")


def _failure(line: str, code: int) -> int:
    click.echo(f"ctrfs: {line}", err=True)
    return code
