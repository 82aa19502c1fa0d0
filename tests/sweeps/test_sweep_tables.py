"""docs/fill_sweep_tables.py: measured tables go between their marks, and nothing else of the page changes."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[2] / "docs/fill_sweep_tables.py"
PAGE = """# Page

<!-- table:a-b -->
old
<!-- /table:a-b -->
text <!-- verdict:a-b -->

<!-- table:c -->
c
<!-- /table:c -->
"""
RUN = """# a-b

A question | of two parts.

| arm   |   n |
|:------|----:|
| x \\| y |   1 |

- x: a verdict.

## Trials without a result

| arm   | reason   |
|:------|:---------|
| z     | dead     |

## Trials

| arm   |   seed |
|:------|-------:|
| x     |      1 |
"""


@pytest.fixture
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fill_sweep_tables", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_fills_what_was_run_and_leaves_the_rest(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a-b").mkdir()
    (tmp_path / "a-b/ledger.jsonl").touch()
    monkeypatch.setattr(script, "render", lambda *asked: {(tmp_path / "a-b", "md"): RUN}[asked])
    text, filled = script.fill(PAGE, tmp_path)
    assert filled == ["a-b"]
    arms = "| arm | n |\n|:---|---:|\n| x \\| y | 1 |"
    lost = "Trials without a result:\n\n| arm | reason |\n|:---|:---|\n| z | dead |"
    assert text == PAGE.replace("old", f"{arms}\n\n{lost}")
    assert script.fill(text, tmp_path) == (text, ["a-b"])


def test_without_runs_the_page_stays(script: ModuleType, tmp_path: Path) -> None:
    assert script.fill(PAGE, tmp_path) == (PAGE, [])
