"""Each verdict on real run folders: the rule, limits of bytes and clocks, seeds that were lost, averages of old weights."""

from itertools import combinations
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import results
from results import plots
from results.analysis.verdicts import MEANINGS, Trials, by_numbers, with_lost_seeds, without_result
from results.loading.hard_limits import artifact_size, broken_clocks, is_target_machine, is_within_cap
from results.present.table_model import build_table
from results.schema import NAMES, frame
from tests.results.synthetic import Run
from trainer.records.files import write_json

SEEDS = (42, 1337, 7, 8)
CONTROL = dict(zip(SEEDS, (2.5000, 2.5200, 2.4900, 2.5100), strict=True))
GAINS = dict(zip(SEEDS, (-0.0310, -0.0300, -0.0295, -0.0305), strict=True))
H100 = {"hardware": "8 x NVIDIA H100 80GB HBM3", "world_size": 8, "train_s": 599.9, "step_ms": 100.0, "eval_s": 400.0}
DONE = Trials(finished=4, failed=0, killed=0, pending=0)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    run = Run(tmp_path / "bits")
    for seed, bpb in CONTROL.items():
        run.finish("int8", seed, bpb)
    return run


def add(run: Run, arm: str, gains: dict[int, float] = GAINS, **changes: Any) -> None:
    for seed, gain in gains.items():
        run.finish(arm, seed, CONTROL[seed] + gain, **changes)


def line(run: Run, arm: str, **options: Any) -> Any:
    table = results.ablation(results.load(run.layout.root), on_mismatch="mark", **options)
    assert set(table["verdict"].dropna()) <= set(MEANINGS)
    return table.set_index("arm").loc[arm]


@pytest.mark.parametrize(
    ("delta", "interval", "p", "num_seeds", "expected"),
    [
        (-0.005, (-0.006, -0.004), 0.009, 3, "WIN"),
        (0.02, (0.01, 0.03), 0.001, 5, "LOSS"),
        (-0.0049, (-0.006, -0.004), 0.001, 3, "SMALL"),
        (0.003, (0.001, 0.005), 0.04, 3, "SMALL"),
        (-0.05, (-0.09, -0.01), 0.01, 3, "INCONCLUSIVE"),
        (-0.001, (-0.004, 0.002), 0.5, 3, "NOISE"),
        (0.0, (0.0, 0.0), 1.0, 3, "NOISE"),
        (0.0, (-0.005, 0.005), 1.0, 3, "NOISE"),
        (-0.001, (-0.0051, 0.0031), 0.5, 3, "INCONCLUSIVE"),
        (0.001, (-0.0031, 0.0051), 0.5, 3, "INCONCLUSIVE"),
        (-0.05, None, None, 3, "INCONCLUSIVE"),
        (-0.05, (-0.06, -0.04), 0.001, 2, "TOO FEW SEEDS"),
        (None, None, 0.001, 3, None),
    ],
)
def test_the_rule(
    delta: float | None, interval: tuple[float, float] | None, p: float | None, num_seeds: int, expected: str | None
) -> None:
    assert by_numbers(delta, interval, p, num_seeds) == expected


def test_a_small_effect_has_a_direction(run: Run) -> None:
    add(run, "b", dict(zip(SEEDS, (-0.0011, -0.0010, -0.0009, -0.0010), strict=True)))
    assert line(run, "b")["verdict"] == "SMALL"
    sentence = build_table(run.layout.root).arms[1].sentence
    assert "SMALL (better by less than 0.005 nats per token)" in sentence


@pytest.mark.parametrize(
    ("trials", "expected"),
    [
        (Trials(0, 0, 2, 0), "KILLED"),
        (Trials(0, 1, 2, 0), "FAILED"),
        (Trials(0, 1, 0, 1), None),
        (Trials(1, 1, 0, 0), None),
        (Trials(0, 0, 0, 3), None),
    ],
)
def test_an_arm_without_results_is_killed_or_failed(trials: Trials, expected: str | None) -> None:
    assert without_result(trials) == expected


def test_killed_and_failed_arms_in_the_table(run: Run) -> None:
    for seed in SEEDS:
        run.entry("hopeless", seed, "killed", reason="rule")
        run.entry("broken", seed, "failed", failure_kind="diverged", reason="loss is nan")
    run.entry("open", 42, "queued")
    assert [line(run, arm)["verdict"] for arm in ("hopeless", "broken", "open")] == [
        "KILLED",
        "FAILED",
        "TOO FEW SEEDS",
    ]


@pytest.mark.parametrize("state", ["failed", "killed", "lost"])
def test_an_arm_that_lost_a_seed_has_no_win(run: Run, state: str) -> None:
    add(run, "b", {seed: GAINS[seed] for seed in SEEDS[:3]})
    assert line(run, "b")["verdict"] == "WIN"
    run.entry("b", 8, state, reason="loss is nan")
    found = line(run, "b")
    assert (found["verdict"], found["n_failed"]) == ("INCOMPLETE", 1)
    assert f"1 {state}" in found["reason"]
    assert "INCOMPLETE (3 of 4 seeds have a result)" in build_table(run.layout.root).arms[1].sentence
    assert line(run, "b", on_failed_seeds="ignore")["verdict"] == "WIN"
    run.layout.sweep.write_text("name: bits\ncontrol: int8\non_failed_seeds: ignore\n")
    assert line(run, "b")["verdict"] == "WIN"


@pytest.mark.parametrize("verdict", ["WIN", "SMALL", "NOISE", "INCONCLUSIVE", "TOO FEW SEEDS", "LOSS", "INFEASIBLE"])
def test_lost_seeds_flatter_the_side_that_lost_them(verdict: Any) -> None:
    """A LOSS of an arm holds although bad seeds of it are missing, but not if the control's bad seeds are missing."""
    lost = Trials(finished=3, failed=0, killed=1, pending=0)
    assert with_lost_seeds(verdict, DONE, DONE) == verdict
    assert with_lost_seeds(verdict, lost, DONE) == (verdict if verdict in ("LOSS", "INFEASIBLE") else "INCOMPLETE")
    assert with_lost_seeds(verdict, DONE, lost) == ("INCOMPLETE" if verdict == "LOSS" else verdict)
    assert with_lost_seeds(verdict, lost, lost, "ignore") == verdict


def row(**known: Any) -> dict[str, Any]:
    return dict.fromkeys(NAMES) | known


def test_a_lost_seed_does_not_change_the_seeds_needed(run: Run) -> None:
    add(run, "worse", {seed: -gain for seed, gain in GAINS.items()})
    assert line(run, "worse")["seeds_needed"] == 0
    run.entry("int8", 99, "failed", failure_kind="diverged", reason="loss is nan")
    assert line(run, "worse")[["verdict", "seeds_needed"]].tolist() == ["INCOMPLETE", 0]


def test_seeds_that_the_control_lost_are_told(run: Run) -> None:
    add(run, "worse", {seed: -gain for seed, gain in GAINS.items()})
    run.entry("int8", 99, "failed", failure_kind="diverged", reason="loss is nan")
    worse = line(run, "worse")
    assert worse["verdict"] == "INCOMPLETE"
    assert "the control lost 1 seed, so the rest may flatter it" in worse["reason"]
    (sentence,) = [arm.sentence for arm in build_table(run.layout.root).arms if arm.name == "worse"]
    assert "seeds have a result" not in sentence  # all its own have one
    assert "the control lost 1 seed" in sentence


@pytest.mark.parametrize("state", ["failed", "killed", "queued"])
def test_a_control_without_a_result_is_told(tmp_path: Path, state: str) -> None:
    run = Run(tmp_path / "bits")
    for seed in SEEDS:
        run.entry("int8", seed, state)
    add(run, "int6")
    found = line(run, "int6")
    assert (found["verdict"], found["reason"]) == ("TOO FEW SEEDS", "the control has no post_quant_bpb")


def test_one_part_over_the_cap_is_over_it() -> None:
    unknown = dict.fromkeys(NAMES)
    assert is_within_cap(unknown | {"model_bytes": 16_000_001}) is False
    assert is_within_cap(unknown | {"model_bytes": 15_000_000}) is None
    assert artifact_size(unknown | {"model_bytes": 15_000_000}) is None


def test_bytes_are_summed_and_the_flag_is_not_trusted(run: Run) -> None:
    assert artifact_size(row(model_bytes=15_990_000, code_bytes=20_000, artifact_bytes=15_990_000)) == 16_010_000
    assert is_within_cap(row(artifact_bytes=16_000_001, is_within_cap=True)) is False
    assert is_within_cap(row(artifact_bytes=16_000_000, is_within_cap=False)) is True
    assert is_within_cap(row(is_within_cap=True)) is None
    add(run, "b")
    path = run.layout.trial("b-s42-0").result
    text = path.read_text()
    path.write_text(text.replace('"model_bytes": 9000000', '"model_bytes": 16000000'))
    trials = results.load(run.layout.root).set_index("trial_id")
    assert bool(trials.loc["b-s42-0", "is_within_cap"]) is False
    assert "model_bytes + code_bytes is 16,050,000" in trials.loc["b-s42-0", "notes"]
    found = line(run, "b")
    assert (found["verdict"], found["n_over_cap"]) == ("INFEASIBLE", 1)
    assert "b-s42-0" not in results.frontier(results.load(run.layout.root))["trial_id"].tolist()


@pytest.mark.parametrize(
    ("hardware", "world_size", "expected"),
    [
        ("8 x NVIDIA H100 80GB HBM3", 8, True),
        ("NVIDIA H100 80GB HBM3 x8", None, True),
        ("8xH100 SXM", None, True),
        (None, 8, True),
        ("8 ranks on AMD EPYC 7B13 (64 cores)", 8, False),
        ("1 x NVIDIA H100 80GB HBM3", 1, False),
        (None, None, False),
    ],
)
def test_the_target_machine_has_8_gpus(hardware: str | None, world_size: int | None, expected: bool) -> None:
    assert is_target_machine(row(hardware=hardware, world_size=world_size)) is expected


@pytest.mark.parametrize(
    ("changes", "num_broken"),
    [
        ({}, 0),
        ({"train_s": 600.19}, 0),  # 1.9 steps
        ({"train_s": 600.21}, 1),  # 2.1 steps
        ({"train_s": 640.0, "train_limit_s": 1200.0}, 1),  # the challenge's limit, not the trial's own
        ({"eval_s": 600.0}, 0),
        ({"eval_s": 600.1}, 1),
        ({"train_s": 700.0, "eval_s": 700.0}, 2),
        (
            {"world_size": 1, "hardware": "1 rank on x (2 cores)", "train_s": 9000.0, "eval_s": 9000.0},
            0,
        ),  # limit unknown
        ({"world_size": 1, "hardware": "1 rank on x (2 cores)", "train_s": 90.0, "train_limit_s": 60.0}, 1),
        ({"world_size": 1, "hardware": "1 rank on x (2 cores)", "train_s": 60.1, "train_limit_s": 60.0}, 0),
        ({"train_s": None, "eval_s": None, "step_ms": None}, 0),
    ],
)
def test_clocks_are_judged_by_the_machine(changes: dict[str, Any], num_broken: int) -> None:
    assert len(broken_clocks(row(**H100 | changes))) == num_broken


def test_an_arm_over_a_clock_is_infeasible(run: Run) -> None:
    for arm in ("slow-training", "slow-evaluation", "in-time"):
        add(run, arm, **H100 | {"train_s": 600.1})
    run.finish("slow-training", 42, 2.4, **H100 | {"train_s": 640.0})
    run.finish("slow-evaluation", 42, 2.4, **H100 | {"eval_s": 700.0})
    trained, evaluated = line(run, "slow-training"), line(run, "slow-evaluation")
    assert (trained["verdict"], trained["n_over_time"]) == ("INFEASIBLE", 1)
    assert "1 of 4 seeds over a time limit: seed 42 trained 640.0 s of 600 s" in trained["reason"]
    assert "evaluated 700.0 s of 600 s" in evaluated["reason"]
    assert line(run, "in-time")["verdict"] == "WIN"
    assert "training clock over 600 s by up to 0.10 s, within two steps" in line(run, "in-time")["reason"]


def test_the_limit_of_an_older_result_comes_from_its_config(run: Run) -> None:
    add(run, "b", train_s=90.0)
    assert line(run, "b")["verdict"] == "WIN"
    for seed in SEEDS:
        write_json(run.layout.trial(f"b-s{seed}-0").config, {"train": {"wallclock_s": 60.0}})
    assert line(run, "b")["verdict"] == "INFEASIBLE"


def test_averages_of_old_weights_are_noted(run: Run) -> None:
    add(run, "good", initial_share=0.0099, never_began=False)
    add(run, "stale", initial_share=0.0101, never_began=False)
    add(run, "none", never_began=True)
    assert pd.isna(line(run, "good")["reason"])
    assert "1.0% of the average is the initial weights" in line(run, "stale")["reason"]
    assert "the average never began: the last weights were exported" in line(run, "none")["reason"]
    assert any("initial weights" in note for note in build_table(run.layout.root).footnotes)


def test_fewer_steps_are_noted_in_the_ablation(run: Run) -> None:
    add(run, "slow", steps=297)
    add(run, "same", steps=298)
    assert "1.0% fewer steps than the control" in line(run, "slow")["reason"]
    assert pd.isna(line(run, "same")["reason"])


def test_another_number_of_bytes_per_token_is_another_tokenizer() -> None:
    """Imports name no tokenizer, but the loss and the bpb of one score tell the bytes per token."""
    nulls = dict.fromkeys(("tokenizer_sha", "data_sha", "scored_tokens", "scored_bytes", "eval_seq_len"))
    rows = []
    for arm, ratio in (("a", 1.688), ("rounded", 1.6893), ("other", 1.690)):
        for seed, bpb in CONTROL.items():
            gain = 0.0 if arm == "a" else GAINS[seed]
            score = {"post_quant_bpb": bpb + gain, "val_loss_nats": ratio * (bpb + gain), "artifact_bytes": 1}
            rows.append({"arm": arm, "seed": seed, "status": "finished"} | nulls | score)
    trials = frame(rows)
    table = results.ablation(trials, on_mismatch="mark").set_index("arm")
    assert table["verdict"].tolist() == ["CONTROL", "WIN", "NOT COMPARABLE"]
    assert (
        "other seed 42 has 2.4382 bytes per token (loss / bpb), a seed 42 has 2.4353 bytes per token: another tokenizer"
        in table.loc["other", "reason"]
    )
    with pytest.raises(results.NotComparableError, match="another tokenizer"):
        results.ablation(trials, assume_same="a reason does not change what was measured")


def test_code_versions_on_other_seeds_are_told(run: Run) -> None:
    """Both arms hold the versions x and y, but not on the same seeds, so that code and arm are confounded."""
    codes = dict(zip(SEEDS, "xxyy", strict=True))
    for seed, bpb in CONTROL.items():
        run.finish("int8", seed, bpb, code_sha=codes[seed])
        run.finish("same", seed, bpb + GAINS[seed], code_sha=codes[seed])
        run.finish("turned", seed, bpb + GAINS[seed], code_sha={"x": "y", "y": "x"}[codes[seed]])
        run.finish("apart", seed + 10_000, bpb + GAINS[seed], code_sha="y" if seed == 42 else "x")
    assert pd.isna(line(run, "same")["reason"])
    assert "code_sha differs from the control's on seed 7, 8, 42, 1337" in line(run, "turned")["reason"]
    assert (
        "code_sha mixed in other shares than in the control: x 75%, y 25%, control x 50%, y 50%"
        in line(run, "apart")["reason"]
    )


def test_unknown_circumstances_are_no_difference(run: Run) -> None:
    """Rows that do not name their machine, on other seeds than the control's, differ in nothing that is known."""
    trials = results.load(run.layout.root)
    others = trials.assign(arm="b", seed=trials["seed"] + 10_000, hardware=pd.NA, world_size=pd.NA)
    reason = results.ablation(pd.concat([trials, others])).set_index("arm").loc["b", "reason"]
    assert "hardware" not in reason
    assert "world_size" not in reason


def test_the_permutation_p_has_a_column_from_8_pairs_on(run: Run) -> None:
    assert "p (perm.)" not in build_table(run.layout.root).tables[0].columns
    for seed in range(100, 108):
        run.finish("int8", seed, 2.5)
        run.finish("b", seed, 2.5 - seed / 10_000)
    assert build_table(run.layout.root).tables[0].columns["p (perm.)"].cells == [("–",), ("0.0078",)]


def test_a_headline_that_fell_back_is_told(run: Run) -> None:
    add(run, "b", sliding_bpb=2.4, eval_stride=64)
    table = build_table(run.layout.root)
    assert table.metric == "post_quant_bpb"
    told = "arms are compared by post_quant_bpb, because 4 of 8 trials have no sliding_bpb: int8"
    assert told in table.remarks
    trials = results.load(run.layout.root)
    assert set(results.ablation(trials)["metric"]) == {"post_quant_bpb"}, "chosen as in the table"
    assert "post-quant" in str(plots.deltas(trials).layout.xaxis.title.text)
    complete = trials[trials["arm"] == "b"]
    assert set(results.ablation(complete, control="b")["metric"]) == {"sliding_bpb"}


def test_the_threshold_of_practice_on_request(run: Run) -> None:
    gains = dict(zip(SEEDS, (-0.004, 0.002, -0.003, 0.001), strict=True))
    add(run, "better", gains)
    add(run, "worse", {seed: -gain for seed, gain in gains.items()})
    assert "p_one_sided" not in results.ablation(results.load(run.layout.root))
    better, worse = line(run, "better", practice=True), line(run, "worse", practice=True)
    assert better["p_one_sided"] == pytest.approx(better["p"] / 2)
    assert worse["p_one_sided"] == pytest.approx(1 - worse["p"] / 2)
    assert (better["is_better_in_practice"], worse["is_better_in_practice"]) == (better["p"] / 2 < 0.25, False)
    add(run, "sure")
    assert bool(line(run, "sure", practice=True)["is_better_in_practice"]) is True


def test_every_verdict_has_one_meaning() -> None:
    assert all(a != b for a, b in combinations(MEANINGS.values(), 2))
