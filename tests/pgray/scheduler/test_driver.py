"""The driver on real Ray, with a fast fake trainer: what is launched, what is not, and what is written down."""

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

import results
from pgray.cli.entry import main
from pgray.execution import processes
from pgray.execution.run_lock import hold_lock
from pgray.scheduler.driver import Outcome, run_sweep
from pgray.spec.sweep import Sweep
from pgray.store.ledger import Ledger
from tests.pgray.conftest import PLAIN, marked, wait_for
from trainer.errors import InputError
from trainer.records.layout import RunLayout

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray")]
WriteSweep = Callable[..., Path]


def drive(path: Path, runs: Path, **options: Any) -> Outcome:
    options = {"trainer_command": PLAIN, "grace_s": 3.0, **options}
    sweep = Sweep.from_yaml(path, overrides=options.pop("overrides", None), seeds=options.pop("seeds", None))
    return run_sweep(sweep, runs, **options)


def launches(run_root: Path) -> Counter[str]:
    """train_fingerprint -> how often it was trained, as the fake trainer itself counted."""
    return Counter({p.parent.name: len(p.read_text().split()) for p in run_root.glob("trained/*/launches.txt")})


def states(run_root: Path) -> dict[tuple[str, int], str]:
    return {(entry.arm, entry.seed): entry.state for entry in Ledger(RunLayout(run_root).ledger).states().values()}


def test_a_sweep_from_file_to_table_and_again(write_sweep: WriteSweep, tmp_path: Path) -> None:
    path = write_sweep()
    outcome = drive(path, tmp_path / "runs")
    assert outcome.exit_code == 0
    assert outcome.counts == {"finished": 6}
    assert (outcome.num_launched_jobs, outcome.num_launched_trials) == (4, 6)  # int8 and int6 share their training
    root = outcome.run_root
    assert set(launches(root).values()) == {1}
    trials = results.load(root)
    assert list(trials["arm"]) == ["int8", "int8", "int6", "int6", "qat", "qat"]
    assert list(trials["seed"]) == [1, 2] * 3
    assert trials["post_quant_bpb"].notna().all()
    table = results.ablation(trials, control="int8", metric="post_quant_bpb").set_index("arm")
    assert table.loc["int6", "delta"] == pytest.approx(0.009)
    layout = RunLayout(root)
    assert layout.sweep.read_text() == path.read_text()
    provenance = json.loads(layout.provenance.read_text())
    assert (provenance["control"], provenance["preset"]) == ("int8", "cpu-smoke")
    assert all(layout.table(suffix).exists() for suffix in ("md", "csv", "parquet"))
    for entry in Ledger(layout.ledger).states().values():
        trial = layout.trial(entry.trial_id)
        assert trial.log.read_text().startswith("fake trainer: job")
        assert json.loads(trial.config.read_text())["seed"] == entry.seed
        assert (entry.source, entry.attempt) == ("run", 1)
    wait_for(lambda: not marked(root), 5)

    before = layout.ledger.read_bytes()
    again = drive(path, tmp_path / "runs")
    assert (again.exit_code, again.num_launched_jobs) == (0, 0)
    assert layout.ledger.read_bytes() == before
    assert set(launches(root).values()) == {1}


ACCIDENT_ARMS = """
  int8: {}
  diverged: {optim.muon_momentum_steps: 1}
  exception: {optim.muon_momentum_steps: 2}
  hangs: {optim.muon_momentum_steps: 3}
  killed: {optim.muon_momentum_steps: 4}
  empty: {optim.muon_momentum_steps: 6}
  half: {optim.muon_momentum_steps: 8}
  oom: {optim.muon_momentum_steps: 9}
"""


def test_every_accident_is_a_row_with_kind_and_reason(write_sweep: WriteSweep, tmp_path: Path) -> None:
    path = write_sweep(arms=ACCIDENT_ARMS, seeds="[1]", set="optim: {ns_steps: 1, muon_momentum_steps: 0}")
    path.write_text(path.read_text() + "failures: {pause_after: 20}\n")
    outcome = drive(path, tmp_path / "runs", timeout_s=10.0)
    assert outcome.exit_code == 3
    rows = results.load(outcome.run_root).set_index("arm")
    expected = {
        "diverged": ("diverged", "training loss is nan at step 3"),
        "exception": ("user_error", "RuntimeError: the flux compensator is missing"),
        "hangs": ("timeout", "ran longer than 10 s; last line: step step=2"),
        "killed": ("infra", "killed by SIGKILL"),
        "empty": ("infra", "result.json was not written"),
        "half": ("infra", "result.json is not valid"),
        "oom": ("oom", "MemoryError: cannot allocate 80 GiB"),
    }
    assert rows.loc["int8", "status"] == "finished"
    for arm, (kind, reason) in expected.items():
        assert (rows.loc[arm, "status"], rows.loc[arm, "failure_kind"]) == ("failed", kind), arm
        assert reason in rows.loc[arm, "reason"], arm
    wait_for(lambda: not marked(outcome.run_root), 5)

    # Only what may go away by itself was tried again, three times; every attempt keeps its log.
    attempts = {entry.arm: entry.attempt for entry in Ledger(RunLayout(outcome.run_root).ledger).states().values()}
    assert attempts == {**dict.fromkeys(attempts, 1), "killed": 4, "empty": 4, "half": 4}
    trial = next((outcome.run_root / "trials").glob("killed-*"))
    assert len(list(trial.glob("attempt-*/log.txt"))) == 3
    assert (trial / "log.txt").exists()

    # Nothing is left to try until somebody says so.
    again = drive(path, tmp_path / "runs", timeout_s=10.0)
    assert (again.exit_code, again.num_launched_trials) == (3, 0)
    assert main(["retry", str(outcome.run_root), "--kind", "oom"]) == 0
    again = drive(path, tmp_path / "runs", timeout_s=10.0)
    assert (again.exit_code, again.num_launched_trials) == (3, 1)


def test_ranks_of_two_processes(write_sweep: WriteSweep, tmp_path: Path) -> None:
    path = write_sweep(arms="  int8: {}\n", seeds="[1]", launcher="torchrun")
    path.write_text(path.read_text() + "nproc: 2\nresources: {cpus: 2}\n")
    outcome = drive(path, tmp_path / "runs")
    assert outcome.exit_code == 0
    assert results.load(outcome.run_root)["world_size"].tolist() == [2]
    wait_for(lambda: not marked(outcome.run_root), 5)


def test_a_job_sees_the_gpus_that_it_holds_and_their_time_is_counted(write_sweep: WriteSweep, tmp_path: Path) -> None:
    path = write_sweep(arms="  int8: {}\n  int6: {quant.bits.mlp: 6}\n", seeds="[1]")
    path.write_text(path.read_text() + "resources: {gpus: 4}\nnproc: 1\nbudget: {usd_per_gpu_hour: 3600}\n")
    outcome = drive(path, tmp_path / "runs")
    assert outcome.exit_code == 0
    (log,) = outcome.run_root.glob("jobs/*/log.txt")
    assert "CUDA_VISIBLE_DEVICES 0,1,2,3" in log.read_text()
    (exit_file,) = outcome.run_root.glob("jobs/*/exit.json")
    record = json.loads(exit_file.read_text())
    held_s = 4 * (record["ended_at"] - record["started_at"])
    rows = results.load(outcome.run_root)
    assert rows["gpu_held_s"].sum() == pytest.approx(held_s)
    assert rows["cost_usd"].tolist() == pytest.approx([held_s / 2] * 2)


@pytest.mark.parametrize(
    ("resources", "message"),
    [
        ("{gpus: 8}", "resources.gpus: 8: the cluster has 4 GPUs and 2 CPUs on 1 node; lower it"),
        ("{cpus: 64}", "resources.cpus: 64: the cluster has 4 GPUs and 2 CPUs on 1 node; lower it"),
    ],
)
def test_more_than_the_cluster_has_is_refused(
    write_sweep: WriteSweep, tmp_path: Path, resources: str, message: str
) -> None:
    path = write_sweep(launcher="torchrun")
    path.write_text(path.read_text() + f"resources: {resources}\n")
    with pytest.raises(InputError, match=message):
        drive(path, tmp_path / "runs")
    assert not (tmp_path / "runs" / "test").exists()


def test_a_second_driver_is_told_who_is_at_work(write_sweep: WriteSweep, tmp_path: Path) -> None:
    path = write_sweep()
    with hold_lock(tmp_path / "runs" / "test"), pytest.raises(InputError, match=f"held by process {os.getpid()} on "):
        run_in_a_process_of_its_own(path, tmp_path / "runs")


def run_in_a_process_of_its_own(path: Path, runs: Path) -> None:
    code = f"from pgray.cli import main; raise SystemExit(main(['run', {str(path)!r}, '--runs', {str(runs)!r}]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    raise InputError("stderr", "text", done.stderr, "")


def test_a_result_that_the_ledger_lacks_is_adopted_and_one_that_is_lost_is_made_again(
    write_sweep: WriteSweep, tmp_path: Path
) -> None:
    path = write_sweep(arms="  int8: {}\n  int6: {quant.bits.mlp: 6}\n", seeds="[1]")
    root = drive(path, tmp_path / "runs").run_root
    ledger = RunLayout(root).ledger
    ledger.write_bytes(ledger.read_bytes().split(b"\n")[0][:-20])  # all but half a line is lost
    outcome = drive(path, tmp_path / "runs")
    assert (outcome.exit_code, outcome.num_launched_jobs) == (0, 0)
    assert set(results.load(root)["source"]) == {"recovered"}

    next((root / "trials").glob("int6-*/result.json")).write_text("{half")
    outcome = drive(path, tmp_path / "runs")
    assert (outcome.exit_code, outcome.num_launched_trials) == (0, 1)
    assert set(launches(root).values()) == {1}  # exported again from the weights that are there


def test_when_the_worker_dies_its_job_is_infra_and_the_others_go_on(write_sweep: WriteSweep, tmp_path: Path) -> None:
    arms = "  int8: {}\n  slow: {optim.muon_momentum_steps: 3}\n"
    path = write_sweep(arms=arms, seeds="[1]", set="optim: {ns_steps: 1, muon_momentum_steps: 0}")
    path.write_text(path.read_text() + "failures: {retries: {infra: 0}}\n")
    killer = threading.Thread(
        target=kill_the_worker_of_the_hanging_job, args=(tmp_path / "runs" / "test",), daemon=True
    )
    killer.start()
    outcome = drive(path, tmp_path / "runs")
    killer.join()
    assert outcome.counts == {"finished": 1, "failed": 1}
    row = results.load(outcome.run_root).set_index("arm").loc["slow"]
    assert row["failure_kind"] == "infra"
    assert row["reason"].startswith("the job's Ray worker died: ")
    wait_for(lambda: not marked(outcome.run_root), 5)


def kill_the_worker_of_the_hanging_job(run_root: Path) -> None:
    """Find the Ray worker that holds the lifeline of the job that hangs, and kill it as the OOM killer would."""

    def lifeline() -> Path | None:
        for process in processes.of_run(str(run_root)):
            job = RunLayout(run_root).job(Path(process.cwd()).name).job
            if '"muon_momentum_steps": 3' in job.read_text():
                return Path(f"/proc/{process.ppid()}/fd/0").readlink()
        return None

    pipe = wait_for(lifeline)
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            is_worker = "ray::" in " ".join(process.cmdline())
            if is_worker and any(fd.readlink() == pipe for fd in Path(f"/proc/{process.pid}/fd").iterdir()):
                process.kill()
                return


def test_a_silent_job_is_a_timeout_with_its_last_lines(write_sweep: WriteSweep, tmp_path: Path) -> None:
    path = write_sweep(arms="  int8: {}\n", seeds="[1]", set="optim: {ns_steps: 1, muon_momentum_steps: 3}")
    path.write_text(path.read_text() + "failures: {stall_s: 2.0}\n")
    outcome = drive(path, tmp_path / "runs")
    assert outcome.exit_code == 3
    (row,) = results.load(outcome.run_root).to_dict("records")
    assert (row["status"], row["failure_kind"]) == ("failed", "timeout")
    assert row["reason"].startswith("printed nothing for 2 s; last lines: ")
    assert row["reason"].count("|") == 2
    wait_for(lambda: not marked(outcome.run_root), 5)


def test_a_stopping_rule_ends_a_running_training_run(write_sweep: WriteSweep, tmp_path: Path) -> None:
    rule = "kill: [{metric: train_loss_nats, worse_than_control_by: 0.5, after_frac: 0.1}]\n"
    arms = "  int8: {}\n  bad: {optim.matrix_lr: 0.14}\n"  # its loss is worse by 1
    path = write_sweep(arms=arms, seeds="[1]", set="optim.ns_steps: 2", iterations=400)
    path.write_text(path.read_text() + rule)
    outcome = drive(path, tmp_path / "runs")
    assert (outcome.exit_code, outcome.counts) == (0, {"finished": 1, "killed": 1})
    wait_for(lambda: not marked(outcome.run_root), 5)
