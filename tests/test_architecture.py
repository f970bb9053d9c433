"""Rules of the architecture that a machine can check; the layers themselves are import-linter's."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("planner", "jobs", "providers")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
HEAVY = {
    "sky",
    "torch",
    "transformers",
    "peft",
    "trl",
    "boto3",
    "botocore",
    "apscheduler",
    "pandas",
    "matplotlib",
}
#: The one module that may import a package, wherever in it.
OWNERS = {"sky": "providers/skypilot"}


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name.partition(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.add(node.module.partition(".")[0])
    return found


def functions(path: Path) -> list[tuple[str, int]]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return [
        (node.name, (node.end_lineno or 0) - node.lineno + 1)
        for node in ast.walk(tree)
        if isinstance(node, kinds)
    ]


def test_modules_were_found() -> None:
    assert len(MODULES) > 100


@pytest.mark.parametrize("name", list(OWNERS))
def test_a_heavy_package_has_one_owner(name: str) -> None:
    users = {str(path.relative_to(ROOT)) for path in MODULES if name in imports(path)}
    assert all(user.startswith(OWNERS[name]) for user in users), users


def test_modules_stay_short() -> None:
    long = {
        str(path.relative_to(ROOT)): size
        for path in MODULES
        if (size := len(path.read_text().splitlines())) > 400
    }
    assert not long


def test_functions_stay_short() -> None:
    sizes = [(str(path.relative_to(ROOT)), *row) for path in MODULES for row in functions(path)]
    assert not [row for row in sizes if row[2] > 60]
    assert sorted(row[2] for row in sizes)[len(sizes) // 2] <= 12


def test_nothing_is_called_utils() -> None:
    assert not [path for path in MODULES if "util" in path.stem or "helper" in path.stem]


def test_type_ignores_are_few_and_coded() -> None:
    lines = [line for path in MODULES for line in path.read_text().splitlines() if "type: ignore" in line]
    assert len(lines) <= 10
    assert all("type: ignore[" in line for line in lines)


@pytest.mark.parametrize("package", PACKAGES)
def test_importing_everything_but_adapters_loads_nothing_heavy(package: str) -> None:
    names = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in MODULES
        if path.relative_to(ROOT).parts[0] == package and path.name != "__main__.py"
    ]
    script = f"import importlib, sys\nfor name in {names!r}: importlib.import_module(name)\n"
    script += f"found = {HEAVY!r} & set(sys.modules)\nassert not found, found\n"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr


def test_distribution_holds_exactly_three_packages() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"] == list(PACKAGES)
    tops = {path.name for path in ROOT.iterdir() if (path / "__init__.py").exists()}
    assert tops == set(PACKAGES)
