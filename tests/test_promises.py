"""Every numbered promise of docs/semantics.md has a test that names it; through a mount, too.

A test names a promise by the docstring of its function: ``Promise 16.``, ``Promises 3, 7 and
10``, ``Promises 7 to 12a``. That of a module does not count: it says what the file is about.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

TESTS: Final = Path(__file__).parent
SEMANTICS: Final = TESTS.parent / "docs" / "semantics.md"
NUMBER: Final = r"\d+a?"
NAMED: Final = re.compile(
    rf"\b[Pp]romises? ((?:{NUMBER})(?:(?:, | and |, and | to )(?:{NUMBER}))*)"
)
# Fixtures that are a mount, or work on one as well as in process.
MOUNTS: Final = frozenset(
    {"mount", "make_mount", "shared_mount", "place", "second_place", "folder"}
    | {"workplace", "container", "mounted_container", "mounts"}
)
# What a kernel adds nothing to, and why.
IN_PROCESS_ONLY: Final = {
    "6": "which name a server gets does not depend on who asks",
    "21": "that no request is sent is counted below the kernel",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Naming:
    """One test function and the promises that it names."""

    place: str
    promises: frozenset[str]
    is_mounted: bool


def promises() -> dict[str, str]:
    """Return the paragraphs of docs/semantics.md that begin with a number."""
    text = SEMANTICS.read_text("utf-8")
    found = re.findall(rf"^\*\*({NUMBER})\.\*\* (.*?)\n\n", text, re.MULTILINE | re.DOTALL)
    return dict(found)


def promises_kept() -> dict[str, str]:
    """Return those of them that this version makes."""
    return {
        number: text
        for number, text in promises().items()
        if not re.fullmatch(r"[^.]*\*\*not in this version\*\*\.", text.replace("\n", " "))
    }


def named_in(docstring: str, order: list[str]) -> Iterator[str]:
    """Yield the numbers that ``docstring`` names; ``order`` tells what lies between two."""
    for match in NAMED.finditer(docstring):
        words = re.findall(rf"{NUMBER}|to", match[1])
        for index, word in enumerate(words):
            if word != "to":
                yield word
            else:
                first, last = order.index(words[index - 1]), order.index(words[index + 1])
                yield from order[first:last]


def namings() -> list[Naming]:
    """Return all test functions that name promises."""
    order = list(promises())
    found: list[Naming] = []
    for path in sorted(TESTS.rglob("test_*.py")):
        tree = ast.parse(path.read_text("utf-8"))
        is_mounted_module = any(
            "mounted" in ast.unparse(node.value)
            for node in tree.body
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "pytestmark"
        )
        for node in ast.walk(tree):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            if not node.name.startswith("test_"):
                continue
            named = frozenset(named_in(ast.get_docstring(node) or "", order))
            marks = any("mounted" in ast.unparse(mark) for mark in node.decorator_list)
            fixtures = {argument.arg for argument in node.args.args}
            # There, a fixture of the same name is a file system without a kernel.
            is_unit = path.is_relative_to(TESTS / "unit")
            found.append(
                Naming(
                    place=f"{path.relative_to(TESTS)}::{node.name}",
                    promises=named,
                    is_mounted=is_mounted_module
                    or marks
                    or (not is_unit and bool(fixtures & MOUNTS)),
                )
            )
    return [naming for naming in found if naming.promises]


NAMINGS: Final = namings()


@pytest.mark.parametrize("number", promises_kept())
def test_each_promise_has_a_test_that_names_it(number: str) -> None:
    assert [each.place for each in NAMINGS if number in each.promises]


@pytest.mark.parametrize(
    "number", [number for number in promises_kept() if number not in IN_PROCESS_ONLY]
)
def test_each_promise_has_a_test_through_a_real_mount(number: str) -> None:
    assert [each.place for each in NAMINGS if number in each.promises and each.is_mounted]


def test_no_test_names_a_promise_that_is_not_made() -> None:
    unknown = {
        each.place: each.promises - promises().keys()
        for each in NAMINGS
        if not each.promises <= promises().keys()
    }

    assert unknown == {}


def test_what_a_docstring_names_is_read_right() -> None:
    order = ["7", "8", "12", "12a", "13"]

    assert set(named_in("Promises 7, 8 to 12a and 13: so.", order)) == {"7", "8", "12", "12a", "13"}
    assert set(named_in("Keeps what promise 12a says of 7.", order)) == {"12a"}
