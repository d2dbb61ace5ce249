from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from tests.support.service import ServiceProcess

from ctrfs.cli.main import cli

COMMANDS = [
    "mount",
    "umount",
    "ls",
    "create",
    "add",
    "status",
    "recover",
    "cache",
    "refresh",
    "keepalive",
    "doctor",
    "serve",
    "install-helpers",
]
# Loading one of these costs more than a small command takes. Not so msgspec, with 7 ms: a small
# command starts sooner with it than it would with dataclasses.
HEAVY = {"httpx", "rich", "pyfuse3", "sqlite3"}


def run(
    *arguments: str | Path, home: Path, variables: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    kept = {name: text for name, text in os.environ.items() if not name.startswith("OPENAI_")}
    homes = {f"XDG_{kind}_HOME": str(home / kind.lower()) for kind in ("STATE", "DATA")}
    return subprocess.run(
        [sys.executable, "-m", "ctrfs", *arguments],
        env=kept | homes | (variables or {}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def is_refused(ended: subprocess.CompletedProcess[str], words: str, *, exit_code: int = 1) -> None:
    assert ended.returncode == exit_code, ended.stderr
    assert ended.stdout == ""
    assert ended.stderr.startswith("ctrfs: ")
    assert words in ended.stderr
    assert len(ended.stderr.splitlines()) == 1, ended.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    result = CliRunner().invoke(cli, [command, "--help"])

    assert result.exit_code == 0, result.output
    assert result.output.startswith("Usage: ")


@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "serve"])
def test_the_help_of_a_command_shows_examples(command: str) -> None:
    assert f"ctrfs {command} " in CliRunner().invoke(cli, [command, "--help"]).output


def test_the_program_alone_shows_what_it_can_do() -> None:
    result = CliRunner().invoke(cli, [])

    assert result.exit_code == 0
    assert all(f"\n  {command}" in result.output for command in COMMANDS)


def test_the_version_is_one_line(tmp_path: Path) -> None:
    ended = run("--version", home=tmp_path)

    assert ended.returncode == 0
    assert ended.stdout.startswith("ctrfs ")


def test_a_small_command_loads_no_heavy_library(tmp_path: Path) -> None:
    program = (
        "import sys\nfrom ctrfs.cli.main import main\n"
        "try: main(['umount', '/'])\nexcept SystemExit: pass\nprint(' '.join(sys.modules))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True
    )

    assert not HEAVY & set(ended.stdout.split())


def test_a_shell_can_complete_the_commands(tmp_path: Path) -> None:
    ended = run(
        home=tmp_path,
        variables={
            "_CTRFS_COMPLETE": "bash_complete",
            "COMP_WORDS": "ctrfs um",
            "COMP_CWORD": "1",
        },
    )

    assert "umount" in ended.stdout


def test_wrong_use_is_one_line_and_exit_code_1(tmp_path: Path) -> None:
    is_refused(run("wibble", home=tmp_path), "wibble")
    is_refused(run("mount", "openai:", home=tmp_path), "MOUNTPOINT")
    is_refused(run("umount", "--timeout", "soon", tmp_path, home=tmp_path), "soon")


def test_a_mistyped_command_is_answered_with_the_nearest_one(tmp_path: Path) -> None:
    is_refused(run("mout", home=tmp_path), "No such command 'mout'; did you mean mount?")
    is_refused(run("wibble", home=tmp_path), "No such command 'wibble'; see ctrfs --help")


def test_a_missing_key_names_the_variable(tmp_path: Path) -> None:
    for words in (["ls"], ["create", "x"], ["mount", "openai:", str(tmp_path)]):
        is_refused(run(*words, home=tmp_path), "OPENAI_API_KEY")


def test_a_missing_key_for_another_server_names_that_server(tmp_path: Path) -> None:
    elsewhere = {"OPENAI_BASE_URL": "https://example.org/v1"}

    is_refused(run("ls", home=tmp_path, variables=elsewhere), "no API key for https://example.org")


def test_a_mount_that_cannot_be_made_exits_with_32(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    key = {"OPENAI_API_KEY": "sk-1"}

    missing = run("mount", "openai:", tmp_path / "none", home=tmp_path, variables=key)
    full = run("mount", "openai:", tmp_path / "full", home=tmp_path, variables=key)
    nowhere = run("umount", tmp_path / "full", home=tmp_path)

    is_refused(missing, "no such directory", exit_code=32)
    is_refused(full, "not empty", exit_code=32)
    is_refused(nowhere, "is not mounted", exit_code=32)


def test_a_service_out_of_reach_is_named(tmp_path: Path) -> None:
    ended = run(
        "ls",
        home=tmp_path,
        variables={"OPENAI_API_KEY": "sk-1", "OPENAI_BASE_URL": "http://127.0.0.1:9/v1"},
    )

    is_refused(ended, "cannot reach http://127.0.0.1:9/v1")


def test_files_go_to_the_local_service_and_are_listed(tmp_path: Path) -> None:
    source = ["--source", f"local:{tmp_path / 'data'}"]
    folder = tmp_path / "folder"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep/b.txt").write_bytes(b"bb")
    (folder / "a.txt").write_bytes(b"")
    created = run("create", "box", "--memory", "4g", *source, home=tmp_path)
    assert created.stdout.startswith("cntr_"), created.stderr

    added = run("add", folder, folder / "a.txt", "box", *source, home=tmp_path)
    assert added.returncode == 0, added.stderr

    listed = run("ls", "box", "--json", *source, home=tmp_path)
    paths = [row["path"] for row in json.loads(listed.stdout)]
    names = sorted(path.rsplit("/", 1)[1][33:] for path in paths)
    assert names == ["a.txt", "a.txt", "b.txt"]
    assert sum("folder/deep/" in path for path in paths) == 1
    assert (
        json.loads(run("ls", source[1], "--json", home=tmp_path).stdout)[0]["memory_limit"] == "4g"
    )


def test_what_cannot_be_added_or_created_says_why(tmp_path: Path) -> None:
    source = ["--source", f"local:{tmp_path / 'data'}"]

    is_refused(run("add", tmp_path / "none", "box", *source, home=tmp_path), "no such file")
    is_refused(run("add", "box", *source, home=tmp_path), "nothing to add")
    is_refused(run("create", "box", "--memory", "lots", *source, home=tmp_path), "must be 1g")
    is_refused(run("create", "box", "--memory", "2g", *source, home=tmp_path), "must be 1g")
    is_refused(run("create", "", *source, home=tmp_path), "needs a name")
    is_refused(run("create", "x", "--source", "openai:y", home=tmp_path), "names a container")
    is_refused(run("ls", "box", *source, home=tmp_path), "no local service has its data")


@pytest.mark.parametrize(
    "words",
    [
        ("ls", "local:{place}"),
        ("ls", "box", "--source", "local:{place}"),
        ("doctor", "local:{place}"),
        ("keepalive", "box", "--source", "local:{place}", "--for", "1"),
    ],
)
def test_a_name_taken_for_a_directory_makes_none(tmp_path: Path, words: tuple[str, ...]) -> None:
    place = tmp_path / "analysis"

    ended = run(*(word.format(place=place) for word in words), home=tmp_path)

    assert f"no local service has its data in {place}" in ended.stdout + ended.stderr
    assert ended.returncode == 1
    assert not place.exists()


def test_a_destination_that_names_no_container_is_shown_how(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    ended = run("add", tmp_path / "file", "local:box", home=tmp_path)

    is_refused(ended, "write openai:CONTAINER, or CONTAINER --source local:box")


def test_a_destination_that_is_neither_directory_nor_container_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    there = {"OPENAI_API_KEY": "sk-1", "OPENAI_BASE_URL": "http://127.0.0.1:9/v1"}
    path = tmp_path / "missing"

    ended = run("add", tmp_path / "file", path, home=tmp_path, variables=there)

    is_refused(ended, f"DEST {path}: no such directory")


def test_doctor_looks_a_container_up(tmp_path: Path) -> None:
    with ServiceProcess() as service:
        service.create_container("there")
        variables = {"OPENAI_API_KEY": service.key, "OPENAI_BASE_URL": service.base_url}

        found = run("doctor", "openai:there", "--json", home=tmp_path, variables=variables)
        missing = run("doctor", "openai:nowhere", "--json", home=tmp_path, variables=variables)
        added = run("add", __file__, "nowhere", home=tmp_path, variables=variables)

    assert "is running" in finding(found, "service")["message"]
    assert not finding(missing, "service")["ok"]
    assert "'nowhere'" in finding(missing, "service")["message"]
    is_refused(added, "no container has the name or id 'nowhere', and there is no directory")


def finding(ended: subprocess.CompletedProcess[str], subject: str) -> dict[str, str]:
    """Return one line of what ``doctor --json`` says."""
    (row,) = [row for row in json.loads(ended.stdout) if row["check"] == subject]
    assert isinstance(row, dict)
    return row


def test_refresh_outside_a_mount_changes_nothing(tmp_path: Path) -> None:
    is_refused(run("refresh", tmp_path, home=tmp_path), "not in a mount of ctrfs")
    is_refused(run("refresh", tmp_path / "none", home=tmp_path), "no such file")
    assert os.listxattr(tmp_path) == []


def test_doctor_finds_what_is_missing(tmp_path: Path) -> None:
    ended = run("doctor", "--json", home=tmp_path)
    findings = {row["check"]: row for row in json.loads(ended.stdout)}

    assert ended.returncode == 1
    assert not findings["service"]["ok"]
    assert "OPENAI_API_KEY" in findings["service"]["message"]
    assert findings["Python"]["ok"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ALL_PROXY", "ftp://127.0.0.1:9"),
        ("ALL_PROXY", "http://[::1"),
        ("SSL_CERT_FILE", "/nonexistent"),
    ],
)
def test_an_unusable_environment_is_refused_in_one_line(
    tmp_path: Path, name: str, value: str
) -> None:
    variables = {
        "OPENAI_API_KEY": "sk-x",
        "OPENAI_BASE_URL": "https://service.invalid/v1",
        name: value,
    }
    ended = run("ls", home=tmp_path, variables=variables)

    is_refused(ended, "the proxy or certificate settings of the environment cannot be used")


def test_closed_standard_descriptors_are_replaced(tmp_path: Path) -> None:
    command = f"exec {sys.executable} -m ctrfs ls nowhere: <&- >&- 2>{tmp_path}/errors"
    ended = subprocess.run(["bash", "-c", command], timeout=30, check=False)

    assert ended.returncode == 1
    assert "nowhere:" in (tmp_path / "errors").read_text()
    silent = subprocess.run(
        ["bash", "-c", f"exec {sys.executable} -m ctrfs ls nowhere: <&- >&- 2>&-"],
        timeout=30,
        check=False,
    )
    assert silent.returncode == 1
