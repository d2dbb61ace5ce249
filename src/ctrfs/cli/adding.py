"""``ctrfs add``: upload files and folders, to a container or into a mount."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import click
import msgspec

from ctrfs.errors import ConfigError, MountError

_PIECE_BYTES = 1024 * 1024
# Uploads at once; the service answers each in about a second, whatever else it does.
_UPLOADS_MAX = 8


class _Target(msgspec.Struct, frozen=True, kw_only=True):
    """The container that gets the files."""

    dest: str
    within: str | None
    options: tuple[str, ...]


@click.command()
@click.argument("words", metavar="PATH… DEST", nargs=-1, required=True)
@click.option(
    "--file-id",
    "file_ids",
    metavar="ID",
    multiple=True,
    help="Copy a file of the Files API (file-…) into it. May be repeated.",
)
@click.option(
    "--source",
    "within",
    metavar="SOURCE",
    help="Take DEST for a container of this service: openai: or local:, as for mount.",
)
@click.option(
    "-o",
    "options",
    metavar="OPTION[,…]",
    multiple=True,
    help="Options of ctrfs mount that concern the service: key_file, base_url …",
)
def add(
    *,
    words: tuple[str, ...],
    file_ids: tuple[str, ...],
    within: str | None,
    options: tuple[str, ...],
) -> None:
    """Upload each PATH, a file or a folder, to DEST.

    DEST is a container (its name or id, or SOURCE as for mount), or a directory. A folder keeps
    its name: plots/ becomes plots/… in DEST.

    To a container, eight files are sent at a time: for many files this is several times faster
    than cp into a mount, which waits for each. A file that is there already stays beside the
    new one, as the service cannot overwrite. Into a directory, in a mount or not, files are
    copied one by one, and overwritten.

    \b
    Examples:
      ctrfs add report.csv plots/ analysis
      ctrfs add data.bin openai:cntr_68c9dde6
      ctrfs add --file-id file-abc123 analysis
      ctrfs add report.csv ~/containers/analysis
      ctrfs add report.csv trial --source local:
    """  # noqa: D301  # click wants the character itself
    *paths, dest = words
    if not paths and not file_ids:
        raise click.UsageError("nothing to add: give a PATH or --file-id before DEST")
    files = [file for path in paths for file in files_below(Path(path))]
    total_bytes = sum(file.stat().st_size for file, _ in files)
    with _progress(total_bytes) as advance:
        if within is None and is_directory(dest):
            if file_ids:
                raise ConfigError("--file-id needs a container as DEST, not a directory")
            for file, name in files:
                _copy(file, Path(dest) / name, advance)
        else:
            _upload(files, file_ids, _Target(dest=dest, within=within, options=options), advance)


def is_directory(dest: str) -> bool:
    """Tell whether DEST is a directory; else it is a container.

    Raises:
        ConfigError: It is neither: a path where there is no directory.
    """
    head, has_colon, _ = dest.partition(":")
    if "/" in head:
        if not Path(dest).is_dir():
            raise ConfigError(f"DEST {dest}: no such directory")
        return True
    return not has_colon and Path(dest).is_dir()


def files_below(path: Path) -> list[tuple[Path, str]]:
    """Return files with the names that they get: relative to the folder that holds ``path``."""
    if path.is_file():
        return [(path, path.name)]
    if not path.is_dir():
        raise ConfigError(f"{path}: no such file or directory")
    base = path.resolve()
    found = [
        Path(folder, name) for folder, _, names in os.walk(base, onerror=_refuse) for name in names
    ]
    files = sorted(file for file in found if file.is_file())
    return [(file, str(file.relative_to(base.parent))) for file in files]


def _refuse(error: OSError) -> None:
    """Let a folder that cannot be read end the command: without its files it has not done all."""
    raise error


def _progress(total_bytes: int) -> AbstractContextManager[Callable[[int], None]]:
    """Show a bar on a terminal; elsewhere nothing."""
    if not sys.stderr.isatty():
        return nullcontext(lambda _size_bytes: None)
    from ctrfs.cli.progress import progress_bar  # noqa: PLC0415  # rich is slow to load

    return progress_bar(total_bytes)


def _upload(
    files: list[tuple[Path, str]],
    file_ids: tuple[str, ...],
    target: _Target,
    advance: Callable[[int], None],
) -> None:
    # Imported here: a help text needs no HTTP library.
    from ctrfs.api.protocol import ContainersApi  # noqa: PLC0415
    from ctrfs.cli.service import source_for, with_service  # noqa: PLC0415
    from ctrfs.cli.uploading import upload_all  # noqa: PLC0415
    from ctrfs.mount.one_container import container_named  # noqa: PLC0415

    source = source_for(target.dest, within=target.within)
    name = source.container
    if name is None:
        raise ConfigError(
            f"DEST {target.dest!r} names no container: write openai:CONTAINER, "
            f"or CONTAINER --source {target.dest}"
        )

    is_word = target.within is None and ":" not in target.dest

    async def ask(api: ContainersApi) -> None:
        try:
            container = await container_named(api, name)
        except MountError as error:
            hint = f", and there is no directory {name} here" if is_word else ""
            raise MountError(f"{error}{hint}") from error
        for file_id in file_ids:
            await api.copy_file(container.id, source_id=file_id)
        await upload_all(api, container.id, files, advance=advance, at_once_max=_UPLOADS_MAX)

    with_service(source, target.options, ask)


def _copy(file: Path, target: Path, advance: Callable[[int], None]) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with file.open("rb") as reader, target.open("wb") as writer:
        while piece := reader.read(_PIECE_BYTES):
            writer.write(piece)
            advance(len(piece))
    # Times last: the copy above is what changed the file.
    shutil.copystat(file, target)
