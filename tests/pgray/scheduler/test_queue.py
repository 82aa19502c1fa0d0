"""What the driver decides between jobs, on real Ray with the fast fake trainer: breaker, budget, rules, races, stalls."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import results
from pgray.scheduler.driver import Outcome
from pgray.store.ledger import Ledger
from tests.pgray.conftest import marked, wait_for
from tests.pgray.scheduler.test_driver import drive, launches
from trainer.records.layout import RunLayout

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray")]
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


def test_the_breaker_pauses_and_the_sweep_goes_on_later(drive_with: Callable[..., Outcome]) -> None:
    everything_fails = ACCIDENT.format(2)
    outcome = drive_with("failures: {pause_after: 3}", arms=arms(6), seeds="[1]", set=everything_fails)
    assert outcome.exit_code == 4
    assert outcome.paused is not None
    assert "jobs in a row failed with user_error, the last one: RuntimeError: the flux compensator" in outcome.paused
    assert outcome.counts["failed"] in (3, 4)  # one more may have been under way
    assert outcome.counts["queued"] == 6 - outcome.counts["failed"]
    again = drive_with("failures: {pause_after: 20}", arms=arms(6), seeds="[1]", set=everything_fails)
    assert again.exit_code == 3
    assert again.num_launched_trials == outcome.counts["queued"]


def test_what_goes_wrong_once_is_tried_again(drive_with: Callable[..., Outcome]) -> None:
    outcome = drive_with("", arms="  a: {}\n", seeds="[1]", set=ACCIDENT.format(10))
    assert outcome.exit_code == 0
    entries = Ledger(RunLayout(outcome.run_root).ledger).entries()
    assert [entry.state for entry in entries] == ["queued", "running", "failed", "queued", "running", "finished"]
    assert entries[3].reason is not None
    assert entries[3].reason.startswith("infra, tried again (1): killed by SIGKILL")


def test_a_budget_reserves_whole_jobs_and_goes_on_when_it_is_raised(drive_with: Callable[..., Outcome]) -> None:
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


def test_a_silent_job_is_a_timeout_with_its_last_lines(drive_with: Callable[..., Outcome]) -> None:
    outcome = drive_with("failures: {stall_s: 2.0}", arms="  a: {}\n", seeds="[1]", set=ACCIDENT.format(3))
    assert outcome.exit_code == 3
    (row,) = results.load(outcome.run_root).to_dict("records")
    assert (row["status"], row["failure_kind"]) == ("failed", "timeout")
    assert row["reason"].startswith("printed nothing for 2 s; last lines: ")
    assert row["reason"].count("|") == 2
    wait_for(lambda: not marked(outcome.run_root), 5)


def test_a_rule_on_results_skips_the_remaining_seeds_of_a_hopeless_arm(drive_with: Callable[..., Outcome]) -> None:
    rule = "kill: [{metric: post_quant_bpb, worse_than_control_by: 0.05}]"
    names = "  int8: {}\n  int6: {quant.bits.mlp: 6}\n  int4: {quant.bits.mlp: 4, optim.matrix_lr: 0.03}\n"
    outcome = drive_with(f"{rule}\nresources: {{cpus: 2}}\nnproc: 1", arms=names, seeds="[1, 2, 3]")  # one at a time
    assert outcome.exit_code == 0
    rows = results.load(outcome.run_root).set_index(["arm", "seed"])
    assert rows["status"].to_dict() == {
        (arm, seed): "killed" if arm == "int4" and seed > 1 else "finished"
        for arm in ("int8", "int6", "int4")
        for seed in (1, 2, 3)
    }
    assert "post_quant_bpb 1.3000 is worse than the control's 1.2010 by 0.0990" in rows.loc[("int4", 2), "reason"]


def test_a_rule_on_curves_ends_a_training_run_in_the_middle(drive_with: Callable[..., Outcome]) -> None:
    rule = "kill: [{metric: train_loss_nats, worse_than_control_by: 0.5, after_frac: 0.1}]"
    names = "  good: {}\n  bad: {optim.matrix_lr: 0.14}\n"  # its loss is worse by 1
    outcome = drive_with(rule, arms=names, seeds="[1]", set="optim.ns_steps: 2", iterations=400)
    assert outcome.counts == {"finished": 1, "killed": 1}
    assert outcome.exit_code == 0
    row = results.load(outcome.run_root).set_index("arm").loc["bad"]
    assert "(rule *: train_loss_nats worse than the control's by more than 0.5" in row["reason"]
    assert not list(outcome.run_root.glob("trials/bad-*/result.json"))
    wait_for(lambda: not marked(outcome.run_root), 5)
    again = drive_with(rule, arms=names, seeds="[1]", set="optim.ns_steps: 2", iterations=400)
    assert again.num_launched_jobs == 0


def test_a_race_gives_more_seeds_only_to_arms_that_may_be_best(drive_with: Callable[..., Outcome]) -> None:
    names = "  int8: {}\n  int7: {quant.bits.mlp: 7}\n  int4: {quant.bits.mlp: 4, optim.matrix_lr: 0.03}\n"
    outcome = drive_with("race: {metric: post_quant_bpb}", arms=names, seeds="[1, 2, 3, 4]", set="train.val_every: 1")
    rows = results.load(outcome.run_root)
    killed = rows[rows["status"] == "killed"]
    assert set(killed["arm"]) >= {"int4"}
    assert "int8" not in set(killed["arm"])
    assert set(killed["seed"]) <= {3, 4}
    assert killed["reason"].str.startswith("out of the race: ").all()
