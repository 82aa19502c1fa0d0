"""Decisions between jobs, without Ray: circuit breaker, retries, budget, stopping rules, reruns, slow nodes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import results
from pgray.cli.entry import main
from pgray.scheduler.driver import Outcome
from pgray.store.ledger import Ledger
from tests.pgray.conftest import RecordedProgress
from tests.pgray.fake_executor import FakeExecutor
from tests.pgray.scheduler.test_driver import drive, launches
from trainer.records.layout import RunLayout

pytestmark = pytest.mark.usefixtures("executor")
WriteSweep = Callable[..., Path]
ACCIDENT = "optim: {{ns_steps: 1, muon_momentum_steps: {}}}"


@pytest.fixture
def drive_with(write_sweep: WriteSweep, tmp_path: Path) -> Callable[..., Outcome]:
    """Run a sweep with more lines at its end: `drive_with("failures: {...}", arms=..., seeds=..., set=...)`."""

    def run(more: str, options: dict[str, Any] | None = None, **sweep: Any) -> Outcome:
        path = write_sweep(**sweep)
        text = path.read_text() if "int8" in sweep["arms"] else path.read_text().replace("control: int8\n", "")
        path.write_text(f"{text}{more}\n")
        return drive(path, tmp_path / "runs", **(options or {}))

    return run


def arms(count: int) -> str:
    return "".join(f"  arm{i}: {{optim.matrix_lr: {0.01 + i / 1000}}}\n" for i in range(count))


def test_the_breaker_pauses_and_the_next_run_resumes(drive_with: Callable[..., Outcome]) -> None:
    everything_fails = ACCIDENT.format(2)
    outcome = drive_with("failures: {pause_after: 3}", arms=arms(6), seeds="[1]", set=everything_fails)
    assert outcome.exit_code == 4
    assert outcome.paused is not None
    assert "jobs in a row failed with user_error, the last one: RuntimeError: the flux compensator" in outcome.paused
    assert outcome.counts["failed"] == 4  # one more was running
    assert outcome.counts["queued"] == 6 - outcome.counts["failed"]
    again = drive_with("failures: {pause_after: 20}", arms=arms(6), seeds="[1]", set=everything_fails)
    assert again.exit_code == 3
    assert again.num_launched_trials == outcome.counts["queued"]


def test_a_failure_is_retried(drive_with: Callable[..., Outcome]) -> None:
    outcome = drive_with("", arms="  a: {}\n", seeds="[1]", set=ACCIDENT.format(10))
    assert outcome.exit_code == 0
    entries = Ledger(RunLayout(outcome.run_root).ledger).entries()
    assert [entry.state for entry in entries] == ["queued", "running", "failed", "queued", "running", "finished"]
    assert entries[3].reason is not None
    assert entries[3].reason.startswith("infra, retried (1): killed by SIGKILL")


def test_a_budget_reserves_whole_jobs_and_a_higher_one_resumes(drive_with: Callable[..., Outcome]) -> None:
    base = "resources: {gpus: 2}\nnproc: 1\nbudget: {gpu_hours: %s}"
    timeout = {"timeout_s": 30.0}
    nothing = drive_with(base % "0.01", timeout, arms=arms(3), seeds="[1]")  # a job may take 60 GPU seconds
    assert (nothing.exit_code, nothing.num_launched_jobs, nothing.counts) == (4, 0, {"queued": 3})
    assert nothing.paused is not None
    assert nothing.paused.startswith("the next job may take 0.02 GPU-hours: 0.00 of 0.01 GPU-hours spent")
    one = drive_with(base % "0.0167", timeout, arms=arms(3), seeds="[1]")
    held_s = results.load(one.run_root)["gpu_held_s"].sum()
    assert 0 < held_s <= 0.0167 * 3600
    done = drive_with(base % "1.0", timeout, arms=arms(3), seeds="[1]")
    assert (done.exit_code, done.counts) == (0, {"finished": 3})
    assert set(launches(done.run_root).values()) == {1}


def test_a_rule_on_results_skips_the_remaining_seeds_of_an_arm(
    drive_with: Callable[..., Outcome], executor: FakeExecutor
) -> None:
    rule = "kill: [{metric: post_quant_bpb, worse_than_control_by: 0.05}]"
    names = "  int8: {}\n  int6: {quant.bits.mlp: 6}\n  int4: {quant.bits.mlp: 4, optim.matrix_lr: 0.03}\n"
    executor.slots = 1
    outcome = drive_with(rule, arms=names, seeds="[1, 2, 3]")
    assert outcome.exit_code == 0
    rows = results.load(outcome.run_root).set_index(["arm", "seed"])
    assert rows["status"].to_dict() == {
        (arm, seed): "killed" if arm == "int4" and seed > 1 else "finished"
        for arm in ("int8", "int6", "int4")
        for seed in (1, 2, 3)
    }
    assert "post_quant_bpb 1.3000 is worse than the control's 1.2010 by 0.0990" in rows.loc[("int4", 2), "reason"]


def test_a_race_gives_more_seeds_only_to_arms_that_may_be_best(drive_with: Callable[..., Outcome]) -> None:
    names = "  int8: {}\n  int7: {quant.bits.mlp: 7}\n  int4: {quant.bits.mlp: 4, optim.matrix_lr: 0.03}\n"
    outcome = drive_with("race: {metric: post_quant_bpb}", arms=names, seeds="[1, 2, 3, 4]", set="train.val_every: 1")
    rows = results.load(outcome.run_root)
    killed = rows[rows["status"] == "killed"]
    assert set(killed["arm"]) >= {"int4"}
    assert "int8" not in set(killed["arm"])
    assert set(killed["seed"]) <= {3, 4}
    assert killed["reason"].str.startswith("eliminated by the race: ").all()


def test_an_added_arm_and_an_added_seed_are_the_only_ones_run(write_sweep: WriteSweep, tmp_path: Path) -> None:
    first = drive(write_sweep(seeds="[1]"), tmp_path / "runs")
    trained = launches(first.run_root)
    arms = "  int8: {}\n  int6: {quant.bits: {mlp: 6, attn: 6}}\n  int4: {quant.bits.mlp: 4}\n"
    path = write_sweep(seeds="[1, 2]", arms=arms)
    second = drive(path, tmp_path / "runs")
    assert second.counts == {"finished": 6}
    assert second.num_launched_trials == 4  # int4 seed 1 on the weights that are there, and three of seed 2
    assert {name: launches(first.run_root)[name] for name in trained} == trained
    assert len(results.load(first.run_root)) == 7  # the arm that is no longer asked for keeps its row


def test_a_changed_arm_runs_and_the_old_one_needs_no_second_run(write_sweep: WriteSweep, tmp_path: Path) -> None:
    path = write_sweep(arms="  int8: {}\n", seeds="[1]")
    root = drive(path, tmp_path / "runs").run_root
    changed = drive(path, tmp_path / "runs", overrides={"quant.bits.embed": 7})
    assert changed.num_launched_trials == 1
    assert set(launches(root).values()) == {1}  # the change acts after training
    assert results.load(root)["is_current"].tolist() == [False, True]
    back = drive(path, tmp_path / "runs")
    assert back.num_launched_trials == 0
    assert results.load(root)["is_current"].tolist() == [True, False]


def current(root: Path) -> set[tuple[str, int]]:
    """(arm, seed) of the current rows."""
    trials = results.load(root)
    own = trials[trials["is_current"]]
    return set(zip(own["arm"], own["seed"], strict=True))


EDITED = ({"quant.bits.embed": 7}, {"optim.matrix_lr": 0.03})  # after training, and in training


@pytest.mark.parametrize("changes", EDITED)
def test_an_edited_arm_on_other_seeds_replaces_all_its_old_rows(
    changes: dict[str, Any], write_sweep: WriteSweep, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, runs = write_sweep(arms="  int8: {}\n  int6: {quant.bits.mlp: 6}\n", seeds="[1, 2]"), tmp_path / "runs"
    root = drive(path, runs).run_root
    assert current(root) == {("int8", 1), ("int8", 2), ("int6", 1), ("int6", 2)}
    key, value = next(iter(changes.items()))
    old = path.read_text()
    path.write_text(old.replace("{quant.bits.mlp: 6}", f"{{quant.bits.mlp: 6, {key}: {value}}}"))

    assert main(["plan", str(path), "--runs", str(runs), "--seeds", "3"]) == 0
    said = "arm int6: 2 finished trials will be superseded: this run gives the arm another configuration"
    assert said in " ".join(capsys.readouterr().out.split())
    reporter = RecordedProgress()
    drive(path, runs, seeds=[3], reporter=reporter)
    assert [line for line in reporter.lines if said in line]
    assert current(root) == {("int8", 1), ("int8", 2), ("int8", 3), ("int6", 3)}

    capsys.readouterr()
    assert main(["status", str(root), "--json"]) == 0
    marks = {(t["arm"], t["seed"]): t["is_current"] for t in json.loads(capsys.readouterr().out)["trials"]}
    assert marks == {(arm, seed): arm == "int8" or seed == 3 for arm, seed in marks}
    assert main(["status", str(root)]) == 0
    text = capsys.readouterr().out
    assert text.count("finished, superseded") == 2
    assert "; 2 superseded by another configuration of the arm" in text

    path.write_text(old)  # back again, on one of the old seeds: the old rows are current, all of them
    drive(path, runs, seeds=[1])
    assert current(root) == {("int8", 1), ("int8", 2), ("int8", 3), ("int6", 1), ("int6", 2)}


def test_a_sweep_run_with_set_and_other_seeds_replaces_every_arm(write_sweep: WriteSweep, tmp_path: Path) -> None:
    path, runs = write_sweep(arms="  int8: {}\n  int6: {quant.bits.mlp: 6}\n", seeds="[1, 2]"), tmp_path / "runs"
    root = drive(path, runs).run_root
    drive(path, runs, overrides={"quant.bits.embed": 7}, seeds=[1])
    assert current(root) == {("int8", 1), ("int6", 1)}
    assert len(results.load(root)) == 6


def test_two_arms_that_swap_their_configurations(write_sweep: WriteSweep, tmp_path: Path) -> None:
    a, b, runs = "{quant.bits.mlp: 7}", "{quant.bits.mlp: 6}", tmp_path / "runs"
    base = "  int8: {}\n"
    root = drive(write_sweep(arms=f"{base}  a: {a}\n  b: {b}\n", seeds="[1, 2]"), runs).run_root
    drive(write_sweep(arms=f"{base}  a: {b}\n  b: {a}\n", seeds="[3]"), runs)
    assert current(root) == {("int8", 1), ("int8", 2), ("int8", 3), ("a", 3), ("b", 3)}
    drive(write_sweep(arms=f"{base}  a: {a}\n  b: {b}\n", seeds="[2]"), runs)
    assert current(root) == {(arm, seed) for arm in ("int8", "a", "b") for seed in (1, 2)} | {("int8", 3)}


SEARCH = """
search:
  trials: 3
  objectives: {post_quant_bpb: min}
  space: {quant.bits.mlp: {int: [4, 8]}}
"""


def test_a_search_does_not_mix_seeds_of_two_bases(write_sweep: WriteSweep, tmp_path: Path) -> None:
    """Its means, from which the sampler learns, are those of the current rows, whether the base is edited or restored."""

    def search(seed: int, base: str) -> RunLayout:
        path = write_sweep(arms="", seeds=f"[{seed}]", set=f"train.val_every: 9, {base}")
        path.write_text(path.read_text().replace("arms:\n", "").replace("control: int8\n", "") + SEARCH)
        return RunLayout(drive(path, tmp_path / "runs").run_root)

    for seed, base in ((1, "optim.ns_steps: 1"), (2, "optim.ns_steps: 2"), (1, "optim.ns_steps: 1")):
        layout = search(seed, base)
        rows = results.load(layout.root)
        rows = rows[rows["is_current"] & (rows["arm"] != "base")]
        assert set(rows["seed"]) == {seed}
        study = json.loads(layout.study.read_text())
        means = rows.set_index("arm")["post_quant_bpb"].to_dict()
        assert {t["name"]: t["values"]["post_quant_bpb"] for t in study["trials"]} == pytest.approx(means)


def test_retry_leaves_superseded_trials_alone(write_sweep: WriteSweep, tmp_path: Path) -> None:
    path, runs = write_sweep(arms="  int8: {}\n  a: {optim.muon_momentum_steps: 2}\n", seeds="[1]"), tmp_path / "runs"
    root = drive(path, runs).run_root
    path.write_text(path.read_text().replace("muon_momentum_steps: 2", "muon_momentum_steps: 0"))
    drive(path, runs, seeds=[2])
    assert main(["retry", str(root)]) == 0
    assert current(root) == {("int8", 1), ("int8", 2), ("a", 2)}


def test_trials_of_a_ledger_without_configurations_stay_current(write_sweep: WriteSweep, tmp_path: Path) -> None:
    """A ledger of an earlier version: the trials that the sweep still asks for get their configuration."""
    path, runs = write_sweep(arms="  int8: {}\n", seeds="[1]"), tmp_path / "runs"
    root = drive(path, runs).run_root
    ledger = RunLayout(root).ledger
    old = [entry.model_copy(update={"config_sha": None}) for entry in Ledger(ledger).entries()]
    ledger.unlink()
    Ledger(ledger).append(*old)
    drive(write_sweep(arms="  int8: {}\n", seeds="[1, 2]"), runs)
    assert current(root) == {("int8", 1), ("int8", 2)}


def test_a_slow_node_is_reported_at_once_and_in_its_rows(write_sweep: WriteSweep, tmp_path: Path) -> None:
    reporter = RecordedProgress()
    root = drive(write_sweep(arms="  int8: {}\n", seeds="[1, 2, 13]"), tmp_path / "runs", reporter=reporter).run_root
    said = "slow node fake: 50% below the usual 100 TFLOP/s of 1 x fake"
    assert [line for line in reporter.lines if "slow node" in line] == [f"warning: {said}"]
    assert results.load(root).set_index("seed")["notes"].dropna().to_dict() == {13: said}


def test_a_rule_on_curves_ends_a_training_run_in_the_middle(drive_with: Callable[..., Outcome]) -> None:
    rule = "kill: [{metric: train_loss_nats, worse_than_control_by: 0.5, after_frac: 0.1}]"
    names = "  good: {}\n  bad: {optim.matrix_lr: 0.14}\n"  # its loss is worse by 1
    outcome = drive_with(rule, arms=names, seeds="[1]", set="optim.ns_steps: 2", iterations=400)
    assert outcome.counts == {"finished": 1, "killed": 1}
    assert outcome.exit_code == 0
    row = results.load(outcome.run_root).set_index("arm").loc["bad"]
    assert "(rule *: train_loss_nats worse than the control's by more than 0.5" in row["reason"]
    assert not list(outcome.run_root.glob("trials/bad-*/result.json"))
    again = drive_with(rule, arms=names, seeds="[1]", set="optim.ns_steps: 2", iterations=400)
    assert again.num_launched_jobs == 0
