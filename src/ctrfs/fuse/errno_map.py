"""The one place where a failure becomes an errno.

Order matters: the first class that matches wins, so subclasses come first.
``docs/semantics.md`` shows this table to users; a test compares the two.
"""

from __future__ import annotations

import errno
import functools
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Concatenate, Final, ParamSpec, Protocol, TypeVar

import pyfuse3

from ctrfs import errors
from ctrfs.clock import Clock
from ctrfs.fuse.time_limits import TimeLimits

P = ParamSpec("P")
R = TypeVar("R")


class Handling(Protocol):
    """What the decorator needs of the object whose handlers it wraps."""

    @property
    def clock(self) -> Clock:
        """Tells how long a handler took."""

    @property
    def limits(self) -> TimeLimits:
        """Say how long a handler may take."""

    def path_of(self, number: int, *, is_handle: bool) -> str:
        """Return the path that an inode or a handle stands for, for the log; never raises."""


S = TypeVar("S", bound=Handling)

log = logging.getLogger(__name__)

_MS_PER_S: Final = 1000

ERRNO_BY_ERROR: Final[tuple[tuple[type[BaseException], int], ...]] = (
    (errors.ShuttingDownError, errno.ENODEV),
    # These two belong to the start of a program; no handler should ever meet one.
    (errors.ConfigError, errno.EIO),
    (errors.MountError, errno.EIO),
    (errors.NoSuchEntryError, errno.ENOENT),
    (errors.EntryExistsError, errno.EEXIST),
    (errors.NotADirectoryEntryError, errno.ENOTDIR),
    (errors.IsADirectoryEntryError, errno.EISDIR),
    (errors.DirectoryNotEmptyError, errno.ENOTEMPTY),
    (errors.InvalidNameError, errno.EINVAL),
    (errors.NameTooLongError, errno.ENAMETOOLONG),
    (errors.NotPermittedError, errno.EPERM),
    (errors.CrossContainerError, errno.EXDEV),
    (errors.UnsupportedRenameError, errno.EINVAL),
    (errors.ReadOnlyError, errno.EROFS),
    (errors.StaleHandleError, errno.ESTALE),
    (errors.BadHandleError, errno.EBADF),
    (errors.TooManyOpenFilesError, errno.ENFILE),
    (errors.NoSuchAttributeError, errno.ENODATA),
    (errors.UnsupportedAttributeError, errno.EOPNOTSUPP),
    (errors.InvalidAttributeValueError, errno.EINVAL),
    (errors.RemoteNotFoundError, errno.ENOENT),
    (errors.ContainerExpiredError, errno.ENOENT),
    (errors.RemoteInvalidError, errno.EINVAL),
    (errors.RemoteRefusedError, errno.EACCES),
    (errors.RemoteReadOnlyError, errno.EROFS),
    (errors.RemoteConflictError, errno.EBUSY),
    (errors.RemoteTooLargeError, errno.EFBIG),
    (errors.RemoteBusyError, errno.EBUSY),
    (errors.RemoteQuotaError, errno.EDQUOT),
    (errors.RemoteUncertainError, errno.EIO),
    (errors.RemoteUnavailableError, errno.EIO),
    (errors.RemoteStalledError, errno.ETIMEDOUT),
    (errors.RemoteMiscountError, errno.EIO),
    (errors.RemoteProtocolError, errno.EIO),
    (errors.TruncatedContentError, errno.EIO),
    (errors.HashMismatchError, errno.EIO),
    (errors.LocalDiskFullError, errno.ENOSPC),
    (errors.LocalDiskError, errno.EIO),
    (errors.CtrfsError, errno.EIO),
)

_BY_HANDLE: Final = frozenset({"read", "write", "flush", "fsync", "release"})
_OF_HANDLES: Final = _BY_HANDLE | {"readdir", "releasedir", "fsyncdir"}
_OF_NO_ENTRY: Final = frozenset({"statfs", "_forget"})
_CREATING: Final = frozenset({"create", "mknod", "mkdir"})
_READING: Final = frozenset(
    {"lookup", "getattr", "access", "open", "read", "opendir", "readdir", "getxattr", "listxattr"}
)

# Where one failure means different things to different operations; looked at first.
ERRNO_BY_OPERATION: Final[tuple[tuple[type[BaseException], frozenset[str], int], ...]] = (
    (errors.RemoteNotFoundError, _BY_HANDLE, errno.ESTALE),
    (errors.ContainerExpiredError, _BY_HANDLE, errno.ESTALE),
    (errors.RemoteConflictError, _CREATING, errno.EEXIST),
    (errors.RemoteReadOnlyError, _READING, errno.EOPNOTSUPP),
)

# Answers that programs provoke all day long by asking; not worth a line at the usual log level.
_EVERYDAY: Final = (errors.NamespaceError, errors.AttributeNameError)


def errno_for(error: BaseException, *, operation: str = "") -> int:
    """Return the errno an application sees for ``error`` (EIO if nothing fits better).

    Args:
        error: What a lower floor raised.
        operation: The name of the handler, such as ``read``.
    """
    for error_class, operations, number in ERRNO_BY_OPERATION:
        if isinstance(error, error_class) and operation in operations:
            return number
    for error_class, number in ERRNO_BY_ERROR:
        if isinstance(error, error_class):
            return number
    return errno.EIO


def replies_with_errno(
    handler: Callable[Concatenate[S, P], Awaitable[R]],
) -> Callable[Concatenate[S, P], Coroutine[object, object, R]]:
    """Make a FUSE handler end in time, fail with ``FUSEError`` only, and log what it did.

    pyfuse3 answers the kernel for ``FUSEError`` and lets anything else end the
    mount, so a bug in one handler would cost the user every open file.
    Cancellation passes through untouched.
    """
    operation = handler.__name__

    @functools.wraps(handler)
    async def wrapper(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        started_s = self.clock.monotonic_s()
        is_debugging = log.isEnabledFor(logging.DEBUG)
        # Before the handler runs: after a release or an unlink there is no path any more.
        subject = _subject(self, operation, args) if is_debugging else ""
        try:
            with self.limits.applied(operation):
                answer = await handler(self, *args, **kwargs)
        except pyfuse3.FUSEError:
            raise
        except errors.CtrfsError as error:
            number = errno_for(error, operation=operation)
            if log.isEnabledFor(_level_of(error)):
                elapsed_ms = (self.clock.monotonic_s() - started_s) * _MS_PER_S
                subject = subject or _subject(self, operation, args)
                _log_expected(operation, subject, error, number=number, elapsed_ms=elapsed_ms)
            raise pyfuse3.FUSEError(number) from error
        except Exception as error:
            subject = subject or _subject(self, operation, args)
            log.exception("%s %s: unexpected failure, answering EIO", operation, subject)
            raise pyfuse3.FUSEError(errno.EIO) from error
        if is_debugging:
            elapsed_ms = (self.clock.monotonic_s() - started_s) * _MS_PER_S
            log.debug("%s %s %.1f ms", operation, subject, elapsed_ms)
        return answer

    return wrapper


def _level_of(error: errors.CtrfsError) -> int:
    return logging.DEBUG if isinstance(error, _EVERYDAY) else logging.INFO


def _log_expected(
    operation: str,
    subject: str,
    error: errors.CtrfsError,
    *,
    number: int,
    elapsed_ms: float,
) -> None:
    request_id = error.request_id if isinstance(error, errors.RemoteError) else None
    log.log(
        _level_of(error),
        "%s %s failed with %s: %s %s%s; %.1f ms",
        operation,
        subject,
        errno.errorcode[number],
        type(error).__name__,
        error,
        f" (request {request_id})" if request_id else "",
        elapsed_ms,
    )


def _subject(handling: Handling, operation: str, arguments: tuple[object, ...]) -> str:
    """Return what a handler works on: paths, then attribute names, offsets and sizes.

    Never file bytes, and no values of attributes.
    """
    if operation in _OF_NO_ENTRY:
        return ""
    is_handle = operation in _OF_HANDLES
    shown: list[str] = []
    for position, argument in enumerate(arguments[:4]):
        if isinstance(argument, int):
            is_entry = position == 0 or (operation == "rename" and position == 2)
            path = handling.path_of(argument, is_handle=is_handle) if is_entry else str(argument)
            shown.append(path)
        elif isinstance(argument, bytes) and position in {1, 3} and operation != "write":
            is_attribute = operation.endswith("xattr")
            name = ascii(argument)[1:].strip("'\"")
            if is_attribute and position == 1:
                shown.append(name)
            elif not is_attribute:
                shown[-1] = f"{shown[-1].rstrip('/')}/{name}"
    return " ".join(shown)
