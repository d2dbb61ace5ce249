"""The service as a process: addresses, its one line, its end, its one data directory."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from click.testing import CliRunner
from tests.support.mounting import pause
from tests.support.service import ServiceError, ServiceProcess

from ctrfs.cli.serve import serve
from ctrfs.config import Secret
from ctrfs.errors import ConfigError
from ctrfs.server.http import WireLimits
from ctrfs.server.main import ServeConfig, TcpAddress, UnixAddress, address_from_text


def wait_until(is_true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not is_true():
        assert time.monotonic() < deadline
        pause(0.01)


COMMAND = [sys.executable, "-c", "from ctrfs.cli.serve import serve; serve()"]


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8400", TcpAddress(host="127.0.0.1", port=8400)),
        ("localhost:0", TcpAddress(host="localhost", port=0)),
        ("[::1]:80", TcpAddress(host="::1", port=80)),
        ("unix:/run/a b", UnixAddress(path=Path("/run/a b"))),
    ],
)
def test_an_address_is_a_host_and_a_port_or_a_socket(
    text: str, address: TcpAddress | UnixAddress
) -> None:
    assert address_from_text(text) == address


@pytest.mark.parametrize("text", ["", "8400", "host:", ":80", "host:99999", "host:x", "unix:"])
def test_anything_else_is_no_address(text: str) -> None:
    with pytest.raises(ConfigError):
        address_from_text(text)


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::", "example.com"])  # noqa: S104
def test_an_address_that_others_reach_needs_a_key(host: str, tmp_path: Path) -> None:
    address = TcpAddress(host=host)

    with pytest.raises(ConfigError, match="--api-key"):
        ServeConfig(data=tmp_path, address=address)
    ServeConfig(data=tmp_path, address=address, api_key=Secret("key"))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", "localhost"])
def test_a_loopback_address_needs_no_key(host: str, tmp_path: Path) -> None:
    ServeConfig(data=tmp_path, address=TcpAddress(host=host))


def test_sigterm_ends_it_with_exit_code_zero() -> None:
    with ServiceProcess() as service:
        service.create_container("a")

        assert service.stop() == 0

        assert service.stderr == ""


def test_sigint_ends_it_with_exit_code_zero() -> None:
    with ServiceProcess() as service:
        os.kill(service.pid, signal.SIGINT)

        assert service.wait() == 0


def test_a_kill_loses_nothing_that_was_acknowledged() -> None:
    with ServiceProcess() as service:
        container = service.create_container("a")
        file = service.upload(container, "a.bin", b"x" * 2_000_000)

        service.kill()
        service.start()

        assert service.content(container, file) == b"x" * 2_000_000
        assert [row["id"] for row in service.containers()] == [container]


def test_a_kill_in_the_middle_of_an_upload_leaves_nothing_of_it() -> None:
    with ServiceProcess() as service:
        container = service.create_container("a")
        host, _, port = service.base_url[len("http://") : -len("/v1")].partition(":")
        head = (
            f"POST /v1/containers/{container}/files HTTP/1.1\r\nHost: x\r\n"
            f"Authorization: Bearer {service.key}\r\nContent-Length: 9000000\r\n"
            "Content-Type: multipart/form-data; boundary=B\r\n\r\n"
            '--B\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        )
        with socket.create_connection((host, int(port))) as half:
            half.sendall(head.encode() + b"x" * 4_000_000)
            wait_until(lambda: any((service.data / "blobs").iterdir()))
            service.kill()
        service.start()

        assert service.files(container) == []
        assert list((service.data / "blobs").iterdir()) == []


def test_one_connection_too_many_is_closed_unanswered() -> None:
    with ServiceProcess() as service:
        address = service.base_url[len("http://") : -len("/v1")].split(":")
        limit = WireLimits().connections_max
        with ExitStack() as opened:
            for _ in range(limit):
                opened.enter_context(socket.create_connection((address[0], int(address[1]))))
            last = opened.enter_context(socket.create_connection((address[0], int(address[1]))))
            last.settimeout(20)

            assert last.recv(1) == b""

        # That all are closed the service may learn a moment later: until then it has no place.
        deadline_s = time.monotonic() + 20
        while time.monotonic() < deadline_s:
            with suppress(OSError):
                assert service.containers() == []
                return
            pause(0.05)
        pytest.fail("the service takes no connections any more")


def test_a_second_server_on_the_same_data_refuses_with_one_line() -> None:
    with ServiceProcess() as service:
        second = subprocess.run(
            [*COMMAND, "--listen", "127.0.0.1:0", "--data", str(service.data)],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )

    assert second.returncode == 1
    assert second.stdout == ""
    assert second.stderr == (
        f"ctrfs serve: another server uses the data directory {service.data}\n"
    )


def test_a_taken_port_refuses_with_one_line(tmp_path: Path) -> None:
    with ServiceProcess() as service:
        taken = service.base_url.removeprefix("http://").removesuffix("/v1")
        second = subprocess.run(
            [*COMMAND, "--listen", taken, "--data", str(tmp_path)],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )

    assert second.returncode == 1
    assert second.stderr == f"ctrfs serve: cannot listen on {taken}: Address already in use\n"


def test_it_serves_on_a_unix_socket_that_only_its_owner_may_use(tmp_path: Path) -> None:
    path = tmp_path / "socket"

    with ServiceProcess(unix_socket=path) as service:
        container = service.create_container("a")
        mode = stat.S_IMODE(path.stat().st_mode)
        service.kill()
        service.start()
        assert [row["id"] for row in service.containers()] == [container]
        service.stop()

    assert mode == 0o600
    assert not path.exists()


def test_it_ends_when_standard_input_ends(tmp_path: Path) -> None:
    with subprocess.Popen(
        [*COMMAND, "--listen", "127.0.0.1:0", "--data", str(tmp_path), "--exit-with-stdin"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        line = process.stdout.readline()
        process.stdin.close()

        assert process.wait(20) == 0
        assert process.stdout.read() == ""

    assert line.startswith("serving the Containers API on http://127.0.0.1:")
    assert line.endswith("/v1\n")


def test_a_named_pipe_that_is_opened_again_while_it_is_locked_has_not_ended(
    tmp_path: Path,
) -> None:
    path = tmp_path / "users"
    os.mkfifo(path)
    # The service's input, and another of the same pipe to lock it by: readers are no users.
    readers = [os.open(path, os.O_RDONLY | os.O_NONBLOCK) for _ in range(2)]
    os.set_blocking(readers[0], True)
    first_user = os.open(path, os.O_WRONLY)
    listen = ["--listen", f"unix:{tmp_path}/socket", "--data", str(tmp_path / "data")]
    with subprocess.Popen(
        [*COMMAND, *listen, "--exit-with-stdin"],
        stdin=readers[0],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        fcntl.flock(readers[1], fcntl.LOCK_EX)
        os.close(first_user)
        pause(0.3)  # it reads the end, and waits for the lock
        second_user = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
        fcntl.flock(readers[1], fcntl.LOCK_UN)
        pause(0.3)

        with socket.socket(socket.AF_UNIX) as client:
            client.connect(f"{tmp_path}/socket")
        os.close(second_user)
        assert process.wait(20) == 0
    for fd in readers:
        os.close(fd)


@pytest.mark.parametrize("command", ["true |", "</dev/null"])
def test_it_ends_at_once_with_an_input_that_is_empty(tmp_path: Path, command: str) -> None:
    serve_words = [*COMMAND, "--listen", "127.0.0.1:0", "--data", str(tmp_path)]
    script = f'{command} "$@" --exit-with-stdin'

    ended = subprocess.run(["sh", "-c", script, "sh", *serve_words], timeout=20, check=False)

    assert ended.returncode == 0


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--listen", "nowhere"], "not an address"),
        (["--listen", "0.0.0.0:0"], "needs --api-key"),
        (["--listen", "127.0.0.1:0", "--data", "/dev/null/data"], "cannot use the data directory"),
    ],
)
def test_a_bad_option_is_one_line_on_standard_error(
    arguments: list[str], complaint: str, tmp_path: Path
) -> None:
    result = CliRunner().invoke(serve, ["--data", str(tmp_path), *arguments])

    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith("ctrfs serve: ")
    assert complaint in result.stderr
    assert result.stderr.count("\n") == 1


def test_the_key_comes_from_the_environment_too() -> None:
    with ServiceProcess(environment={"CTRFS_SERVER_API_KEY": "sk-other-key-01234567"}) as service:
        with pytest.raises(ServiceError, match="401"):
            service.containers()
        service.key = "sk-other-key-01234567"

        assert service.containers() == []


def test_switches_of_the_command_line_set_the_behaviour() -> None:
    with ServiceProcess("--slashes", "base", "--no-hash-prefix", "--duplicates=same") as service:
        container = service.create_container("a")
        first = service.upload(container, "x/a.txt", b"abc")

        assert service.upload(container, "y/a.txt", b"abc") == first
        assert [row["path"] for row in service.files(container)] == ["/mnt/data/a.txt"]
