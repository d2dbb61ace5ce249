"""Guards that every test runs under, and the mounts that tests work on.

What a test leaves behind fails it.

A mount, a child process, a descriptor or a busy thread that outlives its test is a bug of the
product or of the test, and would make another test fail instead. Left-over trio tasks cannot
happen unseen: ``trio.run`` ends only when all tasks have, and an un-awaited coroutine or an
unclosed socket is a warning, which pyproject.toml makes an error.
"""

from __future__ import annotations

import gc
import itertools
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest
from tests.support.mounting import (
    IS_LOCAL,
    Kept,
    MakeMount,
    Mount,
    Mounted,
    Service,
    SharedMount,
    abort,
    fuse_mounts,
    pause,
    why_mounts_are_impossible,
)
from tests.support.service import TEST_KEY, ServiceProcess
from tests.support.write_modes import WRITE_MODES, options_of
from typing_extensions import override
from xdist.remote import Producer  # type: ignore[import-untyped]  # not marked as typed
from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]  # as above

from ctrfs.config import WriteMode

MOUNTED_TIME_LIMIT_S: Final = 180
# Before pytest-timeout ends the whole run: aborting a hung mount fails only its own test.
WATCHDOG_LEAD_S: Final = 15
GRACE_S: Final = 2.0
WHY_NO_MOUNTS: Final = why_mounts_are_impossible()
# What one of several workers does as a whole: the lanes of crashing mounts serve for all of
# these tests, and the links in /sbin are there once on a machine. Not by xdist's own groups:
# 3.8 writes them into a name that pytest 9.2 does not read.
WHOLE_FILES: Final = ("tests/crash/test_matrix.py", "tests/mounted/test_mount_helpers.py")


class Scheduling(LoadScopeScheduling):  # type: ignore[misc]  # untyped, see above
    """Gives each worker one test after another, but the tests of some files to the same one."""

    @override
    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return file if file in WHOLE_FILES else nodeid


def pytest_configure(config: pytest.Config) -> None:
    """Let Ctrl-C reach what the tests start, also where a shell runs them behind itself.

    A shell without job control has its background jobs ignore the signal, and each process
    they start inherits that (POSIX, Shell Command Language, 2.11 Signals and Error Handling).
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    """Say who runs which test, where several do (``pytest -n``)."""
    return Scheduling(config, log)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Try what is marked ``both_write_modes`` with both."""
    if metafunc.definition.get_closest_marker("both_write_modes"):
        assert "write_mode" in metafunc.fixturenames, "marked both_write_modes, but mounts nothing"
        metafunc.parametrize(
            "write_mode", WRITE_MODES, ids=lambda mode: f"write={mode.value}", indirect=True
        )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what works on a mount, and give it a longer time limit."""
    for item in items:
        if not IS_LOCAL and "place" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.mounted)
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
def no_mount_is_left_behind(kept: Kept, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    before = set(fuse_mounts())
    yield
    left = {
        point: mounted
        for point, mounted in _our_mounts(tmp_path_factory).items()
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
def no_descriptor_is_left_open(kept: Kept) -> Iterator[None]:
    before = _descriptors()
    yield
    if _descriptors() - before - kept.descriptors:
        gc.collect()
    _assert_gone("descriptors", lambda: _descriptors() - before - kept.descriptors)


@pytest.fixture(autouse=True)
def no_thread_is_left_busy() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    _assert_gone("threads", lambda: _busy_threads() - before)


@pytest.fixture(autouse=True)
def a_hung_mount_is_aborted_before_the_time_limit(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """Free a test that waits for a dead file system: nothing else could end it."""
    marker = request.node.get_closest_marker("timeout")
    if request.node.get_closest_marker("mounted") is None or marker is None:
        yield
        return
    watchdog = threading.Timer(
        float(marker.args[0]) - WATCHDOG_LEAD_S, _abort_our_mounts, [tmp_path_factory]
    )
    watchdog.daemon = True
    watchdog.start()
    yield
    watchdog.cancel()
    watchdog.join()


@pytest.fixture
def service() -> Iterator[ServiceProcess]:
    """A service of its own for one test, which takes one key only."""
    with ServiceProcess(environment={"CTRFS_SERVER_API_KEY": TEST_KEY}) as started:
        yield started


@pytest.fixture
def write_mode(request: pytest.FixtureRequest) -> WriteMode:
    """How the mounts of a test send what is saved; the marker ``both_write_modes`` chooses."""
    mode = getattr(request, "param", WriteMode.THROUGH)
    assert isinstance(mode, WriteMode)
    return mode


@pytest.fixture
def make_mount(tmp_path: Path, write_mode: WriteMode) -> Iterator[MakeMount]:
    """Mounts of its own for one test."""
    numbers = itertools.count(1)
    mounts: list[Mount] = []

    def make(
        service: Service | None,
        *,
        source: str = "openai:",
        options: Sequence[str] = (),
    ) -> Mount:
        directory = tmp_path / f"mount{next(numbers)}"
        said = (*options_of(write_mode), *options)
        mount = Mount(directory, service=service, source=source, options=said)
        mounts.append(mount)
        mount.start()
        return mount

    yield make
    with ExitStack() as stack:
        for mount in mounts:
            stack.callback(mount.abandon)
            if mount.is_serving:
                stack.callback(mount.stop, may_leave_bytes=True)
            # pytest shows this with a test that fails.
            print(f"log of the daemon at {mount.point}:\n{mount.log_text()}", file=sys.stderr)  # noqa: T201


@pytest.fixture(scope="session")
def shared_mounts(
    tmp_path_factory: pytest.TempPathFactory, kept: Kept
) -> Iterator[Callable[[WriteMode], SharedMount]]:
    """The mounts of all tests that need none of their own, one for each way to send."""
    made: dict[WriteMode, SharedMount] = {}
    with ExitStack() as stack:

        def shared(mode: WriteMode) -> SharedMount:
            if mode not in made:
                before = _descriptors()
                service = stack.enter_context(ServiceProcess())
                kept.pids.add(service.pid)
                kept.descriptors |= _descriptors() - before
                directory = tmp_path_factory.mktemp("shared")
                made[mode] = SharedMount(service, directory, kept, options=options_of(mode))
                stack.callback(made[mode].close)
            return made[mode]

        yield shared


@pytest.fixture
def shared_mount(
    shared_mounts: Callable[[WriteMode], SharedMount], write_mode: WriteMode
) -> SharedMount | None:
    """The mount of all tests that need none of their own; None where plain folders will do."""
    if IS_LOCAL:
        return None
    shared = shared_mounts(write_mode)
    shared.alive()
    return shared


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder on the local disk."""
    made = tmp_path / "outside"
    made.mkdir()
    return made


@pytest.fixture
def place(shared_mount: SharedMount | None, tmp_path: Path) -> Path:
    """A directory to work in: a new container on the shared mount, or a plain folder."""
    return _new_place(shared_mount, tmp_path, "place")


@pytest.fixture
def second_place(shared_mount: SharedMount | None, tmp_path: Path) -> Path:
    """Another directory like ``place``."""
    return _new_place(shared_mount, tmp_path, "second")


def _new_place(shared_mount: SharedMount | None, tmp_path: Path, name: str) -> Path:
    if shared_mount is None:
        made = tmp_path / name
    else:
        made = shared_mount.alive().point / f"{tmp_path.name} {name}"
    made.mkdir()
    return made


def _our_mounts(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, Mounted]:
    """Return the mounts of this test run: others of this machine are not ours to judge."""
    top = tmp_path_factory.getbasetemp()
    return {point: mounted for point, mounted in fuse_mounts().items() if top in point.parents}


def _abort_our_mounts(tmp_path_factory: pytest.TempPathFactory) -> None:
    for mounted in _our_mounts(tmp_path_factory).values():
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
