from __future__ import annotations

import errno
import inspect
import logging
import os
import re
from pathlib import Path

import pyfuse3
import pytest
import trio

from ctrfs import errors
from ctrfs.clock import Clock, SystemClock
from ctrfs.fuse.errno_map import ERRNO_BY_ERROR, errno_for, replies_with_errno
from ctrfs.fuse.time_limits import TimeLimits

SEMANTICS = Path(__file__).parents[3] / "docs" / "semantics.md"
LEAF_ERRORS = [
    cls
    for _, cls in inspect.getmembers(errors, inspect.isclass)
    if issubclass(cls, errors.CtrfsError) and not cls.__subclasses__()
]

# The rows of the users' table, by how they begin, and what stands behind each.
PROMISED: dict[str, list[tuple[errors.CtrfsError, str, str]]] = {
    "no such container or file": [
        (errors.NoSuchEntryError(), "lookup", "ENOENT"),
        (errors.RemoteNotFoundError(), "lookup", "ENOENT"),
        (errors.RemoteNotFoundError(), "read", "ESTALE"),
    ],
    "container expired": [
        (errors.ContainerExpiredError(), "opendir", "ENOENT"),
        (errors.ContainerExpiredError(), "flush", "ESTALE"),
    ],
    "the service calls the request invalid": [
        (errors.RemoteInvalidError(), "mkdir", "EINVAL"),
        (errors.RemoteTooLargeError(), "flush", "EFBIG"),
    ],
    "401, 403": [(errors.RemoteRefusedError(), "lookup", "EACCES")],
    "404 for something just listed": [(errors.RemoteNotFoundError(), "unlink", "ENOENT")],
    "405, 501": [
        (errors.RemoteReadOnlyError(), "unlink", "EROFS"),
        (errors.RemoteReadOnlyError(), "opendir", "EOPNOTSUPP"),
        (errors.ReadOnlyError(), "create", "EROFS"),
    ],
    "409": [
        (errors.RemoteConflictError(), "create", "EEXIST"),
        (errors.RemoteConflictError(), "unlink", "EBUSY"),
    ],
    "413": [(errors.RemoteTooLargeError(), "write", "EFBIG")],
    "429": [
        (errors.RemoteBusyError(), "read", "EBUSY"),
        (errors.RemoteQuotaError(), "read", "EDQUOT"),
    ],
    "408, 5xx": [
        (errors.RemoteUnavailableError(), "read", "EIO"),
        (errors.RemoteUncertainError(), "flush", "EIO"),
        (errors.RemoteStalledError(), "read", "ETIMEDOUT"),
    ],
    "wrong length or hash": [
        (errors.TruncatedContentError(received_bytes=1, expected_bytes=2), "read", "EIO"),
        (errors.HashMismatchError(), "read", "EIO"),
    ],
    "local disk full": [(errors.LocalDiskFullError(), "write", "ENOSPC")],
    "mount stopping": [(errors.ShuttingDownError(), "read", "ENODEV")],
    "a bug of ours": [(errors.CtrfsError(), "read", "EIO")],
}


class Handlers:
    def __init__(self) -> None:
        self.clock: Clock = SystemClock()
        self.limits = TimeLimits()

    def path_of(self, number: int, *, is_handle: bool) -> str:
        return f"{'handle' if is_handle else '/entry'} {number}"

    @replies_with_errno
    async def read(self, handle: int, error: BaseException | None) -> bytes:  # noqa: ARG002
        if error is not None:
            raise error
        return b"bytes"

    @replies_with_errno
    async def lookup(self, parent: int, name: bytes) -> None:  # noqa: ARG002
        raise errors.NoSuchEntryError("no entry")

    @replies_with_errno
    async def setxattr(self, inode: int, name: bytes, value: bytes) -> None:  # noqa: ARG002
        raise errors.RemoteUnavailableError("down", request_id="req_1")


def rows_of_the_table() -> list[tuple[str, str]]:
    text = SEMANTICS.read_text().split("## Errors")[1].split("\n\n`")[0]
    cells = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("| ")]
    return [(row[0].strip(), row[1].strip()) for row in cells if row[0].strip() != "cause"]


@pytest.mark.parametrize("error_class", LEAF_ERRORS, ids=lambda cls: cls.__name__)
def test_every_error_has_its_own_row(error_class: type[errors.CtrfsError]) -> None:
    assert error_class in dict(ERRNO_BY_ERROR)


def test_no_row_is_hidden_behind_an_earlier_one() -> None:
    seen: list[type[BaseException]] = []
    for error_class, _ in ERRNO_BY_ERROR:
        assert not any(issubclass(error_class, earlier) for earlier in seen), error_class
        seen.append(error_class)


@pytest.mark.parametrize("row", rows_of_the_table(), ids=lambda row: row[0])
def test_each_row_of_the_users_table_is_what_happens(row: tuple[str, str]) -> None:
    cause, promised = row
    [key] = [key for key in PROMISED if cause.startswith(key)]
    promised_names = set(re.findall(r"\bE[A-Z]{2,}\b", promised))

    answers = {
        errno.errorcode[errno_for(error, operation=operation)].replace("ENOTSUP", "EOPNOTSUPP")
        for error, operation, _ in PROMISED[key]
    }

    assert answers == {name for _, _, name in PROMISED[key]}
    assert answers <= promised_names


def test_a_failure_that_is_not_ours_is_eio() -> None:
    assert errno_for(ValueError()) == errno.EIO


async def test_a_bug_is_answered_with_eio_and_logged_with_its_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with pytest.raises(pyfuse3.FUSEError) as caught:
        await Handlers().read(7, ZeroDivisionError())
    assert caught.value.errno == errno.EIO
    assert "read handle 7: unexpected failure" in caplog.text
    assert "Traceback" in caplog.text


async def test_a_group_of_failures_is_answered_too() -> None:
    with pytest.raises(pyfuse3.FUSEError) as caught:
        await Handlers().read(7, ExceptionGroup("two", [ValueError(), OSError()]))
    assert caught.value.errno == errno.EIO


async def test_an_errno_chosen_on_purpose_passes_through() -> None:
    with pytest.raises(pyfuse3.FUSEError) as caught:
        await Handlers().read(7, pyfuse3.FUSEError(errno.ENOTTY))
    assert caught.value.errno == errno.ENOTTY


async def test_cancellation_passes_through() -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await trio.lowlevel.checkpoint()
        await Handlers().read(7, None)
    assert scope.cancelled_caught


async def test_everyday_answers_are_logged_at_debug_only(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    with pytest.raises(pyfuse3.FUSEError):
        await Handlers().lookup(1, b"core")

    assert caplog.text == ""


async def test_a_failure_of_the_service_is_logged_once_with_its_request_and_no_bytes(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)

    with pytest.raises(pyfuse3.FUSEError):
        await Handlers().setxattr(12, b"user.x", b"secret")

    [record] = caplog.records
    assert record.getMessage().startswith("setxattr /entry 12 user.x failed with EIO")
    assert re.search(r" \(request req_1\); \d+\.\d ms$", record.getMessage())
    assert "secret" not in record.getMessage()


async def test_what_a_handler_did_is_logged_with_its_time(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    assert await Handlers().read(7, None) == b"bytes"

    assert re.search(r"read handle 7 \d+\.\d ms", caplog.text)


def test_every_errno_of_the_table_exists_on_this_machine() -> None:
    assert all(os.strerror(number) for _, number in ERRNO_BY_ERROR)
