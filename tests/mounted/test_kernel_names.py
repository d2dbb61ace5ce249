"""Names and attributes that the kernel keeps: it asks once, and is told of each change noticed."""

from __future__ import annotations

import os
import random
import re
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import pytest
from tests.scenarios.programs import run
from tests.support.mounting import MakeMount, Mount, pause
from tests.support.service import ServiceProcess

pytestmark = pytest.mark.mounted

# Nothing is asked again by age: what changes in view, the kernel was told of.
FOR_LONG: Final = ("ttl=300", "max_stale=300")
SOON_S: Final = 5.0
FILES: Final = 300
TRIALS: Final = 4
ROUNDS: Final = 25
# A file's name, a folder's, and names that change between the two.
PATHS: Final = ("a", "b", "x", "x/a", "x/y/b", "z/only")
_REQUEST: Final = re.compile(r" DEBUG ctrfs\.\S+: (\w+) (\S+)")


class Upcalls:
    """The requests that the kernel has sent a mount with ``-o debug``."""

    def __init__(self, mount: Mount) -> None:
        self._mount = mount
        self._seen = len(mount.log_text())

    def new(self) -> list[str]:
        """Return the names of those since the last call, in order."""
        text = self._mount.log_text()
        news, self._seen = text[self._seen :], len(text)
        found: list[str] = [operation for operation, _ in _REQUEST.findall(news)]
        return found


def fewest(mount: Mount, act: Callable[[], object], operation: str) -> int:
    """Return how many requests of a kind an act costs that was done before.

    The best of some trials: a machine that is short of memory forgets names at any moment.
    """
    counts: list[int] = []
    for _ in range(TRIALS):
        upcalls = Upcalls(mount)
        act()
        counts.append(sum(re.fullmatch(operation, each) is not None for each in upcalls.new()))
    return min(counts)


def test_ls_of_many_files_asks_for_names_and_attributes_together(
    service: ServiceProcess, make_mount: MakeMount
) -> None:
    container = service.create_container("work")
    for number in range(FILES):
        service.plant(container, f"/mnt/data/{number}")
    mount = make_mount(service, options=[*FOR_LONG, "debug"])

    def ls() -> None:
        assert len(run("ls", "-l", "work", cwd=mount.point).splitlines()) == FILES + 1

    ls()

    assert fewest(mount, ls, "readdir") <= 3
    assert fewest(mount, ls, ".*") <= 20  # labels and lists of the first file only, no lookup


def test_what_the_kernel_has_seen_it_does_not_ask_for_again(
    service: ServiceProcess, make_mount: MakeMount
) -> None:
    container = service.create_container("work")
    service.plant(container, "/mnt/data/a", b"1")
    mount = make_mount(service, options=[*FOR_LONG, "debug"])
    folder = mount.point / "work"
    assert (folder / "a").stat().st_size == 1
    assert not (folder / "none").exists()
    service.reset_counters()

    def look() -> None:
        for _ in range(100):
            assert (folder / "a").stat().st_size == 1
            assert not (folder / "none").exists()

    assert fewest(mount, look, ".*") == 0
    assert not any(service.counters().values())


def test_a_missing_header_is_looked_for_once(
    service: ServiceProcess, make_mount: MakeMount, tmp_path: Path
) -> None:
    service.create_container("work")
    mount = make_mount(service, options=[*FOR_LONG, "debug"])
    source = tmp_path / "a.c"
    source.write_text("#include <stdio.h>\n")

    def compile_it() -> None:
        run("gcc", "-I", mount.point / "work", "-E", source, cwd=tmp_path)

    compile_it()

    assert fewest(mount, compile_it, "lookup") == 0


def shown(point: Path) -> dict[str, int | None]:
    """Return what a walk finds: the length of each file, None for a directory."""
    found: dict[str, int | None] = {}
    for folder, folders, files in os.walk(point):
        place = Path(folder).relative_to(point)
        found |= {str(place / name): None for name in folders}
        found |= {str(place / name): Path(folder, name).stat().st_size for name in files}
    return found


def looked_up(point: Path, paths: set[str]) -> dict[str, int | None]:
    """Return the same, asked for name by name; what is missing is left out."""
    found: dict[str, int | None] = {}
    for path in paths:
        with suppress(FileNotFoundError, NotADirectoryError):
            facts = (point / path).lstat()
            is_directory = (point / path).is_dir()
            found[path] = None if is_directory else facts.st_size
    return found


class Truth:
    """What the service has, changed at random beside the mount."""

    def __init__(self, service: ServiceProcess, seed: int) -> None:
        self._service = service
        self._random = random.Random(seed)  # noqa: S311
        self._containers: dict[str, str] = {}
        self._files: dict[tuple[str, str], tuple[str, int]] = {}

    def change(self) -> None:
        """Create, replace or delete a file, or a container."""
        name = self._random.choice(["one", "two"])
        path = self._random.choice(PATHS)
        if name not in self._containers:
            self._containers[name] = self._service.create_container(name)
        elif self._random.random() < 0.1:
            self._service.delete_container(self._containers.pop(name))
            self._files = {key: file for key, file in self._files.items() if key[0] != name}
        elif (name, path) in self._files and self._random.random() < 0.5:
            file_id, _ = self._files.pop((name, path))
            self._service.delete_file(self._containers[name], file_id)
        else:
            self._put(name, path)

    def _put(self, name: str, path: str) -> None:
        for other in [other for owner, other in self._files if owner == name]:
            # A file and a folder of one name would both show, one under another name.
            if other == path or other.startswith(f"{path}/") or path.startswith(f"{other}/"):
                file_id, _ = self._files.pop((name, other))
                self._service.delete_file(self._containers[name], file_id)
        size = self._random.randrange(1, 100)
        planted = self._service.plant(self._containers[name], f"/mnt/data/{path}", b"x" * size)
        self._files[name, path] = planted, size

    def expected(self) -> dict[str, int | None]:
        found: dict[str, int | None] = dict.fromkeys(self._containers)
        for (name, path), (_, size) in self._files.items():
            place = Path(name, path)
            found |= {str(above): None for above in place.parents if str(above) != "."}
            found[str(place)] = size
        return found


@pytest.mark.parametrize("seed", [1, 2])
def test_after_a_refresh_every_name_shows_what_the_service_has(
    service: ServiceProcess, make_mount: MakeMount, seed: int
) -> None:
    """Promise 8: whatever the kernel had kept of it, found or missing."""
    mount = make_mount(service, options=FOR_LONG)
    truth = Truth(service, seed)
    names = ("one", "two")
    paths = {*names} | {f"{name}/{path}" for name in names for path in (*PATHS, "x/y", "z")}

    for _ in range(ROUNDS):
        for _ in range(3):
            truth.change()
        os.setxattr(mount.point, "user.ctrfs.refresh", b"1")
        expected = truth.expected()
        deadline = time.monotonic() + SOON_S
        while looked_up(mount.point, paths) != expected and time.monotonic() < deadline:
            pause(0.01)  # the kernel is told by a thread that nobody waits for
        assert looked_up(mount.point, paths) == expected
        assert shown(mount.point) == expected
