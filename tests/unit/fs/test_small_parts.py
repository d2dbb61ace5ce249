"""Local-only names, handles and the failure log."""

from __future__ import annotations

import pytest
from tests.support.in_process import READ, WRITE, InProcessMount

from ctrfs.config import DEFAULT_LOCAL_ONLY
from ctrfs.errors import (
    BadHandleError,
    ConfigError,
    NoSuchEntryError,
    RemoteRefusedError,
    StaleHandleError,
)
from ctrfs.fs.failure_log import ENTRIES_MAX, FailureLog, text_of
from ctrfs.fs.local_only import LocalOnlyNames
from ctrfs.tree.nodes import InodeNumber

DEFAULTS = LocalOnlyNames(DEFAULT_LOCAL_ONLY)


def path(text: str) -> tuple[bytes, ...]:
    return tuple(text.encode().split(b"/"))


@pytest.mark.parametrize(
    "name",
    [
        ".goutputstream-AB12CD", ".a.txt.swp", ".a.swo", "4913", "a.txt~", ".#a", "#a#",
        ".~lock.a.odt#", ".DS_Store", "._a", "Thumbs.db", "desktop.ini", ".nfs0001",
        ".fuse_hidden0001", "sedAb3dEf", "sub/a~", ".report.csv.Xy12Zz", ".git/index.lock",
        ".git/refs/heads/main.lock", ".git/objects/ab/tmp_obj_X1", "project/.git/config.lock",
        "sub/project/.git/objects/tmp_pack_1",
    ],
)  # fmt: skip
def test_passing_names_stay_on_this_machine(name: str) -> None:
    """Promise 22."""
    assert DEFAULTS.match(path(name))


@pytest.mark.parametrize(
    "name",
    [
        "a.txt", "sedative", "sedan", "sedimen", "swp", "a.swp", ".bashrc", "~a", "4913.txt",
        ".gitignore", ".profile.backup", ".config.number", "yarn.lock", "src/.gitkeep",
        ".git/HEAD", ".git/objects/ab/cdef", "git/index.lock", "a~/b", "#a", "nfs0001",
        ".DS_Store/x", "xThumbs.db", "a\n~\nb",
    ],
)  # fmt: skip
def test_ordinary_names_are_sent(name: str) -> None:
    """Promise 22."""
    assert not DEFAULTS.match(path(name))


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [
        ("[ab].txt", "a.txt", True),
        ("[!ab].txt", "a.txt", False),
        ("[!ab].txt", "c.txt", True),
        ("[^a]", "^", True),
        ("[]a]", "]", True),
        ("[", "[", True),
        ("a?c", "a\u00e9c", False),
        ("a??c", "a\u00e9c", True),
        ("x/*.o", "x/a.o", True),
        ("x/*.o", "x/y/a.o", False),
        ("x/**", "x/y/a.o", True),
        ("**/y/*", "y/a", True),
        ("re:a+", "aaa", True),
        ("re:a+", "aab", False),
        ("re:a|b", "ab", False),
        ("a.c", "abc", False),
    ],
)
def test_patterns_mean_what_a_shell_means_by_them(pattern: str, name: str, matches: bool) -> None:
    assert LocalOnlyNames([pattern]).match(path(name)) is matches


def test_no_patterns_match_nothing() -> None:
    assert not LocalOnlyNames([]).match((b"",))
    assert not LocalOnlyNames([]).match((b"a~",))


@pytest.mark.parametrize("pattern", ["re:(", "re:a)|(b", "re:*", "re:(?i)a"])
def test_a_wrong_regular_expression_is_a_wrong_option(pattern: str) -> None:
    with pytest.raises(ConfigError):
        LocalOnlyNames([pattern])


def test_regular_expressions_that_do_not_go_together_are_wrong_options() -> None:
    with pytest.raises(ConfigError):
        LocalOnlyNames(["re:(?P<x>a)", "re:(?P<x>b)"])


def test_the_failure_log_keeps_the_newest_failures() -> None:
    log = FailureLog()

    for number in range(ENTRIES_MAX + 1):
        log.note(InodeNumber(number), RemoteRefusedError("no"))

    assert log.get(InodeNumber(0)) is None
    assert log.get(InodeNumber(ENTRIES_MAX)) == "no"
    log.clear(InodeNumber(ENTRIES_MAX))
    assert log.get(InodeNumber(ENTRIES_MAX)) is None


def test_a_failure_is_told_with_the_services_request_id() -> None:
    refused = RemoteRefusedError("no", request_id="req_1")
    stale = StaleHandleError("gone")
    stale.__cause__ = refused

    assert text_of(refused) == "no (request req_1)"
    assert text_of(stale) == "gone (request req_1)"
    assert text_of(StaleHandleError()) == "StaleHandleError"


def test_a_failure_that_quotes_another_names_its_request_once() -> None:
    refused = RemoteRefusedError("no", request_id="req_1")
    stale = StaleHandleError(f"container c is gone: {text_of(refused)}")
    stale.__cause__ = refused

    assert text_of(stale) == "container c is gone: no (request req_1)"


def test_only_failures_of_service_and_disk_are_noted() -> None:
    log = FailureLog()

    with pytest.raises(NoSuchEntryError), log.noting(InodeNumber(1)):
        raise NoSuchEntryError("everyday")
    with pytest.raises(RemoteRefusedError), log.noting(InodeNumber(2)):
        raise RemoteRefusedError("no")

    assert log.get(InodeNumber(1)) is None
    assert log.get(InodeNumber(2)) == "no"


async def test_a_handle_does_only_what_it_was_opened_for(mount: InProcessMount) -> None:
    await mount.write_file("work/a", b"a")
    reader, writer = await mount.open("work/a", READ), await mount.open("work/a", WRITE)
    directory = await mount.fs.opendir((await mount.stat("work")).inode)
    handles = mount.parts.handles

    with pytest.raises(BadHandleError):
        await mount.fs.write(reader, 0, b"x")
    with pytest.raises(BadHandleError):
        await mount.fs.read(directory, 0, 1)
    with pytest.raises(BadHandleError):
        mount.fs.readdir(reader, 0)
    inode = (await mount.stat("work/a")).inode
    assert handles.is_open(inode)
    assert handles.is_being_written(inode)

    await mount.close(writer)
    assert not handles.is_being_written(inode)
    await mount.close(reader)
    mount.fs.releasedir(directory)
    assert not handles.is_open(inode)
    assert len(handles) == 0
