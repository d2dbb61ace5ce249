from __future__ import annotations

import resource
import signal
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from typing_extensions import override

from ctrfs.disk.spool import SpoolDirectory
from ctrfs.errors import LocalDiskError, LocalDiskFullError
from ctrfs.units import GIB, KIB, MIB


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[SpoolDirectory]:
    spool = SpoolDirectory(tmp_path, bytes_max=64 * KIB)
    yield spool
    spool.check_invariants()
    spool.close()


def test_a_spool_file_is_for_its_owner_only(spool: SpoolDirectory, tmp_path: Path) -> None:
    file = spool.create()

    assert stat.S_IMODE((tmp_path / file.name).stat().st_mode) == 0o600


def test_a_hole_counts_nothing(spool: SpoolDirectory) -> None:
    file = spool.create()

    file.truncate(1024 * GIB)
    file.pwrite(512 * GIB, b"x")

    assert file.size_bytes == 1024 * GIB
    assert spool.bytes_used <= 16 * KIB
    assert file.pread(512 * GIB - 1, 3) == b"\0x\0"


def test_a_write_past_the_quota_changes_nothing(spool: SpoolDirectory) -> None:
    file = spool.create()
    file.pwrite(0, b"a" * 60 * KIB)

    with pytest.raises(LocalDiskFullError):
        file.pwrite(59 * KIB, b"b" * 8 * KIB)

    assert file.size_bytes == 60 * KIB
    assert file.pread(59 * KIB, 9 * KIB) == b"a" * KIB


def test_bytes_that_are_there_can_be_overwritten_at_the_quota(spool: SpoolDirectory) -> None:
    file = spool.create()
    file.pwrite(0, b"a" * 64 * KIB)

    file.pwrite(10, b"b" * 60 * KIB)

    assert file.pread(0, 11) == b"a" * 10 + b"b"


def test_space_is_reclaimed_before_a_write_is_refused(spool: SpoolDirectory) -> None:
    old = spool.create()
    old.pwrite(0, b"a" * 64 * KIB)
    asked: list[int] = []

    def reclaim(needed_bytes: int) -> None:
        asked.append(needed_bytes)
        old.delete()

    spool.reclaim = reclaim
    file = spool.create()
    file.pwrite(0, b"b" * 8 * KIB)

    assert asked == [8 * KIB]
    assert file.pread(0, 9 * KIB) == b"b" * 8 * KIB


def test_a_deleted_or_shortened_file_gives_its_space_back(spool: SpoolDirectory) -> None:
    file = spool.create()
    file.pwrite(0, b"a" * 64 * KIB)

    file.truncate(0)
    assert spool.bytes_used == 0
    file.pwrite(0, b"a" * 64 * KIB)
    file.delete()
    file.delete()

    assert spool.bytes_used == 0


def test_a_closed_file_is_found_again_by_its_name(spool: SpoolDirectory) -> None:
    file = spool.create()
    file.pwrite(0, b"bytes")
    file.sync()
    file.close()

    again = spool.open(file.name)

    assert (again.size_bytes, again.pread(0, 9)) == (5, b"bytes")


@pytest.mark.parametrize("name", ["0" * 32, "../state.db", "", "lock"])
def test_a_name_without_a_file_is_refused(spool: SpoolDirectory, name: str) -> None:
    with pytest.raises(LocalDiskError):
        spool.open(name)


def test_a_link_in_the_spool_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(b"secret")
    (tmp_path / ("0" * 32)).symlink_to(tmp_path / "elsewhere")

    with pytest.raises(LocalDiskError):
        SpoolDirectory(tmp_path, bytes_max=MIB).open("0" * 32)


def test_what_a_crash_left_is_counted_and_swept(tmp_path: Path) -> None:
    before = SpoolDirectory(tmp_path, bytes_max=MIB)
    unsent, leftover = before.create(), before.create()
    unsent.pwrite(0, b"a" * 4096)
    leftover.pwrite(0, b"a" * 4096)
    before.close()

    spool = SpoolDirectory(tmp_path, bytes_max=MIB)
    assert spool.bytes_used == 8192
    current = spool.create()
    swept = spool.sweep({unsent.name})

    assert swept == 1
    assert spool.bytes_used == 4096
    assert {path.name for path in tmp_path.iterdir()} == {unsent.name, current.name}
    spool.close()


def test_a_file_that_was_pinned_when_it_came_to_rest_holds_no_descriptor_after(
    spool: SpoolDirectory,
) -> None:
    file = spool.create()
    file.pwrite(0, b"bytes")
    before = len(list(Path("/proc/self/fd").iterdir()))

    with file.pinned():
        file.rest()
        assert file.pread(0, 5) == b"bytes"

    assert len(list(Path("/proc/self/fd").iterdir())) == before - 1
    assert file.pread(0, 5) == b"bytes"


def test_a_file_at_rest_holds_no_descriptor_and_wakes_when_used(spool: SpoolDirectory) -> None:
    file = spool.create()
    file.pwrite(0, b"bytes")
    before = len(list(Path("/proc/self/fd").iterdir()))

    file.rest()

    assert len(list(Path("/proc/self/fd").iterdir())) == before - 1
    assert file.pread(0, 9) == b"bytes"


def test_a_pinned_file_can_be_read_to_its_end_after_it_is_deleted(spool: SpoolDirectory) -> None:
    file = spool.create()
    file.pwrite(0, b"bytes")

    with file.pinned():
        file.delete()
        assert b"".join(file.pieces(2)) == b"bytes"

    with pytest.raises(AssertionError, match="after its end"):
        file.pread(0, 1)


def test_a_write_that_the_system_cuts_short_leaves_the_length(spool: SpoolDirectory) -> None:
    file = spool.create()
    file.pwrite(0, b"a" * 100)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (150, limits[1]))
    try:
        with pytest.raises(LocalDiskError):
            file.pwrite(100, b"b" * 100)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)

    assert file.size_bytes == 100
    assert file.pread(0, 200) == b"a" * 100


class SpoolAgainstBytes(RuleBasedStateMachine):
    """One spool file and a bytearray, given the same operations."""

    offsets = st.integers(0, 40_000)

    @initialize()
    def begin(self) -> None:
        self.directory = tempfile.TemporaryDirectory()
        self.spool = SpoolDirectory(Path(self.directory.name), bytes_max=32 * KIB)
        self.file = self.spool.create()
        self.model = bytearray()

    @rule(offset=offsets, data=st.binary(min_size=1, max_size=20), repeats=st.integers(1, 1000))
    def write(self, offset: int, data: bytes, repeats: int) -> None:
        data *= repeats
        try:
            written = self.file.pwrite(offset, data)
        except LocalDiskFullError:
            return
        assert written == len(data)
        self.model.extend(bytes(max(0, offset - len(self.model))))
        self.model[offset : offset + len(data)] = data

    @rule(size=offsets)
    def truncate(self, size: int) -> None:
        self.file.truncate(size)
        del self.model[size:]
        self.model.extend(bytes(size - len(self.model)))

    @rule(offset=offsets, size=st.integers(0, 10_000))
    def read(self, offset: int, size: int) -> None:
        assert self.file.pread(offset, size) == self.model[offset : offset + size]

    @rule()
    def rest(self) -> None:
        self.file.rest()

    @rule()
    def reopen(self) -> None:
        self.file.close()
        self.file = self.spool.open(self.file.name)

    @invariant()
    def agrees(self) -> None:
        assert self.file.size_bytes == len(self.model)
        assert b"".join(self.file.pieces(4096)) == self.model
        self.spool.check_invariants()
        assert self.spool.bytes_used <= 32 * KIB

    @override
    def teardown(self) -> None:
        if hasattr(self, "spool"):
            self.spool.close()
            self.directory.cleanup()


SpoolAgainstBytes.TestCase.settings = settings(
    max_examples=40, stateful_step_count=20, deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)  # fmt: skip
TestSpoolAgainstBytes = SpoolAgainstBytes.TestCase
