"""What may be true after a crash, given what had been acknowledged and what was in flight.

A world is a whole file tree. An operation that was acknowledged has happened in every world;
one that failed or was in flight may have happened or not, so that there are more worlds after
it. What a test sees after a crash must be one of them, whole: a rename that left both names
is none, nor is one that left neither.
"""

from __future__ import annotations

import enum
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeAlias

from tests.crash.worker import content_of

World: TypeAlias = Mapping[str, bytes | None]
"""Bytes by path from the mount point; None for a folder or container."""

# Doubled by each failure; more mean that a test's faults are too many to say anything.
WORLDS_MAX: Final = 4096


class Kind(enum.Enum):
    """What an operation does; the names of ``tests.crash.worker.CALLS``."""

    SAVE = "save"
    """Open with O_TRUNC, write, close."""
    APPEND = "append"
    """Open with O_APPEND, write, fsync, close."""
    SAVE_RENAMED = "save_renamed"
    """Write a new file, rename it over another before it is closed, close."""
    COPY_TREE = "copy_tree"
    """``cp -r`` of a local folder."""
    RENAME = "rename"
    UNLINK = "unlink"
    MKDIR = "mkdir"
    RMDIR = "rmdir"


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One call of a program, acknowledged or not as a whole."""

    kind: Kind
    path: str
    to: str = ""
    seed: int = 0
    size: int = 0

    def fields(self) -> tuple[str, str, str, int, int]:
        """Return it as the worker reads it."""
        return self.kind.value, self.path, self.to, self.seed, self.size


@dataclass(slots=True, kw_only=True)
class Ledger:
    """Follows one worker.

    Attributes:
        worlds: What may be true now, if nothing is in flight.
        in_flight: What has begun and not ended.
        failed: What ended with an error, and its errno.
        failed_in: What might have been true just before it.
        acknowledged: How many operations have succeeded.
    """

    worlds: list[World] = field(default_factory=lambda: [{}])
    in_flight: list[Operation] = field(default_factory=list)
    failed: list[tuple[Operation, int]] = field(default_factory=list)
    failed_in: dict[Operation, list[World]] = field(default_factory=dict)
    acknowledged: int = 0

    def read(self, path: Path, operations: Sequence[Operation]) -> None:
        """Take in what a worker has written about ``operations``."""
        for line in path.read_text().splitlines() if path.exists() else []:
            what, number, *error = line.split()
            operation = operations[int(number)]
            match what:
                case "begin":
                    self.in_flight.append(operation)
                case "done":
                    self.in_flight.remove(operation)
                    self.acknowledged += 1
                    self._acknowledge(operation)
                case "failed":
                    self.in_flight.remove(operation)
                    self.failed.append((operation, int(error[0])))
                    self.failed_in[operation] = self.worlds
                    self.worlds = self._with_outcomes(operation)
                case _:
                    raise AssertionError(f"the ledger says {line!r}")

    def possible(self) -> list[World]:
        """Return every world that a crash now may leave."""
        worlds = self.worlds
        for operation in self.in_flight:
            worlds = _distinct(each for world in worlds for each in outcomes(world, operation))
        return worlds

    def settle(self, seen: World) -> None:
        """Go on from what was seen after a crash."""
        self.worlds, self.in_flight, self.failed, self.failed_in = [seen], [], [], {}

    def _acknowledge(self, operation: Operation) -> None:
        afters = (after(world, operation) for world in self.worlds)
        worlds = _distinct(world for world in afters if world is not None)
        assert worlds, f"{operation} succeeded, which no possible state of the files explains"
        self.worlds = worlds

    def _with_outcomes(self, operation: Operation) -> list[World]:
        worlds = _distinct(each for world in self.worlds for each in outcomes(world, operation))
        assert len(worlds) <= WORLDS_MAX, "too many failures to tell what must be true"
        return worlds


def run_list(path: Path, operations: Iterable[Operation]) -> Path:
    """Write operations where a worker reads them."""
    path.write_text(json.dumps([operation.fields() for operation in operations]))
    return path


def outcomes(world: World, operation: Operation) -> list[World]:
    """Return what ``world`` may be when ``operation`` was cut off anywhere."""
    done = after(world, operation)
    if done is None:
        return [world]
    if operation.kind is Kind.RENAME and "/" not in operation.path:
        # Until the new container is known to be ours it may be somebody else's: docs/durability.md.
        beside = f"{operation.to}~" if operation.to in world else operation.to
        return [world, done, {**world, beside: None}]
    if operation.kind is not Kind.COPY_TREE:
        return [world, done]
    # Of a copied tree, each file is there or not; no program promises an order.
    new = [path for path in done if path not in world]
    return [world] + [
        {**world, **{path: done[path] for path in some}}
        for count in range(1, len(new) + 1)
        for some in itertools.combinations(new, count)
        if all(_parent(path) in {*world, *some} for path in some)
    ]


def after(world: World, operation: Operation) -> World | None:  # noqa: PLR0911  # one for each kind
    """Return ``world`` after ``operation``; None if it must fail there."""
    path, to = operation.path, operation.to
    content = content_of(operation.seed, operation.size)
    match operation.kind:
        case Kind.SAVE if _takes_file(world, path):
            return {**world, path: content}
        case Kind.APPEND:
            before = world.get(path)
            return None if before is None else {**world, path: before + content}
        case Kind.SAVE_RENAMED if (
            path not in world and _takes_file(world, path) and _takes_file(world, to)
        ):
            return {**world, to: content}
        case Kind.COPY_TREE if to not in world and _is_folder(world, _parent(to)):
            return {**world, to: None, **_copied(Path(path), to)}
        case Kind.RENAME:
            return _renamed(world, path, to)
        case Kind.UNLINK if world.get(path) is not None:
            return _without(world, path)
        case Kind.MKDIR if path not in world and _is_folder(world, _parent(path)):
            return {**world, path: None}
        case Kind.RMDIR if path in world and world[path] is None and not _below(world, path):
            return _without(world, path)
        case _:
            return None


def _renamed(world: World, path: str, to: str) -> World | None:
    if path not in world or path == to or to.startswith(path + "/"):
        return None
    if world[path] is not None:
        return {**_without(world, path), to: world[path]} if _takes_file(world, to) else None
    same_container = path.partition("/")[0] == to.partition("/")[0]
    both_containers = "/" not in path and "/" not in to
    if both_containers and _below(world, path):
        return None
    if not (both_containers or ("/" in path and "/" in to and same_container)):
        return None
    if world.get(to) is not None or _below(world, to) or not _is_folder(world, _parent(to)):
        return None
    moved = {to + each[len(path) :]: world[each] for each in [path, *_below(world, path)]}
    left = {each: world[each] for each in world if each != path and each not in _below(world, path)}
    return {**left, **moved}


def _copied(source: Path, to: str) -> dict[str, bytes | None]:
    return {
        f"{to}/{path.relative_to(source)}": path.read_bytes() if path.is_file() else None
        for path in source.rglob("*")
    }


def _takes_file(world: World, path: str) -> bool:
    is_folder = path in world and world[path] is None
    return "/" in path and not is_folder and _is_folder(world, _parent(path))


def _is_folder(world: World, path: str) -> bool:
    return not path or (path in world and world[path] is None)


def _below(world: World, path: str) -> list[str]:
    return [each for each in world if each.startswith(path + "/")]


def _without(world: World, path: str) -> World:
    return {each: content for each, content in world.items() if each != path}


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


def _distinct(worlds: Iterable[World]) -> list[World]:
    return list({frozenset(world.items()): world for world in worlds}.values())
