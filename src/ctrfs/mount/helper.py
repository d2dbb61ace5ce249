"""The words with which mount(8) and umount(8) call their helpers; pure.

    mount.ctrfs SOURCE DIR [-sfnv] [-N NAMESPACE] [-o OPTIONS] [-t TYPE]
    umount.ctrfs DIR [-flnrv] [-N NAMESPACE] [-t TYPE]

Source: mount(8) and umount(8), EXTERNAL HELPERS; libmount 2.38 to 2.41, ``exec_helper``: it puts
SOURCE and DIR first and each letter in a word of its own. Options that it keeps for itself
(``x-…``, ``noauto``, ``comment=``) never arrive, the others do.
"""

from __future__ import annotations

import getopt
from collections.abc import Sequence
from typing import Final

import msgspec

from ctrfs.errors import ConfigError
from ctrfs.mount.option_values import parts_of, printable
from ctrfs.mount.options import split_unknown

MOUNT_USAGE: Final = "mount.ctrfs SOURCE DIR [-sfnv] [-o OPTION,…] [-t TYPE]"
UMOUNT_USAGE: Final = "umount.ctrfs DIR [-flnrv] [-N NAMESPACE] [-t TYPE]"

# What libmount writes into its table of mounts by itself, so that umount(8) looks there.
# Source: libmount/src/optmap.c, the userspace options without MNT_NOMTAB; 2026-08.
_KEPT_BY_MOUNT: Final = frozenset({"_netdev", "helper", "uhelper", "user"})
# Both are old words for options; libmount does not say them, people do.
_MODES: Final = {"-r": "ro", "-w": "rw"}


class MountCall(msgspec.Struct, frozen=True, kw_only=True):
    """What mount(8) wants."""

    source: str
    mountpoint: str
    options: tuple[str, ...] = ()
    """Lists of options, as for ``ctrfs mount -o``; what is for others is still in them."""
    unknown: tuple[str, ...] = ()
    """Names of options that do not exist and were tolerated."""
    is_fake: bool = False
    """Check everything, mount nothing."""
    is_verbose: bool = False
    leaves_no_note: bool = False
    """Write nothing into the table of mounts."""

    @property
    def is_noted_by_mount(self) -> bool:
        """Whether mount(8) itself will write this mount into its table, or must not."""
        names = {
            option.partition("=")[0]
            for text in self.options
            for option in parts_of(text, separator=",")
        }
        return self.leaves_no_note or not names.isdisjoint(_KEPT_BY_MOUNT)


class UmountCall(msgspec.Struct, frozen=True, kw_only=True):
    """What umount(8) wants."""

    mountpoint: str
    is_lazy: bool = False
    """Detach now, whoever uses it; nobody waits for the end then."""
    is_forced: bool = False
    """Break the connection: programs in the mount get an error instead of an answer."""
    is_verbose: bool = False
    leaves_no_note: bool = False
    namespace: str | None = None
    """Of the mount, if it is not ours; as umount(8) takes it."""


def mount_call_from(arguments: Sequence[str]) -> MountCall:
    """Return what the words behind the name of the program say.

    Raises:
        ConfigError: They cannot be understood, or ask for what cannot be done.
    """
    words, settings = _parsed(arguments, "sfnvrwo:t:N:", usage=MOUNT_USAGE)
    if len(words) != 2:
        raise ConfigError(f"a source and a directory are needed: {MOUNT_USAGE}")
    letters = {letter for letter, _ in settings}
    if "-N" in letters:
        raise ConfigError("-N is not supported: call mount inside the namespace (nsenter -m)")
    options = [_MODES.get(letter, text) for letter, text in settings if letter in {"-o", *_MODES}]
    unknown: list[str] = []
    if "-s" in letters:
        for number, text in enumerate(options):
            options[number], names = split_unknown(text)
            unknown.extend(names)
    return MountCall(
        source=words[0],
        mountpoint=words[1],
        options=tuple(options),
        unknown=tuple(unknown),
        is_fake="-f" in letters,
        is_verbose="-v" in letters,
        leaves_no_note="-n" in letters,
    )


def umount_call_from(arguments: Sequence[str]) -> UmountCall:
    """Return what the words behind the name of the program say.

    ``-r`` asks to mount read-only what cannot be unmounted; that cannot be done, and the
    unmount just fails.

    Raises:
        ConfigError: They cannot be understood.
    """
    words, settings = _parsed(arguments, "flnrvt:N:", usage=UMOUNT_USAGE)
    if len(words) != 1:
        raise ConfigError(f"one directory is needed: {UMOUNT_USAGE}")
    values = dict(settings)
    return UmountCall(
        mountpoint=words[0],
        is_lazy="-l" in values,
        is_forced="-f" in values,
        is_verbose="-v" in values,
        leaves_no_note="-n" in values,
        namespace=values.get("-N"),
    )


def _parsed(
    arguments: Sequence[str], letters: str, *, usage: str
) -> tuple[list[str], list[tuple[str, str]]]:
    """Return the words and the settings, in whatever order they come."""
    words: list[str] = []
    settings: list[tuple[str, str]] = []
    rest = list(arguments)
    # Not gnu_getopt: under POSIXLY_CORRECT it would take all behind SOURCE for words.
    while rest:
        try:
            found, rest = getopt.getopt(rest, letters)
        except getopt.GetoptError as error:
            raise ConfigError(f"{_reason(error)}: {usage}") from error
        settings += found
        words += rest[:1]
        rest = rest[1:]
    return words, settings


def _reason(error: getopt.GetoptError) -> str:
    is_known = "requires" in error.msg
    return (
        f"option -{error.opt} needs a value"
        if is_known
        else f"unknown option {printable(error.opt)}"
    )
