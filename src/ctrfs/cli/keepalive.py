"""``ctrfs keepalive``: containers used now and then, so that they do not expire."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Sequence
from typing import Final

import click
import trio

from ctrfs.api.models import Container
from ctrfs.api.protocol import ContainersApi
from ctrfs.cli.output import printable
from ctrfs.cli.service import service, source_for
from ctrfs.errors import (
    CtrfsError,
    RemoteError,
    RemoteGoneError,
)
from ctrfs.mount.one_container import container_named
from ctrfs.mount.problems import innermost
from ctrfs.mount.source import Source

# Source: docs/api-notes.md: a container expires after 20 idle minutes at most. Half of it, so
# that one failed attempt does no harm.
_INTERVAL_S: Final = 600.0
_INTERVAL_MAX_S: Final = 1140.0
# After a failure, while there is time left before it expires.
_RETRY_S: Final = 60.0
_STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@click.command()
@click.argument("names", metavar="CONTAINER…", nargs=-1, required=True)
@click.option(
    "--every",
    "interval_s",
    metavar="SECONDS",
    type=click.FloatRange(min=1, max=_INTERVAL_MAX_S),
    default=_INTERVAL_S,
    show_default=True,
    help="How often each is used.",
)
@click.option(
    "--for",
    "duration_s",
    metavar="SECONDS",
    type=click.FloatRange(min=0),
    help="Stop after this time.  [default: run until stopped]",
)
@click.option(
    "--source",
    "source_text",
    metavar="SOURCE",
    default="openai:",
    show_default=True,
    help="The service that has them: openai: or local:, as for mount.",
)
@click.option(
    "-o",
    "options",
    metavar="OPTION[,…]",
    multiple=True,
    help="Options of ctrfs mount that concern the service: key_file, base_url …",
)
def keepalive(
    *,
    names: tuple[str, ...],
    interval_s: float,
    duration_s: float | None,
    source_text: str,
    options: tuple[str, ...],
) -> int:
    """Keep each CONTAINER, by name or id, from expiring, for as long as this runs.

    A container is gone for good, with its data, after 20 idle minutes. This lists the files of
    each every ten minutes, in the foreground, until it is stopped (Ctrl-C) or all are gone.

    It costs money: a container that does not expire is billed on, from $0.03 for each 20
    minutes of the smallest, and each look is a request. Nothing else in ctrfs does this by itself.

    \b
    Examples:
      ctrfs keepalive analysis
      ctrfs keepalive analysis trial --for 7200

    Exits 0 when it was stopped or the time is over, 1 when a container could not be kept.
    """  # noqa: D301  # click wants the character itself
    source = source_for(source_text)
    try:
        return trio.run(_keep_all, source, options, names, interval_s, duration_s)
    except BaseExceptionGroup as group:
        cause = innermost(group)
        if not isinstance(cause, CtrfsError):
            raise
        raise cause from group


async def _keep_all(
    source: Source,
    options: Sequence[str],
    names: Sequence[str],
    interval_s: float,
    duration_s: float | None,
) -> int:
    """Return the exit code."""
    gone: list[str] = []
    with trio.open_signal_receiver(*_STOP_SIGNALS) as signals:
        async with service(source, options) as api, trio.open_nursery() as nursery:

            async def stop_on_signal() -> None:
                async for _ in signals:
                    nursery.cancel_scope.cancel()

            if duration_s is not None:
                nursery.cancel_scope.deadline = trio.current_time() + duration_s
            # All are looked up before the first is kept: a wrong name ends the command at once.
            containers = {
                each.id: each for each in [await container_named(api, name) for name in names]
            }
            nursery.start_soon(stop_on_signal)
            async with trio.open_nursery() as keepers:
                for container in containers.values():
                    keepers.start_soon(_keep, api, container, interval_s, gone.append)
            nursery.cancel_scope.cancel()
    return 1 if gone else 0


async def _keep(
    api: ContainersApi,
    container: Container,
    interval_s: float,
    tell_gone: Callable[[str], None],
) -> None:
    """Use one container until it is gone, and tell so."""
    name = f"{container.name} ({container.id})"
    while True:
        pause_s = interval_s
        try:
            await api.list_files(container.id)
        except RemoteGoneError as error:
            _say(f"{name} is gone: {error}")
            tell_gone(container.id)
            return
        except RemoteError as error:
            pause_s = min(_RETRY_S, interval_s)
            _say(f"{name} could not be used, next try in {pause_s:.0f} s: {error}")
        else:
            _say(f"{name} was used, next time in {pause_s:.0f} s")
        await trio.sleep(pause_s)


def _say(line: str) -> None:
    # Each line at once, also to a file or a journal.
    click.echo(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {printable(line)}")
    sys.stdout.flush()
