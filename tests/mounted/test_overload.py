"""A thousand programs at once on one mount, while one answer in ten is a failure.

What a retry can save, no program hears of; each gets its turn; the daemon stays small.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import time
from pathlib import Path

import pytest
from tests.support.mounting import MakeMount, Mount, pause
from tests.support.service import ServiceProcess
from tests.support.trees import stored

pytestmark = [pytest.mark.mounted, pytest.mark.slow, pytest.mark.alone]

PROGRAMS = 1000
FOLDERS = 25
# All of them together, with 2 busy cores. A single one may take as long as the whole.
ALL_DONE_S = 120
# 50 MiB for the daemon at rest, and what a thousand waiting requests take.
RESIDENT_MAX_MIB = 200
# One answer in ten. Requests of all kinds count together, so that every kind is struck.
FAILURES: list[dict[str, object]] = [
    {"action": "status", "status": 500},
    {"action": "status", "status": 503},
    {"action": "status", "status": 429, "headers": {"retry-after-ms": "100"}},
    {"action": "reset"},
]
# How many requests a run makes at most; a rule strikes one.
REQUESTS_MAX = 6000


def strike_one_in_ten(service: ServiceProcess) -> None:
    failures = itertools.cycle(FAILURES)
    for nth in range(10, REQUESTS_MAX, 10):
        fields = dict(next(failures))
        service.add_fault("*", str(fields.pop("action")), nth=nth, **fields)


def resident_mib(mount: Mount) -> float:
    """Return the most that the daemon has ever held in memory."""
    for line in Path(f"/proc/{mount.pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise AssertionError


def outcomes(commands: list[str]) -> dict[str, tuple[int | None, str]]:
    """Run all commands at once; return exit code (None: not in time) and words of those failed."""
    running = [
        (
            command,
            subprocess.Popen(
                ["/bin/sh", "-c", command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
            ),
        )
        for command in commands
    ]
    deadline = time.monotonic() + ALL_DONE_S
    failed: dict[str, tuple[int | None, str]] = {}
    for command, process in running:
        assert process.stderr is not None
        try:
            code = process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            failed[command] = None, "not in time"
        else:
            if code != 0:
                failed[command] = code, os.read(process.stderr.fileno(), 500).decode()
        process.stderr.close()
    return failed


@pytest.mark.timeout(300)
def test_a_thousand_programs_are_all_served_while_one_answer_in_ten_fails(
    service: ServiceProcess, make_mount: MakeMount, outside: Path
) -> None:
    for folder in range(FOLDERS):
        container = service.create_container(f"c{folder}")
        for number in range(PROGRAMS // 4 // FOLDERS * 2):
            service.upload(container, f"old{number}", b"content %d" % number)
    (outside / "new").write_bytes(b"new content")
    mount = make_mount(service)
    commands = []
    for number in range(PROGRAMS // 4):
        folder, place = number % FOLDERS, number // FOLDERS
        inside = mount.point / f"c{folder}"
        commands += [
            f"exec ls {inside}",
            f"exec cat {inside}/old{2 * place}",
            f"exec cp {outside}/new {inside}/new{place}",
            f"exec rm {inside}/old{2 * place + 1}",
        ]
    assert len(commands) == PROGRAMS
    strike_one_in_ten(service)

    began = time.monotonic()
    failed = outcomes(commands)
    took_s = time.monotonic() - began

    print(f"{PROGRAMS} programs in {took_s:.1f} s, {resident_mib(mount):.0f} MiB at most")  # noqa: T201
    service.clear_faults()
    assert failed == {}
    assert resident_mib(mount) < RESIDENT_MAX_MIB
    for folder in range(FOLDERS):
        kept = stored(service, f"c{folder}")
        assert sum(name.startswith("new") for name in kept) == sum(
            number % FOLDERS == folder for number in range(PROGRAMS // 4)
        )
        assert all(content == b"new content" for name, content in kept.items() if name[0] == "n")
        assert not [name for name in kept if name.startswith("old") and int(name[3:]) % 2]


@pytest.mark.timeout(300)
def test_a_small_request_is_served_while_hundreds_of_slow_downloads_wait_their_turn(
    service: ServiceProcess, make_mount: MakeMount
) -> None:
    big = service.create_container("big")
    for number in range(200):
        service.upload(big, f"{number}", b"content")
    service.create_container("small")
    mount = make_mount(service)
    assert len(list((mount.point / "big").iterdir())) == 200
    # 200 of half a second, 14 at once: seven seconds of work.
    service.add_fault("file_content", "delay", seconds=0.5)
    readers = [
        subprocess.Popen(["cat", mount.point / "big" / f"{number}"], stdout=subprocess.DEVNULL)
        for number in range(200)
    ]
    pause(1)

    began = time.monotonic()
    (mount.point / "new").mkdir()
    assert list((mount.point / "small").iterdir()) == []
    took_s = time.monotonic() - began
    (mount.point / "small" / "a").write_bytes(b"in its turn")

    assert {reader.wait(60) for reader in readers} == {0}
    assert took_s < 4
