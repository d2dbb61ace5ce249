"""Guards that every test runs under: what a test leaves behind fails it.

A mount, a child process, a descriptor or a busy thread that outlives its test is a bug of the
product or of the test, and would make another test fail instead. Left-over trio tasks cannot
happen unseen: ``trio.run`` ends only when all tasks have, and an un-awaited coroutine or an
unclosed socket is a warning, which pyproject.toml makes an error.
"""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest
from tests.support.mounting import abort, fuse_mounts, pause, why_mounts_are_impossible

MOUNTED_TIME_LIMIT_S: Final = 180
# Before pytest-timeout ends the whole run: aborting a hung mount fails only its own test.
WATCHDOG_LEAD_S: Final = 15
GRACE_S: Final = 2.0
WHY_NO_MOUNTS: Final = why_mounts_are_impossible()


class Kept:
    """What outlives a test on purpose: processes and mounts that a whole session shares."""

    def __init__(self) -> None:
        self.pids: set[int] = set()
        self.points: set[Path] = set()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give mounted tests their longer time limit."""
    for item in items:
        if item.get_closest_marker("mounted") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(MOUNTED_TIME_LIMIT_S))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs a mount where none can be made, or fail if that must not happen."""
    if WHY_NO_MOUNTS is None or item.get_closest_marker("mounted") is None:
        return
    if os.environ.get("CTRFS_REQUIRE_FUSE") == "1":
        pytest.fail(f"mounted tests are required here, but there is {WHY_NO_MOUNTS}")
    pytest.skip(f"not mounted: {WHY_NO_MOUNTS}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many tests a machine without FUSE did not run."""
    skipped = [
        report
        for report in terminalreporter.stats.get("skipped", [])
        if "not mounted: " in str(report.longrepr)
    ]
    if skipped:
        terminalreporter.write_line(f"{len(skipped)} mounted tests skipped: {WHY_NO_MOUNTS}")


@pytest.fixture(scope="session")
def kept() -> Kept:
    """Where a session-wide fixture writes down what it keeps alive between tests."""
    return Kept()


@pytest.fixture(autouse=True)
def no_mount_is_left_behind(kept: Kept) -> Iterator[None]:
    before = set(fuse_mounts())
    yield
    left = {
        point: mounted
        for point, mounted in fuse_mounts().items()
        if point not in before | kept.points
    }
    for mounted in left.values():
        abort(mounted)
    assert not left, f"left mounted: {sorted(map(str, left))}"


@pytest.fixture(autouse=True)
def no_child_process_is_left_behind(kept: Kept) -> Iterator[None]:
    before = _children()
    yield
    _assert_gone("child processes", lambda: _children() - before - kept.pids)


@pytest.fixture(autouse=True)
def no_descriptor_is_left_open() -> Iterator[None]:
    before = _descriptors()
    yield
    if _descriptors() - before:
        gc.collect()
    _assert_gone("descriptors", lambda: _descriptors() - before)


@pytest.fixture(autouse=True)
def no_thread_is_left_busy() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    _assert_gone("threads", lambda: _busy_threads() - before)


@pytest.fixture(autouse=True)
def a_hung_mount_is_aborted_before_the_time_limit(request: pytest.FixtureRequest) -> Iterator[None]:
    """Free a test that waits for a dead file system: nothing else could end it."""
    marker = request.node.get_closest_marker("timeout")
    if request.node.get_closest_marker("mounted") is None or marker is None:
        yield
        return
    watchdog = threading.Timer(float(marker.args[0]) - WATCHDOG_LEAD_S, _abort_our_mounts)
    watchdog.daemon = True
    watchdog.start()
    yield
    watchdog.cancel()
    watchdog.join()


def _abort_our_mounts() -> None:
    for mounted in fuse_mounts().values():
        if "pytest-" in str(mounted.point):
            abort(mounted)


def _assert_gone(
    what: str, left: Callable[[], set[str] | set[int] | set[threading.Thread]]
) -> None:
    deadline = time.monotonic() + GRACE_S
    while left() and time.monotonic() < deadline:
        pause(0.02)
    assert not left(), f"left behind: {what} {left()}"


def _children() -> set[int]:
    pids: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        try:
            pids.update(map(int, (task / "children").read_text().split()))
        except OSError:  # the thread ended meanwhile
            continue
    return pids


def _descriptors() -> set[str]:
    found: set[str] = set()
    for link in Path("/proc/self/fd").iterdir():
        try:
            found.add(f"{link.name} -> {link.readlink()}")
        except OSError:  # the descriptor of this very walk
            continue
    return found


def _busy_threads() -> set[threading.Thread]:
    """Return the threads that work; trio keeps idle ones for ten seconds."""
    return {
        thread
        for thread in threading.enumerate()
        if thread.is_alive() and not thread.name.startswith("Trio thread")
    }
