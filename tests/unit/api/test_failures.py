from __future__ import annotations

import inspect
import ssl

import httpx
import pytest

from ctrfs import errors
from ctrfs.api.failures import (
    BEFORE_SENDING,
    complaint_in,
    error_status_in,
    failure_from_answer,
    failure_from_exception,
)
from ctrfs.api.redaction import Redactor
from ctrfs.config import Secret

KEY = "sk-test-0123456789abcdef"
REDACTOR = Redactor(Secret(KEY))


def error_from(status: int, body: str = "", **headers: str) -> errors.RemoteError:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return failure_from_answer(status, httpx.Headers(names), body.encode(), redactor=REDACTOR).error


def body_with(message: str = "", *, code: str = "null", kind: str = "x") -> str:
    return f'{{"error":{{"message":"{message}","type":"{kind}","param":null,"code":{code}}}}}'


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (400, errors.RemoteInvalidError),
        (401, errors.RemoteRefusedError),
        (402, errors.RemoteQuotaError),
        (403, errors.RemoteRefusedError),
        (404, errors.RemoteNotFoundError),
        (405, errors.RemoteReadOnlyError),
        (408, errors.RemoteUnavailableError),
        (409, errors.RemoteConflictError),
        (410, errors.RemoteNotFoundError),
        (413, errors.RemoteTooLargeError),
        (414, errors.RemoteInvalidError),
        (416, errors.RemoteInvalidError),
        (418, errors.RemoteInvalidError),
        (422, errors.RemoteInvalidError),
        (423, errors.RemoteConflictError),
        (425, errors.RemoteBusyError),
        (429, errors.RemoteBusyError),
        (500, errors.RemoteUnavailableError),
        (501, errors.RemoteReadOnlyError),
        (502, errors.RemoteUnavailableError),
        (503, errors.RemoteUnavailableError),
        (504, errors.RemoteUnavailableError),
        (529, errors.RemoteUnavailableError),
        (301, errors.RemoteProtocolError),
        (304, errors.RemoteProtocolError),
        (307, errors.RemoteProtocolError),
        (101, errors.RemoteProtocolError),
    ],
)
def test_every_status_has_its_error(status: int, expected: type[errors.RemoteError]) -> None:
    assert type(error_from(status)) is expected


@pytest.mark.parametrize("status", [400, 404, 410])
@pytest.mark.parametrize(
    "message",
    [
        "Container is expired.",
        "Container has expired",
        "The container expired",
        "Container with id 'cntr_68c9' has been expired.",
    ],
)
def test_an_expired_container_is_told_from_other_refusals(status: int, message: str) -> None:
    assert type(error_from(status, body_with(message))) is errors.ContainerExpiredError


def test_a_file_whose_name_speaks_of_expiry_does_not_expire_its_container() -> None:
    message = "File 'expired container.txt' not found on container cntr_1."

    assert type(error_from(404, body_with(message))) is errors.RemoteNotFoundError


@pytest.mark.parametrize(
    "message",
    [
        "File too large",
        "The file exceeds the maximum size of 512 MB.",
        "Maximum content size limit (26214400) exceeded",
        "Request body is too big",
    ],
)
def test_a_complaint_about_size_is_told_from_other_bad_requests(message: str) -> None:
    assert type(error_from(400, body_with(message))) is errors.RemoteTooLargeError


def test_a_limit_that_is_too_high_is_not_a_complaint_about_size() -> None:
    message = "Invalid 'limit': integer above maximum value. Expected a value <= 100."
    body = body_with(message, code='"integer_above_max_value"')

    assert type(error_from(400, body)) is errors.RemoteInvalidError


@pytest.mark.parametrize("status", [403, 429])
def test_a_used_up_quota_is_told_by_its_code(status: int) -> None:
    body = body_with("No.", code='"insufficient_quota"')

    assert type(error_from(status, body)) is errors.RemoteQuotaError


def test_a_used_up_quota_is_told_by_its_type() -> None:
    body = body_with("No.", kind="insufficient_quota")

    assert type(error_from(429, body)) is errors.RemoteQuotaError


def test_a_used_up_quota_is_told_by_its_words() -> None:
    body = body_with("You exceeded your current quota, please check your plan.")

    assert type(error_from(429, body)) is errors.RemoteQuotaError


def test_an_error_carries_message_request_id_and_code() -> None:
    error = error_from(401, body_with("No such key.", code='"invalid_api_key"'), x_request_id="r1")

    assert str(error) == "No such key."
    assert error.request_id == "r1"
    assert error.code == "invalid_api_key"


@pytest.mark.parametrize(
    ("body", "message", "code"),
    [
        ("", "the service answered with status 400", None),
        ("<html>Bad\ngateway</html>", "status 400: <html>Bad\\ngateway</html>", None),
        ("null", "status 400: null", None),
        ("[]", "status 400: []", None),
        ('{"error":null}', "status 400", None),
        ('{"error":"plain words"}', "plain words", None),
        ('{"error":{}}', "status 400", None),
        ('{"error":{"message":17,"code":17}}', "17", "17"),
        ('{"error":{"message":null,"code":null}}', "status 400", None),
        ('{"error":{"message":["a"],"code":{"b":1}}}', "status 400", None),
        ('{"message":"at the top","code":404}', "at the top", "404"),
        ('{"error":{"message":"' + "x" * 5000 + '"}}', "x" * 499 + "…", None),
        ("[" * 200_000, "status 400: [[[", None),
    ],
)
def test_any_error_body_gives_a_readable_error(body: str, message: str, code: str | None) -> None:
    error = error_from(400, body)

    assert message in str(error)
    assert error.code == code
    assert len(str(error)) <= 500


def test_bytes_that_are_no_text_give_a_readable_error() -> None:
    failure = failure_from_answer(502, {}, b"\xff\xfe\x00\x80", redactor=REDACTOR)

    assert str(failure.error).isprintable()


def test_a_redirect_says_where_to_and_that_it_is_not_followed() -> None:
    error = error_from(307, location="https://elsewhere.example/")

    assert "https://elsewhere.example/" in str(error)
    assert "not followed" in str(error)


@pytest.mark.parametrize(
    ("status", "may_be_done"),
    [(400, False), (404, False), (408, True), (409, False), (413, False), (429, False),
     (500, True), (501, False), (502, True), (504, True), (307, False)],
)  # fmt: skip
def test_only_a_failing_server_may_have_done_its_work(status: int, may_be_done: bool) -> None:
    failure = failure_from_answer(status, {}, b"", redactor=REDACTOR)

    assert failure.may_be_done is may_be_done


EXCEPTIONS: list[tuple[type[httpx.RequestError], type[errors.RemoteError]]] = [
    (httpx.ConnectError, errors.RemoteUnavailableError),
    (httpx.ConnectTimeout, errors.RemoteUnavailableError),
    (httpx.PoolTimeout, errors.RemoteUnavailableError),
    (httpx.ReadError, errors.RemoteUnavailableError),
    (httpx.WriteError, errors.RemoteUnavailableError),
    (httpx.CloseError, errors.RemoteUnavailableError),
    (httpx.ReadTimeout, errors.RemoteStalledError),
    (httpx.WriteTimeout, errors.RemoteStalledError),
    (httpx.ProxyError, errors.RemoteUnavailableError),
    (httpx.RemoteProtocolError, errors.RemoteUnavailableError),
    (httpx.LocalProtocolError, errors.RemoteProtocolError),
    (httpx.DecodingError, errors.RemoteProtocolError),
    (httpx.TooManyRedirects, errors.RemoteProtocolError),
    (httpx.UnsupportedProtocol, errors.RemoteProtocolError),
]


@pytest.mark.parametrize(("theirs", "ours"), EXCEPTIONS)
@pytest.mark.parametrize("was_sent", [True, False])
def test_every_exception_of_the_transport_has_its_error(
    theirs: type[httpx.RequestError], ours: type[errors.RemoteError], was_sent: bool
) -> None:
    failure = failure_from_exception(theirs("broke"), redactor=REDACTOR, was_sent=was_sent)

    assert type(failure.error) is ours
    assert failure.may_be_done is (was_sent and theirs not in BEFORE_SENDING)


def test_no_exception_of_the_transport_is_forgotten() -> None:
    leaves = {
        theirs
        for _, theirs in inspect.getmembers(httpx, inspect.isclass)
        if issubclass(theirs, httpx.RequestError) and not theirs.__subclasses__()
    }

    assert leaves == {theirs for theirs, _ in EXCEPTIONS}


def test_a_tls_failure_without_words_of_its_own_takes_those_of_its_cause() -> None:
    outer = httpx.ConnectError("")
    outer.__cause__ = ssl.SSLCertVerificationError("certificate verify failed")

    failure = failure_from_exception(outer, redactor=REDACTOR, was_sent=False)

    assert "certificate verify failed" in str(failure.error)


@pytest.mark.parametrize(
    ("theirs", "option"),
    [
        (httpx.ConnectTimeout, "connect_timeout"),
        (httpx.ReadTimeout, "stall_timeout"),
        (httpx.WriteTimeout, "stall_timeout"),
    ],
)
def test_a_wait_in_vain_names_the_option_that_ended_it(
    theirs: type[httpx.TimeoutException], option: str
) -> None:
    error = theirs("")
    error.__context__ = TimeoutError("cancelled due to deadline")

    failure = failure_from_exception(error, redactor=REDACTOR, was_sent=True)

    assert str(failure.error).endswith(f" {option}")


def test_an_exception_without_any_words_gives_its_name() -> None:
    failure = failure_from_exception(httpx.ReadError(""), redactor=REDACTOR, was_sent=True)

    assert str(failure.error) == "ReadError"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ('{"error":{"message":"File not found","code":"404"}}', 404),
        ('{"error":{"message":"slow down","code":429}}', 429),
        ('{"error":{"message":"no","code":"invalid_api_key"}}', 401),
        ('{"error":{"message":"no","code":"insufficient_quota"}}', 429),
        ('{"error":{"message":"no","code":null}}', 400),
        ('{"error":{"message":"no","code":"99999999"}}', 400),
        ('{"error":"no"}', 400),
        ('{"object":"error","error":"no"}', 400),
        ('{"object":"container","error":{"message":"a field of its own"}}', None),
        ('{"id":"cntr_1","error":null}', None),
        ('{"data":[]}', None),
        ("not json", None),
        ("[1]", None),
    ],
)
def test_an_error_sent_as_a_success_is_found_out(body: str, status: int | None) -> None:
    assert error_status_in(body.encode()) == status


def test_what_is_no_error_body_complains_of_nothing() -> None:
    assert complaint_in(b'{"object":"list","data":[]}').message == ""


def test_a_key_in_an_error_body_is_masked() -> None:
    error = error_from(401, body_with(f"Incorrect API key provided: {KEY}.", code=f'"{KEY}"'))

    assert KEY not in f"{error}{error.code}{error!r}"
    assert str(error).startswith("Incorrect API key provided: [key]")
