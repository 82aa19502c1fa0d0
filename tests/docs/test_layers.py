"""The structure of the code: no import cycle, small modules and packages, and only torch-free modules imported from above."""

import ast
import tomllib
from collections import Counter
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RULES = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
TORCH_FREE = next(rule["source_modules"] for rule in RULES if "torch-free" in rule["name"])
PACKAGES = ("pgray", "results", "trainer")
MAX_MODULE_LINES = 300
MAX_MODULES = 16


def _name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {_name(path): path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))}


def _imports(path: Path) -> set[str]:
    """Every name that a file imports: at the top, inside functions and for typing only."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def test_there_is_no_import_cycle() -> None:
    graph = {name: (_imports(path) & MODULES.keys()) - {name} for name, path in MODULES.items()}
    for name, imported in graph.items():
        # `from package import module` also names the package, whose __init__ may import the module that is asked for.
        graph[name] = {other for other in imported if not any(inner.startswith(f"{other}.") for inner in imported)}
    list(TopologicalSorter(graph).static_order())  # raises CycleError and names the cycle


@pytest.mark.parametrize("name", MODULES)
def test_modules_are_small(name: str) -> None:
    assert len(MODULES[name].read_text(encoding="utf-8").splitlines()) <= MAX_MODULE_LINES


def test_packages_are_small() -> None:
    sizes = Counter(path.parent for path in MODULES.values() if path.name != "__init__.py")
    assert {str(folder.relative_to(ROOT)): n for folder, n in sizes.items() if n > MAX_MODULES} == {}


@pytest.mark.parametrize("package", ["pgray", "results"])
def test_only_torch_free_modules_of_the_trainer_are_imported(package: str) -> None:
    for path in sorted((ROOT / package).rglob("*.py")):
        for name in _imports(path):
            is_allowed = any(name == module or name.startswith(f"{module}.") for module in TORCH_FREE)
            if name.startswith("trainer."):
                assert is_allowed or name in _packages(), (
                    f"{path.relative_to(ROOT)} imports {name}, which may load torch"
                )


def _packages() -> set[str]:
    return {name for name, path in MODULES.items() if path.name == "__init__.py"}


def test_the_torch_free_modules_exist() -> None:
    for name in TORCH_FREE:
        assert name in MODULES, name
