"""One mount from start to end: the object graph, and the order in which it comes and goes.

Everything that must be closed is a ``with``, so the indentation of ``_live`` is the order of
start and, read backwards, of stop. The start is over when the kernel has the mount; before,
any failure undoes what was done and is told to whoever waits for ``readiness``.
"""

from __future__ import annotations

import logging
import os
import resource
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from typing import Final

import trio
from msgspec.structs import replace

from ctrfs.api.client import open_client
from ctrfs.api.models import Container
from ctrfs.api.protocol import ContainersApi
from ctrfs.clock import Clock, SystemClock
from ctrfs.config import ApiConfig
from ctrfs.disk.state_dir import StateDirectory
from ctrfs.errors import CtrfsError
from ctrfs.fuse.descriptors import Descriptors
from ctrfs.fuse.invalidate import KernelNotifier
from ctrfs.fuse.operations import Operations
from ctrfs.fuse.session import KernelOptions, kernel_session
from ctrfs.fuse.time_limits import TimeLimits
from ctrfs.mount.daemon import Readiness, StartReport
from ctrfs.mount.file_lock import FileLock
from ctrfs.mount.graph import Floors, GraphConfig, KernelCaches, build_floors
from ctrfs.mount.kernel_tuning import abort_connection, tune_kernel
from ctrfs.mount.leftovers import unsent_line
from ctrfs.mount.local_service import local_service
from ctrfs.mount.memory import close_memory_to_others
from ctrfs.mount.one_container import container_named
from ctrfs.mount.places import state_base
from ctrfs.mount.plan import MountPlan
from ctrfs.mount.problems import (
    EXIT_OK,
    EXIT_UNSENT,
    exit_code_for,
    innermost,
    line_for,
    place_of,
)
from ctrfs.mount.records import MountRecord, MountRecords, ended, record_of_this_process
from ctrfs.mount.source import SourceKind
from ctrfs.mount.stopping import STOP_SIGNALS, Stopper
from ctrfs.tree.container_tree import Change

log = logging.getLogger(__name__)

# A notification waits for what is pending in its directory, be it a lookup at the service; who
# asks for a refresh meanwhile does not wait longer than this.
_NOTIFICATION_MAX_S: Final = 5.0


def serve_mount(plan: MountPlan, readiness: Readiness, claim: FileLock) -> int:
    """Mount, serve until unmounted or told to stop, and return the exit code.

    A failure before the mount stands goes to ``readiness`` as one line, and to stderr where
    somebody reads that.

    Args:
        plan: What to mount, and where.
        readiness: Is told how the start went.
        claim: Of the mount point; released when the mount stands.
    """
    os.umask(0o077)  # logs, state and spool are for this user alone
    close_memory_to_others()
    _allow_many_files()
    try:
        unsent_files = trio.run(_live, plan, readiness, claim)
    except (CtrfsError, OSError, BaseExceptionGroup) as error:
        cause = innermost(error)
        if not isinstance(cause, (CtrfsError, OSError)):
            raise
        log.debug("the start or the end failed", exc_info=error)
        return _fail(plan, readiness, cause)
    return EXIT_UNSENT if unsent_files else EXIT_OK


def _fail(plan: MountPlan, readiness: Readiness, cause: BaseException) -> int:
    is_local = plan.source.kind is SourceKind.LOCAL
    message = line_for(cause, place="the local service" if is_local else place_of(plan.api))
    if readiness.is_awaited:
        log.error("%s", message)
    else:
        sys.stderr.write(f"ctrfs: {message}\n")
    readiness.tell(StartReport(exit_code=exit_code_for(cause), message=message))
    return exit_code_for(cause)


async def _live(plan: MountPlan, readiness: Readiness, claim: FileLock) -> int:
    """Be the mount; return how many files could not be sent."""
    clock = SystemClock()
    notifier = KernelNotifier()
    with trio.open_signal_receiver(*STOP_SIGNALS) as signals:
        with StateDirectory.open(plan.state_base, plan.binding, clock=clock) as state:
            async with _reachable_service(plan) as api_config:
                async with open_client(api_config, clock=clock) as api:
                    async with trio.open_nursery() as nursery:
                        stopper = Stopper(nursery, drain_timeout_s=plan.options.drain_timeout_s)
                        nursery.start_soon(stopper.run, signals)
                        floors = _build_floors(plan, state, api, clock, nursery, notifier)
                        await floors.start(nursery, only=await _only_container(plan, api))
                        with kernel_session(
                            Operations(
                                floors.file_system,
                                clock=clock,
                                limits=_limits(plan),
                                on_begin=partial(tune_kernel, plan.mountpoint),
                                kernel_is_told=partial(
                                    notifier.wait_until_sent, timeout_s=_NOTIFICATION_MAX_S
                                ),
                            ),
                            plan.mountpoint,
                            options=_kernel_options(plan),
                            notifier=notifier,
                            abort=partial(abort_connection, plan.mountpoint),
                        ) as session:
                            record = _announce(plan, state, readiness)
                            claim.release()
                            await nursery.start(floors.progress.run)
                            await stopper.serve(session)
                        # Nobody can write any more; what is unsent gets its last chance.
                        unsent_files = await stopper.drain(floors)
                        nursery.cancel_scope.cancel()
                        _tell_the_end(ended(record, unsent_files=unsent_files))
                        return unsent_files
    raise CtrfsError("stopped before the mount was made")


def _build_floors(
    plan: MountPlan,
    state: StateDirectory,
    api: ContainersApi,
    clock: Clock,
    nursery: trio.Nursery,
    notifier: KernelNotifier,
) -> Floors:
    def tell_kernel(changes: Sequence[Change]) -> None:
        notifier.entries_changed([(change.parent, change.name) for change in changes])

    options = plan.options
    return build_floors(
        api,
        state,
        clock=clock,
        config=GraphConfig(
            tree=options.tree, content=options.content, files=options.files, source=plan.source.text
        ),
        nursery=nursery,
        caches=KernelCaches(
            on_changes=tell_kernel,
            on_pages_stale=notifier.inode_changed,
            holds_open=Descriptors(plan.mountpoint).holds_open,
        ),
    )


@asynccontextmanager
async def _reachable_service(plan: MountPlan) -> AsyncIterator[ApiConfig]:
    """Provide the way to the service; for ``local:`` it runs as long as the block."""
    if plan.source.kind is not SourceKind.LOCAL:
        yield plan.api
        return
    async with local_service(plan.source) as socket_path:
        yield replace(plan.api, unix_socket=socket_path)


async def _only_container(plan: MountPlan, api: ContainersApi) -> Container | None:
    """Return the one container that is to be the root, if one was asked for."""
    name = plan.source.container
    return None if name is None else await container_named(api, name)


def _limits(plan: MountPlan) -> TimeLimits:
    return TimeLimits(
        metadata_s=plan.api.metadata_timeout_s,
        listing_s=plan.options.tree.listing_wait_max_s,
        transfer_s=plan.api.transfer_timeout_s,
    )


def _kernel_options(plan: MountPlan) -> KernelOptions:
    return KernelOptions(
        source=plan.source.text,
        read_only=plan.options.files.read_only,
        allow_other=plan.options.allow_other,
        allow_root=plan.options.allow_root,
        no_exec=plan.options.no_exec,
    )


def _announce(plan: MountPlan, state: StateDirectory, readiness: Readiness) -> MountRecord:
    """Tell everyone that the mount stands."""
    record = record_of_this_process(
        mountpoint=plan.mountpoint,
        source=plan.source.text,
        state_path=state.path,
        log_file=plan.log_file if readiness.is_awaited else None,
    )
    with _noting(record) as records:
        records.write(record)
    log.info("%s mounted at %s", plan.source.text, plan.mountpoint)
    readiness.tell(StartReport(exit_code=EXIT_OK))
    return record


def _tell_the_end(record: MountRecord) -> None:
    with _noting(record) as records:
        records.write_end(record)
    line = unsent_line(record, least=record.unsent_files)
    if line is None:
        log.info("%s is unmounted, everything is sent", record.mountpoint)
    else:
        log.error("%s is unmounted; %s", record.mountpoint, line)


@contextmanager
def _noting(record: MountRecord) -> Iterator[MountRecords]:
    """Provide the place of ``record``; the mount does without where it cannot be written."""
    try:
        yield MountRecords(state_base())
    except OSError as error:
        # Only ``ctrfs umount`` misses it, which then does not wait.
        log.warning("cannot note who serves %s: %s", record.mountpoint, error)


def _allow_many_files() -> None:
    """Raise the limit of open descriptors: each open file has a local copy."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
