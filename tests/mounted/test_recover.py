"""Bytes that could not be sent: what ``status`` says of them, and what ``recover`` does."""

from __future__ import annotations

import json
import os
import signal
import stat
from pathlib import Path

import pytest
from tests.support.mounting import EXIT_UNSENT, MakeMount, Mount, fuse_mounts
from tests.support.service import ServiceProcess
from tests.support.trees import contents, stored

pytestmark = pytest.mark.mounted


def leave_unsent(service: ServiceProcess, mount: Mount, **files: bytes) -> None:
    """Save files in the container ``work`` while the service refuses them."""
    (mount.point / "work").mkdir(exist_ok=True)
    service.add_fault("create_file", "status", status=400)
    for name, content in files.items():
        with pytest.raises(OSError, match="Invalid argument"):
            (mount.point / "work" / name).write_bytes(content)


def status_of(mount: Mount, *place: str | Path) -> dict[str, list[dict[str, object]]]:
    ended = mount.run("status", *place, "--json")
    assert ended.returncode == 0, ended.stderr
    found: dict[str, list[dict[str, object]]] = json.loads(ended.stdout)
    return found


def unsent_rows(mount: Mount) -> list[dict[str, object]]:
    """Return what ``status`` lists as unsent, of all sources."""
    rows: list[dict[str, object]] = []
    for source in status_of(mount)["sources"]:
        assert isinstance(source["unsent"], list)
        rows += source["unsent"]
    return rows


def test_status_of_a_live_mount_names_what_is_unsent_and_why(
    service: ServiceProcess, make_mount: MakeMount
) -> None:
    mount = make_mount(service)
    leave_unsent(service, mount, report=b"precious")

    found = status_of(mount, mount.point)
    table = mount.run("status")

    (known,) = found["mounts"]
    assert (known["mountpoint"], known["source"]) == (str(mount.point), "openai:")
    assert (known["state"], known["pid"]) == ("mounted", mount.pid)
    (source,) = found["sources"]
    assert (source["source"], source["mountpoint"]) == ("openai:", str(mount.point))
    (row,) = unsent_rows(mount)
    assert (row["container"], row["path"], row["bytes"]) == ("work", "report", 8)
    assert row["error"]
    assert Path(str(row["local"])).read_bytes() == b"precious"
    for words in (str(mount.point), "mounted", "work", "report", "8 B", str(row["id"])):
        assert words in table.stdout


def test_status_changes_nothing_on_the_disk(service: ServiceProcess, make_mount: MakeMount) -> None:
    mount = make_mount(service)
    leave_unsent(service, mount, report=b"precious")
    mount.stop(may_leave_bytes=True)
    before = sorted((mount.home / "state").rglob("*"))

    assert len(unsent_rows(mount)) == 1
    assert sorted((mount.home / "state").rglob("*")) == before


def test_status_answers_while_the_daemon_hangs(
    service: ServiceProcess, make_mount: MakeMount
) -> None:
    mount = make_mount(service)
    leave_unsent(service, mount, report=b"precious")
    os.kill(mount.pid, signal.SIGSTOP)
    try:
        ended = mount.run("status", mount.point, timeout_s=15)
    finally:
        os.kill(mount.pid, signal.SIGCONT)

    assert ended.returncode == 0
    assert "report" in ended.stdout


def test_status_of_an_unmounted_source_still_names_it(
    service: ServiceProcess, make_mount: MakeMount
) -> None:
    mount = make_mount(service)
    leave_unsent(service, mount, report=b"precious")
    mount.stop(may_leave_bytes=True)

    found = status_of(mount, "openai:")

    assert found["mounts"] == []
    (source,) = found["sources"]
    assert (source["source"], source["mountpoint"]) == ("openai:", None)
    assert mount.run("status", "local:").returncode == 1
    assert "nothing is mounted" in mount.run("status").stdout


def test_status_with_nothing_to_tell_says_so(
    service: ServiceProcess, make_mount: MakeMount
) -> None:
    mount = make_mount(service)

    ended = mount.run("status")

    assert (ended.returncode, ended.stderr) == (0, "")
    assert str(mount.point) in ended.stdout
    assert ended.stdout.endswith("nothing is unsent\n")


def test_umount_names_some_of_the_unsent_files_and_what_to_do(
    service: ServiceProcess, make_mount: MakeMount
) -> None:
    mount = make_mount(service)
    leave_unsent(service, mount, **{f"file{number}": b"x" for number in range(7)})

    ended = mount.run("umount", mount.point)

    assert ended.returncode == EXIT_UNSENT
    (line,) = ended.stderr.splitlines()
    assert line.startswith("ctrfs: 7 file(s) are not sent: work/file0, work/file1, ")
    assert "2 more" in line
    assert "mount openai: again" in line
    assert "ctrfs status" in line
    assert "ctrfs recover" in line


def test_umount_of_a_dead_mount_tells_what_its_daemon_has_left(
    service: ServiceProcess, make_mount: MakeMount
) -> None:
    mount = make_mount(service)
    leave_unsent(service, mount, report=b"precious")
    mount.kill()
    assert status_of(mount)["mounts"][0]["state"] == "dead"

    ended = mount.run("umount", mount.point)

    assert ended.returncode == EXIT_UNSENT
    assert "work/report" in ended.stderr
    assert mount.point not in fuse_mounts()


def test_the_list_of_what_can_be_recovered_begins_with_its_heading(
    service: ServiceProcess, make_mount: MakeMount
) -> None:
    mount = make_mount(service)
    leave_unsent(service, mount, report=b"precious")

    listed = mount.run("recover").stdout
    shown = mount.run("status").stdout

    assert listed.startswith("1 file(s) not sent to openai: (mounted at ")
    assert "\n\n1 file(s) not sent to openai: (mounted at " in shown


def test_recover_copies_a_live_mounts_files_with_their_modes_and_times(
    service: ServiceProcess, make_mount: MakeMount, tmp_path: Path
) -> None:
    mount = make_mount(service)
    leave_unsent(service, mount, report=b"precious", script=b"#!/bin/sh\n")
    script = mount.point / "work" / "script"
    script.chmod(0o750)
    with pytest.raises(OSError, match="Invalid argument"):
        script.write_bytes(b"#!/bin/sh\n: again\n")
    os.utime(script, ns=(0, 1_234_567_890_123_456_789))

    ended = mount.run("recover", mount.point, "--to", tmp_path / "rescued")

    assert (ended.returncode, ended.stderr) == (0, "")
    assert contents(tmp_path / "rescued") == {
        "work/report": b"precious",
        "work/script": b"#!/bin/sh\n: again\n",
    }
    copied = (tmp_path / "rescued/work/script").stat()
    assert stat.S_IMODE(copied.st_mode) == 0o750
    assert len(unsent_rows(mount)) == 2, "copying forgets nothing"


def test_recover_overwrites_nothing_and_copies_nothing_twice(
    service: ServiceProcess, make_mount: MakeMount, tmp_path: Path
) -> None:
    mount = make_mount(service)
    leave_unsent(service, mount, **{"report.csv": b"precious"})
    mount.stop(may_leave_bytes=True)
    (tmp_path / "out/work").mkdir(parents=True)
    (tmp_path / "out/work/report.csv").write_bytes(b"another")

    for _ in range(2):
        ended = mount.run("recover", "--to", tmp_path / "out")

        assert ended.returncode == 0, ended.stderr
        assert ended.stdout == f"{tmp_path}/out/work/report-1.csv\n"
        assert contents(tmp_path / "out") == {
            "work/report.csv": b"another",
            "work/report-1.csv": b"precious",
        }


def test_recover_tells_of_damaged_bytes_and_copies_them_all_the_same(
    service: ServiceProcess, make_mount: MakeMount, tmp_path: Path
) -> None:
    mount = make_mount(service)
    leave_unsent(service, mount, report=b"precious", other=b"fine")
    mount.stop(may_leave_bytes=True)
    (local,) = [str(row["local"]) for row in unsent_rows(mount) if row["path"] == "report"]
    Path(local).write_bytes(b"previous")

    ended = mount.run("recover", "--to", tmp_path / "out")

    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert "work/report: its bytes are not those that were saved" in line
    assert contents(tmp_path / "out") == {
        "work/report.damaged": b"previous",
        "work/other": b"fine",
    }


def test_recover_goes_on_after_a_file_that_it_cannot_copy(
    service: ServiceProcess, make_mount: MakeMount, tmp_path: Path
) -> None:
    mount = make_mount(service)
    leave_unsent(service, mount, a=b"lost", b=b"kept")
    mount.stop(may_leave_bytes=True)
    Path(str(unsent_rows(mount)[0]["local"])).unlink()

    ended = mount.run("recover", "--to", tmp_path / "out")

    assert ended.returncode == 1
    assert "work/a" in ended.stderr
    assert contents(tmp_path / "out") == {"work/b": b"kept"}


def test_the_state_itself_says_which_source_it_belongs_to(
    service: ServiceProcess, make_mount: MakeMount
) -> None:
    mount = make_mount(service)
    leave_unsent(service, mount, report=b"precious")
    mount.stop(may_leave_bytes=True)
    for record in (mount.home / "state/ctrfs/mounts").glob("*.json"):
        record.unlink()

    assert status_of(mount, "openai:")["sources"][0]["source"] == "openai:"


def test_recover_sends_to_another_container_and_settles_what_has_arrived(
    service: ServiceProcess, make_mount: MakeMount
) -> None:
    mount = make_mount(service)
    (mount.point / "work/plots").mkdir(parents=True)
    leave_unsent(service, mount, **{"plots/a.png": b"a", "b.txt": b"b", "damaged": b"good"})
    mount.stop(may_leave_bytes=True)
    service.clear_faults()
    (local,) = [str(row["local"]) for row in unsent_rows(mount) if row["path"] == "damaged"]
    Path(local).write_bytes(b"evil")
    service.create_container("rescue")

    ended = mount.run("recover", "openai:", "--send", "rescue")

    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert line.startswith("ctrfs: work/damaged: its bytes are not those that were saved")
    assert sorted(ended.stdout.splitlines()) == ["work/b.txt", "work/plots/a.png"]
    assert stored(service, "rescue") == {"plots/a.png": b"a", "b.txt": b"b"}
    assert [row["path"] for row in unsent_rows(mount)] == ["damaged"]
    assert len(list((mount.home / "state").rglob("spool/*"))) == 1


def test_the_bytes_of_a_container_that_is_gone_stay_and_can_be_sent_elsewhere(
    service: ServiceProcess, make_mount: MakeMount, tmp_path: Path
) -> None:
    mount = make_mount(service)
    leave_unsent(service, mount, report=b"precious")
    service.clear_faults()
    service.advance(21 * 60)
    mount.stop(may_leave_bytes=True)
    mount.start()
    assert contents(mount.point) == {}
    assert [row["path"] for row in unsent_rows(mount)] == ["report"]
    copied = mount.run("recover", mount.point, "--to", tmp_path / "out")
    mount.stop(may_leave_bytes=True)
    service.create_container("rescue")

    sent = mount.run("recover", "--send", "rescue")

    assert (copied.returncode, sent.returncode) == (0, 0), sent.stderr
    assert contents(tmp_path / "out") == {"work/report": b"precious"}
    assert stored(service, "rescue") == {"report": b"precious"}
    assert unsent_rows(mount) == []


def test_recover_to_the_files_own_container_replaces_the_old_version(
    service: ServiceProcess, make_mount: MakeMount
) -> None:
    mount = make_mount(service)
    (mount.point / "work").mkdir()
    (mount.point / "work/report").write_bytes(b"old")
    leave_unsent(service, mount, report=b"new")
    mount.stop(may_leave_bytes=True)
    service.clear_faults()

    ended = mount.run("recover", "--send", "work")

    assert (ended.returncode, ended.stderr) == (0, "")
    mount.start()
    assert contents(mount.point) == {"work/report": b"new"}
    mount.stop()
    assert stored(service, "work") == {"report": b"new"}


def test_recover_sends_nothing_while_the_source_is_mounted(
    service: ServiceProcess, make_mount: MakeMount
) -> None:
    mount = make_mount(service)
    leave_unsent(service, mount, report=b"precious")

    ended = mount.run("recover", "--send", "work")

    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert f"is mounted at {mount.point}" in line
    assert "unmount first" in line


def test_recover_sends_nothing_to_another_server(
    service: ServiceProcess, make_mount: MakeMount
) -> None:
    mount = make_mount(service)
    leave_unsent(service, mount, report=b"precious")
    mount.stop(may_leave_bytes=True)
    service.clear_faults()
    mount.environment["OPENAI_PROJECT_ID"] = "proj_other"

    ended = mount.run("recover", "--send", "work")

    assert ended.returncode == 1
    assert "another server, organization or project" in ended.stderr
    assert stored(service, "work") == {}


def test_recover_forgets_what_it_is_told_to(service: ServiceProcess, make_mount: MakeMount) -> None:
    mount = make_mount(service)
    leave_unsent(service, mount, a=b"a", b=b"b")
    mount.stop(may_leave_bytes=True)
    rows = {row["path"]: row for row in unsent_rows(mount)}

    unsure = mount.run("recover", "--discard", str(rows["a"]["id"]))
    unknown = mount.run("recover", "--discard", "nothing", "--yes")
    ended = mount.run("recover", "--discard", str(rows["a"]["id"]), "--yes")

    assert (unsure.returncode, unknown.returncode) == (1, 1)
    assert "needs --yes" in unsure.stderr
    assert "no unsent file has the id nothing" in unknown.stderr
    assert (ended.returncode, ended.stdout) == (0, "forgotten: work/a\n")
    assert [row["path"] for row in unsent_rows(mount)] == ["b"]
    assert not Path(str(rows["a"]["local"])).exists()
    assert Path(str(rows["b"]["local"])).read_bytes() == b"b"


def test_recover_has_a_live_mount_forget(service: ServiceProcess, make_mount: MakeMount) -> None:
    mount = make_mount(service)
    (mount.point / "work").mkdir()
    (mount.point / "work/report").write_bytes(b"old")
    leave_unsent(service, mount, report=b"new", other=b"x")

    ended = mount.run("recover", mount.point, "--discard", "all", "--yes")

    assert (ended.returncode, ended.stderr) == (0, "")
    assert unsent_rows(mount) == []
    assert contents(mount.point) == {"work/report": b"old"}
    service.clear_faults()
    mount.stop()
    assert stored(service, "work") == {"report": b"old"}


def test_one_action_at_a_time(service: ServiceProcess, make_mount: MakeMount) -> None:
    mount = make_mount(service)

    ended = mount.run("recover", "--list", "--to", mount.home)

    assert ended.returncode == 1
    assert "at a time" in ended.stderr
