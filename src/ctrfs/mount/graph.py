"""The object graph of one mount, from the state directory up to the file system.

Used by ``mount.run`` and, with a fake clock and an in-process service, by tests.
"""

from __future__ import annotations

import importlib.metadata
import logging
import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

import msgspec
import trio

from ctrfs.api.models import Container
from ctrfs.api.protocol import ContainersApi
from ctrfs.clock import Clock
from ctrfs.config import ContentConfig, FileSystemConfig, TreeConfig
from ctrfs.content.progress import UploadProgress
from ctrfs.content.store import ContentStore
from ctrfs.content.upload import Uploader
from ctrfs.disk.content_cache import ContentCache
from ctrfs.disk.facts import SOURCE_FACT, ServiceFacts
from ctrfs.disk.journal import Journal
from ctrfs.disk.local_entries import LocalEntries, LocalFileRow
from ctrfs.disk.overlay import Overlay
from ctrfs.disk.progress import ProgressFile, text_from_progress
from ctrfs.disk.spool import SpoolDirectory
from ctrfs.disk.state_dir import StateDirectory
from ctrfs.disk.takeover import take_over_free_slots
from ctrfs.errors import LocalDiskError
from ctrfs.fs.control import ControlDirectory
from ctrfs.fs.file_system import FileSystem
from ctrfs.fs.handles import HandleTable
from ctrfs.fs.local_only import LocalOnlyNames
from ctrfs.fs.parts import Parts
from ctrfs.fs.progress import ProgressReporter
from ctrfs.tree.container_tree import Change
from ctrfs.tree.entries import EntryTree
from ctrfs.tree.marks import ContainerMarks
from ctrfs.tree.namespace import Namespace
from ctrfs.tree.naming import NamingRules
from ctrfs.tree.nodes import File, InodeNumber

log = logging.getLogger(__name__)

# How long the kernel may believe attributes. An inode is one version of one file, so nothing
# but this mount changes them; a version that is replaced elsewhere is another inode.
ATTRIBUTES_TIMEOUT_S: Final = 60.0


class GraphConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of the floors between the service and the kernel."""

    tree: TreeConfig
    content: ContentConfig
    files: FileSystemConfig
    source: str
    """What is mounted, as the user wrote it."""


def _nobody(_pid: int, _path: bytes) -> bool:
    return False


class KernelCaches(msgspec.Struct, frozen=True, kw_only=True):
    """Whom to tell what the kernel must forget, and to ask what it knows; none may block."""

    on_changes: Callable[[Sequence[Change]], None]
    on_pages_stale: Callable[[InodeNumber], None]
    holds_open: Callable[[int, bytes], bool] = _nobody
    """Whether a process has a descriptor of the file at a path below the mount point."""


class Floors(msgspec.Struct, frozen=True, kw_only=True):
    """What is started and called after it is built."""

    store: ContentStore
    namespace: Namespace
    file_system: FileSystem
    progress: ProgressReporter
    """Run by ``mount.run``: only a mount of the kernel has somebody outside who watches."""
    note_source: Callable[[], None]
    """Writes down in the state directory whose it is."""

    async def start(self, nursery: trio.Nursery, *, only: Container | None = None) -> None:
        """Start the floors and prove that the service answers, with one listing.

        Raises:
            RemoteError: The service did not answer as it should.
        """
        await nursery.start(self.store.run)
        await self.namespace.start(only=only)
        # Not before: what has never been mounted is not to be known as if it had.
        self.note_source()
        await nursery.start(self.file_system.postponed.run)
        await nursery.start(self.file_system.read_ahead.run)
        await nursery.start(self.file_system.retries.run)
        self.file_system.retries.begin()


def build_floors(
    api: ContainersApi,
    state: StateDirectory,
    *,
    clock: Clock,
    config: GraphConfig,
    nursery: trio.Nursery,
    caches: KernelCaches,
) -> Floors:
    """Put the floors on top of each other; sends nothing and starts nothing.

    Raises:
        ConfigError: A pattern of ``local_only`` makes no sense.
    """
    take_over_free_slots(state, clock=clock)
    local, journal = LocalEntries(state.database), Journal(state.database)
    overlay = Overlay(state.database)
    facts = ServiceFacts(state.database)
    naming = NamingRules(facts, slash_mode=config.tree.slash_mode)
    spool = _swept_spool(state, config.content, local=local, journal=journal)
    store = _content_store(api, state, spool, clock=clock, config=config.content)
    tree = EntryTree(
        clock=clock,
        overlay=overlay,
        local=local,
        naming=naming,
        adopt=partial(_adopt, store),
        show_expired=config.tree.show_expired,
    )
    tree.inodes.is_held = store.__contains__
    namespace = Namespace(
        api,
        clock=clock,
        config=config.tree,
        tree=tree,
        marks=ContainerMarks(facts),
        nursery=nursery,
        on_changes=caches.on_changes,
    )
    uploader = Uploader(api, config.content, progress=UploadProgress(clock))
    file = ProgressFile(state.path)
    progress = ProgressReporter(api, uploads=uploader.progress, database=state.database, file=file)
    parts = Parts(
        api=api,
        clock=clock,
        config=config.files,
        tree=tree,
        namespace=namespace,
        naming=naming,
        store=store,
        uploader=uploader,
        overlay=overlay,
        local=local,
        journal=journal,
        local_only=LocalOnlyNames(config.files.local_only),
        handles=HandleTable(handles_max=config.files.open_files_max),
        mount_id=f"{clock.wall_ns():x}-{os.getpid():x}",
    )
    file_system = _file_system(parts, state, config, caches, progress)
    tree.restore = file_system.restorer.restore
    return Floors(
        store=store,
        namespace=namespace,
        file_system=file_system,
        progress=progress,
        note_source=partial(facts.set, SOURCE_FACT, config.source),
    )


def _file_system(
    parts: Parts,
    state: StateDirectory,
    config: GraphConfig,
    caches: KernelCaches,
    progress: ProgressReporter,
) -> FileSystem:
    return FileSystem(
        parts,
        attributes_timeout_s=ATTRIBUTES_TIMEOUT_S,
        control=ControlDirectory(
            parts,
            source=config.source,
            version=importlib.metadata.version("ctrfs"),
            spool_path=state.spool_path,
            progress=lambda: text_from_progress(progress.now()),
        ),
        on_pages_stale=caches.on_pages_stale,
        holds_open=caches.holds_open,
    )


def _content_store(
    api: ContainersApi,
    state: StateDirectory,
    spool: SpoolDirectory,
    *,
    clock: Clock,
    config: ContentConfig,
) -> ContentStore:
    cache = ContentCache(
        state.cache_path,
        spool,
        bytes_max=config.cache_bytes_max,
        free_bytes_min=config.cache_free_bytes_min,
    )
    return ContentStore(api, clock, config, spool=spool, cache=cache)


def _swept_spool(
    state: StateDirectory, config: ContentConfig, *, local: LocalEntries, journal: Journal
) -> SpoolDirectory:
    """Return the spool with nothing in it but what earlier mounts have left on purpose."""
    spool = SpoolDirectory(state.spool_path, bytes_max=config.spool_bytes_max)
    kept = journal.spool_names() | local.spool_names()
    swept = spool.sweep(kept)
    if swept:
        log.info("removed %d local copies that an earlier mount had left", swept)
    return spool


def _adopt(store: ContentStore, file: File, row: LocalFileRow) -> int | None:
    """Put the bytes of a file of this machine into the store; tell how many there are.

    The record may be older than the last bytes: a mount can end before they are closed.
    """
    try:
        return store.adopt(file.inode, row.spool_name).size_bytes
    except LocalDiskError as error:
        log.warning("a file of this machine is lost: %r: %s", row.path, error)
        return None
