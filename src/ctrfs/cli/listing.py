"""``ctrfs ls``: containers, or the files of one, straight from the service."""

from __future__ import annotations

import os
from pathlib import Path

import click

from ctrfs.api.models import Container, ContainerFile
from ctrfs.api.protocol import ContainersApi
from ctrfs.cli.output import local_time, print_json, print_table
from ctrfs.units import text_from_size


@click.command()
@click.argument("place", metavar="[SOURCE|PATH]", default="openai:")
@click.option(
    "-l", "is_long", is_flag=True, help="More columns: ids of files, limits of containers."
)
@click.option("-a", "--all", "shows_all", is_flag=True, help="Expired containers too.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of a table.")
@click.option(
    "--source",
    "within",
    metavar="SOURCE",
    help="Take the argument for a container of this service: openai: or local:, as for mount.",
)
@click.option(
    "-o",
    "options",
    metavar="OPTION[,…]",
    multiple=True,
    help="Options of ctrfs mount that concern the service: key_file, base_url …",
)
def ls(
    *,
    place: str,
    is_long: bool,
    shows_all: bool,
    as_json: bool,
    within: str | None,
    options: tuple[str, ...],
) -> None:
    """List the containers of SOURCE, or the files of its one container.

    The service itself is asked, and files are shown under the paths that they have there. PATH
    is a directory; its entries are then listed as the mount shows them. A bare word is a
    directory if there is one of that name, else a container.

    \b
    Examples:
      ctrfs ls                     containers of the account
      ctrfs ls openai:analysis -l  files of one container, with ids
      ctrfs ls local: --json
      ctrfs ls trial --source local:
      ctrfs ls ~/containers/analysis
    """  # noqa: D301  # click wants the character itself
    if within is None and _is_path(place):
        _list_path(Path(place), as_json=as_json, is_long=is_long)
        return
    # Imported here: a help text needs no HTTP library.
    from ctrfs.cli.service import source_for, with_service  # noqa: PLC0415
    from ctrfs.mount.one_container import container_named  # noqa: PLC0415

    source = source_for(place, within=within)
    name = source.container
    if name is None:

        async def containers(api: ContainersApi) -> tuple[Container, ...]:
            return (await api.list_containers()).items

        found = with_service(source, options, containers)
        _show_containers(
            [each for each in found if shows_all or each.is_alive],
            as_json=as_json,
            is_long=is_long,
        )
        return

    async def files(api: ContainersApi) -> tuple[ContainerFile, ...]:
        container = await container_named(api, name)
        return (await api.list_files(container.id)).items

    _show_files(with_service(source, options, files), as_json=as_json, is_long=is_long)


def _is_path(place: str) -> bool:
    return "/" in place.partition(":")[0] or (":" not in place and Path(place).is_dir())


def _show_containers(containers: list[Container], *, as_json: bool, is_long: bool) -> None:
    if as_json:
        print_json(
            [
                {
                    "id": each.id,
                    "name": each.name,
                    "status": each.status,
                    "created_at": each.created_at_s,
                    "expires_after_minutes": each.expires_after_minutes,
                    "memory_limit": each.memory_limit,
                    "network_policy": each.network_policy,
                }
                for each in containers
            ]
        )
        return
    more = ["EXPIRES AFTER", "MEMORY", "NETWORK"] if is_long else []
    headers = ["NAME", "ID", "STATUS", "CREATED", *more]
    rows = [
        [
            each.name,
            each.id,
            each.status,
            local_time(each.created_at_s),
            *(_limits(each) if is_long else []),
        ]
        for each in containers
    ]
    print_table(headers, rows)


def _limits(container: Container) -> list[str]:
    minutes = container.expires_after_minutes
    return [
        "" if minutes is None else f"{minutes} min",
        container.memory_limit or "",
        container.network_policy or "",
    ]


def _show_files(files: tuple[ContainerFile, ...], *, as_json: bool, is_long: bool) -> None:
    if as_json:
        print_json(
            [
                {
                    "id": each.id,
                    "path": each.path,
                    "bytes": each.size_bytes,
                    "created_at": each.created_at_s,
                    "source": each.source,
                }
                for each in files
            ]
        )
        return
    headers = ["PATH", "SIZE", "CREATED", *(["SOURCE", "ID"] if is_long else [])]
    rows = [
        [
            each.path,
            "?" if each.size_bytes is None else text_from_size(each.size_bytes),
            local_time(each.created_at_s),
            *([each.source, each.id] if is_long else []),
        ]
        for each in files
    ]
    print_table(headers, rows)


def _list_path(path: Path, *, as_json: bool, is_long: bool) -> None:
    rows: list[dict[str, str | int | None]] = []
    with os.scandir(path) as entries:
        for entry in sorted(entries, key=lambda each: each.name):
            facts = entry.stat(follow_symlinks=False)
            rows.append(
                {
                    "name": entry.name + ("/" if entry.is_dir(follow_symlinks=False) else ""),
                    "bytes": facts.st_size,
                    "modified_at": int(facts.st_mtime),
                    "id": _attribute(entry.path, "user.ctrfs.id"),
                    "source": _attribute(entry.path, "user.ctrfs.source"),
                    "state": _attribute(entry.path, "user.ctrfs.state"),
                }
            )
    if as_json:
        print_json(rows)
        return
    print_table(
        ["NAME", "SIZE", "MODIFIED", *(["SOURCE", "STATE", "ID"] if is_long else [])],
        [
            [
                str(row["name"]),
                text_from_size(int(row["bytes"] or 0)),
                local_time(int(row["modified_at"] or 0)),
                *([str(row[name] or "") for name in ("source", "state", "id")] if is_long else []),
            ]
            for row in rows
        ],
    )


def _attribute(path: str, name: str) -> str | None:
    try:
        return os.getxattr(path, name).decode(errors="replace")
    except OSError:
        return None  # not in a mount of ours, or an entry that has none
