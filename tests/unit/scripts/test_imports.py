"""Whatever our packages import is declared in pyproject.toml, not merely there by chance."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
OURS = ("app", "expert_worker", "moe_router", "mole")
OTHERS = ("tests", "benchmarks", "scripts")
PART_OF = {"starlette": "fastapi", "fasttext": "fasttext-predict", "uvloop": "uvicorn"}
"""Modules of packages that are always there with another one, or that two packages offer."""
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


DECLARED = {
    canonical(re.split(r"[\[<>=~! ]", line)[0])
    for lines in (PROJECT["dependencies"], *PROJECT["optional-dependencies"].values())
    for line in lines
}
PROVIDERS = packages_distributions()


def modules(folder: Path) -> dict[str, Path]:
    """Every foreign top-level module that a folder's files import, and one file that does."""
    found: dict[str, Path] = {}
    for file in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                names = [node.module]
            else:
                continue
            found |= {name.split(".")[0]: file for name in names}
    neighbours = {path.stem for path in folder.glob("*")}  # a script's own folder is on its path
    ours = {*OURS, *OTHERS, *neighbours, "__future__"}
    return {name: file for name, file in found.items() if name not in {*sys.stdlib_module_names, *ours}}


@pytest.mark.parametrize("folder", [*OURS, *OTHERS])
def test_every_import_is_declared(folder: str):
    undeclared = {
        name: str(file.relative_to(ROOT))
        for name, file in modules(ROOT / folder).items()
        if not {canonical(p) for p in [*PROVIDERS.get(name, [name]), PART_OF.get(name, name)]} & DECLARED
    }
    assert undeclared == {}
