"""The floors and rooms of docs/architecture.md, checked.

Nothing lower imports anything higher, and whoever looks for a module finds a line that says what
it is for.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "ctrfs"
ARCHITECTURE = ROOT / "docs" / "architecture.md"

# Each floor may import itself and the floors before it.
VOCABULARY = frozenset(
    {
        "errors",
        "config",
        "units",
        "clock",
        "single_flight",
        "keyed_lock",
        "failpoints",
        "deadlines",
        "errands",
        "ownership",
        "running_digest",
    }
)
FLOORS: list[frozenset[str]] = [
    VOCABULARY,
    frozenset({"api", "disk"}),
    frozenset({"tree"}),
    frozenset({"content"}),
    frozenset({"fs"}),
    frozenset({"fuse"}),
    frozenset({"mount", "cli", "__main__"}),
]
FLOOR_OF = {name: level for level, names in enumerate(FLOORS) for name in names}
STRANGERS = [("api", "disk"), ("disk", "api")]
# Who may import whom from outside.
ALLOWED_IN: dict[str, set[str]] = {
    "httpcore": {"api"},
    "httpx": {"api"},
    "pyfuse3": {"fuse"},
    # Outward, only fuse turns a failure into an errno; the others read the local system's own.
    "errno": {"fuse", "disk", "mount", "server"},
    "sqlite3": {"disk", "server"},
    "cachetools": {"tree", "disk"},
    "h11": {"server"},
    "click": {"cli"},
    "rich": {"cli"},
    "platformdirs": {"cli", "mount"},
    # Records are msgspec's, on every floor: docs/decisions/0001-libraries.md tells why.
    "dataclasses": set(),
}
ENVIRONMENT_READERS = {"cli", "mount"}
LINES_MAX = 500
FUNCTION_LINES_MAX = 70

MODULES = sorted(
    path for path in SOURCE.rglob("*.py") if path.parent != SOURCE or path.stem != "__init__"
)
ALL_MODULES = pytest.mark.parametrize(
    "path", MODULES, ids=lambda path: str(path.relative_to(SOURCE))
)


def part_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported_names(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def parts_imported(path: Path) -> set[str]:
    return {
        name.split(".")[1]
        for name in imported_names(path)
        if name.startswith("ctrfs.") and len(name.split(".")) > 1
    }


@ALL_MODULES
def test_a_module_imports_only_its_own_floor_and_lower_ones(path: Path) -> None:
    part = part_of(path)
    for imported in parts_imported(path):
        if part == "server":
            assert imported in VOCABULARY | {"server"}, f"the server imports {imported}"
        elif imported == "server":
            assert part == "cli", f"{part} imports the server"
        else:
            assert FLOOR_OF[imported] <= FLOOR_OF[part], f"{part} imports {imported}"
            assert (part, imported) not in STRANGERS, f"{part} imports {imported}"


@ALL_MODULES
def test_an_outside_package_is_imported_only_in_its_own_room(path: Path) -> None:
    for name in imported_names(path):
        head = name.split(".")[0]
        if head in ALLOWED_IN:
            assert part_of(path) in ALLOWED_IN[head], f"{part_of(path)} imports {name}"


@ALL_MODULES
def test_only_the_programs_read_the_environment(path: Path) -> None:
    if part_of(path) in ENVIRONMENT_READERS:
        return
    for node in ast.walk(ast.parse(path.read_text())):
        assert not (isinstance(node, ast.Attribute) and node.attr in {"environ", "getenv", "argv"})


@ALL_MODULES
def test_a_module_is_no_longer_than_the_wall(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= LINES_MAX


@ALL_MODULES
def test_a_function_fits_on_a_page(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            assert lines <= FUNCTION_LINES_MAX, f"{node.name} has {lines} lines"


def modules_named_in_the_rooms() -> set[tuple[str, str]]:
    """Return the folder and the name of each module that docs/architecture.md has a word about."""
    rooms = ARCHITECTURE.read_text().split("\n## Rooms\n")[1].split("```")[1]
    named: set[tuple[str, str]] = set()
    folder = ""
    for line in rooms.splitlines():
        begun = re.match(r"  (\w+)/ ", line)
        folder = begun[1] if begun else folder
        named |= {(folder, name) for name in re.findall(r"\b\w+\.py\b", line)}
    return named


def places_of_modules() -> set[tuple[str, str]]:
    return {
        (str(path.parent.relative_to(SOURCE)).removeprefix("."), path.name)
        for path in MODULES
        if path.stem != "__init__"
    }


def test_each_module_but_those_of_commands_is_named_in_the_rooms() -> None:
    missing = places_of_modules() - modules_named_in_the_rooms()

    assert {(folder, name) for folder, name in missing if folder != "cli"} == set()


def test_the_rooms_name_no_module_that_is_not_there() -> None:
    assert modules_named_in_the_rooms() - places_of_modules() == set()


def test_every_package_says_what_it_is() -> None:
    for path in SOURCE.rglob("__init__.py"):
        tree = ast.parse(path.read_text())
        assert ast.get_docstring(tree), path
        assert len(tree.body) == 1, f"{path} holds more than a docstring"
