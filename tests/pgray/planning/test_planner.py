"""`pgray plan`: its predictions, its warnings, and that docs/plan.md describes all of its JSON."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pgray.cli.entry import main
from pgray.planning.config_warnings import config_warnings, qat_coverage
from pgray.planning.decision import decide
from pgray.planning.forecast import forecast
from pgray.planning.forecast_warnings import forecast_warnings
from pgray.planning.job_cost import ON_CPU, ON_GPU, estimate_jobs
from pgray.planning.past_trials import finished_trials
from pgray.planning.planner import make_plan
from pgray.planning.size.fit import SizePrediction
from pgray.planning.step_time import StepTime, expected_step_time
from pgray.spec.expand import expand
from pgray.spec.sweep import Sweep
from tests.pgray.finished_run import add_finished, gaussian, training_record
from trainer.config import Config
from trainer.presets.resolve import build_config, load_preset
from trainer.quant import codecs
from trainer.records.files import write_json, write_text
from trainer.records.fingerprint import LAST_WEIGHTS, average_key
from trainer.records.layout import RunLayout
from trainer.run.config import Machine

PAGE = (Path(__file__).parents[3] / "docs/plan.md").read_text(encoding="utf-8")
CPU = Machine()


def config_of(preset: str = "cpu-smoke", **overrides: Any) -> Config:
    return build_config({**load_preset(preset).overrides, **overrides}, "test")


def plan_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main(["plan", *arguments, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_every_key_of_the_json_is_described(
    write_sweep: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = plan_json(capsys, str(write_sweep()), "--runs", str(tmp_path))
    described = set(re.findall(r"`([a-z_0-9]+)`", PAGE))
    inner = [plan["arms"][0], plan["trials"][0], plan["job_costs"][0], plan["budget"], plan["data"][0], plan["counts"]]
    for keys in [plan, *inner, plan["predicted_from"], plan["arms"][0]["tensors"][0]]:
        assert set(keys) <= described, set(keys) - described
    top_level = set(
        re.findall(r"`([a-z_0-9]+)`", "".join(line.split("|")[1] for line in PAGE.splitlines() if "|" in line))
    )
    assert top_level - {"key"} == set(plan)
    arm = plan["arms"][2]
    assert arm["config"]["qat"]["enabled"] is True
    assert arm["num_params"] == sum(_product(tensor["shape"]) for tensor in arm["tensors"])
    assert arm["predicted_artifact_bytes_low"] < arm["predicted_artifact_bytes"] < arm["predicted_artifact_bytes_high"]


def _product(shape: list[int]) -> int:
    return shape[0] * _product(shape[1:]) if shape else 1


def test_without_data_unknown_fields_are_null(
    write_sweep: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_sweep(seeds="[1]")
    path.write_text(re.sub(r"data.path: [^,]+", "data.path: /nowhere", path.read_text()))
    assert main(["plan", str(path)]) == 2
    capsys.readouterr()
    plan = plan_json(capsys, str(path), "--without-data", "--runs", str(tmp_path / "runs"))
    assert plan["reads_data"] is False
    assert set(plan["null_fields"]) == {
        "trials[].trial_id", "trials[].train_fingerprint", "jobs[][]", "job_costs[].train_fingerprint"
    }  # fmt: skip
    assert plan["jobs"] == [[None, None], [None]]  # which trials share a job does not depend on the data
    assert {trial["trial_id"] for trial in plan["trials"]} == {None}
    assert plan["data"] == []
    assert plan["training_runs_saved"] == 1
    assert main(["plan", str(path), "--without-data"]) == 0
    assert "planned without data" in capsys.readouterr().out


def test_without_data_nothing_counts_as_finished(write_sweep: Callable[..., Path], tmp_path: Path) -> None:
    path = write_sweep(seeds="[1]")
    layout = RunLayout(tmp_path / "test")
    sweep = Sweep.from_yaml(path)
    for trial in make_plan(sweep).trials:
        add_finished(layout, trial.arm, trial.config, draw=gaussian)
    blind = make_plan(sweep, reads_data=False)
    assert not blind.checked_data
    known = {trial.trial_id for trial in make_plan(sweep).trials}
    assert not known & {trial.trial_id for trial in blind.trials}
    assert len(finished_trials(layout)) == 3  # they still improve the predictions


def test_finished_trials_set_step_time_wall_time_and_size(write_sweep: Callable[..., Path], tmp_path: Path) -> None:
    sweep = Sweep.from_yaml(write_sweep(seeds="[1, 2]", set="train.wallclock_s: 0.3"))
    layout = RunLayout(tmp_path / "test")
    plan = make_plan(sweep)
    before = forecast(decide(plan, layout), layout)
    assert before.step_times["int8"] == StepTime(plan.expansion.arms[0].config, 4)
    assert before.sizes["int8"].source == "default table"
    assert before.left_gpu_hours is None  # no budget
    first = next(trial for trial in plan.trials if trial.arm == "int8")
    add_finished(layout, "int8", first.config, step_ms=100.0, wall_s=20.0)
    ahead = forecast(decide(plan, layout), layout)
    assert ahead.step_times["int8"].steps == ahead.step_times["qat"].steps == 3  # 0.3 s at 100 ms, not the 4 asked for
    assert ahead.steps_source == "finished trials"
    assert ahead.sizes["int8"].source == "1 finished trial"
    # Training clock 0.3 s, 7 s outside it, and one or two exports of 20 s.
    two = next(job for job in ahead.jobs if len(job.trials) == 2)
    assert two.expected_s == pytest.approx(ON_CPU.start_s + 0.3 + 7.0 + 2 * 20.0)


def test_step_time_is_that_of_the_same_work_on_the_same_machine(tmp_path: Path) -> None:
    layout = RunLayout(tmp_path)
    config = config_of(**{"train.iterations": 50})
    for changes, more in (
        ({"model.layers": 3, "model.value_embed.layers": [2]}, {"step_ms": 1.0}),
        ({"train.batch_tokens": 4096}, {"step_ms": 2.0}),
        ({}, {"step_ms": 3.0, "world_size": 2}),
        ({}, {"step_ms": 4.0, "gpus": 1}),
        ({}, {"step_ms": 5.0, "hardware": "1 rank on an old machine"}),
        ({"qat.enabled": True}, {"step_ms": 70.0}),
        ({"optim.matrix_lr": 0.01}, {"step_ms": 90.0}),
    ):
        add_finished(layout, "arm", config_of(**{"train.iterations": 50, **changes}), draw=gaussian, **more)
    finished = finished_trials(layout)
    assert expected_step_time(config, CPU, finished).step_ms == 90.0
    assert (
        expected_step_time(config_of(**{"train.iterations": 50, "qna.magnitude": 1.0}), CPU, finished).step_ms == 80.0
    )
    assert expected_step_time(config_of(**{"qat.enabled": True}), CPU, finished).step_ms == 70.0
    assert expected_step_time(config, Machine(nproc=2), finished).step_ms == 3.0
    assert expected_step_time(config, Machine(gpus=1), finished).step_ms == 4.0
    assert expected_step_time(config_of(**{"model.dim": 192}), CPU, finished) == StepTime(
        config_of(**{"model.dim": 192}), 250
    )


def warnings_of(run: StepTime, size: SizePrediction | None = None) -> str:
    usual = SizePrediction(15_000_000, 14_900_000, 15_100_000, "test")
    return "\n".join(forecast_warnings({"a": run}, {"a": size or usual}))


def test_a_warm_down_longer_than_the_run_is_reported() -> None:
    config = config_of("sp1024-11l")
    assert "warmdown" not in warnings_of(StepTime(config, 7173, 83.66))
    one_gpu = warnings_of(StepTime(config, 943, 636.0))  # PR 1032: the LR multiplier never exceeded 0.27
    assert (
        "optim.warmdown.value 3500 is longer than the expected 943 steps: the LR starts at 27% of its peak" in one_gpu
    )
    assert "longer than train.iterations 100" in warnings_of(StepTime(config_of(**{"train.iterations": 100}), 100))


@pytest.mark.parametrize(
    ("changes", "steps", "expected"),
    [
        ({"average": {"kind": "ema", "decay": 0.997}}, 7000, None),
        ({"average": {"kind": "ema", "decay": 0.997}}, 943, "24% of the EMA's weight"),  # 0.997 ^ 471
        ({"average": {"kind": "ema", "decay": 0.997, "start": "warmdown"}, "optim.warmdown.value": 300}, 943, None),
        ({"average": {"kind": "ema", "half_life_frac": 0.25}}, 943, "25% of the EMA's weight"),
        ({"average": {"kind": "ema", "half_life_frac": 0.05}}, 943, None),
        (
            {"average": {"kind": "lawa"}, "optim.warmdown.value": 800},
            1000,
            "averaging starts in the first half of training, at 20%",
        ),
        ({"average": {"kind": "lawa"}, "optim.warmdown.value": 300}, 1000, None),
        ({"average": {"kind": "lawa"}, "optim.warmdown.value": 0}, 1000, "the average never starts"),
        ({"average": {"kind": "lawa", "count": 10, "every": 20}}, 1000, None),
        (
            {"average": {"kind": "lawa", "count": 10, "every": 80}},
            1000,
            "averaging starts in the first half of training, at 20%",
        ),
        ({"average": {"kind": "swa", "count": 7}}, 1000, None),
        ({"average": {"kind": "swa", "count": 7}, "optim.warmdown.value": 0}, 1000, "waits for an LR multiplier below"),
        ({"average": {"kind": "swa", "every": 10}, "optim.warmdown.min_lr": 0.5}, 1000, "below 0.4, the lowest is 0.5"),
        ({"average": {"kind": "sqwa", "decay": 0.9}}, 1000, None),
    ],
)
def test_averages_that_start_too_early_or_never_are_reported(
    changes: dict[str, Any], steps: int, expected: str | None
) -> None:
    found = warnings_of(StepTime(config_of(**{"train.iterations": steps, "average.decay": 0.95, **changes}), steps))
    assert (expected in found) if expected else not re.search("averag|EMA", found), found


def test_gates_that_open_never_or_at_once_are_reported() -> None:
    late: dict[str, Any] = {"qat.enabled": True, "train.iterations": 1000}
    known = StepTime(config_of(**late, **{"qat.start": {"kind": "step", "value": 900}}), 500, 1200.0)
    assert "qat never starts: it is set to step 900 of 500" in warnings_of(known)
    clock = {"kind": "lr_scale", "value": 0.1}
    flat = config_of(**late, **{"qat.start": clock, "optim.warmdown.value": 0})
    assert "qat never starts: lr_scale 0.1 is not reached" in warnings_of(StepTime(flat, 1000))
    eager = config_of(**late, **{"qat.start": {"kind": "lr_scale", "value": 0.5}, "optim.warmdown.value": 5000})
    assert "qat is on almost from the first step: the LR multiplier starts below 0.5" in warnings_of(
        StepTime(eager, 1000)
    )
    hasty = StepTime(
        config_of("sp1024-11l", **{"qat.enabled": True, "qat.start": {"kind": "lr_scale", "value": 0.5}}), 943, 636.0
    )
    assert "qat is on almost from the first step" in warnings_of(hasty)
    usual = config_of(**late, **{"qat.start": {"kind": "lr_scale", "value": 0.15}})
    assert "qat" not in warnings_of(StepTime(usual, 1000))
    again = {"kind": "partial", "layers": [1], "start": {"kind": "step", "value": 2000}}
    assert "the second pass of recurrence never starts: it is set to step 2000 of 1000" in warnings_of(
        StepTime(config_of(**{"train.iterations": 1000, "recurrence": again}), 1000)
    )


def test_a_new_codec_can_be_planned(
    write_sweep: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    toy = "from trainer.quant.codecs._base import ByteCodec\nCODEC = ByteCodec(squeeze=bytes, expand=bytes)\n"
    (tmp_path / "planned_toy.py").write_text(toy)
    monkeypatch.setattr(codecs, "__path__", [*codecs.__path__, str(tmp_path)])
    path = write_sweep(arms="  int8: {export.codec: zstd}\n  toy: {export.codec: planned_toy}\n")
    zstd, toy_arm = plan_json(capsys, str(path), "--runs", str(tmp_path / "runs"))["arms"]
    assert toy_arm["config"]["export"]["codec"] == "planned_toy"
    assert toy_arm["predicted_artifact_bytes"] > zstd["predicted_artifact_bytes"]


def test_techniques_without_effect_are_reported(write_sweep: Callable[..., Path]) -> None:
    arms = """
  int8: {}
  scope: {qat.enabled: true, qat.scope: [other]}
  fp16: {qat.enabled: true, qna.magnitude: 1.0, quant.keep_fp16: ["*"]}
  ended: {qat: {enabled: true, start: {kind: immediately, value: 0}}, quant_noise.share: 0.5}
  orphan: {average: {kind: ema, start: qat}}
"""
    found = config_warnings(expand(Sweep.from_yaml(write_sweep(arms=arms))))
    assert "arms scope, fp16: qat covers nothing: no tensor of the classes in qat.scope is stored as integers" in found
    assert "arm fp16: qna covers nothing: no tensor is stored as integers" in found
    assert "arm ended: quant_noise has no effect: it ends when QAT starts, and QAT is on from the first step" in found
    assert "arm orphan: the average never starts: average.start is qat, and QAT is off" in found
    assert len(found) == 4
    assert qat_coverage(config_of()) is None
    assert qat_coverage(config_of(**{"qat.enabled": True})) == 1.0
    some = qat_coverage(config_of(**{"qat.enabled": True, "qat.scope": ["mlp"]}))
    assert some is not None
    assert 0.3 < some < 0.9


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((15_000_000, 14_500_000, 15_500_000), None),
        ((15_000_000, 14_000_000, 16_100_000), "may be over the cap of 16,000,000"),
        ((15_700_000, 15_600_000, 15_800_000), "may be over"),
        ((16_100_000, 15_900_000, 16_300_000), "is expected to be over"),
        ((17_000_000, 16_500_000, 17_500_000), "will be over"),
    ],
)
def test_sizes_near_the_cap_are_reported(size: tuple[int, int, int], expected: str | None) -> None:
    found = warnings_of(StepTime(config_of(), 250), SizePrediction(*size, "test"))
    assert (expected in found) if expected else ("cap" not in found)


def test_dropped_arms_and_data_warnings_are_listed(
    write_sweep: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from dataclasses import replace

    from pgray.planning import planner as module

    real = module.preflight
    monkeypatch.setattr(module, "preflight", lambda *given: replace(real(*given), warnings=("shard 0 is odd",)))
    path = write_sweep()
    path.write_text(path.read_text() + "where: [quant.bits.mlp != 4]\n")
    found = plan_json(capsys, str(path), "--runs", str(tmp_path))
    assert any(warning.startswith("dropped: qat") for warning in found["warnings"])
    assert found["warnings"].count("shard 0 is odd") == 1


def test_usable_trained_weights_cost_no_training(write_sweep: Callable[..., Path], tmp_path: Path) -> None:
    sweep = Sweep.from_yaml(write_sweep(seeds="[1]"))
    layout = RunLayout(tmp_path)
    groups = decide(make_plan(sweep), layout).jobs_to_run()
    step_times = {trial.arm: StepTime(trial.config, 4) for group in groups for trial in group}
    fingerprint = groups[0][0].train_fingerprint
    trained, keys = layout.trained(fingerprint), {LAST_WEIGHTS, *(average_key(trial.config) for trial in groups[0])}
    write_json(trained.record, training_record(fingerprint, keys).model_dump(mode="json"))
    for key in keys:
        write_text(trained.weights(key), "not weights")
    exports, whole = estimate_jobs(groups, step_times, [], Machine(gpus=2, nproc=2), layout)
    assert (exports.trains, whole.trains) == (False, True)
    assert exports.expected_s == ON_GPU.start_s + 2 * ON_GPU.export_s
    assert whole.expected_s == ON_GPU.start_s + 600 + ON_GPU.training_s + ON_GPU.export_s
    assert whole.expected_gpu_hours == pytest.approx(2 * whole.expected_s / 3600)
    assert whole.at_most_s > whole.expected_s


@pytest.mark.parametrize(
    ("gpu_hours", "expected"), [(100, None), (5, "not every trial will run"), (1, "nothing will be started")]
)
def test_the_budget_is_compared_with_the_expected_cost(
    write_sweep: Callable[..., Path], tmp_path: Path, gpu_hours: float, expected: str | None
) -> None:
    path = write_sweep(seeds="[1, 2, 3, 4, 5]", launcher="torchrun")
    budget = f"budget: {{gpu_hours: {gpu_hours}, usd_per_gpu_hour: 2.0}}\n"
    path.write_text(path.read_text() + "resources: {gpus: 2}\n" + budget)
    sweep = Sweep.from_yaml(path)
    layout = RunLayout(tmp_path / "test")
    ahead = forecast(decide(make_plan(sweep), layout), layout)
    found = [warning for warning in ahead.warnings if warning.startswith("budget")]
    assert (expected in found[0]) if expected else not found
    assert ahead.left_gpu_hours == gpu_hours
