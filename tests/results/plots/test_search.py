"""Charts of a search, from the `study.json` that `pgray.search.study` writes."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pgray.search.proposals import SeedRow
from pgray.search.study import Study
from pgray.spec.search import Search
from results.loading.study import StudySummary, read_study
from results.plots.parameters import importance_plot, parallel_plot, slice_plot
from results.plots.search import constraint_plot, proposal_plot
from results.plots.style import why_empty
from trainer.config import Config
from trainer.errors import InputError
from trainer.presets.resolve import build_config, load_preset
from trainer.records.files import write_json
from trainer.records.layout import RunLayout

SPACE = {"optim.matrix_lr": {"log_uniform": [1e-3, 0.1]}, "model.mlp_mult": {"uniform": [1, 4]}}
CAP = {"artifact_bytes": "<= 16000000"}
BASE = load_preset("cpu-smoke").overrides


def build(changes: Mapping[str, Any], where: str) -> Config:
    return build_config({**BASE, **changes}, where)


def summary(tmp_path: Path, objectives: dict[str, str], trials: int = 30) -> StudySummary:
    """Run a search in which the learning rate matters most and width costs bytes. The last proposal fails."""
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
    layout = RunLayout(tmp_path)
    write_json(layout.study, study.summary())
    found = read_study(layout)
    assert found is not None
    return found


def test_importances_are_bars_largest_first(tmp_path: Path) -> None:
    study = summary(tmp_path, {"sliding_bpb": "min"})
    figure = importance_plot(study)
    bars = figure.data[0]
    assert list(bars.x) == sorted(study.importances.values(), reverse=True)
    assert figure.layout.yaxis.ticktext[0] == max(study.importances, key=study.importances.__getitem__)
    assert sum(bars.x) == pytest.approx(1)


def test_one_objective_is_a_history_with_the_best_so_far(tmp_path: Path) -> None:
    study = summary(tmp_path, {"sliding_bpb": "min"})
    figure = proposal_plot(study)
    line, infeasible, feasible, best = figure.data
    assert list(line.y) == sorted(line.y, reverse=True)
    assert [study.trials[i].name for i in best.x] == study.best
    assert best.y[0] == min(line.y)
    over = [trial.name for trial in study.scored if not trial.is_feasible]
    assert [study.trials[i].name for i in infeasible.x] == over
    assert over
    assert len(best.x) + len(feasible.x) + len(infeasible.x) == 29
    assert len({trace.marker.symbol for trace in (best, feasible, infeasible)}) == 3
    assert "Omitted: 1 open, failed or outside the space" in figure.layout.meta["note"]


def test_two_objectives_are_a_plane_with_the_pareto_set(tmp_path: Path) -> None:
    study = summary(tmp_path, {"sliding_bpb": "min", "artifact_bytes": "min"})
    figure = proposal_plot(study)
    (best,) = (trace for trace in figure.data if trace.name == "best")
    assert len(best.x) == len(study.best) > 1
    points = sorted(zip(best.x, best.y, strict=True))
    assert [y for _, y in points] == sorted((y for _, y in points), reverse=True)
    assert [line.y0 for line in figure.layout.shapes] == [16_000_000]  # the constraint's limit


def test_the_limit_of_a_constraint_is_a_line(tmp_path: Path) -> None:
    study = summary(tmp_path, {"sliding_bpb": "min"})
    figure = constraint_plot(study, "artifact_bytes")
    assert [line.x0 for line in figure.layout.shapes] == [16_000_000]
    by_kind = {trace.name: trace for trace in figure.data}
    assert min(by_kind["infeasible"].x) > 16_000_000 >= max(by_kind["feasible"].x)
    low, high = figure.layout.xaxis.range
    assert low < 16_000_000 < high


def test_parallel_coordinates_have_a_line_per_proposal_and_an_axis_per_parameter(tmp_path: Path) -> None:
    study = summary(tmp_path, {"sliding_bpb": "min"})
    figure = parallel_plot(study)
    assert [trace.name for trace in figure.data][-1:] == study.best  # drawn last, above the others
    assert sorted(trace.name for trace in figure.data) == sorted(trial.name for trial in study.scored)
    keys = study.parameters
    assert keys[0] == max(study.importances, key=study.importances.__getitem__)
    assert list(figure.layout.xaxis.ticktext) == [*(key.rpartition(".")[2] for key in keys), "sliding_bpb"]
    lrs = {trial.name: float(trial.params["optim.matrix_lr"]) for trial in study.scored}
    axis = keys.index("optim.matrix_lr")
    heights = {trace.name: trace.y[axis] for trace in figure.data}
    assert sorted(heights, key=heights.__getitem__) == sorted(lrs, key=lrs.__getitem__)
    assert (min(heights.values()), max(heights.values())) == (0, 1)


def test_slices_show_every_proposal_for_every_parameter(tmp_path: Path) -> None:
    study = summary(tmp_path, {"sliding_bpb": "min"})
    figure = slice_plot(study)
    titles = [axis.title.text for axis in figure.select_xaxes() if axis.title.text]
    assert titles == study.parameters
    assert sum(len(trace.x) for trace in figure.data) == len(study.parameters) * len(study.scored)


def test_parameters_may_be_words_and_may_be_missing() -> None:
    trials = [
        {
            "name": "t0",
            "state": "complete",
            "is_feasible": True,
            "params": {"quant.clip": "absmax"},
            "values": {"x": 1},
        },
        {"name": "t1", "state": "complete", "params": {"quant.clip": "sigma", "quant.k": 3}, "values": {"x": 2}},
    ]
    study = StudySummary.model_validate({"objectives": {"x": "min"}, "best": ["t0"], "trials": trials})
    rows = {trace.name: tuple(trace.y) for trace in parallel_plot(study).data}
    assert rows == {"t0": (0, None, 0), "t1": (1, 0.5, 1)}
    assert {trace.x for trace in slice_plot(study).data if trace.x} == {("absmax",), ("sigma",), (3,)}


def test_a_search_without_scores_shows_the_reason(tmp_path: Path) -> None:
    study = summary(tmp_path, {"sliding_bpb": "min"}, 1)
    assert why_empty(proposal_plot(study))
    assert why_empty(importance_plot(study))
    assert why_empty(parallel_plot(study))
    assert why_empty(slice_plot(study))
    assert why_empty(constraint_plot(study, "artifact_bytes"))


def test_a_study_that_cannot_be_read_is_an_error_and_a_missing_one_is_none(tmp_path: Path) -> None:
    layout = RunLayout(tmp_path)
    assert read_study(layout) is None
    layout.study.write_text('{"trials": 3')
    with pytest.raises(
        InputError, match=r"study\.json: search: unreadable: Invalid JSON: .* line 1 column 12; run the sweep"
    ):
        read_study(layout)
    layout.study.write_text('{"trials": 3}')
    with pytest.raises(InputError, match="trials: Input should be a valid array"):
        read_study(layout)
    layout.study.unlink()
    layout.study.mkdir()
    with pytest.raises(InputError, match="Is a directory"):
        read_study(layout)


def test_a_study_may_lack_optional_fields(tmp_path: Path) -> None:
    layout = RunLayout(tmp_path)
    layout.study.write_text(
        '{"objectives": {"sliding_bpb": "min"}, "trials": [{"name": "t000", "state": "complete"}, {"name": "t1"}]}'
    )
    study = read_study(layout)
    assert study is not None
    assert [trial.name for trial in study.trials] == ["t000", "t1"]
    assert why_empty(proposal_plot(study)) == "no proposal has been scored yet"
    assert why_empty(importance_plot(study))
