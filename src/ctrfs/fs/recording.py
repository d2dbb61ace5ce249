"""The journal in the words of the file system: what is about to be done, and that it is done.

A change is recorded before the service hears of it and settled when the service has confirmed
it; docs/durability.md goes through what a crash in between leaves. Where this machine's disk
refuses a record the change goes on without: the service is where the bytes are safe.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Final

import trio
from msgspec.structs import replace

from ctrfs.api.models import ContainerFile, ContainerId, FileId
from ctrfs.content.open_file import OpenFile
from ctrfs.content.outgoing import Outgoing
from ctrfs.disk.journal import Journal, StoredVersion, UnsentRow
from ctrfs.disk.small_bytes import SMALL_BYTES_MAX
from ctrfs.errors import CtrfsError, LocalDiskError
from ctrfs.failpoints import reached
from ctrfs.fs.describing import described
from ctrfs.fs.failure_log import text_of
from ctrfs.fs.parts import Parts, Place
from ctrfs.tree.nodes import File, InodeNumber, path_in_container
from ctrfs.units import NS_PER_S

# Beyond these the bytes of small files are synced in the spool: the database does not shrink.
_SMALL_FILES_MAX: Final = 1_000

log = logging.getLogger(__name__)


class Recorder:
    """Writes the journal. What it records is on the disk when a call returns.

    Attributes:
        on_failure: Told when a file, or something else, is left to be tried again behind the
            user's back.
        on_kept: Told when a file is left to be sent for the first time behind the user's back.
        postponed: By container, deletions that are put off for a moment (``fs.postponing``).
        overdue: Deletions that nobody is carrying out: they failed, or an earlier mount has
            left them.
        overdue_rmdirs: Likewise, containers.

    Invariant: ``_vouched`` has the key of each record that is of a file's present bytes (any
    other is of earlier ones, which are still there); ``_owed`` that of each record which should
    be gone and could not be taken away; ``_to_delete`` each deletion that is neither done nor
    called off, whether the disk has taken its record or not.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._serial = 0
        is_idle = parts.config.read_only
        self.overdue = set() if is_idle else set(parts.journal.deletes())
        self.overdue_rmdirs = set() if is_idle else set(parts.journal.rmdirs())
        # Of earlier mounts; one may have had the id of this one, by a clock that was set back.
        self._foreign = frozenset(key for key, _container in parts.journal.keys_and_containers())
        self._vouched = set() if is_idle else set(self._foreign)
        self._owed: set[str] = set()
        self._to_delete = set(self.overdue)
        self._changes = self._changes_synced = 0
        parts.store.on_change = self._changed
        self.postponed: dict[str, dict[StoredVersion, None]] = {}
        self.on_failure: Callable[[InodeNumber | None], None] = lambda _inode: None
        self.on_kept: Callable[[InodeNumber], None] = lambda _inode: None

    @property
    def journal(self) -> Journal:
        """The journal itself, for reading."""
        return self._parts.journal

    @property
    def is_owing(self) -> bool:
        """Whether there are records that should be gone, and that the disk has kept."""
        return bool(self._owed)

    @property
    def recorded_count(self) -> int:
        """How many files have a record of their present bytes."""
        return len(self._vouched)

    def is_recorded(self, file: File) -> bool:
        """Tell whether the journal has exactly the present bytes of a file."""
        return file.journal_key is not None and file.journal_key in self._vouched

    def is_intended(self, file: File, *, digest: str) -> bool:
        """Tell whether the journal says already that these bytes are on their way to their name."""
        row = self._row(file) if self.is_recorded(file) else None
        return (
            row is not None
            and row.digest == digest
            and not row.error
            and row.container_id == file.owner.container.id
            and row.path == b"/".join(path_in_container(file))
            and set(row.replaces) == {version_of(remote) for remote in replaced_by(file)}
        )

    def has_overdue(self, container_ids: Collection[str] | None) -> bool:
        """Tell whether deletions have failed and are to be tried again, in all containers or some."""
        return any(
            container_ids is None or version.container_id in container_ids
            for version in self.overdue
        )

    async def keep(
        self,
        file: File,
        open_file: OpenFile,
        *,
        place: Place | None = None,
        replaces: Sequence[ContainerFile] | None = None,
        instead: Callable[[], None] = lambda: None,
    ) -> None:
        """Record bytes that are going to be sent later; waits for this machine's disk.

        Nothing can happen between the record and the caller's next wait. See ``intend``.

        Raises:
            LocalDiskError: The disk refuses; nothing was recorded.
            NoSuchEntryError: There is no such ``place`` any more; likewise.
        """
        # A renaming may be taken back, and the record that it replaces has the earlier bytes.
        is_plain = place is None and self.recorded_count < _SMALL_FILES_MAX
        digest, content = await open_file.store_on_disk(
            small_max=SMALL_BYTES_MAX if is_plain else 0
        )
        with self.journal.together():
            key = self._put(
                file, open_file, digest=digest, error="", place=place, replaces=replaces
            )
            if content is not None:
                self.journal.put_bytes(key, content)
            instead()
        self._recorded(file, key, open_file)
        reached("close.kept")

    async def intend(
        self,
        file: File,
        open_file: OpenFile,
        *,
        digest: str,
        place: Place | None = None,
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

        Raises:
            NoSuchEntryError: There is no such ``place`` any more; nothing was recorded.
        """
        reached("save.digested")
        with self._parts.spared():
            await open_file.sync_to_disk()
            with self.journal.together():
                key = self._put(
                    file, open_file, digest=digest, error="", place=place, replaces=replaces
                )
                instead()
            self._recorded(file, key, open_file, keeps_earlier=place is not None)

    async def failed(
        self, file: File, open_file: OpenFile, error: CtrfsError, *, held: Outgoing | None = None
    ) -> None:
        """Record why bytes could not be sent, and the bytes themselves where that is still to do.

        Args:
            file: Whose they are.
            open_file: The bytes.
            error: Of the attempt.
            held: The bytes as the caller holds them still: what is written next is not closed
                yet, and half of it is no version. None if nobody does.
        """
        try:
            if file.journal_key is not None and file.journal_key in self._vouched:
                self.journal.note_error(file.journal_key, text_of(error))
            else:
                if held is None:
                    digest, _ = await open_file.store_on_disk()
                else:
                    digest = held.digest
                    await open_file.sync_to_disk()
                key = self._put(file, open_file, digest=digest, error=text_of(error))
                self._recorded(file, key, open_file)
        except LocalDiskError as failure:
            log.error(  # noqa: TRY400  # a full disk is no bug of ours: a line, not a traceback
                "unsent bytes of %s cannot be kept past this mount: %s", described(file), failure
            )
        self.on_failure(file.inode)

    def touched(self, file: File) -> None:
        """Bring the times and the mode in the record of unsent bytes up to date."""
        row = self._row(file)
        if row is not None:
            with self._parts.spared():
                self.journal.put(replace(row, mtime_ns=file.mtime_ns, mode=file.mode))

    def renamed(self, file: File, *, over: File | None = None) -> None:
        """Bring the name in the record of unsent bytes up to date, and what they replace.

        Where the file has no record, it gets that of what it is renamed ``over``: until its own
        bytes are closed, a crash leaves those.
        """
        row = self._row(file)
        key = None if over is None else over.journal_key
        if row is None and over is not None and key is not None and key not in self._owed:
            self._take_record(file, over, key)
        if row is not None:
            known = set(row.replaces)
            added = (version_of(remote) for remote in file.replaces)
            versions = (*row.replaces, *(version for version in added if version not in known))
            path = b"/".join(path_in_container(file))
            with self._parts.spared(), self.journal.together():
                self.journal.put(replace(row, path=path, replaces=versions))
                if over is not None:
                    self.take_away(over)

    def settle(
        self, *files: File, deletes: Iterable[ContainerFile] = (), durable: bool = True
    ) -> None:
        """Forget the bytes of ``files``, and record what is to be deleted; one step for each.

        The bytes were sent, or are not wanted any more. A record that the disk does not give up
        is taken away later, or becomes that of the file's next bytes.

        Args:
            files: Whose bytes.
            deletes: What they have replaced.
            durable: Whether to wait for the disk; if not, ``synced`` is to follow.
        """
        keys = [file.journal_key for file in files if file.journal_key is not None]
        gone = list(deletes)
        try:
            self.take_away(*files, deletes=gone, durable=durable)
        except LocalDiskError as error:
            log.warning("records of what was sent stay for now: %s", error)
            self._owed.update(keys)
            self._to_delete.update(map(version_of, gone))
            self.on_failure(None)
            for file in files:
                _is_settled(file)
        else:
            self.taken_away(*files)

    async def synced(self) -> None:
        """Return once the disk has all that was recorded before this was called.

        Those who have come this far together share one wait for the disk. A cancellation comes
        through after it.
        """
        self._changes += 1
        number = self._changes
        # All whose answers came at once get here before the first goes on.
        await trio.lowlevel.cancel_shielded_checkpoint()
        if self._changes_synced < number:
            with self._parts.spared():
                self.journal.sync()
                self._changes_synced = self._changes

    def take_away(
        self, *files: File, deletes: Iterable[ContainerFile] = (), durable: bool = True
    ) -> None:
        """Do what ``settle`` does, as part of a step: ``taken_away`` is to follow it.

        Raises:
            LocalDiskError: The disk refuses; the records are as they were.
        """
        versions = [version_of(row) for row in deletes]
        keys = [file.journal_key for file in files if file.journal_key is not None]
        if keys or versions:
            self.journal.settle(*keys, deletes=versions, durable=durable)
            self._to_delete.update(versions)

    def taken_away(self, *files: File) -> None:
        """Say that the step is made in which records were taken away."""
        for file in files:
            if file.journal_key is not None:
                self._vouched.discard(file.journal_key)
                self._owed.discard(file.journal_key)
                open_file = self._parts.store.get(file.inode)
                if open_file is not None:
                    open_file.recorded.forget()
            file.journal_key = None
            _is_settled(file)

    def put_back(
        self, file: File, open_file: OpenFile, rows: Collection[tuple[UnsentRow, bytes | None]]
    ) -> None:
        """Say that a change which was intended is undone: the records are to be as before.

        Args:
            file: Whose change it was.
            open_file: Its bytes.
            rows: The records there were, with the bytes that were in them, of ``file`` too if it
                had one; else it has none again.

        Raises:
            LocalDiskError: The disk refuses.
        """
        had_record = any(row.key == file.journal_key for row, _ in rows)
        if not had_record:
            self.settle(file)
        for row, content in rows:
            self.journal.put(row)
            if content is not None:
                self.journal.put_bytes(row.key, content)
        if had_record and file.journal_key is not None and open_file.recorded.are_aside:
            self._vouched.discard(file.journal_key)
            open_file.recorded.are_present = False

    def take_away_owed(self) -> None:
        """Try once more to take away what should be gone."""
        if self._owed:
            with self._parts.spared():
                self.journal.settle(*self._owed)
                self._vouched -= self._owed
                self._owed.clear()

    def is_to_be_deleted(self, row: ContainerFile) -> bool:
        """Tell whether a deletion is still wanted: neither done nor called off."""
        return version_of(row) in self._to_delete

    def call_off(self, stored: ContainerFile) -> None:
        """Say that nothing of the id of ``stored`` is to be deleted any more."""
        for version in list(self._to_delete):
            if (version.container_id, version.file_id) == (stored.container_id, stored.id):
                self.deleted(remote_of(version))

    def deleted(self, row: ContainerFile) -> None:
        """Say that a deletion is done, or not wanted any more."""
        version = version_of(row)
        self.overdue.discard(version)
        self._to_delete.discard(version)
        self.postponed.get(row.container_id, {}).pop(version, None)
        with self._parts.spared():
            self.journal.remove_delete(version)

    def not_deleted(self, row: ContainerFile) -> None:
        """Say that a deletion has failed, and is to be tried again later."""
        self.overdue.add(version_of(row))
        self.on_failure(None)

    def container_deleted(self, container_id: ContainerId) -> None:
        """Say that the deletion of a container is done, or not wanted any more."""
        self.overdue_rmdirs.discard(container_id)
        with self._parts.spared():
            self.journal.remove_rmdir(container_id)

    def container_not_deleted(self, container_id: ContainerId) -> None:
        """Say that the deletion of a container has failed, and is to be tried again later."""
        self.overdue_rmdirs.add(container_id)
        self.on_failure(None)

    def _put(
        self,
        file: File,
        open_file: OpenFile,
        *,
        digest: str,
        error: str,
        place: Place | None = None,
        replaces: Sequence[ContainerFile] | None = None,
    ) -> str:
        owner, path = place() if place else (file.owner, path_in_container(file))
        if replaces is None:
            replaces = replaced_by(file)
        key = file.journal_key
        while key is None or (file.journal_key is None and key in self._foreign):
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
        return key

    def _recorded(
        self, file: File, key: str, open_file: OpenFile, *, keeps_earlier: bool = False
    ) -> None:
        """Say that a record is on the disk."""
        file.journal_key = key
        self._vouched.add(key)
        self._owed.discard(key)
        open_file.recorded.note(keeps_earlier=keeps_earlier)

    def _take_record(self, file: File, over: File, key: str) -> None:
        """Make the record of ``over``, with the bytes that it has there, one of ``file``."""
        store = self._parts.store
        open_file = store.get(file.inode)
        if open_file is None or store.get(over.inode) is None:
            return
        open_file.recorded.borrow(store.lend(over.inode))
        file.journal_key, over.journal_key = key, None
        self._vouched.discard(key)

    def _changed(self, inode: InodeNumber) -> None:
        """Say that bytes are about to be changed; what the record has of them is set aside."""
        file = self._parts.tree.inodes.find(inode)
        if isinstance(file, File) and file.journal_key is not None:
            self._vouched.discard(file.journal_key)

    def _row(self, file: File) -> UnsentRow | None:
        return None if file.journal_key is None else self.journal.row(file.journal_key)


def _is_settled(file: File) -> None:
    file.is_restored = False
    file.doubt = None


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


def is_same_version(one: ContainerFile, other: ContainerFile) -> bool:
    """Tell whether two rows are of one version; some do not say how long it is."""
    sizes = {one.size_bytes, other.size_bytes} - {None}
    versions = [(row.id, row.path, row.created_at_s) for row in (one, other)]
    return len(sizes) <= 1 and versions[0] == versions[1]


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
