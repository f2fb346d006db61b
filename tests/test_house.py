"""The house rules, read off our own code."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import pytest

ROOT = Path(__file__).parent.parent
ALLOWED = {
    "common": {"common"},
    "serve": {"common", "serve"},
    "train": {"common", "train"},
    "cluster": {"common", "serve", "train", "cluster"},
}
FILES = [path for package in ALLOWED for path in sorted((ROOT / package).rglob("*.py"))]


def imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            yield node.module or ""


def functions(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Name and length in lines, docstring aside."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            documentation = ast.get_docstring(node, clean=False)
            lines = (node.end_lineno or 0) - node.lineno + 1
            yield node.name, lines - (documentation.count("\n") + 1 if documentation else 0)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_one_way_and_files_are_small(path: Path) -> None:
    text = path.read_text(encoding="utf8")
    package = path.relative_to(ROOT).parts[0]
    for module in imports(ast.parse(text)):
        top = module.split(".")[0]
        assert top not in ALLOWED or top in ALLOWED[package], f"{package} imports {module}"
        assert not (package == "common" and top == "ray"), "common imports ray"
    assert text.count("\n") <= 250
    for name, lines in functions(ast.parse(text)):
        assert lines <= 60, f"{name} has {lines} lines"


def test_functions_are_short() -> None:
    lengths = [lines for path in FILES for _, lines in functions(ast.parse(path.read_text(encoding="utf8")))]
    assert median(lengths) <= 10
