"""What was promised to the users of two mounts, and whether the service keeps it.

After each step the ledger is told what the step asked for and looks at what the service has.
The promises are those of docs/semantics.md; each check names its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from tests.model.machines import Shown, View
from tests.model.reference import folders_above, shown, stored_name
from tests.model.truth import Changes, Life, Truth

TTL_S: Final = 10.0
MAX_STALE_S: Final = 60.0


@dataclass(eq=False, slots=True)
class Mine:
    """A file that somebody has open in a mount, or whose bytes only that mount has.

    Attributes:
        content: What its readers must get.
        base: The row that the bytes are, or were made from.
        is_dirty: Whether the mount may be the only one to have the bytes.
        sendable: Paths and bytes that may be stored for it.
    """

    mount: int
    inode: int
    container_id: str
    path: str
    content: bytes
    base: str | None
    is_dirty: bool = False
    is_removed: bool = False
    has_failed: bool = False
    """A close or an fsync has failed to send it, so the mount may try again at any time."""
    has_ever_failed: bool = False
    """Likewise, at any time before."""
    kept: set[bytes] = field(default_factory=set)
    """What the next mount may find of it, were this one killed: at least one of these."""
    openers: int = 0
    sendable: set[tuple[str, bytes]] = field(default_factory=set)

    def may_be_sent(self) -> None:
        """Say that from now on its present bytes may be stored under its present path."""
        self.sendable.add((self.path, self.content))


class Ledger:
    """The promises made. Invariant: each dirty file of a mount that runs is in ``files``."""

    def __init__(self, truth: Truth) -> None:
        self.truth = truth
        self.files: list[Mine] = []
        self.past: list[Mine] = []
        """All files that were ever in ``files``: their bytes may be stored late."""
        self._asked: dict[str, set[int]] = {}
        """Rows that the users of these mounts have removed or overwritten."""
        self._must_go: set[str] = set()
        self._heirs: dict[str, dict[int, list[Mine | None]]] = {}
        """Whose bytes must have been stored before a row may go: one of them, the last asked last."""

    # What the users have done

    def file(self, mount: int, container_id: str, path: str, shown_file: Shown) -> Mine:
        """Return the record of a file that a mount shows, a new one if it has none."""
        for each in self.files:
            if each.mount == mount and each.inode == shown_file.inode:
                if not each.is_dirty:
                    each.path = path  # a newer file may have taken its name: promise 3
                return each
        life = None if shown_file.id is None else self.truth.lives[shown_file.id]
        made = Mine(
            mount,
            shown_file.inode,
            container_id,
            path,
            b"" if life is None else life.row.content,
            shown_file.id,
            is_dirty=life is None,
        )
        self.files.append(made)
        self.past.append(made)
        return made

    def ask(self, mount: int, file_id: str | None, *, heir: Mine | None) -> None:
        """Say that a user of ``mount`` wants a row to go, once ``heir`` has been stored."""
        if file_id is None:
            return
        self._asked.setdefault(file_id, set()).add(mount)
        self._heirs.setdefault(file_id, {}).setdefault(mount, []).append(heir)

    def inherit(self, target: Mine, heir: Mine) -> None:
        """Say that ``heir`` takes the place of ``target``, and so of what that was to replace."""
        for heirs in self._heirs.values():
            if target in heirs.get(target.mount, []):
                heirs[target.mount].append(heir)

    def must_go(self, file_id: str | None) -> None:
        """Say that an operation that asked for a row to go has succeeded."""
        if file_id is not None:
            self._must_go.add(file_id)

    def is_asked(self, mount: int, file_id: str) -> bool:
        """Tell whether a user of ``mount`` wanted a row to go."""
        return mount in self._asked.get(file_id, ())

    def ended(self, mount: int) -> list[Mine]:
        """Say that a mount has ended; return the files that the next one must have.

        Nobody has its files open any more, and inodes mean nothing. What nobody has tried to
        close is lost, and then what it was to replace stays.
        """
        left: list[Mine] = []
        for file in self.files:
            if file.mount != mount or not file.is_dirty:
                continue
            stored = self._stored(file)
            if stored is not None:
                stored.acknowledged_by.add(mount)
            elif file.has_failed:
                left.append(file)
            else:
                self._spare(file)
        self.files = [each for each in self.files if each.mount != mount]
        return left

    def found_again(self, mount: int, file: Mine, entry: Shown, content: bytes) -> None:
        """Say what a later mount has found of an unsent file."""
        found = Mine(mount, entry.inode, file.container_id, file.path, content, entry.id)
        for each in (found, file):
            each.sendable.add((file.path, content))
        found.kept = {content}
        found.is_dirty = found.has_failed = True
        stored = None if entry.id is None else self.truth.lives[entry.id]
        if stored is not None and stored.row.content == content:
            stored.acknowledged_by.add(mount)
            found.is_dirty = found.has_failed = False
        self.files.append(found)
        self.past.append(found)

    def failed(self, file: Mine) -> None:
        """Say that a close or an fsync could not send a file: its bytes are kept."""
        file.has_failed = file.is_dirty
        file.has_ever_failed = True
        file.kept = {file.content}

    def _spare(self, file: Mine) -> None:
        """Take back that anything should go for the sake of a file."""
        for file_id, heirs in self._heirs.items():
            if heirs.get(file.mount, [None])[-1] is file:
                del heirs[file.mount]
                self._asked[file_id].discard(file.mount)
                if not self._asked[file_id]:
                    del self._asked[file_id]

    def _stored(self, file: Mine) -> Life | None:
        """Return the row that has the bytes of a file under its name now, if there is one."""
        found = [
            life
            for life in self.truth.stored_at(
                file.container_id, stored_name(file.path, file.content), file.content
            )
            if life.died_s is None
        ]
        # The same bytes over the same bytes cost nothing: what was there stays.
        unchanged = [life for life in found if life.row.id == file.base]
        return next(iter(unchanged or found[::-1]), None)

    def changed(self, file: Mine, content: bytes) -> None:
        """Say that the bytes of an open file have changed."""
        file.content = content
        if file.is_removed:
            return
        file.is_dirty = True
        if file.has_failed:
            file.may_be_sent()
            file.kept.add(content)
        self.ask(file.mount, file.base, heir=file)

    def acknowledge(self, file: Mine) -> None:
        """Check promise 12: what was just called safe is on the service."""
        if not file.is_dirty or file.is_removed:
            return
        wanted = stored_name(file.path, file.content)
        stored = self._stored(file)
        old = None if file.base is None else self.truth.lives[file.base]
        if stored is None and old is not None and old.row.path == wanted:
            # docs/known-limits.md: the same bytes, deleted elsewhere within ttl.
            assert old.died_s is not None
            file.is_dirty = file.has_failed = False
            return
        assert stored is not None, (
            f"promise 12: {file.path} {file.content!r} was acknowledged and is not there"
        )
        stored.acknowledged_by.add(file.mount)
        if file.base != stored.row.id:
            self.must_go(file.base)
        file.base = stored.row.id
        self._asked.pop(file.base, None)
        self._heirs.pop(file.base, None)
        self._must_go.discard(file.base)
        file.is_dirty = file.has_failed = False

    def may_have_looked(self, file: Mine) -> None:
        """Say that a mount may have tried to send a file, and found its bytes stored already."""
        stored = self._stored(file)
        if stored is not None and stored.row.id == file.base:
            file.is_dirty = file.has_failed = False

    def reconcile(self, mount: int, view: View) -> None:
        """Take in where the files of a mount are now, and what it has sent by itself.

        Promises 7 and 14: bytes that only a mount has are always in sight.
        """
        by_inode = {each.inode: (path, each.id) for path, each in view.files.items()}
        for file in self.files:
            if file.mount != mount or file.container_id != view.container_id or not file.is_dirty:
                continue
            assert file.inode in by_inode, f"promise 14: {file.path} is out of sight and unsent"
            file.path, base = by_inode[file.inode]
            if base is None or base == file.base:
                continue
            life = self.truth.lives[base]
            file.base = base
            if life.row.content == file.content:
                file.is_dirty = file.has_failed = False
                life.acknowledged_by.add(mount)
            else:
                self.ask(mount, base, heir=file)

    def prune(self) -> None:
        """Forget files that nobody has open and that are stored."""
        self.files = [each for each in self.files if each.is_dirty or each.openers]

    # What the service has done

    def check(self, changes: Changes) -> None:
        """Check what has changed on the service.

        Promises 3 and 10: nothing goes that nobody has asked for. 11 and 12: what mounts store
        are whole files under their names. 14: nothing goes before what replaces it is stored.
        """
        for life in changes.born:
            if life.is_ours:
                self._check_stored(life)
        for life in changes.died:
            if self.truth.is_alive(life.container_id):
                self._check_gone(life)

    def _check_stored(self, life: Life) -> None:
        assert life.row.source == "user"
        for file in self.past:
            for path, content in file.sendable:
                if (
                    file.container_id == life.container_id
                    and content == life.row.content
                    and stored_name(path, content) == life.row.path
                ):
                    return
        raise AssertionError(f"nobody has saved what was stored: {life.row}")

    def _check_gone(self, life: Life) -> None:
        file_id = life.row.id
        is_asked = file_id in self._asked
        # What a mount has stored and told nobody of it may take back.
        is_own_affair = life.is_ours and not life.acknowledged_by
        is_fine = is_asked or is_own_affair or self._may_be_taken_for_another(life)
        assert is_fine, f"promises 3 and 10: deleted unasked: {life.row}"
        heirs = [heir for each in self._heirs.get(file_id, {}).values() for heir in each]
        assert not heirs or any(map(self._has_been_stored, heirs)), (
            f"promise 14: {life.row} went before anything took its place"
        )

    def _may_be_taken_for_another(self, life: Life) -> bool:
        """Tell whether a mount may think that it has stored what somebody else has.

        docs/durability.md, "The limits of it": its own upload of the same failed before.
        """
        return any(
            file.has_ever_failed
            and file.mount not in life.acknowledged_by
            and file.container_id == life.container_id
            and any(
                content == life.row.content and stored_name(path, content) == life.row.path
                for path, content in file.sendable
            )
            for file in self.past
        )

    def _has_been_stored(self, heir: Mine | None) -> bool:
        """Tell whether what was to replace a row was ever there, or is wanted no more."""
        if heir is None or heir.is_removed:
            return True
        return any(
            self.truth.stored_at(heir.container_id, stored_name(path, content), content)
            for path, content in heir.sendable
        )

    # What the mounts show

    def check_view(self, mount: int, view: View) -> None:
        """Check promises 3, 7, 8 and 14: a mount with fresh listings shows what there is.

        Rows that its users have removed may be hidden. Folders: those that files need.
        """
        expected, claims = self._expected(mount, view)
        found = {path: file.id for path, file in view.files.items() if path not in claims}
        assert found == expected, f"promises 3 and 8: {_difference(found, expected)}"
        for path, file in claims.items():
            assert view.files.get(path) is not None, f"promise 14: {path} is not shown"
            assert view.files[path].inode == file.inode, f"promise 7: {path} is another file"
        needed = {above for path in view.files for above in folders_above(path)}
        assert needed <= view.folders

    def _expected(self, mount: int, view: View) -> tuple[dict[str, str | None], dict[str, Mine]]:
        claims = {
            each.path: each
            for each in self.files
            if each.mount == mount and each.container_id == view.container_id and each.is_dirty
        }
        ids_shown = {file.id for file in view.files.values()}
        claimed = {each.base for each in claims.values()}
        rows = [
            life.row
            for life in self.truth.now(view.container_id)
            if life.row.id not in claimed
            and (life.row.id in ids_shown or mount not in self._asked.get(life.row.id, ()))
        ]
        places = shown(rows, taken=set(claims))
        return {path: row.id for path, row in places.items()}, claims

    @property
    def is_settled(self) -> bool:
        """Whether all is sent, and all that was to go is gone, where it can be."""
        return not any(
            file.is_dirty and self.truth.is_alive(file.container_id) for file in self.files
        ) and not any(self.truth.lives[file_id].died_s is None for file_id in self._must_go)

    def check_settled(self) -> None:
        """Check promises 12 and 14 where all is sent: no claims, no strays, nothing undeleted."""
        for file in self.files:
            is_lost = not self.truth.is_alive(file.container_id)
            assert not file.is_dirty or is_lost, f"promise 14: {file.path} was never sent"
        for life in self.truth.lives.values():
            is_stray = life.is_ours and not life.acknowledged_by and life.died_s is None
            assert not is_stray or self._was_overtaken(life), f"a stray: {life.row}"
        for file_id in self._must_go:
            life = self.truth.lives[file_id]
            is_dead = life.died_s is not None or not self.truth.is_alive(life.container_id)
            assert is_dead, f"promise 14: {life.row} was never deleted"

    def _was_overtaken(self, life: Life) -> bool:
        """Tell whether bytes were changed while nobody knew whether they had arrived.

        They may then stay as a file of their own: docs/durability.md, "The limits of it".
        """
        return life.is_uncertain and not any(
            other is not life and other.is_ours and other.died_s is None
            for other in self.truth.stored_at(life.container_id, life.row.path, life.row.content)
        )

    def may_be_missing(
        self, mount: int, container_id: str, path: str, *, from_s: float, to_s: float
    ) -> bool:
        """Tell whether a lookup may find nothing.

        Not if one row alone wanted the name and was there all the time. One that was stepped
        over by another stands under its full name until the next listing.
        """
        rivals = [
            life
            for life in self.truth.lives.values()
            if life.container_id == container_id
            and life.inner == path
            and life.was_possible(from_s - MAX_STALE_S, to_s)
        ]
        return len(rivals) != 1 or not (
            rivals[0].was_certain(from_s, to_s) and not self.is_asked(mount, rivals[0].row.id)
        )


def _difference(found: dict[str, str | None], expected: dict[str, str | None]) -> str:
    lines = [
        f"{path}: shows {found.get(path)}, should be {expected.get(path)}"
        for path in sorted(found.keys() | expected.keys())
        if found.get(path) != expected.get(path)
    ]
    return "; ".join(lines)
