"""Names whose files stay on this machine: docs/semantics.md, promise 22."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from ctrfs.errors import ConfigError
from ctrfs.tree.nodes import EntryPath

REGEX_MARK: Final = "re:"


class LocalOnlyNames:
    """A list of patterns, compiled once.

    A pattern without a slash is matched against the name, one with a slash against the path
    inside the container; ``*`` and ``?`` stop at a slash, ``**`` does not. ``re:`` introduces
    a regular expression for the whole name.
    """

    def __init__(self, patterns: Iterable[str]) -> None:
        """Compile ``patterns``.

        Raises:
            ConfigError: One of them cannot be understood.
        """
        names: list[str] = []
        paths: list[str] = []
        for pattern in patterns:
            (paths if "/" in pattern else names).append(_regex_from(pattern))
        self._name = _compiled_together(names)
        self._path = _compiled_together(paths)

    def match(self, path: EntryPath) -> bool:
        """Tell whether the file at ``path`` inside its container stays on this machine."""
        if self._name.fullmatch(path[-1]):
            return True
        return self._path.fullmatch(b"/".join(path)) is not None


def _compiled_together(regexes: list[str]) -> re.Pattern[bytes]:
    try:
        return re.compile("|".join(regexes).encode() or b"(?!)", re.DOTALL)
    except re.error as error:  # one name for two groups, for example
        raise ConfigError(f"local_only: the patterns do not go together: {error}") from None


def _regex_from(pattern: str) -> str:
    if pattern.startswith(REGEX_MARK):
        bare = pattern.removeprefix(REGEX_MARK)
        regex = f"(?:{bare})"
        try:
            # Both: "a)|(b" makes sense only in brackets, and flags only outside of them.
            re.compile(bare.encode())
            re.compile(regex.encode())
        except re.error as error:
            raise ConfigError(
                f"local_only: {pattern!r} is no regular expression: {error}"
            ) from None
        return regex
    regex = ""
    position = 0
    while position < len(pattern):
        token = _TOKEN.match(pattern, position)
        assert token is not None  # the last alternative takes any character
        regex += _GLOB.get(token[0]) or _class_or_literal(token[0])
        position = token.end()
    return f"(?:{regex})"


_TOKEN: Final = re.compile(r"\*\*/|\*\*|\*|\?|\[!?\]?[^\]/]*\]|.", re.DOTALL)
_GLOB: Final = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}


def _class_or_literal(token: str) -> str:
    if len(token) == 1:
        return re.escape(token)
    inner = token[1:-1].replace("\\", r"\\").replace("[", r"\[")
    negated = inner.startswith("!")
    members = inner[1:] if negated else inner.replace("^", r"\^", 1)
    return f"[{'^' if negated else ''}{members.replace(']', chr(92) + ']')}]"
