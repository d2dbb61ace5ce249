"""Without the service: what is fresh serves, the rest fails fast, and all is well again after.

Each way in which a service goes away: it refuses connections, resets them, says nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.mounting import MakeMount, Mount
from tests.support.proxy import Mode, Proxy
from tests.support.service import ServiceProcess
from tests.support.trees import stored
from tests.support.trying import errno_and_seconds_of, works_within

pytestmark = pytest.mark.mounted

CALL_S = 4
# For a process on a busy machine to start and end.
MARGIN_S = 8
RECOVERY_S = 40
ALL_WAYS = pytest.mark.parametrize("way", [Mode.REFUSE, Mode.RESET, Mode.BLACK_HOLE])


@pytest.fixture
def proxy(service: ServiceProcess) -> Iterator[Proxy]:
    with Proxy(service) as opened:
        yield opened


@pytest.fixture
def mount(service: ServiceProcess, proxy: Proxy, make_mount: MakeMount) -> Mount:
    """A mount through the proxy; ``a.txt`` of ``work`` was read, ``b.txt`` was not."""
    work = service.create_container("work")
    service.create_container("other")
    service.upload(work, "a.txt", b"aaa")
    service.upload(work, "b.txt", b"bbb")
    limits = [f"{name}={CALL_S}" for name in ("timeout", "stall_timeout")]
    made = make_mount(proxy, options=(*limits, "transfer_timeout=12", "ttl=120"))
    assert names_in(made.point / "work") == ["a.txt", "b.txt"]
    assert (made.point / "work" / "a.txt").read_bytes() == b"aaa"
    return made


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@ALL_WAYS
def test_what_was_listed_and_read_is_there_without_the_service(
    mount: Mount, proxy: Proxy, way: Mode
) -> None:
    proxy.set(way)

    assert names_in(mount.point / "work") == ["a.txt", "b.txt"]
    assert (mount.point / "work" / "b.txt").stat().st_size == 3
    assert (mount.point / "work" / "a.txt").read_bytes() == b"aaa"


@ALL_WAYS
def test_what_is_not_here_fails_in_time_and_works_again_without_a_remount(
    mount: Mount, proxy: Proxy, way: Mode
) -> None:
    proxy.set(way)
    for call in (
        (mount.point / "other" / "x").stat,
        (mount.point / "work" / "b.txt").read_bytes,
        (mount.point / "new").mkdir,
    ):
        assert errno_and_seconds_of(call)[1] < 2 * CALL_S + MARGIN_S

    proxy.set(Mode.PASS)

    assert works_within((mount.point / "work" / "b.txt").read_bytes, RECOVERY_S)
    assert (mount.point / "work" / "b.txt").read_bytes() == b"bbb"
    # Not ``new``: what asked for that may have been on its way all the time.
    assert works_within((mount.point / "newer").mkdir, RECOVERY_S)


@pytest.mark.parametrize("way", [Mode.REFUSE, Mode.RESET])
def test_bytes_saved_without_the_service_are_kept_and_sent_when_it_is_back(
    mount: Mount, proxy: Proxy, service: ServiceProcess, way: Mode
) -> None:
    proxy.set(way)
    number, _ = errno_and_seconds_of(
        lambda: (mount.point / "work" / "new.txt").write_bytes(b"precious")
    )
    assert number != 0
    assert (mount.point / "work" / "new.txt").read_bytes() == b"precious"

    proxy.set(Mode.PASS)

    assert works_within(lambda: found(service, "new.txt"), RECOVERY_S)
    assert stored(service, "work")["new.txt"] == b"precious"


def found(service: ServiceProcess, name: str) -> None:
    if name not in stored(service, "work"):
        raise FileNotFoundError(name)
