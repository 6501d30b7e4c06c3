"""A package imports only itself and packages earlier in the order, so that each can be read, tested and moved alone."""

import ast
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

ORDER = {
    "deploys": (
        *("internals", "terminal", "secrets", "config", "build", "facts", "operations", "components"),
        *("converge", "checks", "offsite", "rotation", "cli"),
    ),
    "stackctl": ("core", "services", "app", "backup", "host", "release", "restore", "cli"),
}
APART = {"deploys.components"}
"""Packages whose modules never import one another."""


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the line and the full name of each import in a file. The name of a relative import is not resolved."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, one.name) for one in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            yield from ((node.lineno, f"{base}.{one.name}") for one in node.names)


def wrong(root: Path, program: str, order: Sequence[str]) -> list[str]:
    """Return every import of a later package. A module without a package comes after all packages."""
    rank = {name: position for position, name in enumerate(order)}
    found = []
    for path in sorted((root / program).rglob("*.py")):
        _, *own = path.relative_to(root).with_suffix("").parts
        for line, name in imported(path):
            first, *other = name.split(".")
            there = rank.get(other[0], len(order)) if first == program else -1
            sideways = first == program and own[0] == other[0] and own[1] != other[1] and f"{program}.{own[0]}" in APART
            if not first or there > rank.get(own[0], len(order)) or sideways:
                found.append(f"{path.relative_to(root)}:{line} {name}")
    return found


@pytest.mark.parametrize("program", ORDER)
def test_imports_go_to_the_left(program: str) -> None:
    assert wrong(Path(), program, ORDER[program]) == []


@pytest.mark.parametrize("program", ORDER)
def test_every_package_has_its_place(program: str) -> None:
    assert {path.parent.name for path in Path(program).glob("*/__init__.py")} <= {*ORDER[program]}


def test_stackctl_imports_only_the_standard_library() -> None:
    names = {name.split(".")[0] for path in Path("stackctl").rglob("*.py") for _, name in imported(path)}
    assert names <= {"stackctl", *sys.stdlib_module_names}


@pytest.mark.parametrize(
    ("source", "seen"),
    [
        ("from stackctl.app import state", ["stackctl.app.state"]),
        ("from stackctl.app.state import load", ["stackctl.app.state.load"]),
        ("from stackctl import app", ["stackctl.app"]),
        ("def late():\n    import stackctl.app.state", ["stackctl.app.state"]),
        ("from stackctl import __version__", ["stackctl.__version__"]),
        ("from ..app import state", ["..app.state"]),
        ("from stackctl.core import durable\nfrom stackctl.services import redis\nimport os", []),
    ],
)
def test_an_import_to_the_right_is_reported(source: str, seen: list[str], tmp_path: Path) -> None:
    module = tmp_path / "stackctl" / "services" / "docker.py"
    module.parent.mkdir(parents=True)
    module.write_text(source)
    assert [one.split()[1] for one in wrong(tmp_path, "stackctl", ORDER["stackctl"])] == seen


def test_components_never_import_one_another(tmp_path: Path) -> None:
    module = tmp_path / "deploys" / "components" / "ssh.py"
    module.parent.mkdir(parents=True)
    module.write_text("from deploys.components import ci\nfrom deploys.config import settings\n")
    assert wrong(tmp_path, "deploys", ("config", "components")) == ["deploys/components/ssh.py:1 deploys.components.ci"]


def test_entry_scripts_define_nothing() -> None:
    """An entry script has no definitions, because these belong to a package."""
    scripts = [
        path for path in Path("deploys").glob("*.py") if path.name not in {"__init__.py", "build.py", "internals.py"}
    ]
    assert len(scripts) == 6
    definitions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    assert [
        path.name
        for path in scripts
        if any(isinstance(node, definitions) for node in ast.walk(ast.parse(path.read_bytes())))
    ] == []


@pytest.mark.parametrize("assets", ["files", "templates"])
def test_assets_of_a_component_have_its_name(assets: str) -> None:
    components = {path.stem for path in Path("deploys/components").glob("*.py")}
    assert {path.parts[1] for path in Path(assets).rglob("*") if path.is_file()} <= components
