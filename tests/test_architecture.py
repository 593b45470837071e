"""The house stands: who may import whom, which libraries stay in which room, and no file grows past its size."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Every room may import itself and these.
MAY_IMPORT: dict[str, frozenset[str]] = {
    "schemas": frozenset(),
    "storage": frozenset({"schemas"}),
    "models": frozenset({"schemas"}),
    "cluster": frozenset({"schemas"}),
    "actors": frozenset({"schemas", "storage", "models", "cluster"}),
    "pipelines": frozenset({"schemas", "storage", "models", "cluster", "actors"}),
    "serve": frozenset({"schemas", "storage", "models", "cluster", "actors"}),
    "rushes": frozenset({"schemas", "storage", "models", "cluster", "actors", "pipelines", "serve"}),
    "benchmarks": frozenset({"schemas", "storage", "models", "cluster", "actors", "pipelines", "serve", "rushes"}),
}
ONLY_IN: dict[str, frozenset[str]] = {
    "torch": frozenset({"models", "benchmarks"}),
    "diffusers": frozenset({"models"}),
    "transformers": frozenset({"models"}),
    "peft": frozenset({"models"}),
    "fastapi": frozenset({"serve", "benchmarks"}),
    "starlette": frozenset({"serve", "benchmarks"}),
    "uvicorn": frozenset({"serve", "benchmarks"}),
    "sqlalchemy": frozenset({"serve"}),
    "boto3": frozenset({"storage"}),
    "botocore": frozenset({"storage"}),
}
MOST_LINES = 400

FILES = sorted(path for room in MAY_IMPORT for path in (ROOT / room).rglob("*.py"))


def imports_of(path: Path) -> set[str]:
    """Top-level names that a file imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found


def shown(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", FILES, ids=shown)
def test_a_room_imports_only_the_rooms_below_it(path: Path) -> None:
    room = path.relative_to(ROOT).parts[0]
    reached = imports_of(path) & MAY_IMPORT.keys() - {room}
    assert reached <= MAY_IMPORT[room], f"{shown(path)} imports {sorted(reached - MAY_IMPORT[room])}"


@pytest.mark.parametrize("path", FILES, ids=shown)
def test_a_heavy_library_stays_in_its_room(path: Path) -> None:
    room = path.relative_to(ROOT).parts[0]
    strays = {name for name in imports_of(path) & ONLY_IN.keys() if room not in ONLY_IN[name]}
    assert not strays, f"{shown(path)} imports {sorted(strays)}, which belong to {[sorted(ONLY_IN[s]) for s in strays]}"


@pytest.mark.parametrize("path", FILES, ids=shown)
def test_no_file_has_grown_past_what_one_noun_needs(path: Path) -> None:
    lines = len(path.read_text().splitlines())
    assert lines <= MOST_LINES, f"{shown(path)} has {lines} lines: it is more than one noun"


def test_the_rule_sees_a_violation(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.py"
    wrong.write_text("def late():\n    from pipelines.run import render\n    import torch\n")
    assert imports_of(wrong) == {"pipelines", "torch"}


def test_no_file_is_named_after_nothing() -> None:
    empty_names = {"utils.py", "helpers.py", "common.py", "misc.py"}
    assert not [shown(path) for path in FILES if path.name in empty_names]
