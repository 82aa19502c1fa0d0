"""Every example of docs/sweeps.md is a sweep that can be planned, and together they show every design and section."""

import re
from pathlib import Path

import pytest

from pgray.planning.planner import make_plan
from pgray.spec.sweep import DESIGNS, Sweep, SweepFile

PAGE = (Path(__file__).parents[2] / "docs/sweeps.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("text", EXAMPLES, ids=[text.split()[1] for text in EXAMPLES])
def test_an_example_can_be_planned(text: str) -> None:
    plan = make_plan(Sweep.from_text(text, "docs/sweeps.md"), reads_data=False)
    assert plan.trials
    if "names" in text:
        assert "small-and-smooth" in plan.expansion.labels.values()


def test_the_page_shows_every_design_and_section() -> None:
    keys = {key for text in EXAMPLES for key in re.findall(r"^([a-z_]+):", text, re.MULTILINE)}
    assert set(DESIGNS) <= keys
    assert keys | {"confirms"} == set(SweepFile.model_fields)  # `pgray confirm` writes that section
