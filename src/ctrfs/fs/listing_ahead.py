"""Sees programs enter one container after another, and has the next listings fetched.

``ls -lR``, ``find`` and ``grep -r`` on the root do; the kernel asks for one at a time, and each
would cost a request's time. Entering a single container fetches its listing only.
"""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import Final

import trio

from ctrfs import errands
from ctrfs.errands import Errand
from ctrfs.fs.walks import ORDERS
from ctrfs.tree.namespace import Namespace
from ctrfs.tree.nodes import ContainerDirectory

WINDOW_AT_START: Final = 8


class ListingAhead:
    """The one walk over containers that is looked for.

    Two at once disturb each other, which costs them time and nobody a request: what is fetched
    is what comes next in an order that was just seen.
    """

    def __init__(self, namespace: Namespace, *, ttl_s: float, listings_max: int) -> None:
        """Fetch ``listings_max`` at most, and none that would be older than ``ttl_s`` when read."""
        self._namespace = namespace
        self._ttl_s = ttl_s
        self._listings_max = listings_max
        self._last: ContainerDirectory | None = None
        self._entered_s = 0.0
        self._steps = 0
        self._coming: deque[ContainerDirectory] = deque()
        self._window = WINDOW_AT_START

    def entering(self, container: ContainerDirectory, *, steps_min: int) -> None:
        """Take note that somebody asks for the entries of ``container``; fetches what follows.

        Args:
            container: Is going to be listed, if that is needed.
            steps_min: From one container to the next, before there is a walk.
        """
        last = self._last
        if container is last or self._listings_max == 0:
            return
        now_s = trio.current_time()
        gap_s, self._entered_s, self._last = now_s - self._entered_s, now_s, container
        if not self._goes_on(last, container):
            self._steps = 0
            self._window = WINDOW_AT_START
            return
        self._steps += 1
        if self._steps >= steps_min:
            self._fetch(self._reach(gap_s))
            self._window = min(2 * self._window, self._listings_max)

    def stop(self) -> None:
        """Fetch nothing any more; the mount ends."""
        self._listings_max = 0

    def _goes_on(self, last: ContainerDirectory | None, new: ContainerDirectory) -> bool:
        """Tell whether ``new`` is the next step after ``last``; ``_coming`` is then what follows."""
        if self._coming and self._coming[0] is new:
            self._coming.popleft()
            return True
        self._coming.clear()
        if last is None:
            return False
        for order in ORDERS:
            coming = order.containers_after(last)
            if coming and coming[0] is new:
                self._coming.extend(coming[1:])
                return True
        return False

    def _reach(self, gap_s: float) -> int:
        """Return how many containers the walk enters before a listing fetched now gets old."""
        most = min(self._window, self._listings_max)
        return most if gap_s * most < self._ttl_s / 2 else int(self._ttl_s / 2 / gap_s)

    def _fetch(self, reach: int) -> None:
        for container in islice(self._coming, reach):
            if not self._namespace.is_listed(container):
                with errands.on(Errand()):
                    self._namespace.list_behind(container)
