"""The command line: what it imports, and what it prints of an existing run. Runs themselves: tests/pgray/cli/test_pulse.py."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pgray.cli.entry import main
from pgray.execution.run_lock import hold_lock
from pgray.planning.decision import decide
from pgray.planning.planner import make_plan
from pgray.spec.sweep import Sweep
from pgray.store.ledger import Ledger
from trainer.records.layout import RunLayout
from trainer.records.ledger import LedgerEntry

HEAVY = {"torch", "ray", "pandas", "sentencepiece", "optuna", "pyarrow", "scipy", "huggingface_hub", "numpy"}


PLANNING = {"numpy", "sentencepiece"}  # read the data for a plan


@pytest.mark.parametrize(
    ("arguments", "allowed"),
    [(["--help"], set()), (["data", "--help"], set()), (["run", "--help"], PLANNING), (["status", "--help"], set())],
)
def test_help_imports_nothing_heavy(arguments: list[str], allowed: set[str]) -> None:
    code = (
        "import sys; from pgray.cli import main; code = main(sys.argv[1:]); "
        f"print('HEAVY', sorted({HEAVY - allowed!r} & set(sys.modules)), file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    assert "HEAVY []" in done.stderr
    assert "Usage" in done.stdout
    assert "<bool>" not in done.stdout


def test_the_supervisor_imports_little() -> None:
    heavy = HEAVY | {"pydantic", "yaml", "typer", "rich"}
    code = f"import sys, pgray.execution.supervisor; print(sorted({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_package_offers_the_python_interface() -> None:
    import pgray

    assert issubclass(pgray.Sweep, Sweep)
    assert set(pgray.__all__) <= set(dir(pgray))
    with pytest.raises(AttributeError, match="no attribute 'Swep'"):
        _ = pgray.Swep  # type: ignore[attr-defined]


def test_plan_as_json_is_complete(
    write_sweep: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_sweep(seeds="[1, 2, 3]")
    assert main(["plan", str(path), "--runs", str(tmp_path / "runs"), "--json", "--seeds", "4,5"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["counts"] == {"trials": 6, "run": 6, "finished": 0, "recover": 0, "leave": 0}
    assert (len(plan["jobs"]), plan["training_runs_saved"]) == (4, 2)
    assert [trial["seed"] for trial in plan["trials"]] == [4, 5] * 3
    assert plan["control"] == "int8"
    assert plan["arms"][2]["changes"] == {"qat.enabled": True, "quant.bits.mlp": 4}
    assert not (tmp_path / "runs").exists()


def test_plan_for_people(write_sweep: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arms = "  int8: {}\n  same: {quant.bits.mlp: 8}\n  late: {qat.enabled: true, qat.start: {kind: step, value: 9}}\n"
    path = write_sweep(arms=arms, launcher="torchrun")
    path.write_text(path.read_text() + "resources: {gpus: 2}\nbudget: {usd_per_gpu_hour: 3.0}\n")
    assert main(["plan", str(path), "--runs", str(tmp_path / "runs")]) == 0
    out = capsys.readouterr().out
    assert "6 trials in 4 jobs: 2 training runs saved by sharing" in out
    assert "int8 (control)" in out
    assert "arms int8 and same have the same configuration" in out
    assert "warning: arm late: qat never starts: it is set to step 9 of 4" in out
    assert "at most 1.33 GPU-hours, $4.00" in out


def entry(trial_id: str, arm: str, state: str, **fields: object) -> LedgerEntry:
    base = {"at": 0.0, "sweep": "x", "seed": 1, "train_fingerprint": "f"}
    return LedgerEntry.model_validate({**base, "trial_id": trial_id, "arm": arm, "state": state, **fields})


@pytest.fixture
def run(tmp_path: Path) -> RunLayout:
    """A run folder with a failed, an oom and an interrupted trial."""
    layout = RunLayout(tmp_path / "x")
    Ledger(layout.ledger).append(
        entry("a-s1-1", "a", "failed", failure_kind="infra", reason="the node went away"),
        entry("b-s1-2", "b", "failed", failure_kind="oom", reason="too big"),
        entry("c-s1-3", "c", "running"),
    )
    layout.trial("b-s1-2").root.mkdir(parents=True)
    layout.trial("b-s1-2").log.write_text("one\ntwo\n")
    return layout


def test_status_shows_that_the_driver_is_gone(run: RunLayout, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", str(run.root)]) == 0
    out = capsys.readouterr().out
    assert "2 failed, 1 running; no driver is running" in out
    assert "its driver is gone" in out


def test_logs_by_id_prefix_and_arm(run: RunLayout, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("b-s1-2", "b-", "b"):
        assert main(["logs", str(run.root), name]) == 0
        assert capsys.readouterr().out == "one\ntwo\n"
    assert main(["logs", str(run.root), "b", "-f"]) == 0  # it has ended, so following ends
    assert capsys.readouterr().out == "one\ntwo\n"
    assert main(["logs", str(run.root), "b", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["lines"] == ["one", "two"]
    assert main(["logs", str(run.root), "z"]) == 2
    assert "no such trial; use one of a-s1-1, b-s1-2, c-s1-3" in capsys.readouterr().err


def test_logs_of_the_driver(run: RunLayout, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["logs", str(run.root)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "driver.log: driver log: missing: no driver has written one; " in line
    run.driver_log.write_text("launched b\n")
    assert main(["logs", str(run.root), "-f"]) == 0  # no driver is running, so following ends
    assert capsys.readouterr().out == "launched b\n"
    assert main(["logs", str(run.root), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "trial_id": None, "path": str(run.driver_log), "lines": ["launched b"],
    }  # fmt: skip


def test_following_continues_after_a_rotation_until_the_driver_ends(run: RunLayout) -> None:
    run.driver_log.write_text("a long first line\n")
    with hold_lock(run.root):
        command = [sys.executable, "-m", "pgray", "logs", str(run.root), "-f"]
        follower = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert follower.stdout is not None
        assert follower.stdout.readline() == "a long first line\n"
        run.driver_log.rename(run.driver_log.with_name("driver.log.1"))
        run.driver_log.write_text("second\n")
        assert follower.stdout.readline() == "second\n"
        assert follower.poll() is None
    assert follower.communicate(timeout=20) == ("", None)
    assert follower.returncode == 0


def test_retry_queues_by_kind(run: RunLayout, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["retry", str(run.root), "--kind", "oom", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["queued"] == ["b-s1-2"]
    states = Ledger(run.ledger).states()
    assert (states["b-s1-2"].state, states["b-s1-2"].failure_kind) == ("queued", None)
    assert states["b-s1-2"].reason == "pgray retry; before: too big"
    assert states["a-s1-1"].state == "failed"
    assert main(["retry", str(run.root)]) == 0
    assert "Queued 1 of 1 failed trial; run the sweep again" in capsys.readouterr().out


def test_retry_runs_failures_of_one_kind_again_and_leaves_the_others(
    write_sweep: Callable[..., Path], tmp_path: Path
) -> None:
    plan = make_plan(Sweep.from_yaml(write_sweep(seeds="[1]")))
    layout = RunLayout(tmp_path / "runs" / "test")
    kinds = {"int8": "oom", "int6": "infra", "qat": "user_error"}
    for trial in plan.trials:
        Ledger(layout.ledger).append(
            entry(trial.trial_id, trial.arm, "failed", failure_kind=kinds[trial.arm], sweep="test")
        )
    actions = {trial.arm: decide(plan, layout).actions[trial.trial_id] for trial in plan.trials}
    assert actions == {"int8": "leave", "int6": "run", "qat": "leave"}
    assert main(["retry", str(layout.root), "--kind", "user_error"]) == 0
    actions = {trial.arm: decide(plan, layout).actions[trial.trial_id] for trial in plan.trials}
    assert actions == {"int8": "leave", "int6": "run", "qat": "run"}


def test_seeds_on_the_command_line_do_not_invalidate_trials_of_other_seeds(
    write_sweep: Callable[..., Path], tmp_path: Path
) -> None:
    path = write_sweep(seeds="[1, 2]")
    both = make_plan(Sweep.from_yaml(path))
    layout = RunLayout(tmp_path / "runs" / "test")
    for trial in both.trials:
        Ledger(layout.ledger).append(entry(trial.trial_id, trial.arm, "queued", seed=trial.seed, sweep="test"))
    assert decide(make_plan(Sweep.from_yaml(path, seeds=[1])), layout).superseded == ()
    path = write_sweep(seeds="[1]")
    assert len(decide(make_plan(Sweep.from_yaml(path)), layout).superseded) == 3
