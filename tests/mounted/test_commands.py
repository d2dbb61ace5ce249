"""The commands as a user types them: what they print, how they exit, what they leave behind."""

from __future__ import annotations

import errno
import json
import mmap
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.mounting import (
    MakeMount,
    ctrfs,
    environment_for,
    finishes,
    fuse_mounts,
    pause,
    run_ctrfs,
)
from tests.support.service import ServiceProcess
from tests.support.trees import id_of, stored

from ctrfs.mount.refresh import refresh_path

pytestmark = pytest.mark.mounted

BAD_OPTION = 1
CANNOT_BE_MADE = 32
NOBODY = 65534


class Refusal:
    """A ``ctrfs mount`` that must fail, and what it said."""

    def __init__(self, *arguments: str | Path, environment: dict[str, str]) -> None:
        ended = run_ctrfs("mount", *arguments, environment=environment)
        self.exit_code = ended.returncode
        self.output = ended.stdout
        self.lines = ended.stderr.splitlines()

    def is_one_line_about(self, words: str, *, exit_code: int) -> None:
        assert len(self.lines) == 1, self.lines
        assert words in self.lines[0], self.lines
        assert self.exit_code == exit_code, self.lines
        assert self.output == ""


@pytest.fixture
def home(service: ServiceProcess, tmp_path: Path) -> dict[str, str]:
    """The environment of a user who may mount the service."""
    return environment_for(tmp_path / "home", service=service)


@pytest.fixture
def point(tmp_path: Path) -> Path:
    """An empty directory to mount on."""
    made = tmp_path / "point"
    made.mkdir()
    return made


def test_mount_without_a_key_says_how_to_give_one(point: Path, tmp_path: Path) -> None:
    environment = environment_for(tmp_path / "home", service=None)
    refusal = Refusal("openai:", point, environment=environment)

    refusal.is_one_line_about("no API key", exit_code=BAD_OPTION)
    assert "OPENAI_API_KEY" in refusal.lines[0]


def test_mount_with_a_wrong_key_fails_and_does_not_show_it(
    home: dict[str, str], point: Path
) -> None:
    wrong = home | {"OPENAI_API_KEY": "sk-wrong-and-secret"}
    refusal = Refusal("openai:", point, environment=wrong)

    refusal.is_one_line_about("key", exit_code=CANNOT_BE_MADE)
    assert "sk-wrong-and-secret" not in refusal.lines[0]


def test_mount_of_an_unknown_container_fails(home: dict[str, str], point: Path) -> None:
    refusal = Refusal("openai:nowhere", point, environment=home)

    refusal.is_one_line_about("nowhere", exit_code=CANNOT_BE_MADE)


def test_mount_of_an_unreachable_service_fails_within_seconds(
    home: dict[str, str], point: Path
) -> None:
    nobody_there = home | {"OPENAI_BASE_URL": "http://127.0.0.1:9/v1"}
    began = time.monotonic()
    refusal = Refusal("openai:", point, environment=nobody_there)

    refusal.is_one_line_about("127.0.0.1:9", exit_code=CANNOT_BE_MADE)
    assert time.monotonic() - began < 20


def test_a_source_that_was_never_mounted_is_not_known_after_a_mount_that_failed(
    home: dict[str, str], point: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    nobody_there = home | {"OPENAI_BASE_URL": "http://127.0.0.1:9/v1"}
    for source in ("openai:", f"local:{tmp_path}/file"):
        assert run_ctrfs("mount", source, point, environment=nobody_there).returncode != 0

        ended = run_ctrfs("status", source, environment=nobody_there)

        assert ended.returncode == 1, ended.stdout
        assert f"nothing is known of {source}" in ended.stderr
    kept = run_ctrfs("cache", "--json", environment=nobody_there)
    assert json.loads(kept.stdout) == []


def test_mount_on_a_missing_directory_fails(home: dict[str, str], point: Path) -> None:
    refusal = Refusal("openai:", point / "missing", environment=home)

    refusal.is_one_line_about("no such directory", exit_code=CANNOT_BE_MADE)


def test_mount_on_a_file_fails(home: dict[str, str], point: Path) -> None:
    (point / "file").touch()
    refusal = Refusal("openai:", point / "file", environment=home)

    refusal.is_one_line_about("not a directory", exit_code=CANNOT_BE_MADE)


def test_mount_on_a_full_directory_needs_nonempty(home: dict[str, str], point: Path) -> None:
    (point / "file").touch()
    refusal = Refusal("openai:", point, environment=home)

    refusal.is_one_line_about("not empty", exit_code=CANNOT_BE_MADE)


@pytest.mark.parametrize("options", ["ttl=soon", "no_such_option", "api_key=sk-secret", "ttl"])
def test_mount_with_a_bad_option_names_it(home: dict[str, str], point: Path, options: str) -> None:
    refusal = Refusal("openai:", point, "-o", options, environment=home)

    refusal.is_one_line_about(options.partition("=")[0], exit_code=BAD_OPTION)
    assert "sk-secret" not in refusal.lines[0]


def test_mount_of_an_unknown_kind_of_source_fails(home: dict[str, str], point: Path) -> None:
    refusal = Refusal("dropbox:", point, environment=home)

    refusal.is_one_line_about("dropbox:", exit_code=BAD_OPTION)


def test_mounting_twice_on_one_directory_fails(
    service: ServiceProcess, make_mount: MakeMount
) -> None:
    mount = make_mount(service)
    refusal = Refusal("openai:", mount.point, environment=dict(mount.environment))

    refusal.is_one_line_about("already mounted", exit_code=CANNOT_BE_MADE)
    assert mount.is_serving


def test_of_two_mounts_started_at_one_moment_one_is_made(home: dict[str, str], point: Path) -> None:
    both = [
        subprocess.Popen(
            ctrfs("mount", "openai:", point), env=home, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    try:
        words = [started.communicate(timeout=60)[1] for started in both]

        assert sorted(started.returncode for started in both) == [0, CANNOT_BE_MADE], words
        assert "mounted" in "".join(words)
        assert [place for place in fuse_mounts() if place == point] == [point]
    finally:
        run_ctrfs("umount", point, environment=home)


def test_a_killed_daemon_leaves_enotconn_and_the_next_mount_clears_it(
    service: ServiceProcess, make_mount: MakeMount
) -> None:
    """Promise 16."""
    mount = make_mount(service)
    (mount.point / "work").mkdir()
    (mount.point / "work/a.txt").write_bytes(b"safe")
    mount.kill()
    # stat may still be answered from what the kernel remembers of the root.
    with pytest.raises(OSError, match="not connected") as caught:
        list(mount.point.iterdir())
    assert caught.value.errno == errno.ENOTCONN

    mount.start()
    assert (mount.point / "work/a.txt").read_bytes() == b"safe"


def test_umount_clears_the_mount_of_a_killed_daemon(
    service: ServiceProcess, make_mount: MakeMount
) -> None:
    mount = make_mount(service)
    mount.kill()
    ended = mount.run("umount", mount.point)

    assert ended.returncode == 0, ended.stderr
    assert mount.point not in fuse_mounts()
    assert list(mount.point.iterdir()) == []


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """A folder that everybody may enter: pytest's own are private."""
    with tempfile.TemporaryDirectory(prefix="ctrfs-public-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


def test_mounting_without_permission_fails(service: ServiceProcess, public_folder: Path) -> None:
    environment = environment_for(public_folder / "home", service=service)
    (public_folder / "home").mkdir()
    (public_folder / "home").chmod(0o777)
    (public_folder / "of root").mkdir()
    nobody = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--")
    ended = subprocess.run(
        [*nobody, *ctrfs("mount", "openai:", public_folder / "of root")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert ended.returncode == CANNOT_BE_MADE, ended.stderr
    assert len(ended.stderr.splitlines()) == 1
    assert "permission" in ended.stderr


def test_a_mount_in_the_background_answers_when_the_command_returns(
    home: dict[str, str], point: Path
) -> None:
    ended = run_ctrfs("mount", "openai:", point, environment=home)
    try:
        assert ended.returncode == 0, ended.stderr
        assert ended.stderr == ""
        assert point in fuse_mounts()
        assert finishes("stat", point, timeout_s=5)
        (point / "made").mkdir()
    finally:
        unmounted = run_ctrfs("umount", point, environment=home)
    assert unmounted.returncode == 0, unmounted.stderr
    assert point not in fuse_mounts()
    assert not serving(point)


def test_umount_waits_until_late_bytes_are_sent(
    service: ServiceProcess, make_mount: MakeMount
) -> None:
    """Promise 15."""
    mount = make_mount(service)
    path = mount.point / "work/late.bin"
    path.parent.mkdir()
    path.write_bytes(bytes(mmap.PAGESIZE))
    service.add_fault("create_file", "delay", seconds=1.0)
    descriptor = os.open(path, os.O_RDWR)
    pages = mmap.mmap(descriptor, 0)
    os.close(descriptor)
    pages[:4] = b"late"
    pages.close()
    pid = mount.pid
    ended = mount.run("umount", mount.point)

    assert ended.returncode == 0, ended.stderr
    assert not Path(f"/proc/{pid}/exe").exists(), "the daemon still runs"
    assert stored(service, "work") == {"late.bin": b"late" + bytes(mmap.PAGESIZE - 4)}


def test_umount_of_a_busy_mount_says_so_and_leaves_it(
    service: ServiceProcess, make_mount: MakeMount
) -> None:
    mount = make_mount(service)
    (mount.point / "work").mkdir()
    with (mount.point / "work/open.txt").open("wb") as file:
        file.write(b"x")
        ended = mount.run("umount", mount.point)

        assert ended.returncode != 0
        assert f"in use by process {os.getpid()};" in ended.stderr
        assert len(ended.stderr.splitlines()) == 1
    assert mount.is_serving
    assert (mount.point / "work/open.txt").read_bytes() == b"x"


def test_umount_of_what_is_not_mounted_fails_in_one_line(home: dict[str, str], point: Path) -> None:
    ended = run_ctrfs("umount", point, environment=home)

    assert ended.returncode != 0
    assert ended.stderr.splitlines() == [ended.stderr.strip()]
    assert "not mounted" in ended.stderr


def test_umount_of_a_path_in_a_mount_names_the_mount_point(
    service: ServiceProcess, make_mount: MakeMount
) -> None:
    mount = make_mount(service)
    (mount.point / "work").mkdir()
    ended = mount.run("umount", mount.point / "work")

    assert ended.returncode == CANNOT_BE_MADE
    assert ended.stderr.splitlines() == [
        f"ctrfs: {mount.point}/work is not mounted: it lies in the mount at {mount.point}"
    ]
    assert mount.is_serving


def test_a_log_file_in_a_missing_directory_is_refused(
    home: dict[str, str], point: Path, tmp_path: Path
) -> None:
    refusal = Refusal("openai:", point, "-o", f"log_file={tmp_path}/new/log", environment=home)

    refusal.is_one_line_about("No such file or directory", exit_code=BAD_OPTION)
    assert f"cannot write the log file {tmp_path}/new/log" in refusal.lines[0]
    assert not (tmp_path / "new").exists()


def test_ls_of_a_directory_shows_more_when_asked(
    service: ServiceProcess, make_mount: MakeMount
) -> None:
    mount = make_mount(service)
    (mount.point / "work").mkdir()
    (mount.point / "work/a.txt").write_bytes(b"abc")
    file_id = os.getxattr(mount.point / "work/a.txt", "user.ctrfs.id").decode()

    short = mount.run("ls", mount.point / "work").stdout.splitlines()
    long = mount.run("ls", "-l", mount.point / "work").stdout.splitlines()

    assert short[0].split() == ["NAME", "SIZE", "MODIFIED"]
    assert long[0].split() == ["NAME", "SIZE", "MODIFIED", "SOURCE", "STATE", "ID"]
    assert short[1].split()[0] == "a.txt"
    assert long[1].split()[-3:] == ["user", "clean", file_id]


def test_sigterm_unmounts_and_ends_well(service: ServiceProcess, make_mount: MakeMount) -> None:
    """Promise 15."""
    mount = make_mount(service)
    os.kill(mount.pid, 15)
    deadline = time.monotonic() + 20
    while mount.point in fuse_mounts() and time.monotonic() < deadline:
        pause(0.02)
    mount.stop()

    assert mount.point not in fuse_mounts()


def test_one_container_can_be_the_root(service: ServiceProcess, make_mount: MakeMount) -> None:
    """Promise 1."""
    container_id = service.create_container("single")
    service.create_container("other")
    for source in ("openai:single", f"openai:{container_id}"):
        mount = make_mount(service, source=source)
        (mount.point / "a.txt").write_bytes(source.encode())
        assert [entry.name for entry in mount.point.iterdir()] == ["a.txt"]
        mount.stop()

    assert stored(service, "single") == {"a.txt": f"openai:{container_id}".encode()}


def test_a_read_only_mount_refuses_every_change(
    service: ServiceProcess, make_mount: MakeMount
) -> None:
    container_id = service.create_container("work")
    service.plant(container_id, "/mnt/data/a.txt", b"planted")
    mount = make_mount(service, options=["ro"])

    assert (mount.point / "work/a.txt").read_bytes() == b"planted"
    with pytest.raises(OSError, match="Read-only file system"):
        (mount.point / "work/a.txt").write_bytes(b"")
    with pytest.raises(OSError, match="Read-only file system"):
        (mount.point / "new").mkdir()


def test_the_local_source_starts_its_service_and_keeps_its_files(
    tmp_path: Path, make_mount: MakeMount
) -> None:
    mount = make_mount(None, source=f"local:{tmp_path / 'data'}")
    (mount.point / "work").mkdir()
    (mount.point / "work/a.txt").write_bytes(b"kept")
    mount.restart()

    assert (mount.point / "work/a.txt").read_bytes() == b"kept"


def test_the_commands_list_create_add_and_refresh(
    service: ServiceProcess, make_mount: MakeMount, home: dict[str, str], tmp_path: Path
) -> None:
    created = run_ctrfs("create", "made", environment=home)
    assert created.returncode == 0, created.stderr
    (tmp_path / "added.txt").write_bytes(b"added")
    added = run_ctrfs("add", tmp_path / "added.txt", "made", environment=home)
    assert added.returncode == 0, added.stderr
    listed = run_ctrfs("ls", "--json", environment=home)
    assert listed.returncode == 0, listed.stderr
    assert "made" in json.dumps(json.loads(listed.stdout))
    assert stored(service, "made") == {"added.txt": b"added"}

    mount = make_mount(service)
    folder = mount.point / "made"
    assert [entry.name for entry in folder.iterdir()] == ["added.txt"]
    service.plant(id_of(service, "made"), "/mnt/data/planted.txt", b"planted")
    refreshed = mount.run("refresh", folder)
    assert refreshed.returncode == 0, refreshed.stderr
    assert sorted(entry.name for entry in folder.iterdir()) == ["added.txt", "planted.txt"]


def test_after_a_refresh_the_former_file_cannot_be_opened_any_more(
    service: ServiceProcess, make_mount: MakeMount
) -> None:
    container_id = service.create_container("box")
    mount = make_mount(service, options=["ttl=1h", "max_stale=1h"])
    folder = mount.point / "box"
    former = service.plant(container_id, "/mnt/data/file", b"0")
    refresh_path(str(folder))

    # The kernel forgets a name only after the call that refreshes: once is not enough to see it.
    for number in range(1, 40):
        assert (folder / "file").read_bytes() == str(number - 1).encode()
        service.delete_file(container_id, former)
        former = service.plant(container_id, "/mnt/data/file", str(number).encode())
        refresh_path(str(folder))


def test_refresh_of_the_mount_point_fetches_every_listing_that_is_in_use(
    service: ServiceProcess, make_mount: MakeMount
) -> None:
    ids = [service.create_container(name) for name in ("a", "b", "unused")]
    gone = service.create_container("gone")
    mount = make_mount(service, options=["ttl=1h", "max_stale=1h"])
    for name in ("a", "b", "gone"):
        assert list((mount.point / name).iterdir()) == []
    for container_id in ids:
        service.plant(container_id, "/mnt/data/planted", b"x")
    service.delete_container(gone)
    assert list((mount.point / "a").iterdir()) == []
    service.reset_counters()

    ended = mount.run("refresh", mount.point)

    assert (ended.returncode, ended.stderr) == (0, "")
    assert [entry.name for entry in (mount.point / "a").iterdir()] == ["planted"]
    assert [entry.name for entry in (mount.point / "b").iterdir()] == ["planted"]
    counters = service.counters()
    # One more where a walk ahead asks for the container that is gone before its end is known.
    assert counters["list_containers"] == 1
    assert counters["list_files"] in {2, 3}


def test_doctor_finds_a_working_service_and_a_wrong_key(home: dict[str, str]) -> None:
    well = run_ctrfs("doctor", environment=home)
    ill = run_ctrfs("doctor", environment=home | {"OPENAI_API_KEY": "sk-wrong"})

    # Not its exit code: this machine may hold mounts that do need attention.
    assert "answers, and accepts the key" in well.stdout
    assert "accepts the key" not in ill.stdout
    assert ill.returncode != 0
    assert "sk-wrong" not in ill.stdout + ill.stderr


def serving(point: Path) -> list[str]:
    """Return the command lines of processes that serve ``point``."""
    found = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = process.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # ended meanwhile
            continue
        if "ctrfs mount" in line and str(point) in line:
            found.append(line)
    return found
