"""Which player plays which step."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

from tests.model import operations as ops
from tests.model.file_steps import FileSteps
from tests.model.name_steps import NameSteps
from tests.model.play import Stage
from tests.model.world_steps import WorldSteps

StepT = TypeVar("StepT", bound=ops.Step)
Player = Callable[[ops.Step], Awaitable[None]]


class Performance:
    """Plays lists of steps on a stage."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        files, names, world = FileSteps(stage), NameSteps(stage), WorldSteps(stage)
        self._players: Mapping[type, Player] = dict(
            [
                _for(ops.Save, files.save),
                _for(ops.Open, files.open),
                _for(ops.Write, files.write),
                _for(ops.Truncate, files.truncate),
                _for(ops.Look, files.look),
                _for(ops.Sync, files.sync),
                _for(ops.Close, files.close),
                _for(ops.Read, files.read),
                _for(ops.Remove, names.remove),
                _for(ops.Rename, names.rename),
                _for(ops.MakeFolder, names.make_folder),
                _for(ops.RemoveFolder, names.remove_folder),
                _for(ops.Plant, world.plant),
                _for(ops.Upload, world.upload),
                _for(ops.Delete, world.delete),
                _for(ops.DeleteContainer, world.delete_container),
                _for(ops.Refresh, world.refresh),
                _for(ops.Pass, world.pass_),
                _for(ops.Fault, world.fault),
                _for(ops.Mend, world.mend),
                _for(ops.Remount, world.remount),
                _for(ops.Kill, world.kill),
                _for(ops.Settle, world.settle),
            ]
        )

    async def play(self, steps: Sequence[ops.Step]) -> None:
        """Play all steps; what fails is told with the step at which it did."""
        stage = self._stage
        for number, step in enumerate(steps):
            stage.is_excused = stage.world.has_faults
            try:
                await self._players[type(step)](step)
                await stage.reconcile()
            except BaseException as error:
                error.add_note(f"at step {number}: {step}")
                raise


def _for(kind: type[StepT], player: Callable[[StepT], Awaitable[None]]) -> tuple[type, Player]:
    async def play(step: ops.Step) -> None:
        assert isinstance(step, kind)
        await player(step)

    return kind, play
