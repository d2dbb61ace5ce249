"""A content store over a scripted service, running in the test's nursery."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from tests.unit.content.fake_service import FakeService, StoppedClock

from ctrfs.config import ContentConfig
from ctrfs.content.store import ContentStore
from ctrfs.disk.content_cache import ContentCache
from ctrfs.disk.spool import SpoolDirectory
from ctrfs.units import KIB


class Bench:
    """Makes stores over ``spool``; ``service`` is scripted by the test."""

    def __init__(self, spool: SpoolDirectory, nursery: trio.Nursery) -> None:
        self.spool = spool
        self.service = FakeService()
        self._nursery = nursery

    async def start(self, config: ContentConfig | None = None) -> ContentStore:
        store = store_over(self.spool, self.service, config)
        await self._nursery.start(store.run)
        return store


SMALL = ContentConfig(
    spool_bytes_max=64 * KIB, cache_bytes_max=32 * KIB, file_bytes_max=48 * KIB, chunk_bytes=10,
    stall_timeout_s=60.0, download_retries_max=2,
)  # fmt: skip


def store_over(
    spool: SpoolDirectory, service: FakeService, config: ContentConfig | None = None
) -> ContentStore:
    """Return a store over ``spool`` with a cache beside that."""
    config = config or SMALL
    path = spool._path.with_name(f"{spool._path.name} cache")
    path.mkdir(mode=0o700, exist_ok=True)
    cache = ContentCache(path, spool, bytes_max=config.cache_bytes_max)
    return ContentStore(service, StoppedClock(), config, spool=spool, cache=cache)


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[SpoolDirectory]:
    (tmp_path / "spool").mkdir()
    spool = SpoolDirectory(tmp_path / "spool", bytes_max=SMALL.spool_bytes_max)
    yield spool
    spool.check_invariants()
    spool.close()


@pytest.fixture
def bench(spool: SpoolDirectory, nursery: trio.Nursery) -> Bench:
    return Bench(spool, nursery)
