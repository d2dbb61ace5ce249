"""The journal in the words of the file system: what is about to be done, and that it is done.

A change is recorded before the service hears of it and settled when the service has confirmed
it; docs/durability.md goes through what a crash in between leaves. Where this machine's disk
refuses a record the change goes on without: the service is where the bytes are safe.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence

from ctrfs.api.models import ContainerFile, ContainerId, FileId
from ctrfs.content.open_file import FileState, OpenFile
from ctrfs.disk.journal import Journal, StoredVersion, UnsentRow
from ctrfs.errors import CtrfsError, LocalDiskError
from ctrfs.failpoints import reached
from ctrfs.fs.failure_log import text_of
from ctrfs.fs.parts import Parts
from ctrfs.tree.nodes import ContainerDirectory, EntryPath, File, path_in_container
from ctrfs.units import NS_PER_S

log = logging.getLogger(__name__)


class Recorder:
    """Writes the journal. What it records is on the disk when a call returns.

    Attributes:
        on_failure: Told when something is left to be tried again behind the user's back.
        overdue: Deletions that nobody is carrying out: they failed, or an earlier mount has
            left them.
        overdue_rmdirs: Likewise, containers.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._serial = 0
        is_idle = parts.config.read_only
        self.overdue = set() if is_idle else set(parts.journal.deletes())
        self.overdue_rmdirs = set() if is_idle else set(parts.journal.rmdirs())
        self.on_failure: Callable[[], None] = lambda: None

    @property
    def journal(self) -> Journal:
        """The journal itself, for reading."""
        return self._parts.journal

    async def intend(
        self,
        file: File,
        open_file: OpenFile,
        *,
        digest: str,
        place: tuple[ContainerDirectory, EntryPath] | None = None,
        replaces: Sequence[ContainerFile] | None = None,
        instead: Callable[[], None] = lambda: None,
    ) -> None:
        """Record bytes that are about to be sent; waits for this machine's disk.

        Args:
            file: Whose they are.
            open_file: The bytes, held still by the caller.
            digest: Their blake2b.
            place: Where they are going to show, if not where the file is.
            replaces: What they take the place of, if not what they are a version of.
            instead: Takes away, in the same step, what else this machine's disk has of them.
        """
        reached("save.digested")
        with self._parts.spared():
            await open_file.sync_to_disk()
            with self.journal.together():
                self._put(file, open_file, digest=digest, error="", place=place, replaces=replaces)
                instead()

    async def failed(self, file: File, open_file: OpenFile, error: CtrfsError) -> None:
        """Record why bytes could not be sent, and the bytes themselves where that is still to do.

        Args:
            file: Whose they are.
            open_file: The bytes.
            error: Of the attempt.
        """
        try:
            if file.journal_key is not None:
                self.journal.note_error(file.journal_key, text_of(error))
            else:
                await open_file.sync_to_disk()
                self._put(file, open_file, digest="", error=text_of(error))
        except LocalDiskError as failure:
            log.error(  # noqa: TRY400  # a full disk is no bug of ours: a line, not a traceback
                "unsent bytes of inode %d cannot be kept past this mount: %s", file.inode, failure
            )
        self.on_failure()

    def again(self, file: File) -> None:
        """Bring the record of unsent bytes up to date, if there is one: name, times or mode."""
        open_file = self._parts.store.get(file.inode)
        row = None if file.journal_key is None else self.journal.row(file.journal_key)
        if open_file is not None and row is not None:
            with self._parts.spared():
                self._put(file, open_file, digest=row.digest, error=row.error)

    def changed(self, file: File, open_file: OpenFile) -> None:
        """Say that recorded bytes are about to be changed; only the first change costs anything."""
        if file.journal_key is not None and open_file.state is not FileState.DIRTY:
            with self._parts.spared():
                self.journal.note_changed(file.journal_key)

    def settle(self, *files: File, deletes: Iterable[ContainerFile] = ()) -> None:
        """Forget the bytes of ``files``, and record what is to be deleted; one step for each.

        The bytes were sent, or are not wanted any more.
        """
        versions = [version_of(row) for row in deletes]
        keys = [file.journal_key for file in files if file.journal_key is not None]
        if not keys and not versions:
            return
        with self._parts.spared():
            self.journal.settle(*keys, deletes=versions)
        for file in files:
            file.journal_key = None
            file.is_restored = False
            file.doubt = None

    def deleted(self, row: ContainerFile) -> None:
        """Say that a deletion is done, or not wanted any more."""
        version = version_of(row)
        self.overdue.discard(version)
        with self._parts.spared():
            self.journal.remove_delete(version)

    def not_deleted(self, row: ContainerFile) -> None:
        """Say that a deletion has failed, and is to be tried again later."""
        self.overdue.add(version_of(row))
        self.on_failure()

    def container_deleted(self, container_id: ContainerId) -> None:
        """Say that the deletion of a container is done, or not wanted any more."""
        self.overdue_rmdirs.discard(container_id)
        with self._parts.spared():
            self.journal.remove_rmdir(container_id)

    def container_not_deleted(self, container_id: ContainerId) -> None:
        """Say that the deletion of a container has failed, and is to be tried again later."""
        self.overdue_rmdirs.add(container_id)
        self.on_failure()

    def _put(
        self,
        file: File,
        open_file: OpenFile,
        *,
        digest: str,
        error: str,
        place: tuple[ContainerDirectory, EntryPath] | None = None,
        replaces: Sequence[ContainerFile] | None = None,
    ) -> None:
        owner, path = place or (file.owner, path_in_container(file))
        if replaces is None:
            replaces = replaced_by(file)
        key = file.journal_key
        if key is None:
            self._serial += 1
            key = f"{self._parts.mount_id}-{self._serial}"
        row = UnsentRow(
            key=key,
            container_id=owner.container.id,
            container_name=owner.container.name,
            path=b"/".join(path),
            spool_name=open_file.spool_name,
            size_bytes=open_file.size_bytes or 0,
            digest=digest,
            replaces=tuple(version_of(remote) for remote in replaces),
            mtime_ns=file.mtime_ns,
            mode=file.mode,
            error=error,
            since_s=(open_file.dirty_since_ns or self._parts.clock.wall_ns()) // NS_PER_S,
        )
        self.journal.put(row)
        file.journal_key = key


def replaced_by(file: File) -> list[ContainerFile]:
    """Return what the unsent bytes of ``file`` take the place of."""
    return [*file.replaces, *([file.remote] if file.remote is not None else [])]


def version_of(remote: ContainerFile) -> StoredVersion:
    """Return a stored file as the journal keeps it."""
    return StoredVersion(
        container_id=remote.container_id,
        file_id=remote.id,
        stored_path=remote.path,
        created_at_s=remote.created_at_s,
        size_bytes=remote.size_bytes,
    )


def remote_of(version: StoredVersion) -> ContainerFile:
    """Return what the journal has kept of a stored file; its source is not known any more."""
    return ContainerFile(
        id=FileId(version.file_id),
        container_id=ContainerId(version.container_id),
        path=version.stored_path,
        size_bytes=version.size_bytes,
        created_at_s=version.created_at_s,
        source="",
    )
