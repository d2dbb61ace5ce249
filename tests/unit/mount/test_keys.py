from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ctrfs.config import Secret
from ctrfs.errors import ConfigError
from ctrfs.mount.keys import KEY_BYTES_MAX, key_from_command, key_from_file

KEY = "sk-test-0123456789abcdef"


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.write_text(f"  {KEY}\n")
    path.chmod(0o600)
    return path


# Files


def test_the_key_is_what_the_file_holds_without_the_space_around_it(key_file: Path) -> None:
    assert key_from_file(key_file) == Secret(KEY)


@pytest.mark.parametrize("mode", [0o640, 0o620, 0o610, 0o604, 0o602, 0o601, 0o777])
def test_a_file_with_any_right_for_others_is_refused(key_file: Path, mode: int) -> None:
    key_file.chmod(mode)

    with pytest.raises(ConfigError, match="chmod 600"):
        key_from_file(key_file)


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o700])
def test_a_file_with_rights_for_its_owner_alone_is_taken(key_file: Path, mode: int) -> None:
    key_file.chmod(mode)

    assert key_from_file(key_file) == Secret(KEY)


def test_a_link_is_refused(key_file: Path) -> None:
    link = key_file.with_name("link")
    link.symlink_to(key_file)

    with pytest.raises(ConfigError, match="is a link"):
        key_from_file(link)


def test_a_pipe_is_refused_without_waiting_for_its_other_end(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)

    with pytest.raises(ConfigError, match="not a regular file"):
        key_from_file(tmp_path / "pipe")


def test_a_directory_and_a_device_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path, Path("/dev/zero")):
        with pytest.raises(ConfigError, match="not a regular file"):
            key_from_file(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_somebody_else_is_refused(key_file: Path) -> None:
    os.chown(key_file, 65534, -1)

    with pytest.raises(ConfigError, match="somebody else"):
        key_from_file(key_file)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone cannot be read: No such file"):
        key_from_file(tmp_path / "gone")


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"sk-1 sk-2", b"sk-\xff\xfe", b"sk-1\nsk-2", b"s" * (KEY_BYTES_MAX + 1)]
)
def test_a_file_that_holds_no_key_is_refused_without_being_shown(
    key_file: Path, content: bytes
) -> None:
    key_file.write_bytes(content)

    with pytest.raises(ConfigError) as caught:
        key_from_file(key_file)
    assert "sk-" not in str(caught.value)
    assert "\n" not in str(caught.value)


# Commands


def python(code: str) -> str:
    return f"{sys.executable} -c '{code}'"


def test_the_key_is_what_the_command_writes() -> None:
    assert key_from_command(f"printf '%s\\n' {KEY}") == Secret(KEY)


def test_a_command_is_not_read_by_a_shell(tmp_path: Path) -> None:
    assert key_from_command("echo $HOME;`id`") == Secret("$HOME;`id`")


def test_a_command_finds_nothing_on_its_standard_input() -> None:
    code = 'import sys; print("sk-empty" if sys.stdin.read() == "" else "sk-input")'

    assert key_from_command(python(code)) == Secret("sk-empty")


def test_the_complaints_of_a_command_that_fails_are_not_repeated(
    capfd: pytest.CaptureFixture[str],
) -> None:
    code = f'import sys; print("{KEY}"); print("{KEY}", file=sys.stderr); sys.exit(3)'

    with pytest.raises(ConfigError, match="exit code 3") as caught:
        key_from_command(python(code))

    assert KEY not in str(caught.value)
    assert KEY not in "".join(capfd.readouterr())


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("/no/such/program sk-secret", "cannot be run"),
        ("   ", "is empty"),
        ("echo 'sk-secret", "cannot be read"),
        ("true sk-secret", "is empty"),
        ("false sk-secret", "exit code 1"),
        ("echo sk-secret more", "not an API key"),
        ("yes sk-secret", "too much"),
        ("/ sk-secret", "cannot be run"),
    ],
)
def test_a_command_that_gives_no_key_is_told_in_a_line_without_its_arguments(
    command: str, words: str
) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        key_from_command(command)

    assert "sk-secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "code",
    [
        "import time; time.sleep(60)",
        "import os, time; os.close(1); time.sleep(60)",
        "import os, time; os.fork() and os._exit(0); time.sleep(60)",
    ],
    ids=["silent", "output closed", "left behind"],
)
def test_a_command_that_does_not_end_is_killed_with_all_that_it_started(code: str) -> None:
    started_s = time.monotonic()

    with pytest.raises(ConfigError, match="did not end in time"):
        key_from_command(python(code), timeout_s=0.5)

    assert time.monotonic() - started_s < 20


# The daemon


def test_a_daemon_does_not_hand_its_key_on_and_cannot_be_dumped() -> None:
    code = (
        "import ctypes, os\n"
        "from ctrfs.mount.keys import hide_keys\n"
        "hide_keys(os.environ, variable='OPENAI_API_KEY')\n"
        "print('OPENAI_API_KEY' in os.environ, ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))\n"
        "os.system('echo child ${OPENAI_API_KEY-none}')\n"
    )

    ended = subprocess.run(
        [sys.executable, "-u", "-c", code],
        env={**os.environ, "OPENAI_API_KEY": KEY},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )

    assert ended.stdout == "False 0\nchild none\n"
