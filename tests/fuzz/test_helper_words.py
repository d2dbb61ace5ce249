"""Whatever mount(8), umount(8) or a person says to the helpers: understood, or one clear line."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st

from ctrfs.errors import ConfigError
from ctrfs.mount.helper import mount_call_from, umount_call_from
from ctrfs.mount.options import split_unknown

FUZZ = settings.get_profile("fuzz")
words = st.lists(
    st.one_of(
        st.text(max_size=8),
        st.sampled_from(["openai:", "/mnt", "-o", "-s", "-f", "-n", "-v", "-N", "-t", "--", "-"]),
        st.text("-sfnvlrwoNt=,\\\n", max_size=6),
    ),
    max_size=8,
)


@settings(FUZZ)
@given(words)
@example(["-sfnv", "openai:", "/mnt", "-o", "a\\,b,,=,ttl"])
def test_any_words_are_understood_or_refused_in_one_line(arguments: list[str]) -> None:
    for understand in (mount_call_from, umount_call_from):
        try:
            call = understand(arguments)
        except ConfigError as error:
            assert "\n" not in str(error)
            continue
        assert call.mountpoint in arguments


@settings(FUZZ)
@given(st.text("abco=,\\_-tl5", max_size=30))
@example("")
def test_leaving_out_unknown_options_keeps_the_known_ones_as_they_were(text: str) -> None:
    known, _ = split_unknown(f"ttl=5,{text},local_only=a\\,b")

    assert split_unknown(known) == (known, ())
    assert known.startswith("ttl=5")
    # A backslash before the comma makes the rest a part of what stands before it.
    assert text.endswith("\\") or known.endswith(",local_only=a\\,b")
