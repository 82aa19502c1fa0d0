"""A search through the driver: proposals become trials, the ledger remembers them, a killed search resumes."""

import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

import results
from pgray.planning.planner import make_plan
from pgray.spec.sweep import Sweep
from pgray.store.ledger import Ledger
from tests.pgray.conftest import marked, wait_for
from tests.pgray.scheduler.test_crash import Start, address, start_driver  # noqa: F401
from tests.pgray.scheduler.test_driver import drive, launches
from trainer.records.layout import RunLayout

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray")]
WriteSweep = Callable[..., Path]
SEARCH = """
search:
  trials: {trials}
  sampler: {sampler}
  objectives: {{post_quant_bpb: min}}
  space:
    optim.matrix_lr: {{log_uniform: [0.01, 0.1]}}
    quant.bits.mlp: {{int: [4, 8]}}
"""


@pytest.fixture
def search_sweep(write_sweep: WriteSweep) -> Callable[..., Path]:
    def write(trials: int = 8, sampler: str = "tpe", more: str = "", **options: object) -> Path:
        path = write_sweep(arms="", **options)
        text = path.read_text().replace("arms:\n", "").replace("control: int8\n", "")
        path.write_text(text + SEARCH.format(trials=trials, sampler=sampler) + more)
        return path

    return write


def test_a_search_from_file_to_table_and_again(search_sweep: Callable[..., Path], tmp_path: Path) -> None:
    path = search_sweep(seeds="[1, 2]")
    outcome = drive(path, tmp_path / "runs")
    assert (outcome.exit_code, outcome.counts) == (0, {"finished": 18})  # 8 proposals and the base, each with two seeds
    rows = results.load(outcome.run_root)
    assert list(dict.fromkeys(rows["arm"])) == ["base", *(f"t00{i}" for i in range(8))]
    assert set(launches(outcome.run_root).values()) == {1}
    layout = RunLayout(outcome.run_root)
    study = json.loads(layout.study.read_text())
    means = rows[rows["arm"] != "base"].groupby("arm")["post_quant_bpb"].mean()
    assert {t["name"]: t["values"]["post_quant_bpb"] for t in study["trials"]} == pytest.approx(means.to_dict())
    assert means[study["best"]].tolist() == pytest.approx([means.min()] * len(study["best"]))

    before = layout.ledger.read_bytes()
    again = drive(path, tmp_path / "runs")
    assert (again.exit_code, again.num_launched_jobs) == (0, 0)
    assert layout.ledger.read_bytes() == before

    more = drive(search_sweep(seeds="[1, 2]", trials=10), tmp_path / "runs")
    assert (more.num_launched_trials, more.counts) == (4, {"finished": 22})


def test_a_search_that_is_killed_goes_on_and_its_study_equals_the_ledger(
    search_sweep: Callable[..., Path],
    tmp_path: Path,
    start_driver: Start,  # noqa: F811
    address: str,  # noqa: F811
) -> None:
    path = search_sweep(trials=6, seeds="[1]", set="optim.ns_steps: 10", iterations=4)
    root = tmp_path / "runs" / "test"
    driver = start_driver(path, address)
    wait_for(lambda: len(list(root.glob("trials/t*/result.json"))) >= 2 or driver.poll() is not None)
    assert driver.poll() is None
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    outcome = drive(path, tmp_path / "runs")
    assert (outcome.exit_code, outcome.counts) == (0, {"finished": 7})
    assert set(launches(root).values()) <= {1, 2}  # 2: cut off in the middle
    layout = RunLayout(root)
    finished = [e.trial_id for e in Ledger(layout.ledger).entries() if e.state == "finished"]
    assert len(finished) == len(set(finished)) == 7
    plan = make_plan(Sweep.from_yaml(path), layout=layout)
    assert plan.study is not None
    asked = {e.arm: e.changes for e in Ledger(layout.ledger).entries() if e.changes is not None}
    assert {p.name: p.changes for p in plan.study.proposals} == asked
    assert {plan.study.score(p.name).state for p in plan.study.proposals} == {"complete"}
    assert [t["name"] for t in json.loads(layout.study.read_text())["trials"]] == [f"t00{i}" for i in range(6)]
    wait_for(lambda: not marked(root), 5)


def test_what_fails_is_no_value_and_the_search_goes_on(search_sweep: Callable[..., Path], tmp_path: Path) -> None:
    more = "    optim.muon_momentum_steps: {choice: [0, 1]}\n"  # 1: diverges
    outcome = drive(search_sweep(trials=8, sampler="random", seeds="[1]", more=more), tmp_path / "runs")
    assert outcome.exit_code == 3
    assert outcome.counts["finished"] + outcome.counts["failed"] == 9
    study = json.loads(RunLayout(outcome.run_root).study.read_text())
    failed = [t for t in study["trials"] if t["params"]["optim.muon_momentum_steps"] == 1]
    assert failed
    assert {t["state"] for t in failed} == {"failed"}
    assert not {t["name"] for t in failed} & set(study["best"])
