"""Some breaks of the wire matrix on a real mount, over real sockets: resets, cuts, sendfile.

``tests/faults/test_wire_matrix.py`` has all of them, without kernel and sockets.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import pytest
from tests.support.mounting import MakeMount, Mount
from tests.support.service import ServiceProcess

pytestmark = pytest.mark.mounted

OLD, NEW = b"old " * 50_000, b"new bytes " * 40_000
BREAKS: Final[Mapping[str, Mapping[str, object]]] = {
    "reset-after-the-request-head": {"action": "reset", "bytes": 0},
    "reset-within-the-request-body": {"action": "reset", "bytes": 30},
    "cut-after-the-request": {"action": "cut", "when": "before", "bytes": -1},
    "reset-before-the-answer-though-done": {"action": "reset", "when": "after"},
    "cut-before-the-answer-though-done": {"action": "cut", "when": "after"},
    "reset-within-the-answer": {"action": "reset", "when": "after", "bytes": 20},
    "cut-one-byte-short": {"action": "cut", "when": "after", "bytes": -1},
    "one-byte-too-many": {"action": "surplus", "bytes": 1},
    "length-1-too-small": {"action": "wrong-length", "delta": -1},
    "length-1-too-large": {"action": "wrong-length", "delta": 1},
    "500-though-done": {"action": "status", "status": 500, "when": "after"},
    "200-with-html": {"action": "status", "status": 200, "body": "<html></html>"},
}


def break_one(service: ServiceProcess, route: str, name: str) -> None:
    fields = dict(BREAKS[name])
    service.add_fault(route, str(fields.pop("action")), count=1, **fields)


def shown_and_stored(mount: Mount, service: ServiceProcess) -> tuple[bytes, bytes]:
    """Return the bytes of the only file in ``c``, here and on the service."""
    (row,) = service.files(_container(service))
    (shown,) = (mount.point / "c").iterdir()
    return shown.read_bytes(), service.content(_container(service), str(row["id"]))


def _container(service: ServiceProcess) -> str:
    (container,) = (row for row in service.containers() if row["name"] == "c")
    return str(container["id"])


@pytest.mark.parametrize("name", BREAKS)
def test_an_overwrite_meets_one_broken_upload_and_ends_with_one_new_file(
    service: ServiceProcess, make_mount: MakeMount, name: str
) -> None:
    service.upload(service.create_container("c"), "a.bin", OLD)
    mount = make_mount(service)
    break_one(service, "create_file", name)

    (mount.point / "c/a.bin").write_bytes(NEW)

    service.clear_faults()
    assert shown_and_stored(mount, service) == (NEW, NEW)


@pytest.mark.parametrize("name", BREAKS)
def test_a_read_meets_one_broken_download_and_gives_the_whole_file(
    service: ServiceProcess, make_mount: MakeMount, name: str
) -> None:
    service.upload(service.create_container("c"), "a.bin", OLD)
    mount = make_mount(service)
    break_one(service, "file_content", name)

    assert (mount.point / "c/a.bin").read_bytes() == OLD


@pytest.mark.parametrize("name", BREAKS)
def test_an_unlink_meets_one_broken_deletion_and_the_file_is_gone(
    service: ServiceProcess, make_mount: MakeMount, name: str
) -> None:
    service.upload(service.create_container("c"), "a.bin", OLD)
    mount = make_mount(service)
    break_one(service, "delete_file", name)

    (mount.point / "c/a.bin").unlink()

    service.clear_faults()
    assert list((mount.point / "c").iterdir()) == []
    assert service.files(_container(service)) == []
