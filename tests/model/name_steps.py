"""Steps on names: unlink, rename, mkdir, rmdir."""

from __future__ import annotations

import errno
from typing import Final

from tests.model.ledger import Mine
from tests.model.machines import View
from tests.model.operations import FILES, MakeFolder, Remove, RemoveFolder, Rename
from tests.model.play import Place, Stage
from tests.model.reference import stored_name
from tests.model.truth import data_path

NOT_FOR_FOLDERS: Final = {errno.EXDEV, errno.EINVAL, errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT}


class NameSteps:
    """Plays them on a stage."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    async def remove(self, step: Remove) -> None:
        """Promises 3, 7 and 10."""
        stage = self._stage
        place = await stage.place(step.mount, step.path)
        if place is None or place.inner in place.view.folders:
            return
        file = self._record(step.mount, place)
        if file is not None:
            stage.ledger.ask(step.mount, file.base, heir=None)
            # A removal that fails sends what closes meanwhile have left to it.
            file.may_be_sent()
        base = None if file is None else file.base
        error = await stage.attempt(lambda: stage.machines[step.mount].unlink(step.path))
        if file is None:
            assert error is not None, "unlinked what was not there"
            assert error.errno == errno.ENOENT or stage.is_excused, error
            return
        view = await stage.machines[step.mount].view(place.container)
        is_shown = view is not None and file.inode in {each.inode for each in view.files.values()}
        if error is None:
            assert not is_shown, f"promise 7: {step.path} is still shown"
            stage.ledger.must_go(base)
        else:
            stage.excuse(error, file, container_id=place.container_id)
        if not is_shown:
            file.is_removed, file.is_dirty = True, False
        elif file.is_dirty:
            stage.ledger.ask(step.mount, file.base, heir=file)
            stage.ledger.may_have_looked(file)

    async def rename(self, step: Rename) -> None:
        """Promises 3, 7, 10, 12, 14 and 18."""
        stage = self._stage
        if step.old == step.new:
            return
        old = await stage.place(step.mount, step.old)
        new = await stage.place(step.mount, step.new)
        if old is None or new is None:
            return
        if old.inner in old.view.folders:
            await self._rename_folder(step, old, new)
        elif old.inner in FILES:
            await self._rename_file(step, old, new)

    def _record(self, mount: int, place: Place) -> Mine | None:
        """Return the record of the file at a place."""
        if place.shown is None:
            return None
        return self._stage.ledger.file(mount, place.container_id, place.inner, place.shown)

    async def _rename_file(self, step: Rename, old: Place, new: Place) -> None:
        stage, mount = self._stage, step.mount
        file, target = self._record(mount, old), self._record(mount, new)
        moved = [] if file is None else [(file, new.inner)]
        if file is not None:
            heir = self._prepare(mount, file, new.container_id, new.inner)
            if target is not None:
                stage.ledger.ask(mount, target.base, heir=heir)
                stage.ledger.inherit(target, heir)
        base = None if target is None else target.base
        error = await stage.attempt(lambda: stage.machines[mount].rename(step.old, step.new))
        if file is None:
            assert error is not None, "renamed what was not there"
            assert error.errno == errno.ENOENT or stage.is_excused, error
            return
        is_there = await self._relocate(mount, moved, old, new)
        if error is None:
            assert is_there, f"promise 7: {step.new} is not there"
            if target is not None:
                target.is_removed, target.is_dirty = True, False
                if not file.is_dirty and not self._is_stored_at(base, file):
                    stage.ledger.must_go(base)
            return
        files = [file] if target is None else [file, target]
        is_there_no_more = not stage.truth.is_alive(new.container_id)
        gone_id = new.container_id if is_there_no_more else old.container_id
        stage.excuse(error, *files, container_id=gone_id)
        if target is not None and is_there:
            target.is_removed, target.is_dirty = True, False

    async def _rename_folder(self, step: Rename, old: Place, new: Place) -> None:
        stage, mount = self._stage, step.mount
        above = f"{old.inner}/"
        inside: list[tuple[Mine, str]] = []
        for path, entry in old.view.files.items():
            if path.startswith(above):
                file = stage.ledger.file(mount, old.container_id, path, entry)
                inside.append((file, f"{new.inner}/{path[len(above) :]}"))
        is_inside_itself = new.inner.startswith(above)
        if old.container == new.container and not is_inside_itself:
            for file, path in inside:
                self._prepare(mount, file, new.container_id, path)
        error = await stage.attempt(lambda: stage.machines[mount].rename(step.old, step.new))
        is_there = await self._relocate(mount, inside, old, new)
        if error is None:
            assert is_there, f"promise 18: {step.new} lacks files"
        elif error.errno not in NOT_FOR_FOLDERS:
            files = [file for file, _ in inside]
            stage.excuse(error, *files, container_id=old.container_id)

    def _prepare(self, mount: int, file: Mine, container_id: str, path: str) -> Mine:
        """Say that a file may be stored elsewhere, and its old row go then; return the heir."""
        heir = file
        if container_id != file.container_id:
            heir = Mine(mount, file.inode, container_id, path, file.content, None)
            self._stage.ledger.past.append(heir)
        heir.sendable.add((path, file.content))
        self._stage.ledger.ask(mount, file.base, heir=heir)
        return heir

    async def _relocate(
        self, mount: int, moved: list[tuple[Mine, str]], old: Place, new: Place
    ) -> bool:
        """Take in where files are after a rename; tell whether all are where they should be.

        Those that are must be stored there, unless a descriptor is going to store them.
        """
        stage = self._stage
        before = await stage.machines[mount].view(old.container)
        after = await stage.machines[mount].view(new.container)
        is_there = True
        for file, path in moved:
            entry = None if after is None else after.files.get(path)
            if after is None or entry is None or entry.inode != file.inode:
                is_there = False
                is_lost = stage.has_lost_base(file) or not stage.truth.is_alive(old.container_id)
                is_still_there = before is not None and self._is_still_there(file, before)
                assert is_still_there or is_lost, f"promise 14: {file.path} has no name"
                continue
            is_waiting = file.is_dirty and entry.id == file.base and file.openers > 0
            was = file.base
            file.container_id, file.path = after.container_id, path
            if is_waiting:
                if file.has_failed:
                    file.may_be_sent()
                continue
            file.is_dirty = True
            stage.ledger.acknowledge(file)
            stage.ledger.must_go(was)
        return is_there

    def _is_still_there(self, file: Mine, view: View) -> bool:
        """Tell whether a file is where it was, or under its full name: promise 3."""
        base = None if file.base is None else self._stage.truth.lives[file.base]
        return any(
            path == file.path or (base is not None and data_path(path) == base.row.path)
            for path, entry in view.files.items()
            if entry.inode == file.inode
        )

    def _is_stored_at(self, file_id: str | None, file: Mine) -> bool:
        """Tell whether a row has the very path and bytes of a file: it may be the same one."""
        life = None if file_id is None else self._stage.truth.lives[file_id]
        return life is not None and life.row.path == stored_name(file.path, file.content)

    async def make_folder(self, step: MakeFolder) -> None:
        """Promises 5 and 7."""
        stage = self._stage
        machine = stage.machines[step.mount]
        if "/" not in step.path:
            await self._make_container(step)
            return
        place = await stage.place(step.mount, step.path)
        if place is None:
            return
        error = await stage.attempt(lambda: machine.mkdir(step.path))
        if place.inner in place.view.folders:
            assert error is not None
            assert error.errno == errno.EEXIST or stage.is_excused, error
        elif error is not None:
            stage.excuse(error, container_id=place.container_id)
        else:
            view = await machine.view(place.container)
            assert view is not None
            assert place.inner in view.folders, f"promise 7: {step.path} is not there"

    async def remove_folder(self, step: RemoveFolder) -> None:
        """Promises 3 and 5."""
        stage = self._stage
        if "/" not in step.path:
            await self._remove_container(step)
            return
        place = await stage.place(step.mount, step.path)
        if place is None:
            return
        inside = [
            path
            for path in [*place.view.files, *place.view.folders]
            if path.startswith(f"{place.inner}/")
        ]
        error = await stage.attempt(lambda: stage.machines[step.mount].rmdir(step.path))
        if place.inner not in place.view.folders:
            assert error is not None
            assert error.errno == errno.ENOENT or stage.is_excused, error
        elif inside:
            assert error is not None, f"promise 3: {inside} went with their folder"
            assert error.errno == errno.ENOTEMPTY or stage.is_excused, error
        elif error is not None:
            stage.excuse(error, container_id=place.container_id)

    async def _make_container(self, step: MakeFolder) -> None:
        """Only where none has the name: two of one name are tested elsewhere."""
        stage = self._stage
        if stage.truth.id_of(step.path) is not None:
            return
        error = await stage.attempt(lambda: stage.machines[step.mount].mkdir(step.path))
        if error is None:
            assert stage.truth.id_of(step.path) is not None, "promise 5"
        else:
            # A mount may not have heard yet that the old one is gone.
            assert error.errno == errno.EEXIST or stage.is_excused, error

    async def _remove_container(self, step: RemoveFolder) -> None:
        stage = self._stage
        view = await stage.machines[step.mount].view(step.path)
        if view is None:
            return
        is_asked = {
            life.row.id: stage.ledger.is_asked(step.mount, life.row.id)
            for life in stage.truth.now(view.container_id)
        }
        error = await stage.attempt(lambda: stage.machines[step.mount].rmdir(step.path))
        if error is None:
            kept = [file_id for file_id, asked in is_asked.items() if not asked]
            assert not kept, f"promise 5: a container with {kept} was deleted"
        elif error.errno not in {errno.ENOTEMPTY, errno.ENOENT}:
            stage.excuse(error, container_id=view.container_id)
