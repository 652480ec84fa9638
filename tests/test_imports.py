"""The import order of the design, held by parsing every import of the package."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "tokcli"
ROWS = {
    "errors": 0,
    "types": 1,
    "checking": 1,
    "registry": 2,
    "recipe": 2,
    "ops": 2,
    "storage": 2,
    "synthetic": 2,
    "media": 3,
    "methods": 3,
    "models": 3,
    "cache": 3,
    "pipeline": 4,
    "evaluate": 5,
    "report": 5,
    "api": 6,
    "cli": 6,
    "__main__": 7,
}
# Foreign packages that one part of the package alone may import.
OWNERS = {
    "av": {"media"},
    "PIL": {"media"},
    "transformers": {"models"},
    "ray": {"pipeline"},
    "typer": {"cli"},
    "rich": {"cli"},
}
FILES = sorted(PACKAGE.rglob("*.py"))


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports_of(path: Path) -> list[str]:
    """Absolute dotted names that the file imports anywhere, also inside functions."""
    names: list[str] = []
    package = ("tokcli", *path.relative_to(PACKAGE).parent.parts)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, (base, node.module or "")))
            names += [f"{module}.{alias.name}" for alias in node.names]
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_only_from_rows_above(path: Path) -> None:
    part = part_of(path)
    if part == "__init__":
        return
    assert part in ROWS, f"{part} has no row in the import order"
    for name in imports_of(path):
        root, *rest = name.split(".")
        if root == "tokcli" and rest and rest[0] in ROWS and rest[0] != part:
            assert ROWS[rest[0]] < ROWS[part], f"{path.name}: {part} (row {ROWS[part]}) must not import {name}"
        if root in OWNERS:
            assert part in OWNERS[root], f"{path.name}: only {OWNERS[root]} may import {root}"


def test_import_parser_sees_relative_and_nested_imports(tmp_path: Path) -> None:
    # The check above is worth nothing if the parser misses arrows.
    assert any("torch" in name for path in FILES for name in imports_of(path))
    assert any(name.startswith("tokcli.types") for path in FILES for name in imports_of(path))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_stay_under_300_lines(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 300


@pytest.mark.parametrize("module", ["tokcli", "tokcli.cli.app", "tokcli.media", "tokcli.cache", "tokcli.models"])
def test_heavy_libraries_are_imported_on_demand(module: str) -> None:
    code = f"import sys, {module}; print([m for m in ('torch', 'transformers', 'av', 'PIL') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
