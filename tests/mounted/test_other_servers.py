"""One working day on every kind of server that docs/api-notes.md leaves open.

Whatever a server does with slashes, prefixes, duplicates, ids and lags, programs must see a
file system: what they wrote is there, what they removed is gone, now and after a remount.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.mounting import MakeMount, pause
from tests.support.service import ServiceProcess
from tests.support.trees import contents

pytestmark = [pytest.mark.mounted, pytest.mark.timeout(120)]

LAG_S = 1.5
SERVERS = {
    "slashes kept": ("--slashes=keep",),
    "slashes kept, prefix first": ("--slashes=prefix-first",),
    "slashes cut": ("--slashes=base",),
    "no prefix": ("--no-hash-prefix",),
    "no prefix, slashes cut": ("--no-hash-prefix", "--slashes=base"),
    "same bytes are the same file": ("--duplicates=same",),
    "no prefix, same bytes are the same file": ("--no-hash-prefix", "--duplicates=same"),
    "opaque ids": ("--ids=opaque",),
    "ids made of paths": ("--ids=path",),
    "ids made of paths, same bytes are the same file": ("--ids=path", "--duplicates=same"),
    "empty pages": ("--empty-pages",),
    "lengths are null": ("--null-bytes",),
    "rubbish rows": ("--rubbish",),
    "ranges": ("--ranges",),
    "listings lag": (f"--list-lag={LAG_S}", f"--delete-lag={LAG_S}"),
    "containers are not ready at once": ("--ready-delay=2",),
}


@pytest.fixture(params=list(SERVERS.values()), ids=list(SERVERS))
def odd_service(request: pytest.FixtureRequest) -> Iterator[ServiceProcess]:
    with ServiceProcess(*request.param) as started:
        yield started


def seen(place: Path) -> dict[str, bytes]:
    """Return what is in ``place``, less what a server without prefixes leaves of old versions.

    Two rows of one stored path may be the same file, so an overwrite deletes neither of them
    (promise 12a); the older shows with the start of its id.
    """
    return {name: data for name, data in contents(place).items() if "~cfile_" not in name}


def make_source(place: Path) -> None:
    (place / "pkg" / "inner").mkdir(parents=True)
    (place / "pkg" / "module.py").write_text("print('one')\n")
    (place / "pkg" / "inner" / "module.py").write_text("print('two')\n")
    (place / "pkg" / "inner" / "same.bin").write_bytes(b"\0\1\2" * 5000)
    (place / "same.bin").write_bytes(b"\0\1\2" * 5000)
    (place / "empty").touch()
    (place / "über uns.txt").write_text("ä\n")


def test_a_tree_survives_copying_editing_and_a_remount(
    odd_service: ServiceProcess, make_mount: MakeMount, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    make_source(source)
    mount = make_mount(odd_service, options=("ttl=0.5", "max_stale=2"))
    work = mount.point / "work"

    work.mkdir()
    subprocess.run(["cp", "-a", source, work / "tree"], check=True)
    assert seen(work / "tree") == contents(source)

    for place in (source, work / "tree"):
        (place / "pkg" / "module.py").write_text("print('changed')\n")
        with (place / "same.bin").open("ab") as file:
            file.write(b"more")
        (place / "pkg" / "inner" / "module.py").replace(place / "pkg" / "moved.py")
        (place / "empty").replace(place / "über uns.txt")
        (place / "pkg" / "inner").rename(place / "outer")
        (place / "new.txt").write_text("first")
        (place / "new.txt").unlink()
        (place / "new.txt").write_text("first")
    assert seen(work / "tree") == contents(source)
    subprocess.run(["setfattr", "-n", "user.ctrfs.refresh", "-v", "1", work], check=True)
    assert seen(work / "tree") == contents(source)

    pause(LAG_S)  # a mount that begins knows nothing of what the one before has done
    mount.restart()
    assert seen(work / "tree") == contents(source)

    shutil.rmtree(work / "tree")
    assert not (work / "tree").exists()
    subprocess.run(["rm", "-r", work], check=True)
    assert not work.exists()
