"""mount(8) and umount(8) themselves, through the helpers in the directory where they look."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

import pytest
from tests.support.mounting import (
    EXIT_UNSENT,
    Mounted,
    abort,
    environment_for,
    fuse_mounts,
    pause,
    run_ctrfs,
)
from tests.support.service import ServiceProcess
from tests.support.trees import stored
from tests.support.trying import works_within

pytestmark = pytest.mark.mounted

SBIN: Final = Path("/sbin")
UTAB: Final = Path("/run/mount/utab")
NAMES: Final = ("mount.ctrfs", "mount.fuse.ctrfs", "umount.ctrfs", "umount.fuse.ctrfs")


@pytest.fixture(scope="module", autouse=True)
def helpers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The helpers, linked for these tests only."""
    if os.geteuid() != 0:
        pytest.skip(f"only root can put links into {SBIN}")
    there = [name for name in NAMES if os.path.lexists(SBIN / name)]
    if there:
        pytest.skip(f"{SBIN / there[0]} exists: it may be somebody's who needs it")
    environment = environment_for(tmp_path_factory.mktemp("home"), service=None)
    done = run_ctrfs("install-helpers", environment=environment)
    if "can be changed by others" in done.stderr:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr
    yield
    assert run_ctrfs("install-helpers", "--remove", environment=environment).returncode == 0
    assert not any(os.path.lexists(SBIN / name) for name in NAMES)


class System:
    """A machine on which root mounts and unmounts by the usual commands."""

    def __init__(self, directory: Path, service: ServiceProcess) -> None:
        self.point = directory / "mnt"
        self.point.mkdir()
        self.environment = environment_for(directory / "home", service=service)
        (directory / "home").mkdir()

    def run(self, *command: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            cwd="/",
        )

    def mount(self, *words: str | Path) -> subprocess.CompletedProcess[str]:
        return self.run("mount", "-t", "ctrfs", "openai:", self.point, *words)

    def umount(self, *words: str | Path) -> subprocess.CompletedProcess[str]:
        return self.run("umount", self.point, *words)

    @property
    def mounted(self) -> Mounted | None:
        return fuse_mounts().get(self.point)

    @property
    def options(self) -> set[str]:
        """What the kernel's table says of the mount."""
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            fields = line.split()
            if fields[4] == str(self.point):
                return set(fields[5].split(","))
        return set()

    def daemons(self) -> list[int]:
        """The processes that serve the mount, or still send its rest."""
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):
                if os.fsencode(self.point) in path.read_bytes().split(b"\0"):
                    found.append(int(path.parent.name))
        return found

    def fail_to_send(self, service: ServiceProcess) -> None:
        """Leave bytes behind that the service does not take."""
        (self.point / "work").mkdir()
        service.add_fault("create_file", "status", status=400)
        with pytest.raises(OSError, match="Invalid argument"):
            (self.point / "work" / "a.txt").write_bytes(b"precious")


@pytest.fixture
def system(tmp_path: Path, service: ServiceProcess) -> Iterator[System]:
    made = System(tmp_path, service)
    yield made
    if made.mounted is not None:
        abort(made.mounted)
    for pid in made.daemons():
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def is_settled(system: System) -> None:
    """Check that nothing of a mount is left."""
    assert system.mounted is None
    assert system.daemons() == []
    assert str(system.point) not in (UTAB.read_text() if UTAB.exists() else "")


def test_mount_and_umount_work_with_all_that_a_line_of_fstab_may_say(system: System) -> None:
    done = system.mount(
        "-o",
        "ttl=5,allow_other,_netdev,noauto,user,x-systemd.automount,nofail,comment=ours,suid,dev,rw",
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert system.mounted is not None
    assert (system.mounted.kind, system.mounted.source) == ("fuse.ctrfs", "openai:")
    # ``user`` brings noexec; no device and no set-uid program is ever let through.
    assert system.options >= {"rw", "nosuid", "nodev", "noexec"}
    (system.point / "work").mkdir()
    (system.point / "work" / "a.txt").write_bytes(b"sent")
    done = system.umount()
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    is_settled(system)


@pytest.mark.parametrize(
    ("words", "expected"),
    [(["-r"], {"ro"}), (["-o", "ro,noexec"], {"ro", "noexec"}), (["-o", "noexec,exec"], {"rw"})],
)
def test_what_the_kernel_must_know_reaches_it(
    system: System, words: list[str], expected: set[str]
) -> None:
    assert system.mount(*words).returncode == 0

    assert system.options & {"ro", "rw", "exec", "noexec"} == expected | (
        {"rw"} - {"rw" if "ro" in expected else ""}
    )
    assert system.umount().returncode == 0


def test_no_program_in_a_mount_with_noexec_can_be_run(system: System) -> None:
    assert system.mount("-o", "noexec,file_mode=755").returncode == 0
    (system.point / "work").mkdir()
    program = system.point / "work" / "program"
    program.write_text("#!/bin/sh\n")

    with pytest.raises(PermissionError):
        system.run(program)

    assert system.umount().returncode == 0


def test_a_line_of_fstab_mounts(system: System, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text(system.environment.pop("OPENAI_API_KEY"))
    key.chmod(0o600)
    fstab = tmp_path / "fstab"
    address = system.environment.pop("OPENAI_BASE_URL")
    fstab.write_text(
        f"openai: {system.point} ctrfs noauto,_netdev,key_file={key},base_url={address} 0 0\n"
    )

    done = system.run("mount", "-T", fstab, system.point)

    assert done.returncode == 0, done.stderr
    (system.point / "work").mkdir()
    assert system.umount().returncode == 0
    is_settled(system)


def mounted_by(how: str, system: System) -> subprocess.CompletedProcess[str]:
    if how == "ctrfs mount":
        return run_ctrfs("mount", "openai:", system.point, environment=system.environment)
    return system.run("mount", "-t", how, "openai:", system.point)


@pytest.mark.parametrize("how", ["ctrfs", "fuse.ctrfs", "ctrfs mount"])
@pytest.mark.parametrize(
    "words", [[], ["-c"], ["-v"], ["-r"]], ids=["plainly", "as systemd does", "-v", "-r"]
)
def test_umount_waits_until_everything_is_sent(
    system: System, service: ServiceProcess, how: str, words: list[str]
) -> None:
    """Promise 15."""
    assert mounted_by(how, system).returncode == 0
    system.fail_to_send(service)
    service.clear_faults()
    service.add_fault("create_file", "delay", seconds=1.5)

    done = system.umount(*words)

    assert done.returncode == 0, done.stderr
    is_settled(system)
    assert stored(service, "work") == {"a.txt": b"precious"}


def test_umount_tells_what_it_leaves_and_the_next_mount_sends_it(
    system: System, service: ServiceProcess
) -> None:
    """Promise 15."""
    assert system.mount("-o", "drain_timeout=3").returncode == 0
    system.fail_to_send(service)

    done = system.umount()

    assert done.returncode == EXIT_UNSENT
    (line,) = done.stderr.splitlines()
    assert line.startswith("ctrfs: 1 file(s) are not sent: work/a.txt; their bytes are in ")
    is_settled(system)
    service.clear_faults()
    assert system.mount().returncode == 0
    done = system.umount()
    assert done.returncode == 0, done.stderr
    assert stored(service, "work") == {"a.txt": b"precious"}


def test_a_mount_in_use_stays_and_the_reason_is_told(system: System) -> None:
    assert system.mount().returncode == 0
    (system.point / "work").mkdir()
    with subprocess.Popen(["sleep", "60"], cwd=system.point / "work") as user:
        done = system.umount()

        assert done.returncode == 32
        assert f"in use by process {user.pid};" in done.stderr
        assert system.mounted is not None
        user.kill()
    assert system.umount().returncode == 0


def test_a_lazy_unmount_returns_at_once_and_the_rest_is_sent_behind_it(
    system: System, service: ServiceProcess
) -> None:
    assert system.mount().returncode == 0
    (system.point / "work").mkdir()
    with (system.point / "work" / "a.txt").open("wb") as file:
        done = system.umount("-l")

        assert (done.returncode, done.stderr) == (0, "")
        assert system.mounted is None
        assert system.daemons()
        file.write(b"precious")
    assert works_within(lambda: is_gone(system), 20)
    assert stored(service, "work") == {"a.txt": b"precious"}


def is_gone(system: System) -> None:
    if system.daemons():
        raise BlockingIOError("still there")


def test_a_forced_unmount_gets_rid_of_a_daemon_that_hangs(system: System) -> None:
    assert system.mount("-o", "drain_timeout=1").returncode == 0
    (daemon,) = system.daemons()
    os.kill(daemon, signal.SIGSTOP)
    pause(0.2)

    with subprocess.Popen(["umount", "-f", system.point], env=system.environment) as done:
        is_away = works_within(lambda: is_unmounted(system), 20)
        os.kill(daemon, signal.SIGCONT)

        assert is_away
        assert done.wait(30) == 0

    is_settled(system)


def is_unmounted(system: System) -> None:
    if system.mounted is not None:
        raise BlockingIOError("still mounted")


def test_umount_clears_the_mount_of_a_killed_daemon(system: System) -> None:
    assert system.mount().returncode == 0
    for daemon in system.daemons():
        os.kill(daemon, signal.SIGKILL)
    assert works_within(lambda: is_gone(system), 10)

    done = system.umount()

    assert done.returncode == 0, done.stderr
    is_settled(system)


def test_a_fake_mount_checks_everything_and_mounts_nothing(system: System) -> None:
    done = system.mount("-f", "-v", "-o", "ttl=5")

    assert done.returncode == 0, done.stderr
    assert done.stdout == f"ctrfs: openai: can be mounted at {system.point}\n"
    assert system.mounted is None
    assert system.mount("-f", "-o", "ttl=never").returncode == 1
    assert system.run("mount", "-f", "-t", "ctrfs", "openai:", "/proc/version").returncode == 32
    del system.environment["OPENAI_API_KEY"]
    system.environment["OPENAI_BASE_URL"] = "https://example.com/v1"
    assert "no API key" in system.mount("-f").stderr


def test_sloppy_tolerates_what_others_do_not(system: System) -> None:
    done = system.mount("-o", "colour=red")
    assert done.returncode == 1
    assert done.stderr.startswith("ctrfs: unknown option 'colour'")

    done = system.mount("-s", "-v", "-o", "colour=red")

    assert done.returncode == 0, done.stderr
    assert "unknown and ignored: 'colour'" in done.stdout
    assert system.umount().returncode == 0


def test_a_mount_that_cannot_be_made_ends_with_32(system: System, service: ServiceProcess) -> None:
    service.add_fault("list_containers", "status", status=401)

    done = system.mount()

    assert done.returncode == 32
    assert "refuses the API key" in done.stderr
    is_settled(system)


def test_a_mount_is_not_mounted_over_and_not_remounted(system: System) -> None:
    assert system.mount().returncode == 0

    assert system.mount().returncode == 32
    done = system.run("mount", "-o", "remount,ro", system.point)

    assert done.returncode == 1
    assert "unmount it and mount it again" in done.stderr
    assert "rw" in system.options
    assert system.umount().returncode == 0


def test_without_a_note_umount_returns_before_everything_is_sent(
    system: System, service: ServiceProcess
) -> None:
    """What ``-n`` asks for: nothing tells umount(8) of the helper."""
    assert system.mount("-n").returncode == 0
    assert str(system.point) not in (UTAB.read_text() if UTAB.exists() else "")
    system.fail_to_send(service)
    service.clear_faults()
    service.add_fault("create_file", "delay", seconds=2)

    assert system.umount().returncode == 0

    assert system.daemons()
    assert works_within(lambda: is_gone(system), 20)
    assert stored(service, "work") == {"a.txt": b"precious"}


def test_mount_and_umount_work_from_within_another_namespace(system: System) -> None:
    """umount -N enters the namespace of a mount; mount -N is refused in a line."""
    with subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", 'mount -t ctrfs openai: "$0" && echo done && exec cat', system.point],
        env=system.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as inside:  # fmt: skip
        assert inside.stdout is not None
        assert inside.stdout.readline() == "done\n"
        assert system.mounted is None

        done = system.run("umount", "-N", str(inside.pid), system.point)

        assert done.returncode == 0, done.stderr
        assert system.daemons() == []
        done = system.run("mount", "-N", str(inside.pid), "-t", "ctrfs", "openai:", system.point)
        assert done.returncode == 1
        assert "nsenter" in done.stderr
        inside.kill()


def test_the_helpers_explain_themselves(system: System) -> None:
    for name in NAMES:
        done = system.run(SBIN / name, "--help")

        assert done.returncode == 0
        assert done.stdout.startswith(f"Usage: {name.replace('.fuse', '')} ")
