"""``ctrfs recover``: what to do with bytes that could not be sent."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from ctrfs.cli.inventory import Inventory, KeptState, take_inventory
from ctrfs.cli.output import print_json, printable
from ctrfs.cli.status import as_values, print_unsent, tell_problems
from ctrfs.disk.state_dir import directory_name
from ctrfs.errors import ConfigError, CtrfsError, MountError
from ctrfs.mount.leftovers import shown_path
from ctrfs.mount.options import parse_options
from ctrfs.mount.source import Source, api_config_for, parse_source, state_binding


@click.command()
@click.argument("place", metavar="[SOURCE|MOUNTPOINT]", required=False)
@click.option("--list", "is_list", is_flag=True, help="Show the unsent files; the default.")
@click.option("--to", "directory", metavar="DIR", help="Copy them to DIR/CONTAINER/PATH.")
@click.option("--send", "container", metavar="CONTAINER", help="Upload them to this container.")
@click.option(
    "--discard",
    "ids",
    metavar="ID|all",
    multiple=True,
    help="Forget one, or all, and delete the bytes. May be repeated.",
)
@click.option("--yes", "is_sure", is_flag=True, help="Do not ask before --discard.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of a table, with --list.")
@click.option(
    "-o",
    "options",
    metavar="OPTION[,…]",
    multiple=True,
    help="Options of ctrfs mount for --send: key_file, base_url …",
)
def recover(  # noqa: PLR0913  # one argument an option
    *,
    place: str | None,
    is_list: bool,
    directory: str | None,
    container: str | None,
    ids: tuple[str, ...],
    is_sure: bool,
    as_json: bool,
    options: tuple[str, ...],
) -> None:
    """List the files that could not be sent, or copy them out, send or forget them.

    Mounting the source again is what usually sends them; this is for when it cannot: the
    container has expired, the key is lost.

    --to overwrites nothing (a taken name gets a number), keeps modes and times, and checks
    the bytes; those that do not match are copied to PATH.damaged. Nothing is forgotten by it.

    --send uploads them under their paths to a container, by name or id, of the same source,
    which must not be mounted. What the service has confirmed is then no longer unsent.

    \b
    Examples:
      ctrfs recover
      ctrfs recover --to ~/rescued
      ctrfs recover openai: --send analysis-2
      ctrfs recover ~/containers --discard 187a3f0b2c-5d1-7

    Exits 0 if all was done, else 1.
    """  # noqa: D301  # click wants the character itself
    _check_one_action(is_list, directory is not None, container is not None, bool(ids))
    found = take_inventory(place)
    if directory is not None:
        _copy_out(found, Path(os.path.abspath(directory)))  # noqa: PTH100  # keeps links
    elif container is not None:
        _send(found, container, options)
    elif ids:
        _discard(found, ids, is_sure=is_sure)
    else:
        _list(found, as_json=as_json)


def _check_one_action(*actions: bool) -> None:
    if sum(actions) > 1:
        raise click.UsageError("one of --list, --to, --send and --discard at a time")


def _list(found: Inventory, *, as_json: bool) -> None:
    if as_json:
        print_json(as_values(found))
    else:
        kept = [each for each in found.kept if each.contents.unsent]
        for position, each in enumerate(kept):
            if position:
                click.echo()
            print_unsent(each)
        if not kept:
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


def _send(found: Inventory, container: str, options: tuple[str, ...]) -> None:
    # Imported here: nothing else needs the HTTP library.
    from ctrfs.api.protocol import ContainersApi  # noqa: PLC0415
    from ctrfs.cli.resending import Sent, send_all  # noqa: PLC0415
    from ctrfs.cli.service import with_service  # noqa: PLC0415
    from ctrfs.clock import SystemClock  # noqa: PLC0415
    from ctrfs.mount.one_container import container_named  # noqa: PLC0415

    kept = [each for each in found.kept if each.contents.unsent]
    if not kept:
        click.echo("nothing is unsent", err=True)
        return
    source = _one_source(kept)
    _check_is_of(source, kept[0], options)
    failed: list[Sent] = []

    def tell(sent: Sent) -> None:
        if sent.problem is None:
            click.echo(printable(sent.name))
        else:
            failed.append(sent)
            _complain([f"{sent.name}: {sent.problem}"])

    async def ask(api: ContainersApi) -> None:
        target = await container_named(api, container)
        slots = [each.path for each in kept]
        await send_all(api, target, slots, clock=SystemClock(), tell=tell)

    with_service(source, options, ask)
    if failed:
        sys.exit(1)


def _one_source(kept: Sequence[KeptState]) -> Source:
    """Return the source that all of ``kept`` belongs to, which nobody may be working on."""
    for each in kept:
        if each.mount is not None:
            raise MountError(
                f"{each.source} is mounted at {each.mount.record.mountpoint}, and the mount sends "
                "by itself; unmount first, or copy with --to"
            )
    homes = {each.path.parent for each in kept}
    if len(homes) > 1:
        names = ", ".join(sorted({each.source for each in kept}))
        raise click.UsageError(f"files of several sources are unsent ({names}): name one of them")
    return parse_source(kept[0].source)


def _check_is_of(source: Source, kept: KeptState, options: tuple[str, ...]) -> None:
    """Let no bytes go to another service, or another account's part of it, than they were for."""
    said = parse_options(options, uid=os.getuid(), gid=os.getgid(), umask=0o077)
    config = api_config_for(source, said, environment=os.environ)
    if directory_name(state_binding(source, config)) != kept.path.parent.name:
        raise ConfigError(
            f"the bytes in {kept.path} were saved to another server, organization or project than "
            "the environment names now; to send them elsewhere, copy them with --to and ctrfs add"
        )


def _discard(found: Inventory, ids: tuple[str, ...], *, is_sure: bool) -> None:
    # Imported here: a list needs no more than the database.
    from ctrfs.cli.forgetting import chosen_files, confirm, forget  # noqa: PLC0415

    files = chosen_files(found, ids)
    if files and not is_sure:
        confirm(files)
    has_failed = False
    for kept, file in files:
        name = f"{file.container_name}/{shown_path(file.path)}"
        try:
            forget(kept, file)
        except CtrfsError as error:
            has_failed = True
            _complain([f"{name}: {error}"])
        else:
            click.echo(printable(f"forgotten: {name}"))
    if has_failed:
        sys.exit(1)


def _complain(lines: Sequence[str]) -> None:
    for line in lines:
        click.echo(f"ctrfs: {printable(line)}", err=True)
