"""The service behind a SOURCE, for commands that need no mount."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TypeVar

import trio
from msgspec.structs import replace

from ctrfs.api.client import open_client
from ctrfs.api.protocol import ContainersApi
from ctrfs.clock import SystemClock
from ctrfs.errors import ConfigError, CtrfsError
from ctrfs.mount.local_service import local_service
from ctrfs.mount.options import parse_options
from ctrfs.mount.problems import innermost, line_for, place_of
from ctrfs.mount.source import Source, SourceKind, api_config_for, parse_source
from ctrfs.server.data_directory import DATABASE

T = TypeVar("T")


def source_for(text: str, *, within: str | None = None) -> Source:
    """Return the source that a command names; a bare word is a container.

    Args:
        text: A SOURCE, or the name or id of a container.
        within: The SOURCE that has the container; None: the account.

    Raises:
        ConfigError: It names nothing.
    """
    if within is not None:
        return replace(parse_source(within), container=text)
    return parse_source(text if ":" in text else f"openai:{text}")


def with_service(
    source: Source,
    options: Sequence[str],
    ask: Callable[[ContainersApi], Awaitable[T]],
    *,
    may_begin: bool = False,
) -> T:
    """Run ``ask`` with a client of the service, and return what it returns.

    ``may_begin`` as of ``service``.

    Raises:
        CtrfsError: What went wrong, its text in the words of the user's problem.
    """

    async def run() -> T:
        async with service(source, options, may_begin=may_begin) as api:
            return await ask(api)

    try:
        return trio.run(run)
    except BaseExceptionGroup as group:
        cause = innermost(group)
        if not isinstance(cause, CtrfsError):
            raise
        raise cause from group


@asynccontextmanager
async def service(
    source: Source, options: Sequence[str], *, may_begin: bool = False
) -> AsyncIterator[ContainersApi]:
    """Provide a client of the service of ``source``; that of ``local:`` runs meanwhile.

    Args:
        source: Which service.
        options: As for ``ctrfs mount``.
        may_begin: Whether DIR of ``local:DIR`` may become the data of a service; else who has
            written it for the name of a container would be left with a directory.

    Raises:
        ConfigError: An option or the place of the data is wrong.
        CtrfsError: What went wrong, its text in the words of the user's problem.
    """
    directory = source.directory
    if directory is not None and not may_begin and not (directory / DATABASE).exists():
        hint = "; a container of local: is named CONTAINER --source local:"
        raise ConfigError(
            f"no local service has its data in {directory}"
            f"{hint if source.container is None else ''}"
        )
    said = parse_options(options, uid=os.getuid(), gid=os.getgid(), umask=0o077)
    config = api_config_for(source, said, environment=os.environ)
    async with AsyncExitStack() as stack:
        if source.kind is SourceKind.LOCAL:
            socket_path = await stack.enter_async_context(local_service(source))
            config = replace(config, unix_socket=socket_path)
        api = await stack.enter_async_context(open_client(config, clock=SystemClock()))
        try:
            yield api
        except CtrfsError as error:
            # Told here, where it is known which service was asked.
            raise CtrfsError(line_for(error, place=place_of(config))) from error
