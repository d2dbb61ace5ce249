"""``ctrfs keepalive`` against a service whose time can be moved."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.support.mounting import ctrfs, environment_for, pause, run_ctrfs
from tests.support.service import ServiceProcess

ALMOST_EXPIRED_S = 19 * 60


@pytest.fixture
def service() -> Iterator[ServiceProcess]:
    with ServiceProcess() as started:
        yield started


@contextmanager
def keeping(
    *arguments: str, service: ServiceProcess, home: Path
) -> Iterator[subprocess.Popen[str]]:
    """Run the command until the block ends."""
    with subprocess.Popen(
        ctrfs("keepalive", *arguments),
        env=environment_for(home, service=service),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        yield process
        process.kill()


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def test_a_container_that_is_kept_outlives_one_that_is_not(
    service: ServiceProcess, tmp_path: Path
) -> None:
    kept, other = service.create_container("kept"), service.create_container("other")
    with keeping("kept", "--every", "1", service=service, home=tmp_path) as process:
        assert "was used" in line_of(process)
        for _ in range(3):
            service.advance(ALMOST_EXPIRED_S)
            service.reset_counters()
            while not service.counters().get("list_files"):
                pause(0.05)

        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0

    assert service.retrieve_container(kept)["status"] == "running"
    assert service.retrieve_container(other)["status"] == "expired"


def test_a_container_that_is_gone_ends_the_command_with_1(
    service: ServiceProcess, tmp_path: Path
) -> None:
    container_id = service.create_container("kept")
    with keeping("kept", "--every", "1", service=service, home=tmp_path) as process:
        line_of(process)

        service.delete_container(container_id)

        assert process.wait(20) == 1
        assert process.stdout is not None
        assert "is gone" in process.stdout.read()


def test_a_failure_is_told_and_tried_again(service: ServiceProcess, tmp_path: Path) -> None:
    service.create_container("kept")
    service.add_fault("list_files", "status", status=400, count=1)
    with keeping("kept", "--every", "1", service=service, home=tmp_path) as process:
        assert "could not be used, next try in 1 s" in line_of(process)
        assert "was used" in line_of(process)


def test_keeping_ends_after_the_time_asked_for(service: ServiceProcess, tmp_path: Path) -> None:
    service.create_container("kept")

    ended = run_ctrfs(
        "keepalive", "kept", "--for", "1", environment=environment_for(tmp_path, service=service)
    )

    assert (ended.returncode, ended.stderr) == (0, "")
    assert len(ended.stdout.splitlines()) == 1


def test_a_wrong_name_ends_it_before_anything_is_kept(
    service: ServiceProcess, tmp_path: Path
) -> None:
    service.create_container("kept")

    ended = run_ctrfs(
        "keepalive", "kept", "nowhere", environment=environment_for(tmp_path, service=service)
    )

    assert (ended.returncode, ended.stdout) == (1, "")
    assert "'nowhere'" in ended.stderr
