from __future__ import annotations

import pytest

from ctrfs.errors import ConfigError
from ctrfs.mount.helper import MountCall, UmountCall, mount_call_from, umount_call_from
from ctrfs.mount.options import MountOptions, parse_options

# What libmount hands over for a line of fstab, word by word.
FSTAB = "rw,nosuid,nodev,noexec,ttl=5,allow_other,_netdev,user,nofail"


def options_of(call: MountCall) -> MountOptions:
    return parse_options(call.options, uid=0, gid=0, umask=0o22)


def test_what_mount_says_for_a_line_of_fstab_is_understood() -> None:
    call = mount_call_from(["openai:", "/mnt", "-o", FSTAB])

    assert (call.source, call.mountpoint) == ("openai:", "/mnt")
    said = options_of(call)
    assert said.tree.ttl_s == 5
    assert said.allow_other
    assert said.no_exec
    assert not said.files.read_only


def test_a_whole_line_of_fstab_is_understood_without_mount_too() -> None:
    line = (
        "defaults,noauto,auto,users,owner,group,x-systemd.automount,x-systemd.idle-timeout=60,"
        "X-mount.mkdir,comment=ours,suid,dev,exec,async,sync,relatime,helper=ctrfs,user=joe,ro"
    )

    said = options_of(mount_call_from(["openai:", "/mnt", "-o", line]))

    assert said.files.read_only
    assert not said.no_exec


@pytest.mark.parametrize(
    ("line", "is_read_only", "has_no_exec"),
    [
        ("ro", True, False),
        ("ro,rw", False, False),
        ("rw,ro", True, False),
        ("noexec", False, True),
        ("noexec,exec", False, False),
        ("exec,noexec", False, True),
        ("", False, False),
    ],
)
def test_the_last_of_two_opposite_options_holds(
    line: str, *, is_read_only: bool, has_no_exec: bool
) -> None:
    said = options_of(mount_call_from(["openai:", "/mnt", "-o", line]))

    assert (said.files.read_only, said.no_exec) == (is_read_only, has_no_exec)


def test_letters_may_come_together_and_anywhere() -> None:
    call = MountCall(
        source="openai:",
        mountpoint="/mnt",
        options=("ttl=5", "ro"),
        is_fake=True,
        is_verbose=True,
        leaves_no_note=True,
    )

    assert (
        mount_call_from(["openai:", "/mnt", "-fnv", "-o", "ttl=5", "-o", "ro", "-t", "fuse.ctrfs"])
        == call
    )
    assert mount_call_from(["-f", "-n", "-v", "openai:", "-o", "ttl=5", "/mnt", "-o", "ro"]) == call
    assert mount_call_from(["-fnvottl=5", "-r", "-tctrfs", "openai:", "/mnt"]) == call


def test_posixly_correct_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSIXLY_CORRECT", "1")

    assert mount_call_from(["openai:", "/mnt", "-o", "ro"]).options == ("ro",)


def test_sloppy_drops_what_does_not_exist_and_nothing_else() -> None:
    call = mount_call_from(["openai:", "/mnt", "-s", "-o", "colour=red,ttl=5,_netdev,shiny,ro"])

    assert call.options == ("ttl=5,_netdev,ro",)
    assert call.unknown == ("colour", "shiny")


@pytest.mark.parametrize("option", ["ttl=never", "key=sk-1", "remount", "write"])
def test_sloppy_tolerates_neither_bad_values_nor_what_is_refused(option: str) -> None:
    call = mount_call_from(["openai:", "/mnt", "-s", "-o", option])

    with pytest.raises(ConfigError, match=option.partition("=")[0]):
        options_of(call)


def test_without_sloppy_an_unknown_option_is_named() -> None:
    with pytest.raises(ConfigError, match="unknown option 'colour'"):
        options_of(mount_call_from(["openai:", "/mnt", "-o", "colour=red"]))


@pytest.mark.parametrize(
    ("words", "is_noted"),
    [
        ("-o ro,ttl=5", False),
        ("", False),
        ("-o ro -o _netdev", True),
        ("-o user=joe", True),
        ("-o helper=ctrfs", True),
        ("-n", True),
        # mount(8) keeps these to itself, so that they say nothing.
        ("-o nofail,users", False),
    ],
)
def test_a_mount_that_mount_itself_writes_down_is_known(words: str, *, is_noted: bool) -> None:
    assert mount_call_from(["openai:", "/mnt", *words.split()]).is_noted_by_mount is is_noted


def test_what_umount_says_is_understood() -> None:
    assert umount_call_from(["/mnt", "-t", "fuse.ctrfs"]) == UmountCall(mountpoint="/mnt")
    assert umount_call_from(
        ["/mnt", "-n", "-l", "-f", "-v", "-r", "-t", "fuse.ctrfs", "-N", "/proc/7/fd/3"]
    ) == (
        UmountCall(
            mountpoint="/mnt",
            is_lazy=True,
            is_forced=True,
            is_verbose=True,
            leaves_no_note=True,
            namespace="/proc/7/fd/3",
        )
    )


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ([], "a source and a directory"),
        (["openai:"], "a source and a directory"),
        (["openai:", "/mnt", "/mnt2"], "a source and a directory"),
        (["openai:", "/mnt", "-o"], "-o needs a value"),
        (["openai:", "/mnt", "-x"], "unknown option 'x'"),
        (["openai:", "/mnt", "--foreground"], "unknown option 'foreground'"),
        (["openai:", "/mnt", "-N", "7"], "nsenter"),
    ],
)
def test_words_that_cannot_be_understood_are_named(words: list[str], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        mount_call_from(words)


@pytest.mark.parametrize("words", [[], ["/mnt", "/mnt2"], ["/mnt", "-o", "ro"], ["/mnt", "-t"]])
def test_words_that_umount_would_not_say_are_refused(words: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"umount\.ctrfs DIR"):
        umount_call_from(words)
