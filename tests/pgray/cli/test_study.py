"""`pgray study`: what it prints, exports and refuses. The tests write the run folder themselves."""

import json
from pathlib import Path

import optuna
import pytest

from pgray.cli.entry import main
from pgray.planning.planner import make_plan
from pgray.scheduler.proposer import Searcher
from pgray.scheduler.provenance import launched_sweep
from pgray.search.study import Study
from pgray.spec.sweep import Sweep
from pgray.store.ledger import Ledger
from trainer.records.files import write_json, write_text
from trainer.records.layout import RunLayout
from trainer.records.ledger import LedgerEntry

SWEEP = """
name: lr
preset: sp1024-9l
seeds: [1, 2]
search:
  trials: 4
  sampler: random
  objectives: {post_quant_bpb: min}
  constraints: {steps: ">= 100"}
  space:
    optim.matrix_lr: {log_uniform: [0.01, 0.1]}
    quant.keep_fp16: {choice: [[], ["embed*"]]}
"""
RESULT = json.loads((Path(__file__).parents[2] / "compat" / "result_v1.json").read_text())


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder with four proposals: two finished, one that broke a constraint, one still running."""
    layout = RunLayout(tmp_path / "lr")
    write_text(layout.sweep, SWEEP)
    write_json(layout.provenance, {"preset": "cpu-smoke", "set": {"model.layers": 5}, "seeds": [1]})
    ledger = Ledger(layout.ledger)
    bpbs = iter([1.5, 1.25, 1.0])
    for _ in range(4):
        proposal = study_of(layout).ask()
        assert proposal is not None
        name, bpb = f"{proposal.name}-1", next(bpbs, None)
        about = {"sweep": "lr", "arm": proposal.name, "seed": 1, "trial_id": name, "train_fingerprint": "f"}
        began_at = 1000.0 + 100 * int(proposal.name[1:])
        ledger.append(LedgerEntry(**about, at=began_at - 1, state="queued", changes=proposal.changes))
        ledger.append(LedgerEntry(**about, at=began_at, state="running"))
        if bpb is not None:
            ledger.append(LedgerEntry(**about, at=began_at + 60, state="finished"))
        if bpb is not None:
            numbers = {"post_quant_bpb": bpb, "artifact_bytes": 9_000_000, "steps": 99 if bpb == 1.0 else 100}
            write_json(layout.trial(name).result, RESULT | numbers | {"trial_id": name, "seed": 1})
    return layout.root


def study_of(layout: RunLayout) -> Study:
    study = make_plan(launched_sweep(layout), layout=layout, reads_data=False).study
    assert study is not None
    return study


def test_the_launched_sweep_includes_the_options_of_the_command_line(run: Path) -> None:
    sweep = launched_sweep(RunLayout(run))
    assert isinstance(sweep, Sweep)
    assert (sweep.preset.name, sweep.seeds, sweep.overrides) == ("cpu-smoke", (1,), {"model.layers": 5})


def test_it_shows_proposals_best_and_what_breaks_a_constraint(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["study", str(run)]) == 0
    lines = capsys.readouterr().out.splitlines()
    states = {line.split()[0]: line for line in lines if line.strip().startswith("t00")}
    assert "complete" in states["t000"]
    assert "1.5 " in states["t000"]
    assert " best " in states["t001"]
    assert "breaks steps by 1" in states["t002"]
    assert [line.split()[0] for line in lines if line.strip().startswith("t00")] == ["t001", "t000", "t002", "t003"]
    assert " 99 " in states["t002"]
    assert " open " in states["t003"]
    assert "optim.matrix_l" in states["t003"]
    assert "3 of 4 proposals done, 1 open" in lines
    assert "best (min post_quant_bpb): t001" in lines
    assert "Importances need 20 feasible proposals (2 so far)." in lines


def test_json_is_the_summary(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["study", str(run), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {**study_of(RunLayout(run)).summary(), "confirmed": []}


def test_an_export_can_be_opened(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = f"sqlite:///{tmp_path}/x.db"
    for _ in range(2):
        assert main(["study", str(run), "--to", url, "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == {"run": str(run), "study": "lr", "storage": url, "num_trials": 4}
    assert main(["study", str(run), "--to", url]) == 0
    assert f"4 trials in study lr of {url}; to see them: optuna-dashboard {url}" in capsys.readouterr().out
    storage = optuna.storages.RDBStorage(url)
    study = optuna.load_study(study_name="lr", storage=storage)
    assert study.best_trial.user_attrs["name"] == "t001"
    infeasible = study.trials[2]
    assert infeasible.system_attrs["constraints"] == [-7_000_000.0, 1.0]  # what optuna-dashboard reads
    assert [(t.datetime_start.timestamp(), t.datetime_complete.timestamp()) for t in study.trials[:2]] == [
        (1000.0, 1060.0),
        (1100.0, 1160.0),
    ]
    storage.remove_session()
    storage.engine.dispose()


def test_a_new_trial_replaces_the_old_one_of_its_seed(run: Path) -> None:
    """An edited sweep gives its proposals new trials; the results of the old ones no longer count."""
    layout = RunLayout(run)
    plan = make_plan(launched_sweep(layout), layout=layout, reads_data=False)
    assert plan.study is not None
    numbers = {"post_quant_bpb": 0.5, "artifact_bytes": 9_000_000, "steps": 100}
    write_json(layout.trial("t000-new").result, RESULT | numbers | {"trial_id": "t000-new", "seed": 1})
    about = {"at": 0.0, "sweep": "lr", "arm": "t000", "seed": 1, "trial_id": "t000-new", "train_fingerprint": "f"}
    Searcher(plan, plan.study, layout).on_ended([LedgerEntry(**about, state="finished")])
    assert plan.study.score("t000").means["post_quant_bpb"] == 0.5


def test_bad_input(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refused(*arguments: str) -> str:
        assert main(["study", *arguments]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.count("\n") == 1
        return captured.err

    assert "not a run folder" in refused(str(tmp_path))
    assert "--to: storage: x.db: cannot be used as an Optuna storage" in refused(str(run), "--to", "x.db")
    text = SWEEP[: SWEEP.index("search:")] + "arms: {a: {}}\n"
    (run / "sweep.yaml").write_text(text)
    assert "search: missing: this sweep has no search section" in refused(str(run))
    (run / "sweep.yaml").unlink()
    assert "sweep.yaml: file: missing" in refused(str(run))
