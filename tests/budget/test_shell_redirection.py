"""What a shell's redirections cost: the way most small files are written."""

from __future__ import annotations

import subprocess

import pytest
from tests.support.mounting import MakeMount, Mount
from tests.support.service import ServiceProcess
from tests.support.write_modes import sync_directory

pytestmark = [pytest.mark.mounted, pytest.mark.both_write_modes]


@pytest.fixture
def mount(service: ServiceProcess, make_mount: MakeMount) -> Mount:
    """A mount whose listings stay fresh, with one container that holds one file."""
    made = make_mount(service, options=("ttl=60", "max_stale=60"))
    (made.point / "box").mkdir()
    (made.point / "box" / "old.txt").write_bytes(b"old\n")
    sync_directory(made.point)
    return made


@pytest.mark.parametrize(
    ("command", "uploads", "deletes", "content"),
    [
        ("echo hello > new.txt", 1, 0, b"hello\n"),
        ("echo hello > old.txt", 1, 1, b"hello\n"),
        ("echo hello >> old.txt", 1, 1, b"old\nhello\n"),
        ("printf '' > new.txt", 1, 0, b""),
        (": > old.txt", 1, 1, b""),
        ("touch new.txt", 1, 0, b""),
        ("{ echo one; echo two; } > new.txt", 1, 0, b"one\ntwo\n"),
        ("(exec cat < old.txt) > new.txt", 1, 0, b"old\n"),
        ("tr a-z A-Z < old.txt | tee new.txt > /dev/null", 1, 0, b"OLD\n"),
    ],
)
@pytest.mark.parametrize("shell", ["bash", "dash"])
def test_a_redirection_sends_each_file_once(
    mount: Mount,
    service: ServiceProcess,
    shell: str,
    command: str,
    uploads: int,
    deletes: int,
    content: bytes,
) -> None:
    box = mount.point / "box"
    service.reset_counters()

    subprocess.run([shell, "-ec", command], cwd=box, check=True, timeout=30)
    sync_directory(mount.point)

    counters = service.counters()
    assert counters.get("create_file", 0) == uploads
    assert counters.get("delete_file", 0) == deletes
    name = "new.txt" if (box / "new.txt").exists() else "old.txt"
    assert (box / name).read_bytes() == content


def test_the_old_bytes_stay_on_the_service_until_the_new_ones_are_there(
    mount: Mount, service: ServiceProcess
) -> None:
    box = mount.point / "box"

    with subprocess.Popen(
        ["bash", "-c", "{ read -r line; echo $line; } > old.txt"],
        cwd=box,
        stdin=subprocess.PIPE,
        text=True,
    ) as shell:
        assert shell.stdin is not None
        while (box / "old.txt").stat().st_size:
            pass
        container_id = str(service.containers()[0]["id"])
        (row,) = service.files(container_id)
        before = service.content(container_id, str(row["id"]))
        shell.stdin.write("new\n")
        shell.stdin.close()
        assert shell.wait(30) == 0

    assert before == b"old\n"
    sync_directory(mount.point)
    (row,) = service.files(container_id)
    assert service.content(container_id, str(row["id"])) == b"new\n"
