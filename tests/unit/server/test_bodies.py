"""The exact bytes of JSON bodies."""

from __future__ import annotations

import json

from ctrfs.server import bodies, refusals
from ctrfs.server.records import ContainerRecord, FileRecord, NetworkPolicy
from ctrfs.units import NS_PER_S

FILE = FileRecord(
    sequence=1,
    id="cfile_1",
    container_id="cntr_1",
    path='/mnt/data/odd "name" \\ é \ud800 \x00.csv',
    size_bytes=50,
    source="user",
    created_at_s=1757000000,
    listed_from_ns=0,
    blob="",
    digest="",
)
FILE_FACTS = {
    "id": "cfile_1",
    "object": "container.file",
    "created_at": 1757000000,
    "bytes": 50,
    "container_id": "cntr_1",
    "path": FILE.path,
    "source": "user",
}


def container(policy: NetworkPolicy) -> ContainerRecord:
    return ContainerRecord(
        sequence=1,
        id="cntr_1",
        name="a\nb",
        created_at_ns=1757000000 * NS_PER_S + 5,
        ready_at_ns=0,
        status="running",
        minutes=20,
        last_active_at_ns=0,
        memory_limit="1g",
        network_policy=policy,
    )


def container_facts(policy: dict[str, object]) -> dict[str, object]:
    return {
        "id": "cntr_1",
        "object": "container",
        "created_at": 1757000000,
        "status": "running",
        "expires_after": {"anchor": "last_active_at", "minutes": 20},
        "last_active_at": 1757000099,
        "memory_limit": "1g",
        "name": "a\nb",
        "network_policy": policy,
    }


def test_a_file_is_written_as_json_dumps_writes_it() -> None:
    assert bodies.file_body(FILE) == json.dumps(FILE_FACTS, indent=2)


def test_a_hidden_size_is_null() -> None:
    assert bodies.file_body(FILE, hides_size=True) == json.dumps(
        {**FILE_FACTS, "bytes": None}, indent=2
    )


def test_a_container_is_written_as_json_dumps_writes_it() -> None:
    body = bodies.container_body(
        container(NetworkPolicy(type="disabled")), last_active_at_ns=1757000099 * NS_PER_S
    )

    assert body == json.dumps(container_facts({"type": "disabled"}), indent=2)


def test_an_allowlist_shows_its_domains() -> None:
    policy = NetworkPolicy(type="allowlist", allowed_domains=("a.example", "b.example"))

    body = bodies.container_body(container(policy), last_active_at_ns=1757000099 * NS_PER_S)

    shown: dict[str, object] = {"type": "allowlist", "allowed_domains": ["a.example", "b.example"]}
    assert body == json.dumps(container_facts(shown), indent=2)


def test_a_page_is_written_as_json_dumps_writes_it() -> None:
    rows = [bodies.file_body(FILE), bodies.file_body(FILE)]

    body = bodies.list_body(rows, first_id="x", has_more=True, last_id="y")

    facts = {
        "object": "list",
        "data": [FILE_FACTS, FILE_FACTS],
        "first_id": "x",
        "has_more": True,
        "last_id": "y",
    }
    assert body == json.dumps(facts, indent=2)


def test_an_empty_page_has_null_ids() -> None:
    body = bodies.list_body([], first_id=None, has_more=False, last_id=None)

    assert body == (
        '{\n  "object": "list",\n  "data": [],\n  "first_id": null,\n'
        '  "has_more": false,\n  "last_id": null\n}'
    )


def test_a_deletion_is_confirmed() -> None:
    assert bodies.deletion_body("cfile_1", "container.file") == (
        '{\n  "id": "cfile_1",\n  "object": "container.file.deleted",\n  "deleted": true\n}'
    )


def test_an_error_has_all_four_keys() -> None:
    body = bodies.error_body(refusals.no_such_file())

    assert json.loads(body) == {
        "error": {
            "message": "File not found.",
            "type": "invalid_request_error",
            "param": None,
            "code": None,
        }
    }


def test_only_the_ends_of_a_long_key_are_shown() -> None:
    assert refusals.masked_key("sk-proj-abcdefghijkl") == "sk-proj-********ijkl"
    assert refusals.masked_key("sk-short") == "********"
