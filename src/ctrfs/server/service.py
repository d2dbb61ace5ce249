"""What all operations share: the stored state, the time, the behaviour, and who counts."""

from __future__ import annotations

from collections import Counter

from typing_extensions import override

from ctrfs.clock import Clock
from ctrfs.server import refusals
from ctrfs.server.behaviour import Behaviour
from ctrfs.server.faults import FaultRules
from ctrfs.server.records import DELETED, EXPIRED, ContainerRecord
from ctrfs.server.refusals import RefusedError
from ctrfs.server.state import ServiceState
from ctrfs.units import NS_PER_S


class AdjustableClock(Clock):
    """A clock that can be put forward, so that a test need not wait 20 minutes."""

    def __init__(self, inner: Clock) -> None:
        self._inner = inner
        self._ahead_ns = 0

    def advance(self, seconds: float) -> None:
        """Put the wall reading forward; the monotonic one drives real waits and stays."""
        self._ahead_ns += int(seconds * NS_PER_S)

    @override
    def monotonic_s(self) -> float:
        return self._inner.monotonic_s()

    @override
    def wall_ns(self) -> int:
        return self._inner.wall_ns() + self._ahead_ns


class Service:
    """The service as its operations see it.

    Attributes:
        behaviour: Answers to the open questions; may be replaced at any time.
        faults: Which requests fail.
        counters: Requests so far, by operation.
    """

    def __init__(self, *, state: ServiceState, clock: Clock, behaviour: Behaviour) -> None:
        self.state = state
        self.clock = AdjustableClock(clock)
        self.behaviour = behaviour
        self.faults = FaultRules()
        self.counters: Counter[str] = Counter()

    def expire_due(self) -> None:
        """Drop the data of every container whose time is up."""
        now_ns = self.clock.wall_ns()
        self.state.forget_deleted(now_ns)
        self.state.forget_removed(now_ns)
        for container in self.state.containers():
            if container.is_due(now_ns):
                self.state.expire(container)

    def known_container(self, container_id: str) -> ContainerRecord:
        """Return a container that may be expired; being asked for counts as use.

        Raises:
            RefusedError: It is unknown, deleted, or not ready yet.
        """
        now_ns = self.clock.wall_ns()
        container = self.state.container(container_id)
        if container is None or container.status == DELETED or now_ns < container.ready_at_ns:
            raise refusals.no_such_container(container_id)
        if container.is_due(now_ns):
            self.state.expire(container)
        if container.status != EXPIRED:
            self.state.touch(container, now_ns)
        return container

    def usable_container(self, container_id: str) -> ContainerRecord:
        """Return a container whose data is there; being asked for counts as use.

        Raises:
            RefusedError: It is unknown, deleted, not ready yet, or expired.
        """
        container = self.known_container(container_id)
        if container.status == EXPIRED:
            raise self._expired(container_id)
        return container

    def _expired(self, container_id: str) -> RefusedError:
        if self.behaviour.expired_status == 404:
            return refusals.no_such_container(container_id)
        return refusals.container_expired()
