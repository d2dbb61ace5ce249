"""Names of the service never reach a terminal raw."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.mounting import MakeMount, environment_for
from tests.support.service import ServiceProcess

pytestmark = pytest.mark.mounted

# What clears a screen, sets a title, types an answer, goes back, turns text around, ends a line.
HOSTILE = "\x1b[2J\x1b]0;owned\x07\x1b[6n\x9b31m\b\b\r\n\u202efdp.exe\u2066\u200f\u2028\x7f"


def on_a_terminal(*arguments: str | Path, environment: dict[str, str]) -> str:
    """Return what a command writes to a terminal, and to stderr on it."""
    leader, follower = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-m", "ctrfs", *arguments],
        env=environment | {"TERM": "xterm", "COLUMNS": "200"},
        stdin=subprocess.DEVNULL,
        stdout=follower,
        stderr=follower,
    )
    os.close(follower)
    written = b""
    while True:
        try:
            piece = os.read(leader, 65536)
        except OSError:  # how the end of a terminal is told
            break
        if not piece:
            break
        written += piece
    os.close(leader)
    child.wait(30)
    return written.decode()


def assert_harmless(text: str) -> None:
    assert "owned" in text  # it is shown, and made visible
    for raw in set(HOSTILE) - set("\r\n"):
        if not raw.isprintable():
            assert raw not in text.replace("\x1b[0m", "").replace("\x1b[1m", ""), repr(raw)


@pytest.mark.parametrize("form", [[], ["-l"], ["--json"]])
def test_ls_shows_hostile_names_and_obeys_none(
    service: ServiceProcess, tmp_path: Path, form: list[str]
) -> None:
    container = service.create_container(HOSTILE)
    service.plant(container, f"/mnt/data/{HOSTILE}", b"x", source=HOSTILE)
    environment = environment_for(tmp_path, service=service)

    assert_harmless(on_a_terminal("ls", *form, environment=environment))
    assert_harmless(on_a_terminal("ls", f"openai:{container}", *form, environment=environment))


def test_commands_on_a_mount_show_hostile_names_and_obey_none(
    service: ServiceProcess, make_mount: MakeMount
) -> None:
    container = service.create_container(HOSTILE)
    service.plant(container, f"/mnt/data/{HOSTILE}", b"x")
    mount = make_mount(service, options=("retries=0",))
    [box] = mount.point.iterdir()
    service.add_fault(
        "create_file", "status", status=400, body=f'{{"error":{{"message":"{"x" * 9}"}}}}'
    )
    with pytest.raises(OSError, match="Invalid"):
        (box / f"{HOSTILE} unsent").write_bytes(b"bytes")
    service.clear_faults()
    environment = dict(mount.environment)

    for arguments in (["ls", mount.point], ["ls", box], ["status"]):
        assert_harmless(on_a_terminal(*arguments, environment=environment))
    for name in ("pending", "errors", "status"):
        text = (mount.point / ".ctrfs" / name).read_text()
        assert not [letter for letter in text if not letter.isprintable() and letter != "\n"]
    assert "\x1b" not in mount.log_text()


def test_the_end_of_a_mount_shows_a_hostile_name_that_is_left_and_obeys_none(
    service: ServiceProcess, make_mount: MakeMount
) -> None:
    service.create_container("work")
    mount = make_mount(service)
    service.add_fault("create_file", "status", status=400)
    with pytest.raises(OSError, match="Invalid"):
        (mount.point / "work" / HOSTILE).write_bytes(b"bytes")

    shown = on_a_terminal("umount", mount.point, environment=dict(mount.environment))

    assert "are not sent" in shown
    assert_harmless(shown)
    assert_harmless(mount.log_text())
    mount.abandon()
