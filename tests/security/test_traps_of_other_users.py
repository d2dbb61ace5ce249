"""What another local user has put where we write: refused, and nothing of ours goes there."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.mounting import run_ctrfs
from tests.unit.disk.clocks import StoppedClock

from ctrfs.disk.spool import SpoolDirectory
from ctrfs.disk.state_dir import StateDirectory
from ctrfs.errors import ConfigError, CtrfsError, LocalDiskError, MountError
from ctrfs.mount.local_service import local_service
from ctrfs.mount.logs import log_to_file
from ctrfs.mount.records import MountRecord, MountRecords
from ctrfs.mount.source import parse_source
from ctrfs.server.state import ServiceState

SOURCE = "openai: https://api.openai.com/v1"
SPOOL_NAME = "0123456789abcdef0123456789abcdef"
OTHER_USER = 12345
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


@pytest.fixture
def victim(tmp_path: Path) -> Iterator[Path]:
    """A file of the user that must stay as it is."""
    path = tmp_path / "victim"
    path.write_bytes(b"precious\n")
    yield path
    assert path.read_bytes() == b"precious\n"


@pytest.fixture
def open_mask() -> Iterator[None]:
    """The most careless umask."""
    mask = os.umask(0)
    yield
    os.umask(mask)


def plant(kind: str, trap: Path, victim: Path) -> None:
    """Put a trap where a file of ours would lie."""
    match kind:
        case "link":
            trap.symlink_to(victim)
        case "hard link":
            trap.hardlink_to(victim)
        case "pipe":
            os.mkfifo(trap)
        case _:
            trap.mkdir()


def open_state(base: Path) -> None:
    with StateDirectory.open(base, SOURCE, clock=StoppedClock()):
        pass


def slot_of(base: Path) -> Path:
    """Return a slot that an earlier mount has left."""
    with StateDirectory.open(base, SOURCE, clock=StoppedClock()) as state:
        return state.path


@pytest.mark.parametrize("name", ["lock", "format", "state.db", "state.db-wal", "state.db-shm"])
def test_a_link_in_place_of_a_state_file_is_refused(
    tmp_path: Path, victim: Path, name: str
) -> None:
    slot = slot_of(tmp_path / "base")
    (slot / name).unlink(missing_ok=True)
    (slot / name).symlink_to(victim)

    with pytest.raises(CtrfsError):
        open_state(tmp_path / "base")


@pytest.mark.parametrize("name", ["lock", "format", "state.db", "state.db-wal"])
def test_a_pipe_in_place_of_a_state_file_is_refused_without_waiting(
    tmp_path: Path, name: str
) -> None:
    slot = slot_of(tmp_path / "base")
    (slot / name).unlink(missing_ok=True)
    os.mkfifo(slot / name)

    with pytest.raises(CtrfsError):
        open_state(tmp_path / "base")


@needs_root
@pytest.mark.parametrize("name", ["lock", "format", "state.db"])
def test_a_state_file_of_another_user_is_refused(tmp_path: Path, name: str) -> None:
    slot = slot_of(tmp_path / "base")
    os.chown(slot / name, OTHER_USER, OTHER_USER)

    with pytest.raises(CtrfsError, match="another user"):
        open_state(tmp_path / "base")


def test_a_lock_file_with_a_second_name_is_not_written_to(tmp_path: Path, victim: Path) -> None:
    slot = slot_of(tmp_path / "base")
    (slot / "lock").unlink()
    (slot / "lock").hardlink_to(victim)

    open_state(tmp_path / "base")


def test_a_base_in_a_directory_where_everybody_can_rename_is_refused(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)

    with pytest.raises(MountError, match="written by others"):
        open_state(tmp_path / "open" / "base")


def test_the_state_is_private_under_the_most_careless_umask(
    tmp_path: Path, open_mask: None
) -> None:
    with StateDirectory.open(tmp_path / "base", SOURCE, clock=StoppedClock()) as state:
        spool = SpoolDirectory(state.spool_path, bytes_max=1 << 20)
        spool.create().pwrite(0, b"secret")
        state.database.execute("INSERT INTO fact VALUES ('a', x'00')")

        modes = {path: path.lstat().st_mode for path in (tmp_path / "base").rglob("*")}

        assert {"state.db-wal", "lock", "format", "spool"} <= {path.name for path in modes}
        assert {path: mode for path, mode in modes.items() if mode & 0o077} == {}
        assert stat.S_IMODE((tmp_path / "base").stat().st_mode) == 0o700
        spool.close()


@pytest.mark.parametrize("kind", ["link", "pipe", "directory"])
def test_a_trap_in_the_spool_is_neither_read_nor_written(
    tmp_path: Path, victim: Path, kind: str
) -> None:
    trap = tmp_path / "spool" / SPOOL_NAME
    trap.parent.mkdir()
    plant(kind, trap, victim)

    with pytest.raises(LocalDiskError):
        SpoolDirectory(tmp_path / "spool", bytes_max=1 << 20).open(SPOOL_NAME)


@needs_root
def test_a_spool_file_of_another_user_is_neither_read_nor_written(tmp_path: Path) -> None:
    trap = tmp_path / "spool" / SPOOL_NAME
    trap.parent.mkdir()
    trap.write_bytes(b"planted")
    os.chown(trap, OTHER_USER, OTHER_USER)

    with pytest.raises(LocalDiskError, match="another user"):
        SpoolDirectory(tmp_path / "spool", bytes_max=1 << 20).open(SPOOL_NAME)


def test_sweeping_the_spool_removes_a_link_and_not_what_it_leads_to(
    tmp_path: Path, victim: Path
) -> None:
    trap = tmp_path / "spool" / SPOOL_NAME
    trap.parent.mkdir()
    trap.symlink_to(victim)

    SpoolDirectory(tmp_path / "spool", bytes_max=1 << 20).sweep(keep=set())

    assert not trap.is_symlink()


@pytest.mark.parametrize("kind", ["link", "hard link", "pipe"])
def test_a_trap_in_place_of_the_log_file_is_refused(
    tmp_path: Path, victim: Path, kind: str
) -> None:
    path = tmp_path / "logs" / "mount.log"
    path.parent.mkdir()
    plant(kind, path, victim)

    with pytest.raises(ConfigError, match=r"mount\.log"):
        log_to_file(path, level="info")


@needs_root
@pytest.mark.parametrize("given_away", ["mount.log", "."])
def test_a_log_of_another_user_is_refused(tmp_path: Path, given_away: str) -> None:
    path = tmp_path / "logs" / "mount.log"
    path.parent.mkdir()
    path.touch()
    os.chown(path.parent / given_away, OTHER_USER, OTHER_USER)

    with pytest.raises(ConfigError, match="another user"):
        log_to_file(path, level="info")


def test_a_record_is_private_and_replaces_a_link_instead_of_following_it(
    tmp_path: Path, victim: Path, open_mask: None
) -> None:
    records = MountRecords(tmp_path)
    records.write(RECORD)
    [made] = (tmp_path / "mounts").glob("*.json")
    made.unlink()
    made.symlink_to(victim)
    made.with_suffix(f".{os.getpid()}").symlink_to(victim)

    records.write(RECORD)

    assert records.read(Path("/mnt/x")) == RECORD
    paths = [tmp_path / "mounts", *(tmp_path / "mounts").iterdir()]
    assert {path: mode for path in paths if (mode := path.lstat().st_mode) & 0o077} == {}


@needs_root
def test_records_of_another_user_are_not_believed(tmp_path: Path) -> None:
    records = MountRecords(tmp_path)
    records.write(RECORD)
    os.chown(tmp_path / "mounts", OTHER_USER, OTHER_USER)

    assert records.read(Path("/mnt/x")) is None
    with pytest.raises(OSError, match="another user"):
        records.write(RECORD)


@pytest.mark.parametrize("name", ["lock", "service.sqlite", "blobs"])
def test_a_link_in_the_data_of_the_local_service_is_refused(
    tmp_path: Path, victim: Path, name: str
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / name).symlink_to(elsewhere if name == "blobs" else victim)

    with pytest.raises(ConfigError):
        ServiceState(tmp_path / "data").close()
    assert list(elsewhere.iterdir()) == []


def test_a_data_directory_that_everybody_can_write_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data").chmod(0o1777)

    with pytest.raises(ConfigError, match="written by others"):
        ServiceState(tmp_path / "data").close()


async def test_a_mount_puts_no_socket_where_everybody_can_write(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data").chmod(0o1777)

    with pytest.raises(ConfigError, match="written by others"):
        async with local_service(parse_source(f"local:{tmp_path / 'data'}")):
            pass
    assert list((tmp_path / "data").iterdir()) == []


def test_the_data_of_the_local_service_are_private_under_the_most_careless_umask(
    tmp_path: Path, open_mask: None
) -> None:
    state = ServiceState(tmp_path / "data")

    modes = {path: path.lstat().st_mode for path in (tmp_path / "data").rglob("*")}

    state.close()
    assert {"lock", "blobs", "service.sqlite", "service.sqlite-wal"} <= {p.name for p in modes}
    assert {path: mode for path, mode in modes.items() if mode & 0o077} == {}


def test_a_command_in_another_users_state_directory_says_so_in_one_line(tmp_path: Path) -> None:
    base = tmp_path / "state" / "ctrfs"
    base.mkdir(parents=True)
    base.chmod(0o777)
    (tmp_path / "mnt").mkdir()

    done = run_ctrfs(
        "mount",
        "local:",
        tmp_path / "mnt",
        environment={**os.environ, "XDG_STATE_HOME": str(base.parent), "HOME": str(tmp_path)},
    )

    assert done.returncode == 32
    assert "written by others" in done.stderr
    assert done.stderr.count("\n") == 1


RECORD = MountRecord(
    mountpoint="/mnt/x",
    source="openai:",
    pid=1,
    started_ticks=1,
    state_path="/s",
    log_file="",
)
