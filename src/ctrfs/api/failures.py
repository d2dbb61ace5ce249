"""The one table from what HTTP can do to us to the classes of ``ctrfs.errors``.

Whatever a service or a transport does ends here as a ``Failure``: the error to raise, with
the facts that ``ctrfs.api.retry`` needs to decide whether to raise it yet.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import httpx
import msgspec

from ctrfs import errors
from ctrfs.api.redaction import Redactor

MESSAGE_CHARACTERS_MAX: Final = 500
QUOTA_CODE: Final = "insufficient_quota"

ERROR_BY_STATUS: Final[Mapping[int, type[errors.RemoteError]]] = {
    400: errors.RemoteInvalidError,
    401: errors.RemoteRefusedError,
    402: errors.RemoteQuotaError,
    403: errors.RemoteRefusedError,
    404: errors.RemoteNotFoundError,
    405: errors.RemoteReadOnlyError,
    408: errors.RemoteUnavailableError,
    409: errors.RemoteConflictError,
    410: errors.RemoteNotFoundError,
    413: errors.RemoteTooLargeError,
    423: errors.RemoteConflictError,
    425: errors.RemoteBusyError,
    429: errors.RemoteBusyError,
    501: errors.RemoteReadOnlyError,
}

# Order matters: the first class that matches wins, so subclasses come first.
ERROR_BY_EXCEPTION: Final[tuple[tuple[type[Exception], type[errors.RemoteError]], ...]] = (
    (httpx.ConnectTimeout, errors.RemoteUnavailableError),
    (httpx.PoolTimeout, errors.RemoteUnavailableError),
    (httpx.TimeoutException, errors.RemoteStalledError),
    (httpx.NetworkError, errors.RemoteUnavailableError),
    (httpx.ProxyError, errors.RemoteUnavailableError),
    # Also "server disconnected without sending a response": in practice a broken connection.
    (httpx.RemoteProtocolError, errors.RemoteUnavailableError),
    (httpx.DecodingError, errors.RemoteProtocolError),
    (httpx.RequestError, errors.RemoteProtocolError),
)
# Raised before the first byte of a request has left this machine.
BEFORE_SENDING: Final = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
)

_WORDS_OF_TIMEOUTS: Final[Mapping[type[BaseException], str]] = {
    httpx.ConnectTimeout: "no connection within connect_timeout",
    httpx.ReadTimeout: "no byte came for stall_timeout",
    httpx.WriteTimeout: "no byte was taken for stall_timeout",
}
# Source: error codes of the service's documentation, 2026-08. Used where an error comes with
# status 200, as older LiteLLM proxies sent it.
_STATUS_BY_CODE: Final[Mapping[str, int]] = {
    "invalid_api_key": 401,
    "not_found": 404,
    "rate_limit_exceeded": 429,
    QUOTA_CODE: 429,
    "server_error": 500,
}
# These two have no code of their own at the service, only words.
# Source: recorded answers, docs/api-notes.md.
_EXPIRED: Final = re.compile(
    r"\bcontainer (?:with id \S+ )?(?:is |has |was )?(?:been )?expired\b", re.IGNORECASE
)
_TOO_LARGE: Final = re.compile(
    r"too (?:large|big)|exceeds? [^.]{0,40}(?:size|limit of \d+ ?[kmg]i?b)|size limit"
    r"|maximum (?:file|content|upload|allowed) ?size|file_?size_?(?:exceeded|too|limit|above)",
    re.IGNORECASE,
)
_ABOUT_QUOTA: Final = re.compile(
    r"exceeded your current quota|insufficient[ _]quota", re.IGNORECASE
)


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt that did not succeed.

    Attributes:
        error: What to raise if this was the last attempt.
        cause: The exception behind it, if there was one.
        status: The status of the answer; for an error sent with status 200, the one it should
            have had; None if no answer came.
        headers: Those of the answer.
        may_be_done: Whether the service may have carried the request out all the same.
        is_final: Whether another attempt would be pointless, whatever the answer said.
    """

    error: errors.RemoteError
    cause: BaseException | None = None
    status: int | None = None
    headers: Mapping[str, str] = msgspec.field(default_factory=dict)
    may_be_done: bool = True
    is_final: bool = False


class AttemptFailedError(Exception):
    """Carries a ``Failure`` to the retry loop; never leaves ``ctrfs.api``."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(str(failure.error))
        self.failure = failure


class _ErrorFields(msgspec.Struct):
    message: object = None
    type: object = None
    code: object = None


class _ErrorBody(msgspec.Struct):
    kind: object = msgspec.field(default=None, name="object")
    error: object = None
    message: object = None
    code: object = None


_ERROR_BODY: Final = msgspec.json.Decoder(_ErrorBody)


class Complaint(msgspec.Struct, frozen=True, kw_only=True):
    """What an error body says; empty where it says nothing."""

    message: str = ""
    type: str = ""
    code: str = ""


def failure_from_exception(error: Exception, *, redactor: Redactor, was_sent: bool) -> Failure:
    """Return what an exception of the transport means.

    Args:
        error: What httpx raised.
        redactor: Masks the key, also inside ``error`` itself, which a traceback would show.
        was_sent: Whether a byte of the request may have left this machine.
    """
    redactor.exception(error)
    error_class = next(
        (ours for theirs, ours in ERROR_BY_EXCEPTION if isinstance(error, theirs)),
        errors.RemoteProtocolError,
    )
    message = redactor.line(_reason(error), characters_max=MESSAGE_CHARACTERS_MAX)
    return Failure(
        error=error_class(message),
        cause=error,
        may_be_done=was_sent and not isinstance(error, BEFORE_SENDING),
    )


def failure_from_answer(
    status: int, headers: Mapping[str, str], body: bytes, *, redactor: Redactor
) -> Failure:
    """Return what an answer means that is not a success.

    Args:
        status: As answered, or as ``error_status_in`` found it in a body.
        headers: Looked up in lower case.
        body: Of any length and content; only what is an error object is used of it.
        redactor: Masks the key in what is quoted.
    """
    complaint = complaint_in(body)
    request_id = headers.get("x-request-id")
    message = complaint.message or _summary(status, headers, body)
    error_class = _class_for(status, complaint)
    return Failure(
        error=error_class(
            redactor.line(message, characters_max=MESSAGE_CHARACTERS_MAX),
            request_id=redactor.line(request_id, characters_max=200) if request_id else None,
            code=redactor.line(complaint.code, characters_max=200) or None,
        ),
        status=status,
        headers=headers,
        # A server that failed, or gave up waiting, may have done its work before.
        may_be_done=status == 408 or (status >= 500 and status != 501),
    )


def complaint_in(body: bytes) -> Complaint:
    """Return what ``body`` says as an error object; an empty one if it is none."""
    try:
        outer = _ERROR_BODY.decode(body)
        if isinstance(outer.error, dict):
            fields = msgspec.convert(outer.error, _ErrorFields)
        else:
            message = outer.error if isinstance(outer.error, str) else outer.message
            fields = _ErrorFields(message=message, code=outer.code)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return Complaint()
    return Complaint(
        message=_text(fields.message), type=_text(fields.type), code=_text(fields.code)
    )


def error_status_in(body: bytes) -> int | None:
    """Return the status that an error sent as a success should have had; None if it is none.

    Older LiteLLM proxies answer errors with status 200 and an error object.
    """
    try:
        outer = _ERROR_BODY.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    is_result = isinstance(outer.kind, str) and outer.kind != "error"
    if is_result or not isinstance(outer.error, dict | str) or not outer.error:
        return None
    code = complaint_in(body).code
    if re.fullmatch(r"[45][0-9]{2}", code):
        return int(code)
    return _STATUS_BY_CODE.get(code, 400)


def _class_for(status: int, complaint: Complaint) -> type[errors.RemoteError]:
    says_quota = QUOTA_CODE in {complaint.code, complaint.type}
    if says_quota or (status == 429 and _ABOUT_QUOTA.search(complaint.message)):
        return errors.RemoteQuotaError
    if status in {400, 404, 410} and (
        complaint.code == "container_expired" or _EXPIRED.search(complaint.message)
    ):
        return errors.ContainerExpiredError
    if status in {400, 422} and _TOO_LARGE.search(f"{complaint.message} {complaint.code}"):
        return errors.RemoteTooLargeError
    if status in ERROR_BY_STATUS:
        return ERROR_BY_STATUS[status]
    if 400 <= status < 500:
        return errors.RemoteInvalidError
    return errors.RemoteUnavailableError if status >= 500 else errors.RemoteProtocolError


def _summary(status: int, headers: Mapping[str, str], body: bytes) -> str:
    if 300 <= status < 400:
        # Following it would send the key to wherever the answer points.
        target = headers.get("location", "nowhere")
        return f"the service redirects to {target} (status {status}); redirects are not followed"
    excerpt = body[:200].decode("utf-8", errors="replace").strip()
    return f"the service answered with status {status}" + (f": {excerpt}" if excerpt else "")


def _reason(error: BaseException) -> str:
    if not str(error).strip() and type(error) in _WORDS_OF_TIMEOUTS:
        # What lies below speaks of the scopes of trio.
        return _WORDS_OF_TIMEOUTS[type(error)]
    # TLS failures arrive as an exception without a text around one that has it.
    current: BaseException | None = error
    while current is not None:
        if text := str(current).strip():
            return text
        current = current.__cause__ or current.__context__
    return type(error).__name__


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    is_number = isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**9
    return str(value) if is_number else ""
