"""The control routes, and the rules of faults."""

from __future__ import annotations

import json

import pytest
from tests.support.service import InProcessService, ServiceError
from tests.unit.server.conftest import Caller

from ctrfs.clock import SystemClock
from ctrfs.errors import ConfigError
from ctrfs.server.application import Application
from ctrfs.server.behaviour import Behaviour
from ctrfs.server.faults import FaultRules, rule_from_json
from ctrfs.server.service import Service


def struck(fields: dict[str, object], requests: int) -> list[bool]:
    rules = FaultRules()
    rules.add(rule_from_json({"route": "list_files", "action": "reset", **fields}))
    return [rules.take("list_files") is not None for _ in range(requests)]


def test_a_rule_strikes_every_request_unless_told_otherwise() -> None:
    assert struck({}, 3) == [True, True, True]


def test_a_rule_can_strike_the_nth_request_only() -> None:
    assert struck({"nth": 2}, 4) == [False, True, False, False]


def test_a_rule_can_strike_a_number_of_requests() -> None:
    assert struck({"count": 2}, 4) == [True, True, False, False]
    assert struck({"nth": 2, "count": 2}, 4) == [False, True, True, False]


def test_a_rule_leaves_other_operations_alone() -> None:
    rules = FaultRules()
    rules.add(rule_from_json({"route": "list_files", "action": "reset"}))

    assert rules.take("create_file") is None


def test_the_first_rule_that_strikes_decides_and_all_count() -> None:
    rules = FaultRules()
    rules.add(rule_from_json({"route": "*", "action": "status", "status": 503, "count": 1}))
    rules.add(rule_from_json({"route": "*", "action": "status", "status": 429, "nth": 2}))

    statuses = [fault.status if (fault := rules.take("x")) else None for _ in range(3)]

    assert statuses == [503, 429, None]


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"action": "explode"},
        {"action": "reset", "when": "later"},
        {"action": "reset", "nth": "2"},
        {"action": "delay", "seconds": "2"},
        {"action": "status", "headers": []},
        {"action": "status", "colour": "red"},
    ],
)
def test_a_rule_that_means_nothing_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        rule_from_json(fields)


async def test_a_status_can_be_answered_instead(service: InProcessService, call: Caller) -> None:
    error = {"error": {"message": "slow down", "type": "t", "param": None, "code": "c"}}
    service.add_fault(
        "create_container", "status", status=429, headers={"Retry-After": "7"}, body=error
    )

    answer = await call("POST", "/containers", body=b'{"name": "a"}')

    assert (answer.status, answer.headers["Retry-After"]) == (429, "7")
    assert json.loads(answer.body) == error
    assert service.containers() == []


async def test_a_status_can_be_answered_after_the_operation(
    service: InProcessService, call: Caller
) -> None:
    service.add_fault("create_container", "status", status=500, when="after")

    answer = await call("POST", "/containers", body=b'{"name": "a"}')

    assert answer.status == 500
    assert len(service.containers()) == 1


async def test_a_status_may_have_a_body_that_is_not_json(
    service: InProcessService, call: Caller
) -> None:
    service.add_fault(
        "*", "status", status=502, body="<html>", headers={"Content-Type": "text/html"}
    )

    answer = await call("GET", "/containers")

    assert (answer.status, answer.body) == (502, b"<html>")
    assert answer.headers["Content-Type"] == "text/html"


async def test_cleared_faults_strike_no_more(service: InProcessService, call: Caller) -> None:
    service.add_fault("*", "status")
    service.clear_faults()

    assert (await call("GET", "/containers")).status == 200


async def test_planted_files_stand_exactly_where_they_were_put(service: InProcessService) -> None:
    container = service.create_container("a")
    hostile = ["/etc/passwd", "/mnt/data/../x", "", "/mnt/data/\ud800", "/mnt/data/a\x00b"]

    for path in hostile:
        service.plant(container, path, path.encode("utf-8", "replace"), created_at=1757000000)

    rows = service.files(container)
    assert [row["path"] for row in rows] == hostile[::-1]
    assert {row["source"] for row in rows} == {"assistant"}
    assert {row["created_at"] for row in rows} == {1757000000}


async def test_a_text_can_be_planted(service: InProcessService, call: Caller) -> None:
    container = service.create_container("a")

    answer = await call(
        "POST",
        f"/v1/_control/containers/{container}/files",
        body=b'{"path": "/mnt/data/a", "text": "abc", "source": "user"}',
    )

    facts = json.loads(answer.body)
    assert facts["source"] == "user"
    assert service.content(container, facts["id"]) == b"abc"


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/_control/nothing", b""),
        ("POST", "/_control/clock", b"{}"),
        ("POST", "/_control/clock", b'{"advance_s": -1}'),
        ("POST", "/_control/behaviour", b'{"x": 1}'),
        ("POST", "/_control/containers/none/files", b'{"path": "/a", "text": ""}'),
        ("POST", "/_control/containers/none/files", b'{"path": "/a"}'),
        ("POST", "/_control/containers/none/files", b'{"path": "/a", "content_base64": "?"}'),
        ("POST", "/_control/containers/none/files", b'{"text": ""}'),
        ("POST", "/_control/containers/none/files", b'{"path": "", "text": "", "created_at": -1}'),
    ],
)
async def test_a_control_that_means_nothing_is_refused(
    service: InProcessService, call: Caller, method: str, path: str, body: bytes
) -> None:
    answer = await call(method, path, body=body)

    assert answer.status in {400, 404}
    assert service.state.blobs.names() == set()


async def test_controls_need_the_key_and_are_not_counted(
    service: InProcessService, call: Caller
) -> None:
    answer = await call("GET", "/_control/counters", headers={"authorization": ""})

    assert answer.status == 401
    assert service.counters() == {}


async def test_without_control_there_are_no_controls(service: InProcessService) -> None:
    plain = Service(state=service.state, clock=SystemClock(), behaviour=Behaviour())
    service.application = Application(plain)

    with pytest.raises(ServiceError, match="404"):
        service.counters()
