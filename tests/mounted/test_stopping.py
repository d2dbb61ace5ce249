"""The end of a mount while the service does not answer: nothing is lost, nothing hangs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
from tests.support.mounting import MakeMount, pause
from tests.support.service import ServiceProcess

pytestmark = pytest.mark.mounted


def test_bytes_that_cannot_be_sent_before_the_deadline_outlive_the_mount(
    service: ServiceProcess, make_mount: MakeMount
) -> None:
    mount = make_mount(service, options=("drain_timeout=1",))
    (mount.point / "work").mkdir()
    service.add_fault("create_file", "stall")
    with subprocess.Popen(
        ["dd", f"of={mount.point}/work/a.txt", "status=none"], stdin=subprocess.PIPE
    ) as writer:
        assert writer.stdin is not None
        writer.stdin.write(b"precious")
        writer.stdin.close()
        pause(1)
        daemon = mount.pid

        os.kill(daemon, signal.SIGTERM)

        assert writer.wait(20) != 0
    mount.abandon()
    service.clear_faults()
    mount.start()
    (line,) = (mount.point / ".ctrfs" / "pending").read_text().splitlines()
    row = json.loads(line)
    assert (row["container"], row["path"], row["bytes"]) == ("work", "a.txt", 8)
    assert Path(row["local"]).read_bytes() == b"precious"
    mount.stop(may_leave_bytes=True)


def test_a_signal_while_the_last_bytes_are_being_sent_does_not_cut_them_off(
    service: ServiceProcess, make_mount: MakeMount
) -> None:
    mount = make_mount(service, options=("drain_timeout=15",))
    (mount.point / "work").mkdir()
    service.add_fault("create_file", "status", status=400, count=1)
    with pytest.raises(OSError, match="Invalid argument"):
        (mount.point / "work" / "a.txt").write_bytes(b"precious")
    service.add_fault("create_file", "delay", seconds=3)
    daemon = mount.pid
    subprocess.run(["umount", mount.point], check=True, timeout=20)
    pause(1)

    os.kill(daemon, signal.SIGTERM)
    mount.stop()

    (row,) = service.files(str(service.containers()[0]["id"]))
    assert str(row["path"]).endswith("-a.txt")
