"""Whatever stands on the command line: settings that can be used, or one clear line."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st

from ctrfs.errors import ConfigError, CtrfsError
from ctrfs.mount.options import _FLAGS, _VALUES, parse_options
from ctrfs.mount.source import SourceKind, api_config_for, parse_source, state_binding

FUZZ = settings.get_profile("fuzz")
NAMES = sorted(_FLAGS | _VALUES)
values = st.one_of(
    st.text(max_size=20),
    st.from_regex(r"\A[0-9]{1,20}(\.[0-9]{1,4})?[kmgtKMGTsdh]{0,2}\Z"),
    st.sampled_from(
        ["", "0", "-1", "1e309", "9" * 400, "9" * 5000, "none", "nan", "inf", "644", "~nobody/x",
        "~" * 300, "~\0", "a\0b", "re:(", "re:" + "(" * 2000, "re:a{99999999}", "+re:[", "x" * 9000,
        "\ud800", "٣", "²", "1٣", "*.example.com", "[::1", "http://[", "https://a:b@c/", "\\"]
    ),
)  # fmt: skip
options = st.one_of(
    st.text(max_size=30),
    st.sampled_from(NAMES),
    st.builds("{}={}".format, st.sampled_from(NAMES), values),
    st.builds("{}={}".format, st.text(max_size=8), values),
)


@settings(FUZZ)
@given(st.lists(options, max_size=6).map(",".join))
@example("base_url=http://[")
@example("local_only=re:" + "(" * 5000)
@example("local_only=re:(a+)+$")
def test_options_are_understood_or_refused_in_one_line(text: str) -> None:
    try:
        said = parse_options([text], uid=0, gid=0, umask=0)
    except ConfigError as error:
        assert "\n" not in str(error)
        return
    assert said.drain_timeout_s > 0
    assert said.api.connections_max > 0
    try:
        api_config_for(parse_source("openai:"), said, environment={"OPENAI_API_KEY": "sk-x"})
    except ConfigError as error:
        assert "\n" not in str(error)


@settings(FUZZ)
@given(st.sampled_from(NAMES), values)
def test_each_option_survives_each_value(name: str, value: str) -> None:
    text = value.replace("\\", "\\\\").replace(",", "\\,")
    try:
        parse_options([f"{name}={text}"], uid=0, gid=0, umask=0)
    except ConfigError as error:
        assert name in str(error) or "option" in str(error)


@settings(FUZZ)
@given(st.one_of(st.text(max_size=40), st.builds("{}:{}".format, st.sampled_from(["openai", "local", "x", ""]), values)))  # fmt: skip
@example("local:~no-such-user-anywhere/x")
@example("openai:\x1b[2J")
def test_a_source_is_understood_or_refused_in_one_line(text: str) -> None:
    try:
        source = parse_source(text)
    except ConfigError as error:
        assert "\n" not in str(error)
        return
    assert source.kind in SourceKind
    assert parse_source(source.text) == source


@settings(FUZZ)
@given(values, values, values)
def test_an_environment_is_understood_or_refused_in_one_line(
    base_url: str, key: str, organization: str
) -> None:
    said = parse_options([], uid=0, gid=0, umask=0)
    environment = {
        "OPENAI_BASE_URL": base_url,
        "OPENAI_API_KEY": key,
        "OPENAI_ORG_ID": organization,
    }
    try:
        source = parse_source("openai:")
        config = api_config_for(source, said, environment=environment)
        state_binding(source, config)
    except CtrfsError as error:
        assert "\n" not in str(error)
        assert len(key) < 8 or key in base_url + organization or key not in str(error)
