"""`pgray confirm`: the best arms of a run on fresh seeds, as a sweep of their own."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

import results
from pgray.cli.entry import main
from pgray.planning.confirmation import confirming_sweep, select_arms
from pgray.planning.planner import make_plan
from pgray.scheduler.driver import run_sweep
from pgray.scheduler.provenance import launched_sweep
from pgray.spec.sweep import Sweep
from results.analysis.confirmation import confirmed_arms
from tests.pgray.conftest import PLAIN
from trainer.records.files import read_json
from trainer.records.layout import RunLayout

SEARCH = """search:
  trials: 4
  sampler: random
  objectives: {post_quant_bpb: min}
  space: {optim.matrix_lr: {log_uniform: [0.001, 0.1]}, quant.bits.mlp: {int: [4, 8]}}
"""


@pytest.fixture
def search_file(write_sweep: Callable[..., Path]) -> Path:
    """A search with a relative data path, a preset by name, and a launcher."""
    path = write_sweep(name="lr", seeds="[1, 2]")
    text = path.read_text()
    path.write_text(text[: text.index("control:")] + SEARCH + "launcher: plain\n")
    return path


@pytest.fixture
def searched(search_file: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """The run folder of a search that has finished."""
    request.getfixturevalue("executor")
    assert main(["run", str(search_file), "--runs", str(tmp_path / "runs"), "--set", "optim.ns_steps=2"]) == 0
    return tmp_path / "runs/lr"


def _best_first(run: Path) -> list[str]:
    trials = json.loads(RunLayout(run).study.read_text())["trials"]
    return [t["name"] for t in sorted(trials, key=lambda t: t["values"]["post_quant_bpb"])]


def test_the_best_arms_run_on_fresh_seeds_beside_the_control(
    searched: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["confirm", str(searched), "--top", "2", "--seeds", "11,12,13"]) == 0
    out = capsys.readouterr().out
    assert "lr-confirm: Do " in out
    assert "9 trials in 9 jobs" in out  # the plan comes first
    best = _best_first(searched)[:2]
    trials = results.load(tmp_path / "runs/lr-confirm")
    assert set(trials["seed"]) == {11, 12, 13}  # no seed of the search is pooled
    assert list(dict.fromkeys(trials["arm"])) == ["base", *best]
    layout = RunLayout(tmp_path / "runs/lr-confirm")
    for arm in ("base", *best):
        chosen, fresh = (
            read_json(RunLayout(run).trial(rows[rows["arm"] == arm]["trial_id"].iloc[0]).config)
            for run, rows in ((searched, results.load(searched)), (layout.root, trials))
        )
        assert chosen.pop("seed") != fresh.pop("seed")
        assert chosen == fresh  # the same configuration, with --set folded in
    assert yaml.safe_load(layout.sweep.read_text())["confirms"]["seeds"] == [1, 2]


def test_its_file_repeats_it_and_refuses_the_seeds_of_the_selection(
    searched: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["confirm", str(searched), "--arm", "t001", "--seeds", "11"]) == 0
    file = tmp_path / "runs/lr-confirm/sweep.yaml"
    before = results.load(tmp_path / "runs/lr-confirm")["trial_id"].tolist()
    assert main(["run", str(file), "--runs", str(tmp_path / "again")]) == 0
    assert results.load(tmp_path / "again/lr-confirm")["trial_id"].tolist() == before
    capsys.readouterr()
    for arguments in (["run", str(file), "--seeds", "2,11"], ["confirm", str(searched), "--seeds", "5,2"]):
        assert main([*arguments, "--runs", str(tmp_path / "third")]) == 2
        error = capsys.readouterr().err
        assert "seeds: 2: was used in run lr, which chose these arms by their luck on it; use fresh seeds" in error
    assert not (tmp_path / "third").exists()


def test_it_continues_the_same_arms_but_not_others(
    searched: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["confirm", str(searched), "--arm", "t001", "--seeds", "11"]) == 0
    assert main(["confirm", str(searched), "--arm", "t001", "--seeds", "11,12"]) == 0
    assert len(results.load(tmp_path / "runs/lr-confirm")) == 4
    capsys.readouterr()
    assert main(["confirm", str(searched), "--arm", "t002", "--seeds", "11"]) == 2
    assert "lr-confirm holds another sweep (differs in question, arms); give another --name" in capsys.readouterr().err
    assert main(["confirm", str(searched), "--arm", "t002", "--seeds", "11", "--name", "two", "--plan", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["counts"]["run"] == 2
    assert not (tmp_path / "runs/two").exists()


def test_wrong_choices_are_refused(searched: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, message in (
        (["--arm", "x"], "--arm: arm: x: no such arm; use one of t000, t001, t002, t003"),
        (["--arm", "base"], "--arm: arm: base: is the control, which is added anyway"),
        (["--top", "5"], "--top: arms: 5: arms that finished all seeds within the constraints: "),
    ):
        assert main(["confirm", str(searched), *arguments]) == 2
        assert message in capsys.readouterr().err


@pytest.mark.usefixtures("executor")
def test_plain_arms_are_ranked_by_the_headline_metric(
    write_sweep: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", str(write_sweep()), "--runs", str(tmp_path)]) == 0
    table = results.ablation(results.load(tmp_path / "test"), metric="sliding_bpb").set_index("arm")["mean"]
    capsys.readouterr()
    assert main(["confirm", str(tmp_path / "test"), "--top", "1", "--plan", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    best = table.drop("int8").idxmin()
    assert [arm["arm"] for arm in found["arms"]] == ["int8", best]
    assert found["seeds"] == [3, 4, 5, 6, 7]


def test_what_the_best_loses_is_measured_against_the_control(searched: Path) -> None:
    assert confirmed_arms(searched) == []
    assert main(["confirm", str(searched), "--top", "1", "--seeds", "11,12,13"]) == 0
    (arm,) = confirmed_arms(searched)
    best = _best_first(searched)[0]
    means = {}
    for run in ("lr", "lr-confirm"):
        rows = results.load(searched.parent / run)
        means[run] = rows.groupby("arm")["post_quant_bpb"].mean()
    assert (arm.arm, arm.run, arm.num_selected, arm.num_fresh) == (best, "lr-confirm", 2, 3)
    assert arm.selected_gain == pytest.approx(means["lr"]["base"] - means["lr"][best])
    assert arm.fresh_gain == pytest.approx(means["lr-confirm"]["base"] - means["lr-confirm"][best])


@pytest.mark.ray
@pytest.mark.usefixtures("ray")
def test_a_confirmation_runs_on_ray(search_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pgray.scheduler.driver._write_report", lambda *_: None)  # takes seconds
    search_file.write_text(search_file.read_text().replace("trials: 4", "trials: 1"))
    search = Sweep.from_yaml(search_file, seeds=[1])
    assert run_sweep(search, tmp_path, trainer_command=PLAIN, grace_s=2.0).exit_code == 0
    best = _best_first(tmp_path / "lr")[0]
    layout = RunLayout(tmp_path / "lr")
    plan = make_plan(launched_sweep(layout), layout=layout, reads_data=False)
    text = confirming_sweep(plan, layout, "lr-confirm", select_arms(plan, layout, 1, []), [11])
    assert run_sweep(Sweep.from_text(text), tmp_path, trainer_command=PLAIN, grace_s=2.0).counts == {"finished": 2}
    (arm,) = confirmed_arms(tmp_path / "lr")
    assert (arm.arm, arm.num_selected, arm.num_fresh) == (best, 1, 1)
