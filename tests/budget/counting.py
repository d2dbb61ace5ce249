"""Counting what a task costs in requests, on a mount that does nothing by age meanwhile."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from tests.support.mounting import Mount
from tests.support.service import ServiceProcess
from tests.support.write_modes import sync_directory

# The whole test is one moment: no refresh by age comes between.
ONE_MOMENT: Final = ("ttl=300", "max_stale=300")


class Counted:
    """The requests that reached the service while the block ran, by operation."""

    def __init__(self) -> None:
        self.requests: dict[str, int] = {}


class Budget:
    """A mount whose requests are counted.

    Attributes:
        container: A container that the mount has listed.
    """

    def __init__(self, service: ServiceProcess, mount: Mount) -> None:
        self.service = service
        self.mount = mount
        self.container = mount.point / "work"

    @contextmanager
    def counted(self) -> Iterator[Counted]:
        counted = Counted()
        self.service.reset_counters()
        yield counted
        counted.requests = {name: n for name, n in self.service.counters().items() if n}

    def settle(self) -> None:
        """Return once the service has all that was done so far, and nothing is left to send."""
        sync_directory(self.mount.point)

    def plant(self, names: list[str]) -> None:
        """Put files on the service behind the mount's back."""
        container_id = os.getxattr(self.container, "user.ctrfs.id").decode()
        for name in names:
            self.service.plant(container_id, f"/mnt/data/{name}", name.encode())
