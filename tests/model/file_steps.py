"""Steps on files: open, read, write, sync, close."""

from __future__ import annotations

import errno

from tests.model.ledger import MAX_STALE_S, TTL_S, Mine
from tests.model.operations import Close, Look, Open, Read, Save, Sync, Truncate, Write
from tests.model.play import Held, Place, Stage
from tests.model.reference import stored_name


class FileSteps:
    """Plays them on a stage."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    async def save(self, step: Save) -> None:
        """Promises 7, 12, 12a and 14."""
        stage = self._stage
        place = await stage.place(step.mount, step.path)
        if place is None or place.inner in place.view.folders:
            return
        machine = stage.machines[step.mount]
        opened = await stage.attempt(lambda: machine.open(step.path, makes=True, empties=True))
        if isinstance(opened, OSError):
            stage.excuse(opened, container_id=place.container_id)
            return
        file = await stage.file_at(step.mount, place, opened)
        held = Held(opened, file)
        costs_nothing = self._is_stored(file, step.content)
        born = len(stage.born)
        if file.content:
            stage.ledger.changed(file, b"")
        failure: OSError | None = None
        if step.content:
            failure = await stage.attempt(lambda: machine.write(opened, 0, step.content))
            if failure is None:
                stage.ledger.changed(file, step.content)
            else:
                stage.excuse(failure, file, container_id=place.container_id)
        failure = await stage.close(step.mount, held) or failure
        if costs_nothing:
            assert failure is not None or len(stage.born) == born, "promise 12a: sent again"
        if stage.truth.is_alive(place.container_id):
            await self._check_read(step.mount, step.path, file)

    async def open(self, step: Open) -> None:
        """Keep a file open."""
        key = (step.mount, step.slot)
        if key in self._stage.slots:
            return
        held = await self._open(step.mount, step.path, makes=True)
        if held is not None:
            self._stage.slots[key] = held

    async def read(self, step: Read) -> None:
        """Promises 8, 9 and 11."""
        stage = self._stage
        held = await self._open(step.mount, step.path)
        if held is None:
            return
        await self._read(step.mount, held)
        await stage.close(step.mount, held)

    async def look(self, step: Look) -> None:
        """Promise 9: the same version for as long as it is open."""
        held = self._stage.slots.get((step.mount, step.slot))
        if held is not None:
            await self._read(step.mount, held)

    async def write(self, step: Write) -> None:
        """Change the bytes of an open file."""
        stage = self._stage
        held = stage.slots.get((step.mount, step.slot))
        if held is None or not step.content:
            return
        file, machine = held.file, stage.machines[step.mount]
        error = await stage.attempt(
            lambda: machine.write(held.descriptor, step.offset, step.content)
        )
        if error is not None:
            stage.excuse(error, file, container_id=file.container_id)
            return
        end = step.offset + len(step.content)
        padded = file.content.ljust(step.offset, b"\0")
        stage.ledger.changed(file, padded[: step.offset] + step.content + padded[end:])

    async def truncate(self, step: Truncate) -> None:
        """Change the length of an open file."""
        stage = self._stage
        held = stage.slots.get((step.mount, step.slot))
        if held is None:
            return
        file, machine = held.file, stage.machines[step.mount]
        error = await stage.attempt(lambda: machine.truncate(held.descriptor, step.size))
        if error is not None:
            stage.excuse(error, file, container_id=file.container_id)
        elif step.size != len(file.content):
            stage.ledger.changed(file, file.content[: step.size].ljust(step.size, b"\0"))

    async def sync(self, step: Sync) -> None:
        """Promise 12."""
        stage = self._stage
        held = stage.slots.get((step.mount, step.slot))
        if held is None:
            return
        file = held.file
        file.may_be_sent()
        error = await stage.attempt(lambda: stage.machines[step.mount].sync(held.descriptor))
        if error is None:
            stage.ledger.acknowledge(file)
            return
        stage.ledger.failed(file)
        stage.excuse(error, file, container_id=file.container_id)

    async def close(self, step: Close) -> None:
        """Promise 12."""
        held = self._stage.slots.pop((step.mount, step.slot), None)
        if held is not None:
            await self._stage.close(step.mount, held)

    async def _open(self, mount: int, path: str, *, makes: bool = False) -> Held | None:
        """Open a file; check that it may be missing if it is."""
        stage = self._stage
        before_s = stage.world.now_s
        place = await stage.place(mount, path)
        if place is None or place.inner in place.view.folders:
            return None
        descriptor = await stage.attempt(lambda: stage.machines[mount].open(path, makes=makes))
        if isinstance(descriptor, OSError):
            self._check_missing(mount, place, descriptor, before_s)
            return None
        file = await stage.file_at(mount, place, descriptor)
        if not file.is_dirty and file.openers == 1:
            self._check_age(mount, file, before_s)
        return Held(descriptor, file)

    def _check_missing(self, mount: int, place: Place, error: OSError, before_s: float) -> None:
        stage = self._stage
        if error.errno != errno.ENOENT or place.shown is not None:
            stage.excuse(error, container_id=place.container_id)
            return
        may_be = stage.ledger.may_be_missing(
            mount,
            place.container_id,
            place.inner,
            from_s=max(before_s - TTL_S, 0.0),
            to_s=stage.world.now_s,
        )
        is_gone = not stage.truth.is_alive(place.container_id)
        assert may_be or is_gone or stage.is_excused, f"promise 8: {place.path} is missing"

    def _check_age(self, mount: int, file: Mine, before_s: float) -> None:
        """Promise 8: nothing older than ``max_stale`` is shown, and nothing from before a refresh."""
        stage = self._stage
        assert file.base is not None, "promise 3: a file that nobody has made"
        since_s = max(before_s - MAX_STALE_S, stage.refreshed_s[mount])
        life = stage.truth.lives[file.base]
        is_recent = life.was_possible(since_s, stage.world.now_s)
        is_gone = not stage.truth.is_alive(file.container_id)
        assert is_recent or is_gone or stage.is_excused, f"promise 8: {file.path} is too old"

    async def _read(self, mount: int, held: Held) -> None:
        stage, file = self._stage, held.file
        found = await stage.attempt(lambda: stage.machines[mount].read(held.descriptor))
        if isinstance(found, OSError):
            stage.excuse(found, file, container_id=file.container_id)
            return
        assert found == file.content, f"promises 9 and 11: {file.path} reads {found!r}"

    async def _check_read(self, mount: int, path: str, file: Mine) -> None:
        """Promises 7 and 14: whoever reads the name now gets what was just written."""
        stage = self._stage
        held = await self._open(mount, path)
        if held is None:
            gone = not stage.truth.is_alive(file.container_id)
            assert stage.is_excused or gone, f"promise 7: {path} is not there"
            return
        assert held.file is file, f"promise 7: {path} is another file"
        await self._read(mount, held)
        await stage.close(mount, held)

    def _is_stored(self, file: Mine, content: bytes) -> bool:
        """Tell whether the service has exactly that under exactly that name."""
        life = None if file.base is None else self._stage.truth.lives[file.base]
        return (
            life is not None
            and not file.is_dirty
            and life.row.source == "user"
            and life.row.path == stored_name(file.path, content)
            and life.row.content == content
        )
