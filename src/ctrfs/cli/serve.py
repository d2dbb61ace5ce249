"""``ctrfs serve``: the local Containers API service as a command."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

import click
import platformdirs
import trio

from ctrfs.config import Secret
from ctrfs.errors import ConfigError
from ctrfs.server.behaviour import Behaviour, Duplicates, Ids, Slashes
from ctrfs.server.main import ServeConfig, address_from_text, run_service

_SECONDS: Final = click.FloatRange(min=0)


def default_data_directory() -> Path:
    """Return where the service keeps its data unless told otherwise."""
    return platformdirs.user_data_path("ctrfs") / "server"


@click.command()
@click.option(
    "--listen",
    metavar="HOST:PORT|unix:PATH",
    default="127.0.0.1:8400",
    show_default=True,
    help="Where to listen; port 0 takes any that is free.",
)
@click.option(
    "--data",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where containers and files are kept.  [default: ctrfs/server in the XDG data directory]",
)
@click.option(
    "--api-key",
    metavar="KEY",
    envvar="CTRFS_SERVER_API_KEY",
    help="Accept this key only; better given as CTRFS_SERVER_API_KEY.  [default: any key]",
)
@click.option("--control", is_flag=True, help="Offer the routes under /_control, for tests.")
@click.option("--exit-with-stdin", is_flag=True, help="End when standard input ends.")
@click.option(
    "--no-sync",
    is_flag=True,
    help="Do not wait for the disk: faster, and a power cut loses the last changes.",
)
@click.option(
    "--slashes",
    type=click.Choice([each.value for each in Slashes]),
    default=Slashes.KEEP.value,
    show_default=True,
    help="What a slash in an uploaded name becomes.",
)
@click.option(
    "--duplicates",
    type=click.Choice([each.value for each in Duplicates]),
    default=Duplicates.NEW.value,
    show_default=True,
    help="What uploading the same bytes under the same name makes.",
)
@click.option(
    "--ids",
    type=click.Choice([each.value for each in Ids]),
    default=Ids.OPENAI.value,
    show_default=True,
    help="What ids look like.",
)
@click.option("--ranges/--no-ranges", help="Honour Range headers.  [default: no-ranges]")
@click.option("--refuse-empty", is_flag=True, help="Refuse uploads of no bytes.")
@click.option("--no-hash-prefix", is_flag=True, help="Store uploads under their plain name.")
@click.option(
    "--expired-status",
    type=click.Choice(["400", "404"]),
    default="400",
    show_default=True,
    help="The answer to work on an expired container.",
)
@click.option(
    "--ready-delay",
    metavar="S",
    type=_SECONDS,
    default=0.0,
    help="A new container answers 404 for this long.",
)
@click.option(
    "--delete-lag",
    metavar="S",
    type=_SECONDS,
    default=0.0,
    help="A deleted container stays listed for this long.",
)
@click.option(
    "--list-lag",
    metavar="S",
    type=_SECONDS,
    default=0.0,
    help="A new file is missing from listings for this long.",
)
@click.option("--empty-pages", is_flag=True, help="Put an empty page before each page.")
@click.option("--null-bytes", is_flag=True, help="List files with a length of null.")
@click.option("--rubbish", is_flag=True, help="List rows that stand for nothing.")
def serve(  # noqa: PLR0913  # one argument an option
    *,
    listen: str,
    data: Path | None,
    api_key: str | None,
    control: bool,
    exit_with_stdin: bool,
    no_sync: bool,
    slashes: str,
    duplicates: str,
    ids: str,
    ranges: bool,
    refuse_empty: bool,
    no_hash_prefix: bool,
    expired_status: str,
    ready_delay: float,
    delete_lag: float,
    list_lag: float,
    empty_pages: bool,
    null_bytes: bool,
    rubbish: bool,
) -> None:
    """Serve the Containers API on this machine, with real storage.

    The options from --slashes on answer questions that the published API leaves open, each
    as some server does.
    """
    try:
        config = ServeConfig(
            data=data or default_data_directory(),
            address=address_from_text(listen),
            api_key=Secret(api_key) if api_key else None,
            behaviour=Behaviour(
                slashes=Slashes(slashes),
                duplicates=Duplicates(duplicates),
                ids=Ids(ids),
                ranges=ranges,
                refuse_empty=refuse_empty,
                hash_prefix=not no_hash_prefix,
                expired_status=int(expired_status),
                ready_delay_s=ready_delay,
                delete_lag_s=delete_lag,
                list_lag_s=list_lag,
                empty_pages=empty_pages,
                null_bytes=null_bytes,
                rubbish=rubbish,
            ),
            has_control=control,
            ends_with_stdin=exit_with_stdin,
            is_durable=not no_sync,
        )
        trio.run(_run, config)
    except ConfigError as error:
        click.echo(f"ctrfs serve: {error}", err=True)
        sys.exit(1)


async def _run(config: ServeConfig) -> None:
    await run_service(config, on_ready=_announce)


def _announce(base_url: str) -> None:
    click.echo(f"serving the Containers API on {base_url}")
    sys.stdout.flush()
