"""The service, the time, and the faults, as the players of ``operations`` use them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, Protocol, TypeVar

from tests.model.operations import Fault
from tests.model.truth import Records
from tests.model.virtual_time import VirtualTime
from tests.support.service import InProcessService

from ctrfs.server.faults import FaultRules

T = TypeVar("T")

# Two things never happen at the same instant; a still clock says they do.
TICK_S: Final = 0.001
# What began while the service was ill may fail for so long after: a request that nobody
# answers, and whoever waits for the same one.
AFTERMATH_S: Final = 61.0

FAULTS: Final[dict[str, dict[str, object]]] = {
    "500": {"action": "status", "status": 500},
    "429": {"action": "status", "status": 429},
    "lost": {"action": "reset", "when": "after"},
    "stall": {"action": "stall"},
    "cut": {"action": "cut", "bytes": 1},
}


class World(Protocol):
    """Where the players live."""

    @property
    def now_s(self) -> float: ...
    @property
    def records(self) -> Records: ...
    @property
    def has_faults(self) -> bool: ...
    @property
    def settling_s(self) -> Sequence[float]:
        """How long to wait, again and again, until whatever failed has been tried again."""

    async def run(self, work: Callable[[], Awaitable[T]]) -> T: ...
    async def pass_(self, seconds: float) -> None: ...
    def plant(self, container_id: str, path: str, content: bytes) -> None: ...
    def upload(self, container_id: str, path: str, content: bytes) -> None: ...
    def delete(self, container_id: str, file_id: str) -> None: ...
    def delete_container(self, container_id: str) -> None: ...
    def fail(self, fault: Fault) -> None: ...
    def mend(self) -> None: ...


class InProcessWorld:
    """A service in this process and its virtual time."""

    # Retries come every five minutes at last, and an upload that nobody answers takes ten.
    settling_s: Sequence[float] = (AFTERMATH_S,) * 40

    def __init__(self, service: InProcessService, time: VirtualTime, records: Records) -> None:
        self._service = service
        self._time = time
        self.records = records
        self._ill_until_s = 0.0

    @property
    def now_s(self) -> float:
        """The present reading of the clock."""
        return self._time.now_s

    @property
    def has_faults(self) -> bool:
        """Whether any request may still fail."""
        if any(
            rule.seen + 1 < (rule.nth or 1) + (rule.count or 0)
            for rule in self._service.service.faults._rules
        ):
            self._ill_until_s = self.now_s + AFTERMATH_S
        return self.now_s < self._ill_until_s

    async def run(self, work: Callable[[], Awaitable[T]]) -> T:
        """Carry out one call, and what it sets going behind it."""
        await self._time.pass_(TICK_S)
        was_ill = self.has_faults
        try:
            return await self._time.run(work)
        finally:
            if was_ill:
                self._ill_until_s = self.now_s + AFTERMATH_S

    async def pass_(self, seconds: float) -> None:
        """Let time pass."""
        await self._time.pass_(seconds)

    def plant(self, container_id: str, path: str, content: bytes) -> None:
        """Put a file where code in the container would."""
        with self._unharmed():
            self._service.plant(container_id, path, content)

    def upload(self, container_id: str, path: str, content: bytes) -> None:
        """Upload a file through the API."""
        with self._unharmed():
            self._service.upload(container_id, path, content)

    def delete(self, container_id: str, file_id: str) -> None:
        """Delete a file through the API."""
        with self._unharmed():
            self._service.delete_file(container_id, file_id)

    def delete_container(self, container_id: str) -> None:
        """Delete a container through the API."""
        with self._unharmed():
            self._service.delete_container(container_id)

    def fail(self, fault: Fault) -> None:
        """Let requests fail from now on."""
        self._service.add_fault(fault.route, count=fault.count, **FAULTS[fault.kind])  # type: ignore[arg-type]  # the action is a text

    def mend(self) -> None:
        """Let no request fail any more."""
        self._service.clear_faults()

    @contextmanager
    def _unharmed(self) -> Iterator[None]:
        """Make the test's own requests in peace: they are not what is tested."""
        service = self._service.service
        faults, service.faults = service.faults, FaultRules()
        try:
            yield
        finally:
            service.faults = faults
