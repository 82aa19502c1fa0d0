"""The interaction plot: its points are the means of the cells, its lines the levels of one factor."""

from pathlib import Path

import pytest

import results
from results import plots
from results.plots.style import why_empty
from tests.results.synthetic import Run
from trainer.records.files import write_json


def cross(tmp_path: Path, *, without: str = "") -> Path:
    """Write a run with 2 x 3 arms in which the effect of `b` depends on `a`."""
    run = Run(tmp_path / "cross", "name: cross\ncontrol: a0b0\n")
    for a in (False, True):
        for b in (0, 1, 2):
            arm = f"a{int(a)}b{b}"
            for seed in (1, 2):
                trial = f"{arm}-s{seed}-0"
                write_json(run.layout.trial(trial).config, {"qat": {"enabled": a}, "quant": {"bits": b}, "seed": seed})
                if arm == without:
                    run.entry(arm, seed, "failed", failure_kind="oom", reason="out of memory")
                else:
                    run.finish(arm, seed, 2.5 + seed / 100 + b / 50 * (1 + a))
    return run.layout.root


def test_points_are_the_means_of_the_cells(tmp_path: Path) -> None:
    trials = results.load(cross(tmp_path))
    figure = plots.interactions(trials, metric="post_quant_bpb")
    means = trials.groupby("arm")["post_quant_bpb"].mean()
    assert [list(line.y) for line in figure.data] == [
        pytest.approx([means[f"a0b{b}"], means[f"a1b{b}"]]) for b in (0, 1, 2)
    ]
    assert figure.layout.xaxis.title.text == "qat.enabled"
    assert list(figure.layout.xaxis.ticktext) == ["false", "true"]
    assert [label.text for label in figure.layout.annotations] == ["bits 0", "bits 1", "bits 2"]
    assert len({(line.line.color, line.line.dash) for line in figure.data}) == 3


def test_an_incomplete_cross_and_no_cross_show_the_reason(tmp_path: Path) -> None:
    trials = results.load(cross(tmp_path, without="a1b2"))
    assert why_empty(plots.interactions(trials, metric="post_quant_bpb")) == "an arm of the cross has no result yet"
    alone = trials[trials["arm"] == "a0b0"]
    alone.attrs = trials.attrs
    assert why_empty(plots.interactions(alone, metric="post_quant_bpb"))
