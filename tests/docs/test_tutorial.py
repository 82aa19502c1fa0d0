"""The tutorial and the notebook show what their commands and cells print."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TUTORIAL = (ROOT / "docs/tutorial.md").read_text(encoding="utf-8")


def test_the_tutorial_shows_the_sweep_of_the_example() -> None:
    (shown,) = re.findall(r"```yaml\n(.*?)```", TUTORIAL, re.DOTALL)
    assert shown == (ROOT / "docs/example/mlp-bits/sweep.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize("script", ["fill_outputs.py", "notebook.py"])
def test_outputs_are_those_of_the_commands(script: str) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "docs" / script, "--check"], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr


def test_the_readme_shows_both_pictures() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for mode in ("light", "dark"):
        path = f"docs/pictures/report-{mode}.png"
        assert path in readme
        assert (ROOT / path).read_bytes().startswith(b"\x89PNG")
