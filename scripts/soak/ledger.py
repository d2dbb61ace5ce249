"""What may stand under each path, after operations of which some failed.

An operation that succeeded leaves one answer; one that failed may have been carried out or
not, so it leaves two, until the next that succeeds. Contents are told by their digests;
``ABSENT`` stands for no file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, TypeAlias

Digest: TypeAlias = str | None

ABSENT: Final[Digest] = None


def digest_of(content: bytes | bytearray) -> str:
    """Return what stands for ``content`` in a ledger."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


class Ledger:
    """The paths of one container that one process works in.

    Invariant: no set of acceptable answers is empty.
    """

    def __init__(self, acceptable: Mapping[str, Iterable[Digest]] | None = None) -> None:
        self._acceptable: dict[str, set[Digest]] = {
            path: set(answers) for path, answers in (acceptable or {}).items()
        }

    @classmethod
    def from_json(cls, text: str) -> Ledger:
        """Return the ledger that ``to_json`` wrote."""
        rows: dict[str, list[Digest]] = json.loads(text)
        return cls(rows)

    def to_json(self) -> str:
        """Return the ledger as text."""
        rows = {
            path: sorted(answers, key=str) for path, answers in sorted(self._acceptable.items())
        }
        return json.dumps(rows, indent=1)

    def settle(self, path: str, answer: Digest) -> None:
        """An operation succeeded: from now on ``path`` holds ``answer`` and nothing else."""
        self._acceptable[path] = {answer}

    def doubt(self, path: str, *answers: Digest) -> None:
        """An operation failed: ``path`` may hold what it held, or one of ``answers``."""
        self._acceptable[path] = self.acceptable(path) | set(answers)

    def move(self, path: str, other: str) -> None:
        """A rename succeeded."""
        self._acceptable[other] = self.acceptable(path) - {ABSENT} or {ABSENT}
        self._acceptable[path] = {ABSENT}

    def doubt_move(self, path: str, other: str) -> None:
        """A rename failed: each of the two names may be as before or as after."""
        self.doubt(other, *(self.acceptable(path) - {ABSENT}))
        self.doubt(path, ABSENT)

    def acceptable(self, path: str) -> set[Digest]:
        """Return what ``path`` may hold."""
        return set(self._acceptable.get(path, {ABSENT}))

    def may_hold(self, path: str, seen: Digest) -> bool:
        """Tell whether ``path`` may be seen to hold ``seen``."""
        return seen in self.acceptable(path)

    def __iter__(self) -> Iterator[str]:
        """Go through the paths that were ever written to."""
        return iter(self._acceptable)

    def present(self) -> list[str]:
        """Return the paths that hold a file for sure."""
        return [path for path, answers in self._acceptable.items() if ABSENT not in answers]

    def forget_absent(self) -> None:
        """Drop the paths that hold nothing for sure: a path not named holds nothing anyway."""
        self._acceptable = {
            path: answers for path, answers in self._acceptable.items() if answers != {ABSENT}
        }

    def differences(self, seen: Mapping[str, str]) -> list[str]:
        """Return one sentence for each path of which ``seen`` says what may not be."""
        paths = sorted(self._acceptable.keys() | seen.keys())
        return [
            f"{path}: {seen.get(path, 'nothing')} instead of {_shown(self.acceptable(path))}"
            for path in paths
            if not self.may_hold(path, seen.get(path, ABSENT))
        ]


def _shown(answers: set[Digest]) -> str:
    return " or ".join(sorted(answer or "nothing" for answer in answers))
