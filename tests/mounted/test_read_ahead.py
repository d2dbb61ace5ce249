"""What real programs that walk over a tree cost, and that they get the right bytes."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.scenarios.programs import need, run
from tests.support.mounting import MakeMount, Mount, pause
from tests.support.proxy import Proxy
from tests.support.service import ServiceProcess

pytestmark = pytest.mark.mounted

ROUND_TRIP_S = 0.02
# The whole test is one moment: no refresh by age comes between.
ONE_MOMENT = ("ttl=300", "max_stale=300")
CONTAINERS = 3
PATHS = [
    *(f"{number}.txt" for number in range(12)),
    *(f"folder/{number}.txt" for number in range(12)),
    *(f"folder/deep/{number}.txt" for number in range(3)),
    *(f"Zoo/{number}.txt" for number in range(3)),
]
FILES = CONTAINERS * len(PATHS)


class Tree:
    """Three containers of thirty files, on a service 20 ms away.

    Attributes:
        mount: Of it, before anybody has looked.
        copy: The same tree on the local disk.
    """

    def __init__(self, service: ServiceProcess, mount: Mount, copy: Path) -> None:
        self._service = service
        self.mount = mount
        self.copy = copy
        service.reset_counters()

    def requests(self) -> dict[str, int]:
        return {name: n for name, n in self._service.counters().items() if n}


@pytest.fixture
def tree(service: ServiceProcess, make_mount: MakeMount, tmp_path: Path) -> Iterator[Tree]:
    copy = tmp_path / "copy"
    bytes_of = random.Random(1).randbytes  # noqa: S311  # content, no secret
    for number in range(CONTAINERS):
        container_id = service.create_container(f"c{number}")
        for path in PATHS:
            local = copy / f"c{number}" / path
            local.parent.mkdir(parents=True, exist_ok=True)
            local.write_bytes(bytes_of(1 + number * 3000))
            service.plant(container_id, f"/mnt/data/{path}", local.read_bytes())
    with Proxy(service) as proxy:
        proxy.delay(ROUND_TRIP_S / 2)
        mount = make_mount(proxy, options=ONE_MOMENT)
        yield Tree(service, mount, copy)
        mount.stop()


def test_grep_of_everything_asks_for_each_file_once(tree: Tree) -> None:
    matches = subprocess.run(
        ["grep", "-rc", "no such word", tree.mount.point],
        check=False,
        capture_output=True,
        timeout=60,
    ).stdout.splitlines()

    assert len(matches) == FILES
    assert tree.requests() == {"list_files": CONTAINERS, "file_content": FILES}


@pytest.mark.parametrize("program", ["cp", "tar", "rsync"])
def test_a_copy_of_everything_has_its_bytes_and_asks_for_each_file_once(
    tree: Tree, tmp_path: Path, program: str
) -> None:
    need(program)
    out = tmp_path / "out"
    out.mkdir()
    commands = {
        "cp": f"cp -r {tree.mount.point}/. {out}",
        "tar": f"tar cf - -C {tree.mount.point} . | tar xf - -C {out}",
        "rsync": f"rsync -r {tree.mount.point}/ {out}",
    }
    run("sh", "-c", commands[program], cwd=Path("/"))

    assert run("diff", "-r", tree.copy, out, cwd=Path("/")) == ""
    assert tree.requests() == {"list_files": CONTAINERS, "file_content": FILES}


@pytest.mark.parametrize("command", [("ls", "-lR"), ("find",), ("du", "-a")])
def test_looking_at_names_and_lengths_fetches_no_bytes(
    tree: Tree, command: tuple[str, ...]
) -> None:
    run(*command, tree.mount.point, cwd=Path("/"))
    pause(5 * ROUND_TRIP_S)

    assert tree.requests() == {"list_files": CONTAINERS}


def test_one_container_and_one_file_cost_one_request_each(tree: Tree) -> None:
    run("ls", tree.mount.point, cwd=Path("/"))
    assert run("ls", tree.mount.point / "c1", cwd=Path("/"))
    assert (tree.mount.point / "c1/3.txt").read_bytes() == (tree.copy / "c1/3.txt").read_bytes()
    pause(5 * ROUND_TRIP_S)

    assert tree.requests() == {"list_files": 1, "file_content": 1}


def test_a_walk_that_is_broken_off_has_asked_for_few_files_more(tree: Tree) -> None:
    paths = sorted((tree.mount.point / "c0").glob("*.txt"))[:3]
    for path in paths:
        path.read_bytes()
    pause(5 * ROUND_TRIP_S)

    assert 3 < tree.requests()["file_content"] <= 3 + 6


def test_an_unmount_in_the_middle_of_a_walk_is_at_once(tree: Tree) -> None:
    paths = sorted((tree.mount.point / "c0").glob("*.txt"))[:3]
    for path in paths:
        path.read_bytes()
    tree.mount.restart()

    assert "rror" not in tree.mount.log_text()
