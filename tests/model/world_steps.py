"""Steps of the world: other clients, time, faults, and mounts that end and begin."""

from __future__ import annotations

from tests.model.ledger import TTL_S, Mine
from tests.model.operations import (
    CONTAINERS,
    Delete,
    DeleteContainer,
    Fault,
    Kill,
    Mend,
    Pass,
    Plant,
    Refresh,
    Remount,
    Settle,
    Upload,
)
from tests.model.play import Stage
from tests.model.truth import data_path


class WorldSteps:
    """Plays them on a stage."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    # Other clients

    async def plant(self, step: Plant) -> None:
        """Make a file inside a container."""
        container, _, inner = step.path.partition("/")
        container_id = self._stage.truth.id_of(container)
        if container_id is not None:
            self._stage.world.plant(container_id, data_path(inner), step.content)
            self._stage.look(is_by_mounts=False)

    async def upload(self, step: Upload) -> None:
        """Upload a file."""
        container, _, inner = step.path.partition("/")
        container_id = self._stage.truth.id_of(container)
        if container_id is not None:
            self._stage.world.upload(container_id, inner, step.content)
            self._stage.look(is_by_mounts=False)

    async def delete(self, step: Delete) -> None:
        """Delete a file."""
        container_id = self._stage.truth.id_of(step.container)
        lives = [] if container_id is None else self._stage.truth.now(container_id)
        if container_id is not None and lives:
            life = lives[step.nth % len(lives)]
            self._stage.world.delete(container_id, life.row.id)
            self._stage.look(is_by_mounts=False)

    async def delete_container(self, step: DeleteContainer) -> None:
        """Delete a container."""
        container_id = self._stage.truth.id_of(step.container)
        if container_id is not None:
            self._stage.world.delete_container(container_id)
            self._stage.look(is_by_mounts=False)

    # Time and faults

    async def refresh(self, step: Refresh) -> None:
        """Promises 3 and 8."""
        stage = self._stage
        machine = stage.machines[step.mount]
        for path in ("", *CONTAINERS):
            error = await stage.attempt(lambda path=path: machine.refresh(path))  # type: ignore[misc]  # bound now
            if error is None or stage.is_excused:
                continue
            container_id = stage.truth.id_of(path)
            assert path, error
            assert container_id is None, error
        if not stage.is_excused:
            stage.refreshed_s[step.mount] = stage.world.now_s
            await stage.reconcile()
            await stage.check_views(step.mount)

    async def pass_(self, step: Pass) -> None:
        """Promise 8: after ``ttl`` a listing shows what was done elsewhere."""
        stage = self._stage
        born, died = len(stage.born), len(stage.died)
        await stage.world.pass_(step.seconds)
        await stage.reconcile()
        if step.seconds <= TTL_S:
            return
        for mount, machine in enumerate(stage.machines):
            for path in ("", *CONTAINERS):
                names = await stage.attempt(lambda path=path, at=machine: at.names(path))  # type: ignore[misc]  # bound now
                if isinstance(names, OSError) and not stage.is_excused:
                    assert path, names
                    assert stage.truth.id_of(path) is None, names
            await stage.reconcile()
            is_still = (born, died) == (len(stage.born), len(stage.died))
            if is_still and not stage.is_excused:
                await stage.check_views(mount)

    async def fault(self, step: Fault) -> None:
        """Let requests fail."""
        self._stage.world.fail(step)

    async def mend(self, _step: Mend) -> None:
        """Let none fail."""
        self._stage.world.mend()

    # Ends and beginnings

    async def remount(self, step: Remount) -> None:
        """Close all, unmount in order, mount again: promise 14."""
        stage = self._stage
        for held in stage.open_slots(step.mount):
            await stage.close(step.mount, held)
        await stage.world.run(stage.machines[step.mount].stop)
        await self._mount_again(step.mount)

    async def kill(self, step: Kill) -> None:
        """Drop a mount where it stands, and mount again: promise 14."""
        stage = self._stage
        await stage.world.run(stage.machines[step.mount].kill)
        for held in stage.open_slots(step.mount):
            held.file.openers -= 1
        await self._mount_again(step.mount)

    async def _mount_again(self, mount: int) -> None:
        stage = self._stage
        stage.look(is_by_mounts=True)
        left = stage.ledger.ended(mount)
        if await stage.attempt(stage.machines[mount].start) is not None:
            assert stage.is_excused, "a mount could not be made"
            stage.world.mend()
            assert await stage.attempt(stage.machines[mount].start) is None
        stage.refreshed_s[mount] = stage.world.now_s
        if left and stage.is_excused:
            # They are looked for below, and that must not fail for another reason.
            stage.world.mend()
            await stage.world.pass_(stage.world.settling_s[0])
            stage.look(is_by_mounts=True)
        for file in left:
            if stage.truth.is_alive(file.container_id):
                await self._find_again(mount, file)

    async def _find_again(self, mount: int, file: Mine) -> None:
        """Promise 14: what could not be sent is readable in the next mount, and then sent."""
        stage = self._stage
        machine = stage.machines[mount]
        path = f"{stage.truth.containers[file.container_id]}/{file.path}"
        container = path.partition("/")[0]
        descriptor = await stage.attempt(lambda: machine.open(path))
        assert isinstance(descriptor, int), f"promise 14: {path} was unsent: {descriptor}"
        found = await stage.attempt(lambda: machine.read(descriptor))
        assert found in file.kept, f"promise 14: {path} reads {found!r}, was one of {file.kept}"
        assert isinstance(found, bytes)
        view = await machine.view(container)
        entry = None if view is None else view.files.get(file.path)
        assert entry is not None
        stage.ledger.found_again(mount, file, entry, found)
        error = await stage.attempt(lambda: machine.close(descriptor))
        if error is not None:
            stage.excuse(error, file, container_id=file.container_id)

    async def settle(self, _step: Settle) -> None:
        """Promises 3, 8, 12 and 14, exactly."""
        stage = self._stage
        stage.world.mend()
        first_s, *others_s = stage.world.settling_s
        await stage.world.pass_(first_s)
        await stage.reconcile()
        stage.is_excused = False
        for mount, _ in enumerate(stage.machines):
            for held in stage.open_slots(mount):
                await stage.close(mount, held)
        for seconds in others_s:
            await self.pass_(Pass(int(seconds)))
            if stage.ledger.is_settled:
                break
        for mount, _ in enumerate(stage.machines):
            await self.refresh(Refresh(mount))
            await self._read_all(mount)
        stage.ledger.check_settled()

    async def _read_all(self, mount: int) -> None:
        """Promise 11, of everything there is."""
        stage = self._stage
        machine = stage.machines[mount]
        for container in CONTAINERS:
            view = await machine.view(container)
            if view is None:
                continue
            for path, entry in view.files.items():
                assert entry.id is not None
                descriptor = await stage.attempt(
                    lambda at=f"{container}/{path}": machine.open(at)  # type: ignore[misc]  # bound now
                )
                assert isinstance(descriptor, int), descriptor
                found = await stage.attempt(lambda fd=descriptor: machine.read(fd))  # type: ignore[misc]  # bound now
                assert found == stage.truth.lives[entry.id].row.content, "promise 11"
                assert await stage.attempt(lambda fd=descriptor: machine.close(fd)) is None  # type: ignore[misc]  # bound now
