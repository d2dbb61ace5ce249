from __future__ import annotations

from pathlib import Path

import pytest

from ctrfs.config import DEFAULT_BASE_URL, Secret
from ctrfs.errors import ConfigError
from ctrfs.mount.options import MountOptions, parse_options
from ctrfs.mount.source import (
    Source,
    SourceKind,
    api_config_for,
    parse_source,
    state_binding,
)

ACCOUNT = Source(kind=SourceKind.OPENAI)


def options(*texts: str) -> MountOptions:
    return parse_options(texts, uid=0, gid=0, umask=0)


def test_the_four_forms_of_a_source_are_understood() -> None:
    assert parse_source("openai:") == ACCOUNT
    assert parse_source("openai:my data: 1") == Source(
        kind=SourceKind.OPENAI, container="my data: 1"
    )
    assert parse_source("local:") == Source(kind=SourceKind.LOCAL)
    assert parse_source("local:/srv/data") == Source(
        kind=SourceKind.LOCAL, directory=Path("/srv/data")
    )


@pytest.mark.parametrize("text", ["openai:", "openai:a b", "local:", "local:/srv/data"])
def test_a_source_can_be_written_again(text: str) -> None:
    assert parse_source(text).text == text


@pytest.mark.parametrize(
    "text", ["", "openai", "/srv", "azure:", "openai:a\nb", "local:~nobody-x/"]
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_source(text)


def test_address_key_and_account_come_from_the_environment() -> None:
    config = api_config_for(
        ACCOUNT,
        options("timeout=7"),
        environment={
            "OPENAI_API_KEY": " sk-1\n",
            "OPENAI_BASE_URL": "https://example.org/v1/",
            "OPENAI_ORG_ID": "org-1",
            "OPENAI_PROJECT_ID": "proj-1",
        },
    )

    assert config.key == Secret("sk-1")
    assert config.base_url == "https://example.org/v1"
    assert (config.organization, config.project) == ("org-1", "proj-1")
    assert config.metadata_timeout_s == 7.0


def test_empty_variables_count_as_unset() -> None:
    config = api_config_for(
        ACCOUNT,
        options(),
        environment={"OPENAI_API_KEY": "sk-1", "OPENAI_BASE_URL": "", "OPENAI_ORG_ID": ""},
    )

    assert config.base_url == DEFAULT_BASE_URL
    assert config.organization is None


def test_without_a_key_the_user_is_told_where_to_put_it_and_what_needs_none() -> None:
    with pytest.raises(ConfigError, match=r"no API key: set OPENAI_API_KEY.*local: needs none"):
        api_config_for(ACCOUNT, options(), environment={})


def test_a_service_on_this_machine_needs_no_key() -> None:
    config = api_config_for(ACCOUNT, options("base_url=http://127.0.0.1:8400/v1"), environment={})

    assert config.key is None


def test_a_key_file_and_a_key_command_exclude_each_other() -> None:
    with pytest.raises(ConfigError, match="exclude each other"):
        api_config_for(ACCOUNT, options("key_file=/k,key_command=cat /k"), environment={})


def test_a_key_command_wins_over_the_environment_and_can_be_run_again() -> None:
    config = api_config_for(
        ACCOUNT, options("key_command=echo sk-3"), environment={"OPENAI_API_KEY": "sk-1"}
    )

    assert config.key == Secret("sk-3")
    assert config.read_key is not None
    assert config.read_key() == Secret("sk-3")
    assert "sk-" not in repr(config)


def test_a_key_of_the_environment_cannot_be_read_again() -> None:
    config = api_config_for(ACCOUNT, options(), environment={"OPENAI_API_KEY": "sk-1"})

    assert config.read_key is None


def test_a_key_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    key_file = tmp_path / "key"
    key_file.write_text("sk-2\n")
    key_file.chmod(0o640)

    with pytest.raises(ConfigError, match="chmod 600"):
        api_config_for(ACCOUNT, options(f"key_file={key_file}"), environment={})


def test_a_private_key_file_wins_over_the_environment(tmp_path: Path) -> None:
    key_file = tmp_path / "key"
    key_file.write_text("sk-2\n")
    key_file.chmod(0o600)

    config = api_config_for(
        ACCOUNT, options(f"key_file={key_file}"), environment={"OPENAI_API_KEY": "sk-1"}
    )

    assert config.key == Secret("sk-2")


@pytest.mark.parametrize(
    ("base_url", "words"),
    [
        ("http://example.org/v1", "unencrypted"),
        ("ftp://example.org", "must look like"),
        ("https://", "must look like"),
        ("https://user:secret@example.org", "user name or password"),
        ("http://[::1", "cannot be read"),
        ("https://example.org:99999", "cannot be read"),
    ],
)
def test_an_address_that_leaks_or_makes_no_sense_is_refused(base_url: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        api_config_for(
            ACCOUNT, options(f"base_url={base_url}"), environment={"OPENAI_API_KEY": "sk-1"}
        )
    assert "secret" not in str(caught.value)


def test_plain_http_can_be_allowed_on_purpose() -> None:
    config = api_config_for(
        ACCOUNT,
        options("insecure_http,base_url=http://example.org/v1"),
        environment={"OPENAI_API_KEY": "sk-1"},
    )

    assert config.base_url == "http://example.org/v1"


def test_a_key_that_cannot_be_one_is_refused_without_being_shown() -> None:
    with pytest.raises(ConfigError, match="not an API key") as caught:
        api_config_for(ACCOUNT, options(), environment={"OPENAI_API_KEY": "sk-1 sk-2"})
    assert "sk-1" not in str(caught.value)


def test_the_local_service_is_reached_over_its_socket_without_the_environment() -> None:
    config = api_config_for(
        Source(kind=SourceKind.LOCAL),
        options(),
        environment={"OPENAI_BASE_URL": "https://example.org/v1"},
        unix_socket=Path("/run/s"),
    )

    assert config.unix_socket == Path("/run/s")
    assert config.base_url == "http://localhost/v1"


def test_the_local_state_of_a_source_outlives_a_change_of_the_key() -> None:
    configs = [
        api_config_for(ACCOUNT, options(), environment={"OPENAI_API_KEY": key})
        for key in ("sk-1", "sk-2")
    ]

    assert state_binding(ACCOUNT, configs[0]) == state_binding(ACCOUNT, configs[1])
