"""``ctrfs create``: a new container, with what ``mkdir`` cannot say."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias, TypeVar

import click

from ctrfs.mount.option_values import expiry_minutes, memory_limit, network_policy

T = TypeVar("T")

_Callback: TypeAlias = Callable[[click.Context, click.Parameter, str | None], T | None]


def _reader(read: Callable[[str], T]) -> _Callback[T]:
    """Return a click callback that lets a function of ours read the option's value."""

    def callback(_ctx: click.Context, _param: click.Parameter, value: str | None) -> T | None:
        try:
            return None if value is None else read(value)
        except ValueError as error:
            raise click.BadParameter(str(error)) from error

    return callback


@click.command()
@click.argument("name")
@click.option(
    "--memory", metavar="SIZE", callback=_reader(memory_limit), help="1g, 4g, 16g or 64g."
)
@click.option(
    "--expires-after",
    metavar="MINUTES",
    callback=_reader(expiry_minutes),
    help="Idle minutes after which it expires; at most 20.",
)
@click.option(
    "--network",
    metavar="POLICY",
    callback=_reader(network_policy),
    help="disabled, or the domains it may reach: a.com:b.com.",
)
@click.option(
    "--file-id",
    "file_ids",
    metavar="ID",
    multiple=True,
    help="Copy a file of the Files API (file-…) into it. May be repeated.",
)
@click.option(
    "--source",
    "source_text",
    metavar="SOURCE",
    default="openai:",
    show_default=True,
    help="The service that gets the container: openai: or local:, as for mount.",
)
@click.option(
    "-o",
    "options",
    metavar="OPTION[,…]",
    multiple=True,
    help="Options of ctrfs mount that concern the service: key_file, base_url …",
)
def create(  # noqa: PLR0913  # one argument an option
    *,
    name: str,
    memory: str | None,
    expires_after: int | None,
    network: str | None,
    file_ids: tuple[str, ...],
    source_text: str,
    options: tuple[str, ...],
) -> None:
    """Create a container called NAME and print its id.

    Names need not be unique: a second container of one name is another container. What is not
    said is left to the service.

    \b
    Examples:
      ctrfs create analysis
      ctrfs create analysis --memory 4g --network pypi.org:files.pythonhosted.org
      ctrfs create trial --source local:
    """  # noqa: D301  # click wants the character itself
    # Imported here: a help text needs no HTTP library.
    from ctrfs.api.models import ContainerRequest  # noqa: PLC0415
    from ctrfs.api.protocol import ContainersApi  # noqa: PLC0415
    from ctrfs.cli.service import source_for, with_service  # noqa: PLC0415

    if not name:
        raise click.UsageError("a container needs a name")
    source = source_for(source_text)
    if source.container is not None:
        raise click.UsageError(f"--source names a container, {source.container!r}: write openai:")
    request = ContainerRequest(
        name=name,
        expires_after_minutes=expires_after,
        memory_limit=memory,
        network_disabled=network == "disabled",
        allowed_domains=tuple(network.split()) if network and network != "disabled" else (),
        file_ids=file_ids,
    )

    async def ask(api: ContainersApi) -> str:
        return (await api.create_container(request)).id

    click.echo(with_service(source, options, ask, may_begin=True))
