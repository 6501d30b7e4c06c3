"""A module has at most 400 lines, and a function at most 40 lines and three levels of nesting (CONTRIBUTING.md)."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests.docs import tracked
from tests.support.environment import ROOT

BLOCKS = (ast.If, ast.For, ast.While, ast.With, ast.Try, ast.Match)
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def too_large(source: str) -> Iterator[str]:
    if source.count("\n") > 400:
        yield "module"
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, FUNCTIONS):
            if (node.end_lineno or 0) - node.lineno + 1 > 40:
                yield f"{node.name}: lines"
            if nesting(node) > 3:
                yield f"{node.name}: nesting"


def nesting(node: ast.AST) -> int:
    """Return how many blocks are nested below a node. `elif` opens no further block."""
    deepest = 0
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, FUNCTIONS):
            is_elif = isinstance(node, ast.If) and isinstance(child, ast.If) and child in node.orelse
            deepest = max(deepest, nesting(child) + (isinstance(child, BLOCKS) and not is_elif))
    return deepest


def test_modules_and_functions_are_small() -> None:
    found = {path: [*too_large((ROOT / path).read_text())] for path in tracked() if path.endswith(".py")}
    assert {path: faults for path, faults in found.items() if faults} == {}


LEVELS = "def f():\n  if a:\n    for b in c:\n      with d:\n        {}\n"


@pytest.mark.parametrize(
    ("source", "faults"),
    [
        ("\n" * 400, []),
        ("\n" * 401, ["module"]),
        ("def f():\n" + "  a()\n" * 39, []),
        ("def f():\n" + "  a()\n" * 40, ["f: lines"]),
        (LEVELS.format("e()"), []),
        (LEVELS.format("while e: g()"), ["f: nesting"]),
        ("def f():\n  if a: b()\n  elif c: d()\n  elif e: g()\n  elif h: i()\n", []),
    ],
)
def test_what_is_too_large_is_found(source: str, faults: list[str]) -> None:
    assert [*too_large(source)] == faults
