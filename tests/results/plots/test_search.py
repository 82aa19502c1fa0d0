"""Pictures of a search, from the summary that `pgray.search.study` really writes."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pgray.search.proposals import SeedRow
from pgray.search.study import Study
from pgray.spec.search import Search
from results.plots import search as search_plots
from results.plots.style import why_empty
from trainer.config import Config
from trainer.presets.resolve import build_config, load_preset
from trainer.records.files import read_json

SPACE = {"optim.matrix_lr": {"log_uniform": [1e-3, 0.1]}, "model.mlp_mult": {"uniform": [1, 4]}}
CAP = {"artifact_bytes": "<= 16000000"}
BASE = load_preset("cpu-smoke").overrides


def build(changes: Mapping[str, Any], where: str) -> Config:
    return build_config({**BASE, **changes}, where)


def summary(tmp_path: Path, objectives: dict[str, str], trials: int = 30) -> dict[str, Any]:
    """Of a search over a made-up landscape: the learning rate matters most, and width costs bytes; the last one failed."""
    search = Search.model_validate(
        {"trials": trials, "sampler": "random", "space": SPACE, "objectives": objectives, "constraints": CAP}
    )
    study = Study("s", search, build, 5)
    for i in range(trials):
        proposal = study.ask()
        assert proposal is not None
        lr, mult = (float(proposal.changes[key]) for key in SPACE)
        bpb = 2 + (math.log10(lr) + 2) ** 2 - 0.05 * mult
        metrics = {"sliding_bpb": bpb, "post_quant_bpb": bpb, "artifact_bytes": 5_000_000 * mult}
        is_bad = i == trials - 1
        study.tell(
            proposal.name,
            [SeedRow(1, f"{proposal.name}-1", "failed" if is_bad else "finished", {} if is_bad else metrics)],
        )
    study.write_summary(tmp_path / "study.json")
    return read_json(tmp_path / "study.json")


def test_importances_are_bars_largest_first(tmp_path: Path) -> None:
    shares = search_plots.importances(summary(tmp_path, {"sliding_bpb": "min"}))
    figure = search_plots.importance_plot(shares)
    bars = figure.data[0]
    assert list(bars.x) == sorted(shares["share"], reverse=True)
    assert figure.layout.yaxis.ticktext[0] == shares.sort_values("share")["parameter"].iloc[-1]
    assert sum(bars.x) == pytest.approx(1)


def test_one_objective_is_a_history_with_the_best_so_far(tmp_path: Path) -> None:
    found = summary(tmp_path, {"sliding_bpb": "min"})
    made = search_plots.proposals(found)
    figure = search_plots.proposal_plot(made)
    line, best, feasible, infeasible = figure.data
    assert list(line.y) == sorted(line.y, reverse=True)
    assert [made["name"].iloc[i] for i in best.x] == found["best"]
    assert best.y[0] == min(line.y)
    over = [t["name"] for t in found["trials"] if t["state"] == "complete" and not t["is_feasible"]]
    assert [made["name"].iloc[i] for i in infeasible.x] == over
    assert over
    assert len(best.x) + len(feasible.x) + len(infeasible.x) == 29
    assert len({trace.marker.symbol for trace in (best, feasible, infeasible)}) == 3
    assert "1 open, failed or outside, not drawn" in figure.layout.meta["note"]


def test_two_objectives_are_a_plane_with_the_pareto_set(tmp_path: Path) -> None:
    found = summary(tmp_path, {"sliding_bpb": "min", "artifact_bytes": "min"})
    best = search_plots.proposal_plot(search_plots.proposals(found)).data[0]
    assert len(best.x) == len(found["best"]) > 1
    points = sorted(zip(best.x, best.y, strict=True))
    assert [y for _, y in points] == sorted((y for _, y in points), reverse=True)


@pytest.mark.parametrize("trials", [0, 1])
def test_a_search_without_numbers_says_so(tmp_path: Path, trials: int) -> None:
    found = summary(tmp_path, {"sliding_bpb": "min"}, trials) if trials else {}
    assert why_empty(search_plots.proposal_plot(search_plots.proposals(found)))
    assert why_empty(search_plots.importance_plot(search_plots.importances(found)))
