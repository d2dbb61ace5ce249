"""Sees programs walk over files, and has the next ones fetched before they are opened.

``grep -r``, ``cp -r``, ``tar`` or a thumbnailer open one file after another, in one of a few
orders (``walks``). From the second on the coming ones are fetched together: few at first, more
as the walk goes on. A single open brings nothing but itself, and a walk that only looks at
names and lengths brings nothing at all: what starts a fetch is a read.
"""

from __future__ import annotations

import logging
import math
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Final

import trio

from ctrfs.config import ReadAheadConfig
from ctrfs.content.identity import ContentIdentity
from ctrfs.content.read_ahead import AheadFetcher
from ctrfs.fs.listing_ahead import ListingAhead
from ctrfs.fs.parts import Parts, identity_of_remote
from ctrfs.fs.walks import ORDERS, Order
from ctrfs.tree.nodes import ContainerDirectory, File, InodeNumber, Parent

log = logging.getLogger(__name__)

WINDOW_AT_START: Final = 4
# More walks at once than that are no walks, or a machine with other troubles.
WALKS_MAX: Final = 8
# How many files a walk may pass over: ``xargs -P 16`` opens them out of order, and ``grep -r
# --include`` leaves some out; but what is fetched should be opened.
PASSED_OVER_MAX: Final = 16
# From this window on files are fetched again once half of them are left: a request that goes out
# beside thirty others takes a sixth less of the processor than one alone.
_WINDOW_IN_BATCHES_MIN: Final = 16
# How far back the last opens in a folder are remembered, and in how many folders.
_TRAIL_MAX: Final = 8
_TRAILS_MAX: Final = 64
# Whoever has just read the names of a folder is likelier to walk over it.
_READ_LATELY_S: Final = 60.0
_FOLDERS_MAX: Final = 256


class ReadAhead:
    """The walks that are going on.

    Invariant: what ``_fetcher`` holds is expected by one of ``_walks``.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._config: ReadAheadConfig = parts.config.read_ahead
        self._fetcher = AheadFetcher(parts.store, self._config)
        self._fetcher.on_failure = self._give_up
        self._listings = ListingAhead(
            parts.namespace, ttl_s=parts.namespace.ttl_s, listings_max=self._config.files_max
        )
        self._walks: list[_Walk] = []
        self._trails: OrderedDict[InodeNumber, deque[File]] = OrderedDict()
        self._trail: deque[File] = deque(maxlen=_TRAIL_MAX)
        self._read_s: OrderedDict[InodeNumber, float] = OrderedDict()
        self._has_walks = trio.Event()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Own the fetches, and end the walks that have stopped, until cancelled."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self._fetcher.run)
            task_status.started()
            while True:
                await self._has_walks.wait()
                if self._walks:  # or the last one ended in the moment of waking
                    await trio.sleep_until(self._walks[0].went_on_s + self._config.idle_s)
                    self._end_idle()

    def stop(self) -> None:
        """Cancel what is under way, at once, and fetch nothing any more; the mount ends."""
        self._config = ReadAheadConfig(files_max=0)
        self._listings.stop()
        for walk in list(self._walks):
            self._end(walk)
        self._fetcher.stop()

    def entering(self, folder: Parent) -> None:
        """Take note that somebody needs the listing of ``folder``; fetches what may follow."""
        if isinstance(folder, ContainerDirectory) and folder.parent is not None:
            self._listings.entering(folder, steps_min=self._steps_min(folder.parent))

    def reading_names(self, folder: Parent) -> None:
        """Take note that somebody is going to read all names in ``folder``, which is listed."""
        self._read_s[folder.inode] = trio.current_time()
        self._read_s.move_to_end(folder.inode)
        if len(self._read_s) > _FOLDERS_MAX:
            self._read_s.popitem(last=False)

    def opened(self, file: File) -> None:
        """Take note that ``file`` was opened for reading; fetches nothing."""
        if self._config.files_max == 0 or file.parent is None:
            return
        self._remember(file, file.parent)
        for walk in self._walks:
            if file.inode in walk.expected:
                self._pass(walk, file)
                return

    def reading(self, file: File, *, is_here: bool) -> None:
        """Fetch what comes after ``file``, of which the first bytes are being read.

        Args:
            file: Opened before.
            is_here: Whether all its bytes are on this machine.
        """
        walk = next((walk for walk in self._walks if walk.position is file), None)
        if walk is None and not is_here and self._config.files_max > 0:
            walk = self._recognised(file)
        if walk is not None and walk.is_worth_filling:
            self._fill(walk)

    # -- recognising -----------------------------------------------------------------------

    def _remember(self, file: File, folder: Parent) -> None:
        trail = self._trails.setdefault(folder.inode, deque(maxlen=_TRAIL_MAX))
        self._trails.move_to_end(folder.inode)
        for line in (trail, self._trail):
            if file in line:
                line.remove(file)
            line.append(file)
        if len(self._trails) > _TRAILS_MAX:
            self._trails.popitem(last=False)

    def _recognised(self, file: File) -> _Walk | None:
        """Return a new walk if ``file`` is at least the second step of one."""
        if file.parent is None:
            return None
        continued = self._walk_continued_by(file)
        if continued is not None:
            self._end(continued)
            return self._begin(file, continued.order, window=continued.window)
        steps = self._steps_min(file.parent)
        trails = (self._trails.get(file.parent.inode, ()), self._trail)
        for line in map(list, trails):
            if file not in line:
                continue
            end = line.index(file)
            last = line[max(0, end - steps) : end + 1]
            if len(last) <= steps:
                continue
            for order in ORDERS:
                if all(
                    order.is_next(one, next_one, self._is_listed)
                    for one, next_one in pairwise(last)
                ):
                    return self._begin(file, order, window=WINDOW_AT_START)
        return None

    def _walk_continued_by(self, file: File) -> _Walk | None:
        """Return the walk that has come to the first file of another folder, if there is one."""
        for walk in self._walks:
            is_near = walk.position.owner is file.owner
            if is_near and walk.position.parent is not file.parent and walk.order.is_first(file):
                return walk
        return None

    def _steps_min(self, folder: Parent) -> int:
        """Return how many steps in ``folder`` make a walk."""
        read_s = self._read_s.get(folder.inode, -math.inf)
        return 1 if trio.current_time() - read_s < _READ_LATELY_S else 2

    def _is_listed(self, folder: Parent) -> bool:
        return self._parts.namespace.is_listed(folder)

    # -- walking ---------------------------------------------------------------------------

    def _begin(self, file: File, order: Order, *, window: int) -> _Walk:
        if len(self._walks) >= WALKS_MAX:
            self._end(self._walks[0])
        walk = _Walk(file, order, window=min(window, self._config.files_max))
        self._walks.append(walk)
        self._has_walks.set()
        log.debug("a walk by %s, at inode %d", order.name, file.inode)
        return walk

    def _pass(self, walk: _Walk, file: File) -> None:
        # The one that went on last stands last: the first is the next to be idle.
        self._walks.remove(walk)
        self._walks.append(walk)
        passed_over = list(walk.expected).index(file.inode)
        walk.go_on(file, passed_over=passed_over, window_max=self._config.files_max)
        self._fetcher.let_go(file.inode)
        if passed_over > PASSED_OVER_MAX:
            self._end(walk)

    def _fill(self, walk: _Walk) -> None:
        """Fetch so many files ahead as the walk deserves and the limits allow."""
        walk.expect(self._is_listed)
        while walk.to_fetch:
            file = walk.to_fetch[0]
            if file.inode in walk.expected:
                identity = self._fetchable(file)
                if identity is not None:
                    if not self._fetcher.has_room(identity.size_bytes or 0):
                        return
                    self._fetcher.fetch(file.inode, identity)
            walk.to_fetch.popleft()

    def _fetchable(self, file: File) -> ContentIdentity | None:
        """Return which bytes to fetch; None for bytes that are here, or too many."""
        if file.is_claimed or file.is_local_only or file.parent is None or file.owner.is_gone:
            return None
        identity = identity_of_remote(file)
        if identity is None or self._fetcher.is_needless(file.inode, identity):
            return None
        size_bytes = identity.size_bytes
        is_small = size_bytes is None or 0 < size_bytes <= self._config.file_bytes_max
        return identity if is_small else None

    def _give_up(self, inode: InodeNumber) -> None:
        for walk in self._walks:
            if inode in walk.expected:
                self._end(walk)
                return

    def _end_idle(self) -> None:
        now_s = trio.current_time()
        for walk in list(self._walks):
            if now_s - walk.went_on_s >= self._config.idle_s:
                self._end(walk)

    def _end(self, walk: _Walk) -> None:
        self._walks.remove(walk)
        for inode in walk.expected:
            self._fetcher.let_go(inode)
        if not self._walks:
            self._has_walks = trio.Event()


class _Walk:
    """One program's way over the files.

    Attributes:
        order: In which it goes.
        position: The file that was opened last.
        window: How many files to be ahead of it.
        expected: Those, nearest first.
        to_fetch: Those of them that no fetch has been begun for.
        went_on_s: When the last file was opened, by trio's clock.
    """

    def __init__(self, file: File, order: Order, *, window: int) -> None:
        self.order = order
        self.position = file
        self.window = window
        self.expected: dict[InodeNumber, File] = {}
        self.to_fetch: deque[File] = deque()
        self.went_on_s = trio.current_time()
        self._passed_over = 0
        self._farthest = file
        self._coming: Iterator[File] = iter(())

    @property
    def is_worth_filling(self) -> bool:
        """Whether so few fetched files lie ahead that it is time for more."""
        ahead = len(self.expected) - len(self.to_fetch) - self._passed_over
        return self.window < _WINDOW_IN_BATCHES_MIN or ahead <= self.window // 2

    def go_on(self, file: File, *, passed_over: int, window_max: int) -> None:
        """Take note that an expected file was opened; this doubles the window in its own length.

        Args:
            file: That file.
            passed_over: How many nearer ones were not.
            window_max: How far ahead of it to be at most.
        """
        del self.expected[file.inode]
        self._passed_over = passed_over
        self.position = file
        self.window = min(self.window + 1, window_max)
        self.went_on_s = trio.current_time()

    def expect(self, is_listed: Callable[[Parent], bool]) -> None:
        """Look as far ahead as the window reaches."""
        while len(self.expected) < self.window:
            file = next(self._coming, None)
            if file is None:
                # Never begun; or at an end which may have moved: a listing may have come since.
                self._coming = self.order.following(self._farthest, is_listed)
                file = next(self._coming, None)
            if file is None:
                return
            self._farthest = file
            self.expected[file.inode] = file
            self.to_fetch.append(file)
