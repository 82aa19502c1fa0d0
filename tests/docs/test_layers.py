"""pgray and results import only torch-free modules of the trainer. import-linter cannot check modules it does not list."""

import ast
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RULES = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
TORCH_FREE = next(rule["source_modules"] for rule in RULES if "torch-free modules" in rule["name"])


def _trainer_imports(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {name for name in names if name.startswith("trainer.")}


@pytest.mark.parametrize("package", ["pgray", "results"])
def test_only_torch_free_modules_are_imported(package: str) -> None:
    allowed = tuple(TORCH_FREE)
    for path in sorted((ROOT / package).rglob("*.py")):
        for name in _trainer_imports(path):
            is_allowed = any(name == module or name.startswith(f"{module}.") for module in allowed)
            assert is_allowed, f"{path.relative_to(ROOT)} imports {name}: only {', '.join(allowed)} are torch-free"


def test_the_listed_modules_exist() -> None:
    for module in TORCH_FREE:
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").is_file() or (path / "__init__.py").is_file(), module
