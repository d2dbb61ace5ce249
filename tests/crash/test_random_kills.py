"""The daemon is killed at moments that nobody has chosen, while several programs work.

Round after round on one state directory: work, kill, mount, now and then kill and mount again,
go on to work, and compare after every third round. ``make crash KILLS=500`` makes that many rounds.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from tests.crash.cases import LOCAL_SUFFIX
from tests.crash.ledger import Kind, Ledger, Operation, after
from tests.crash.runs import Run
from tests.support.crashing import CrashingMount
from tests.support.mounting import pause
from tests.support.service import ServiceProcess
from tests.support.write_modes import options_of

from ctrfs.config import WriteMode

ROUND_LIMIT_S: Final = 40

pytestmark = [
    pytest.mark.mounted,
    pytest.mark.slow,
    pytest.mark.timeout(ROUND_LIMIT_S * int(os.environ.get("CRASH_KILLS", "6"))),
]

WRITERS: Final = 3
# More than can be done before the latest kill.
OPERATIONS: Final = 400
# After each failed upload the listing is watched for seconds before the next attempt.
FAULTY_DEADLINE_S: Final = 90.0
LATEST_KILL_S: Final = 1.2
# How often the mount that replays is killed, too.
KILLED_AGAIN: Final = 0.25
LARGE_BYTES: Final = 300_000

# Between two checks users work while the replay is under way, and are killed again.
ROUNDS_TO_A_CHECK: Final = 3

FOLDERS: Final = ("w", "w/d", "w/e", "v")
NAMES: Final = ("f0", "f1", "f2", "f3")


class Load:
    """Random operations of one writer, in containers of its own.

    Seeds are never used twice, so that no two files hold the same bytes by chance.
    """

    def __init__(self, tag: str, chance: random.Random) -> None:
        self._tag = tag
        self._chance = chance
        self._numbers = iter(range(chance.randrange(2**40), 2**62))

    def operations(self) -> list[Operation]:
        """Return what to do in one round; some of it must fail, where a name is missing."""
        wanted = [self._make(Kind.MKDIR, folder) for folder in FOLDERS]
        while len(wanted) < OPERATIONS:
            wanted += self._some()
        return wanted

    def _some(self) -> list[Operation]:  # noqa: PLR0911  # one for each kind
        file, other = self._file(), self._file()
        match self._chance.choices(range(9), [30, 10, 15, 12, 4, 4, 4, 8, 8])[0]:
            case 0:
                return [self._with_bytes(Kind.SAVE, file)]
            case 1:
                return [self._with_bytes(Kind.APPEND, file)]
            case 2 if file != other:
                return [self._make(Kind.RENAME, file, other)]
            case 3:
                return [self._make(Kind.UNLINK, file)]
            case 4:
                return [self._make(Kind.RENAME, *self._chance.sample(FOLDERS, 2))]
            case 5:
                return [self._make(Kind.MKDIR, self._chance.choice(FOLDERS))]
            case 6:
                return [self._make(Kind.RMDIR, self._chance.choice(FOLDERS))]
            case 7:
                # As editors do. A name of its own each time: rewriting a local-only file in
                # place is as unsafe as on any other file system.
                draft = f"w/draft{next(self._numbers)}{LOCAL_SUFFIX}"
                return [self._with_bytes(Kind.SAVE, draft), self._make(Kind.RENAME, draft, file)]
            case 8:
                draft = f"w/draft{next(self._numbers)}"
                return [self._with_bytes(Kind.SAVE_RENAMED, draft, file)]
            case _:
                return []

    def _file(self) -> str:
        return f"{self._chance.choice(FOLDERS)}/{self._chance.choice(NAMES)}"

    def _make(self, kind: Kind, path: str, to: str = "") -> Operation:
        target = f"{self._tag}-{to}" if to else ""
        return Operation(kind=kind, path=f"{self._tag}-{path}", to=target)

    def _with_bytes(self, kind: Kind, path: str, to: str = "") -> Operation:
        target = f"{self._tag}-{to}" if to else ""
        sizes = [0, 1, 4096, 20_000, LARGE_BYTES]
        return Operation(
            kind=kind,
            path=f"{self._tag}-{path}",
            to=target,
            seed=next(self._numbers),
            size=self._chance.choices(sizes, [1, 4, 4, 8, 2])[0],
        )


class Rounds:
    """Round after round on one mount."""

    def __init__(
        self,
        service: ServiceProcess,
        directory: Path,
        chance: random.Random,
        *,
        mode: WriteMode,
        is_faulty: bool,
    ) -> None:
        self._service = service
        self._chance = chance
        self._is_faulty = is_faulty
        self.mount = CrashingMount(directory / "mount", service=service, options=options_of(mode))
        self._runs = [
            Run(service=service, mount=self.mount, tag=f"k{number}", directory=directory)
            for number in range(WRITERS)
        ]
        self._loads = [Load(run.tag, chance) for run in self._runs]
        self.acknowledged = 0

    def carry_out(self) -> None:
        """Carry out one round; the mount serves before and after."""
        if self._is_faulty:
            self._add_faults()
        lists = [load.operations() for load in self._loads]
        workers = [run.begin(operations) for run, operations in zip(self._runs, lists, strict=True)]
        # On a busy machine a process takes longer to start than it is let work here.
        for worker in workers:
            worker.await_begin()
        pause(self._chance.uniform(0.0, LATEST_KILL_S))
        self.mount.kill()
        for run, worker in zip(self._runs, workers, strict=True):
            worker.finish(run.ledger)
            if not self._is_faulty:
                assert not unexplained(run.ledger), f"failed: {unexplained(run.ledger)}"
        self.mount.drop_caches()
        if self._chance.random() < KILLED_AGAIN:
            self.mount.start()
            pause(self._chance.uniform(0.0, 0.2))
            self.mount.kill()
        self.mount.start()
        if '"rename"' in self.mount.pending():
            # The replay renames a folder file by file, while others may use both its names; the
            # ledger, which knows such a rename as one step, could not follow.
            self.mount.await_nothing_pending(within_s=FAULTY_DEADLINE_S)
        for run in self._runs:
            self.acknowledged += run.ledger.acknowledged
            run.ledger.acknowledged = 0
            run.go_on()

    def check(self) -> None:
        """Wait for the end of the replay and compare."""
        if self._is_faulty:
            # The requests of the comparison itself must not fail.
            self.mount.await_nothing_pending(within_s=FAULTY_DEADLINE_S)
            self._service.clear_faults()
        for run in self._runs:
            run.check()

    def _add_faults(self) -> None:
        """Let some requests of the round and of its replay fail, and some answers get lost."""
        self._service.clear_faults()
        for route in ("create_file", "delete_file", "list_files"):
            for nth in self._chance.sample(range(1, 60), 5):
                self._service.add_fault(route, "status", status=500, nth=nth)
        for route in ("create_file", "delete_file"):
            for nth in self._chance.sample(range(1, 60), 4):
                self._service.add_fault(route, "reset", when="after", nth=nth)


def unexplained(ledger: Ledger) -> list[tuple[Operation, int]]:
    """Return what failed though it could have been done in every possible state then."""
    return [
        (operation, error)
        for operation, error in ledger.failed
        if all(after(world, operation) is not None for world in ledger.failed_in[operation])
    ]


@pytest.fixture(params=["sound", "faulty"])
def rounds(
    request: pytest.FixtureRequest,
    service: ServiceProcess,
    tmp_path: Path,
    write_mode: WriteMode,
) -> Iterator[Rounds]:
    """A mount under load, on a service that is sound or not."""
    seed = os.environ.get("CRASH_SEED", "1")
    (tmp_path / "mount").mkdir()
    rounds = Rounds(
        service,
        tmp_path,
        random.Random(f"{seed} {request.param}"),  # noqa: S311  # repeatable on purpose
        mode=write_mode,
        is_faulty=request.param == "faulty",
    )
    try:
        rounds.mount.start()
        yield rounds
    finally:
        rounds.mount.abandon()


@pytest.mark.both_write_modes
def test_kills_at_random_moments_under_load_lose_nothing(rounds: Rounds, kills: int) -> None:
    """Promises 13 and 14."""
    for number in range((kills + 1) // 2):
        rounds.carry_out()
        if number % ROUNDS_TO_A_CHECK == 0:
            rounds.check()
    rounds.check()

    assert rounds.mount.end() == 0
    assert rounds.acknowledged > kills, "nothing was done between the kills"
    assert "Traceback" not in rounds.mount.log_text()
