"""What ``ctrfs mount`` loads: times are noisy, the list of modules is not."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest
from tests.support.mounting import Mount
from tests.support.service import ServiceProcess

pytestmark = pytest.mark.mounted

# A line of ``python -X importtime``.
_IMPORTED: Final = re.compile(r"^import time: +\d+ \| +\d+ \| +([\w.]+)$", re.MULTILINE)
# What nothing on the way to the first ``ls`` needs, and costs more than 5 ms.
NOT_NEEDED: Final = ("rich", "pygments", "ctrfs.server", "asyncio", "multiprocessing", "unittest")
# What there was when this was written, and some room: each takes a third of a millisecond.
MODULES_MAX: Final = 600


def imported_modules(log: str) -> list[str]:
    return _IMPORTED.findall(log)


def test_a_mount_loads_only_what_it_needs(service: ServiceProcess, tmp_path: Path) -> None:
    mount = Mount(tmp_path, service=service, environment={"PYTHONPROFILEIMPORTTIME": "1"})
    with mount:
        list(mount.point.iterdir())
        modules = imported_modules(mount.log_text().partition("mounted at")[0])

    assert "ctrfs.fuse.session" in modules
    unneeded = [
        module
        for module in modules
        if any(module == name or module.startswith(f"{name}.") for name in NOT_NEEDED)
    ]
    assert unneeded == []
    assert len(modules) <= MODULES_MAX


def test_the_command_that_waits_for_the_daemon_loads_no_libraries_of_it(
    service: ServiceProcess, tmp_path: Path
) -> None:
    mount = Mount(tmp_path, service=service, environment={"PYTHONPROFILEIMPORTTIME": "1"})

    refused = mount.run("mount", "openai:", tmp_path / "nowhere")

    assert refused.returncode == 32
    modules = set(imported_modules(refused.stderr))
    assert "ctrfs.mount.plan" in modules
    # msgspec is not among them: the settings and the plan are records, too.
    assert not {"trio", "httpx", "pyfuse3", "sqlite3", "rich"} & modules
