"""Promises of docs/semantics.md that no other mounted test is about."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from tests.support.mounting import MakeMount
from tests.support.service import ServiceProcess

pytestmark = pytest.mark.mounted

AT_ONCE = ("ttl=0", "max_stale=0")


def test_a_file_replaced_elsewhere_while_it_is_open_here_stays_beside_ours(
    service: ServiceProcess, make_mount: MakeMount
) -> None:
    """Promise 10."""
    container = service.create_container("box")
    service.plant(container, "/mnt/data/file", b"old")
    [old] = service.files(container)
    point = make_mount(service, options=AT_ONCE).point
    fd = os.open(point / "box" / "file", os.O_RDWR)
    assert os.pread(fd, 3, 0) == b"old"
    service.delete_file(container, str(old["id"]))
    theirs = service.plant(container, "/mnt/data/file", b"theirs")
    assert list((point / "box").iterdir())

    os.pwrite(fd, b"ours", 0)
    os.close(fd)

    rows = {str(row["id"]): row for row in service.files(container)}
    kept = {service.content(container, file_id) for file_id in rows}
    assert theirs in rows
    assert kept == {b"theirs", b"ours"}


@pytest.mark.parametrize("name", [".Trash", ".Trash-1000"])
def test_a_file_manager_gets_no_trash_container(
    service: ServiceProcess, make_mount: MakeMount, name: str
) -> None:
    """Promise 23."""
    point = make_mount(service).point

    with pytest.raises(PermissionError) as caught:
        (point / name).mkdir()

    assert caught.value.errno == errno.EPERM
    assert service.containers() == []


def test_writing_back_the_bytes_that_are_there_sends_nothing_from_a_mount_either(
    service: ServiceProcess, make_mount: MakeMount
) -> None:
    """Promise 12a."""
    service.create_container("box")
    path: Path = make_mount(service).point / "box" / "file"
    path.write_bytes(b"same")
    service.reset_counters()

    path.write_bytes(b"same")

    assert service.counters().get("create_file", 0) == 0
    assert path.read_bytes() == b"same"
