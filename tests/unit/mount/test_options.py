from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ctrfs.config import DEFAULT_LOCAL_ONLY, SlashMode
from ctrfs.errors import ConfigError
from ctrfs.mount.options import MountOptions, parse_options
from ctrfs.units import GIB, MIB

WORDS = [
    "ttl=", "max_stale=", "cache_size=", "spool_size=", "uid=", "umask=", "local_only=", "timeout=",
    "expires_after=", "network_policy=", "state_dir=", "slashes=", "ro", "key=", "user", "x-", "re:",
    "~", "\\", ",", "=", "\0", "9" * 400, "-1", "1e999", "inf", "nan", "(", "[", "*", "1g", "٣",
]  # fmt: skip


def parse(*texts: str) -> MountOptions:
    return parse_options(texts, uid=1000, gid=100, umask=0o027)


def test_without_options_everything_has_its_usual_value() -> None:
    options = parse()

    assert (options.files.uid, options.files.gid, options.files.umask) == (1000, 100, 0o027)
    assert options.tree.ttl_s == 10.0
    assert options.files.local_only == DEFAULT_LOCAL_ONLY
    assert not options.allow_other


def test_options_are_separated_by_commas_and_may_come_in_several_arguments() -> None:
    options = parse("ttl=2m,uid=0", "ro,cache_size=64M")

    assert options.tree.ttl_s == 120.0
    assert options.files.uid == 0
    assert options.files.read_only
    assert options.content.cache_bytes_max == 64 * MIB


def test_the_last_word_on_an_option_wins() -> None:
    options = parse("ttl=1,ro,ttl=3,rw")

    assert options.tree.ttl_s == 3.0
    assert not options.files.read_only


def test_every_setting_can_be_said() -> None:
    options = parse(
        "max_stale=5m,expired=show,slashes=encode,memory_limit=4G,expires_after=20m,"
        "network_policy=pypi.org:files.pythonhosted.org,gid=7,umask=077,file_mode=640,dir_mode=0750,"
        "allow_other,allow_root,rename_dir_limit=5,max_file_size=1G,spool_size=2G,"
        "max_open_files=9,timeout=7,stall_timeout=8,retries=4,max_connections=3,rps=2.5,state_dir=/s,"
        "base_url=https://example.org/v1,log_file=/l,log_level=warning,key_file=/k,key_command=pass show k,write=through,"
        "insecure_http,nonempty,drain_timeout=5s,connect_timeout=250ms,transfer_timeout=1h"
    )

    assert options.tree.show_expired
    assert options.tree.max_stale_s == 300.0
    assert options.tree.slash_mode is SlashMode.CUT
    assert options.files.defaults.memory_limit == "4g"
    assert options.files.defaults.expires_after_minutes == 20
    assert options.files.defaults.network_policy == "pypi.org files.pythonhosted.org"
    assert (options.files.gid, options.files.umask) == (7, 0o077)
    assert (options.files.file_mode, options.files.directory_mode) == (0o640, 0o750)
    assert (options.files.rename_dir_limit, options.files.open_files_max) == (5, 9)
    assert options.content.file_bytes_max == GIB
    assert options.content.spool_bytes_max == 2 * GIB
    assert (options.api.metadata_timeout_s, options.api.stall_timeout_s) == (7.0, 8.0)
    assert options.content.stall_timeout_s == 8.0
    assert options.api.connect_timeout_s == 0.25
    assert (options.api.transfer_timeout_s, options.content.transfer_timeout_s) == (3600.0, 3600.0)
    assert (options.api.retries_max, options.content.download_retries_max) == (4, 4)
    assert options.api.connections_max == 3
    assert options.api.requests_per_s_max == 2.5
    assert (options.state_dir, options.log_file) == (Path("/s"), Path("/l"))
    assert options.key_file == Path("/k")
    assert options.key_command == "pass show k"
    assert options.base_url == "https://example.org/v1"
    assert options.log_level == "warning"
    assert all([options.allow_other, options.allow_root, options.nonempty, options.insecure_http])
    assert options.drain_timeout_s == 5.0


def test_a_long_ttl_alone_raises_the_limit_of_stale_answers_with_it() -> None:
    assert parse("ttl=1h").tree.max_stale_s == 3600.0


def test_the_limit_of_a_call_has_two_names_and_the_last_word_wins() -> None:
    assert parse("timeout=7").api.metadata_timeout_s == 7.0
    assert parse("metadata_timeout=7,timeout=8").api.metadata_timeout_s == 8.0
    assert parse("timeout=7,metadata_timeout=8").api.metadata_timeout_s == 8.0


@pytest.mark.parametrize("text", ["1g", "4g", "16g", "64G"])
def test_the_memory_limits_of_the_service_are_taken(text: str) -> None:
    assert parse(f"memory_limit={text}").files.defaults.memory_limit == text.lower()


def test_an_escaped_comma_belongs_to_the_value() -> None:
    assert parse(r"state_dir=/a\,b\\c,ro").state_dir == Path(r"/a,b\c")


def test_what_fstab_adds_for_others_is_passed_over() -> None:
    assert parse("defaults,_netdev,noauto,nofail,user,users,x-gvfs-show,comment=a b,nodev,rw") == (
        parse()
    )


def test_local_only_patterns_replace_the_usual_ones_or_are_added_to_them() -> None:
    assert parse("local_only=*.tmp:re:a[0-9]+").files.local_only == ("*.tmp", "re:a[0-9]+")
    assert parse("local_only=none").files.local_only == ()
    assert parse("local_only=+*.tmp").files.local_only == (*DEFAULT_LOCAL_ONLY, "*.tmp")


def test_nothing_is_cached_on_demand() -> None:
    assert parse("cache_size=none").content.cache_bytes_max == 0


@pytest.mark.parametrize("option", ["key=sk-1", "api_key=sk-1", "token=sk-1"])
def test_a_key_in_an_option_is_refused_without_repeating_it(option: str) -> None:
    with pytest.raises(ConfigError, match="OPENAI_API_KEY") as caught:
        parse(option)
    assert "sk-1" not in str(caught.value)


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("tll=3", "did you mean ttl?"),
        ("write_back", "did you mean write=back?"),
        ("writethrough", "did you mean write=through?"),
        ("write_dely=3", "did you mean write_delay?"),
        ("wibble", "unknown option 'wibble'"),
        ("ttl", "needs a value"),
        ("ttl=", "needs a value"),
        ("ttl=soon", "not a duration"),
        ("ttl=9,max_stale=3", "max_stale at least ttl"),
        ("ro=1", "takes no value"),
        ("write=later", "through"),
        ("write_delay=10m", "from 0 to 300"),
        ("umask=9", "not octal"),
        ("uid=root", "not a whole number"),
        ("uid=4294967295", "must be from 0 to"),
        ("expires_after=60", "must be from 1 to 20"),
        ("memory_limit=lots", "must be 1g"),
        ("memory_limit=2g", "must be 1g"),
        ("max_connections=257", "must be from 1 to 256"),
        ("retries=11", "must be from 0 to 10"),
        ("metadata_timeout=2h", "must be from 1 to 3600 seconds"),
        ("stall_timeout=0.5", "must be from 1 to 3600 seconds"),
        ("transfer_timeout=0.5", "must be from 1 to 604800 seconds"),
        ("connect_timeout=3m", "must be from 0.1 to 120 seconds"),
        ("drain_timeout=0", "must be from 0.1 to 86400 seconds"),
        ("network_policy=http://a", "not a domain"),
        ("local_only=re:(", "not a regular expression"),
        ("expired=maybe", "must be one of show, hide"),
        ("rps=0", "must be from 0.01 to 1000"),
        ("rps=1001", "must be from 0.01 to 1000"),
        ("rps=fast", "not a number"),
        ("max_connections=0", "must be from 1 to 256"),
        ("timeout=0", "must be from 1 to 3600 seconds"),
        ("cache_size=" + "9" * 400, "cache_size"),
    ],
)
def test_an_option_that_cannot_be_used_is_named_with_the_reason(option: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(option)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@given(st.lists(st.one_of(st.sampled_from(WORDS), st.text(max_size=8)), max_size=12))
@example(["local_only=", "re:", "(" * 5000])
def test_nothing_but_a_config_error_ever_comes_out(words: list[str]) -> None:
    try:
        parse("".join(words))
    except ConfigError as error:
        assert "\n" not in str(error)  # noqa: PT017  # only if it is raised at all
