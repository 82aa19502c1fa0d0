"""Backtests of run folders whose every number is known: what is saved, and what would have been lost."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pgray.cli.entry import main
from pgray.spec.stopping import KillRule, Race
from pgray.stopping.backtest import Backtest, backtest
from pgray.store.ledger import Ledger
from tests.results.synthetic import result
from trainer.config import Config
from trainer.records.events import EventLog
from trainer.records.files import write_json, write_text
from trainer.records.layout import RunLayout
from trainer.records.ledger import LedgerEntry
from trainer.run.config import TrainConfig

STEPS = range(100, 1001, 100)
JOB_S, EXPORT_S, GPUS, USD = 1000.0, 40.0, 8, 3.6
"""A job trains 1,000 steps in 900 s of its 1,000; each export takes 40 s of them. $3.60 an hour: $1 for 1,000 GPU seconds."""


@dataclass
class Recorded:
    """Writes a finished run with the records that pgray and the trainer write, on its own clock.

    `shares`: arm -> the arm whose training run it exports as well. What `write` gets says by how much an arm's bpb differs
    from a falling line: arm -> (step, seed) -> bpb; step 1,000 gives its result.
    """

    root: Path
    seeds: tuple[int, ...] = (1, 2, 3)
    shares: Mapping[str, str] = field(default_factory=dict)
    _clock: SimpleNamespace = field(default_factory=lambda: SimpleNamespace(now=1e9))

    def write(self, offsets: Mapping[str, Callable[[int, int], float]], sweep: str = "name: x\ncontrol: c\n") -> Path:
        layout, ledger = RunLayout(self.root), Ledger(RunLayout(self.root).ledger)
        write_text(layout.sweep, sweep)
        for seed in self.seeds:
            for arm in offsets:
                if arm not in self.shares:
                    group = [arm, *(name for name, owner in self.shares.items() if owner == arm)]
                    self._job(layout, ledger, seed, group, offsets)
        return self.root

    def _job(
        self,
        layout: RunLayout,
        ledger: Ledger,
        seed: int,
        arms: list[str],
        offsets: Mapping[str, Callable[[int, int], float]],
    ) -> None:
        started, fingerprint = self._clock.now, f"{arms[0]}-f{seed}"
        log = EventLog(layout.trained(fingerprint).events)
        log.write("training", train_fingerprint=fingerprint, seed=seed)
        for step in STEPS:
            self._clock.now = started + 0.9 * step
            value = 3 - step / 1000 + offsets[arms[0]](step, seed)
            log.write("step", step=step, train_s=0.09 * step, train_loss_nats=2 * value)
            log.write("val", step=step, train_s=0.09 * step, raw_bpb=value, val_loss_nats=2 * value)
        self._clock.now = started + JOB_S
        write_json(layout.job(f"{fingerprint}-0").exit, {"started_at": started, "ended_at": started + JOB_S, "code": 0})
        held = JOB_S * GPUS / len(arms)
        for arm in arms:
            bpb = 2 + offsets[arm](1000, seed)
            record = result(arm, seed, bpb, sliding_bpb=bpb, export_s=EXPORT_S / 2, eval_s=EXPORT_S / 2)
            folder = layout.trial(record.trial_id)
            config = Config(train=TrainConfig(iterations=1000, wallclock_s=100.0), seed=seed)
            write_text(folder.config, config.model_dump_json())
            write_text(folder.result, record.model_copy(update={"train_fingerprint": fingerprint}).model_dump_json())
            ledger.append(
                LedgerEntry(
                    at=self._clock.now, sweep="x", arm=arm, seed=seed, trial_id=record.trial_id, attempt=1,
                    train_fingerprint=fingerprint, state="finished", job_id=f"{fingerprint}-0", gpu_held_s=held,
                    cost_usd=held / 3600 * USD,
                )
            )  # fmt: skip


@pytest.fixture
def recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recorded:
    run = Recorded(tmp_path / "run")
    monkeypatch.setattr("trainer.records.events.time", SimpleNamespace(time=lambda: run._clock.now))
    return run


def rule(**changes: Any) -> KillRule:
    return KillRule.model_validate({"metric": "val_bpb", "worse_than_control_by": 0.1, **changes})


OFFSETS: dict[str, Callable[[int, int], float]] = {
    "c": lambda _step, seed: 0.001 * seed,
    "good": lambda _step, seed: 0.001 * seed - 0.05,
    "bad": lambda _step, seed: 0.001 * seed + 0.2,
    "dip": lambda step, seed: 0.001 * seed + (0.3 if step == 500 else -0.1),  # worse half way, the best at the end
}


def test_a_bad_arm_is_stopped_and_its_cost_saved(recorded: Recorded) -> None:
    found = backtest(recorded.write(OFFSETS), [rule(arm="bad")])
    assert [(t.arm, t.seed, t.by, t.step, t.share) for t in found.stopped] == [
        ("bad", seed, "curve", 300, 0.3) for seed in (1, 2, 3)
    ]
    saved_s = JOB_S - 0.9 * 300
    for trial in found.stopped:
        assert trial.saved == pytest.approx((saved_s, saved_s * GPUS, saved_s * GPUS / 3600 * USD))
        assert trial.value == pytest.approx(2.2 + 0.001 * trial.seed)
        assert trial.beat_control is False
        assert not trial.is_top_arm
    assert found.spent.gpu_s == 12 * JOB_S * GPUS
    assert found.top == ["dip", "good", "c"]
    assert found.text == (
        "saves 4.87 of 26.67 GPU-hours (18%, $17.52), stops 3 of 12 trials; would have killed 0 of the top 3 arms, "
        "0 of 0 wins, 0 of 6 trials that ended better than the control"
    )


def test_a_dip_loses_the_best_arm_and_the_backtest_reports_it(recorded: Recorded) -> None:
    run = recorded.write(OFFSETS)
    found = backtest(run, [rule()])
    assert {(t.arm, t.step) for t in found.stopped} == {("bad", 300), ("dip", 500)}
    assert "would have killed 1 of the top 3 arms" in found.text
    assert "3 of 6 trials that ended better than the control" in found.text
    assert {t.arm for t in backtest(run, [rule(after_frac=0.6)]).stopped} == {"bad"}, "judged later, dip is kept"


def test_an_arm_that_wins_is_named_when_it_is_lost(recorded: Recorded) -> None:
    win = {**OFFSETS, "dip": lambda step, seed: 0.3 if step == 500 else -0.1 + 0.0001 * seed}
    found = backtest(recorded.write(win), [rule(arm="dip")])
    assert found.wins == ["dip"]
    assert "1 of 1 wins" in found.text
    assert all(trial.is_win for trial in found.stopped)


def test_a_rule_on_an_end_metric_leaves_out_the_later_seeds(recorded: Recorded) -> None:
    found = backtest(recorded.write(OFFSETS), [rule(metric="sliding_bpb")])
    assert [(t.arm, t.seed, t.by, t.step) for t in found.stopped] == [("bad", seed, "seed", None) for seed in (2, 3)]
    assert found.saved.gpu_s == pytest.approx(2 * JOB_S * GPUS)
    assert "with seed 1" in found.stopped[0].reason


def test_a_race_leaves_out_the_later_seeds(recorded: Recorded) -> None:
    noisy = {
        "c": lambda _step, seed: 0.002 * (seed % 2),
        "good": lambda _step, _seed: -0.05,
        "near": lambda _step, seed: -0.05 + 0.001 * (seed % 2),
        "bad": lambda _step, seed: 0.5 + 0.001 * seed,
    }
    recorded.seeds = (1, 2, 3, 4)
    found = backtest(recorded.write(noisy), [Race()])
    assert [(t.arm, t.seed, t.by) for t in found.stopped] == [("bad", 3, "race"), ("bad", 4, "race")]
    assert found.rules == ["race on sliding_bpb: after 2 seeds only arms that may be best (95%)"]
    assert found.saved.gpu_s == pytest.approx(2 * JOB_S * GPUS)


def test_a_shared_training_run_is_stopped_only_when_no_arm_needs_it(recorded: Recorded) -> None:
    recorded.shares = {"twin": "bad"}
    run = recorded.write({**OFFSETS, "twin": OFFSETS["bad"]})
    assert backtest(run, [rule(arm="bad")]).stopped == []
    both = backtest(run, [rule(arm="bad"), rule(arm="twin")])
    assert {t.arm for t in both.stopped} == {"bad", "twin"}
    assert both.saved.gpu_s == pytest.approx(3 * (JOB_S - 270) * GPUS)
    export = backtest(run, [rule(arm="twin", metric="sliding_bpb")])
    assert [(t.arm, t.seed) for t in export.stopped] == [("twin", 2), ("twin", 3)]
    assert export.saved.wall_s == pytest.approx(2 * EXPORT_S), "its training run is needed by the other"
    mixed = backtest(run, [rule(arm="twin", metric="sliding_bpb"), rule(arm="bad"), rule(arm="twin")])
    assert mixed.saved.gpu_s == pytest.approx(3 * (JOB_S - 270) * GPUS), "nothing is saved twice"


def test_notes_name_what_could_not_be_judged(recorded: Recorded) -> None:
    recorded.seeds = (1,)
    run = recorded.write(OFFSETS)
    (run / "trials" / "bad-s1-0" / "result.json").unlink()
    (run / "trained" / "good-f1" / "events.jsonl").unlink()
    (run / "jobs" / "c-f1-0" / "exit.json").unlink()
    notes = backtest(run, [rule(), rule(metric="ttt_bpb"), Race()]).notes
    assert "val_bpb is missing from 1 trial: good" in notes
    assert "ttt_bpb is missing from 4 trials: c, good, bad, dip" in notes
    assert any("the run has one seed" in note for note in notes)
    assert any("the race gives every arm 2 seeds" in note for note in notes)
    assert any("1 of 4 trials have no job times" in note for note in notes)
    lost = backtest(run, [rule(arm="bad")])
    assert lost.stopped[0].value is None
    assert "1 stopped without a known result" in lost.text


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    levels=st.lists(st.floats(-0.5, 0.5), min_size=1, max_size=4),
    margins=st.tuples(st.floats(0.001, 0.6), st.floats(0.001, 0.6)),
    metric=st.sampled_from(["val_bpb", "train_loss_nats", "sliding_bpb"]),
)
def test_a_milder_rule_stops_less_and_no_rule_saves_more_than_was_spent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, levels: list[float], margins: tuple[float, float], metric: str
) -> None:
    run = Recorded(tmp_path / str(time.monotonic_ns()), seeds=(1, 2))
    monkeypatch.setattr("trainer.records.events.time", SimpleNamespace(time=lambda: run._clock.now))
    arms = {f"a{i}": (lambda step, _seed, level=level: level * step / 1000) for i, level in enumerate(levels)}
    root = run.write({"c": lambda _step, _seed: 0.0, **arms})
    strict, mild = (backtest(root, [rule(metric=metric, worse_than_control_by=m)]) for m in sorted(margins))
    assert 0 <= mild.saved.gpu_s <= strict.saved.gpu_s <= strict.spent.gpu_s
    assert ids(mild) <= ids(strict)
    assert not any(trial.arm == "c" for trial in strict.stopped)


def ids(found: Backtest) -> set[str]:
    return {trial.trial_id for trial in found.stopped}


def test_the_command_line_shows_and_refuses(recorded: Recorded, capsys: pytest.CaptureFixture[str]) -> None:
    kill = "name: x\ncontrol: c\nkill: [{arm: bad, metric: val_bpb, worse_than_control_by: 0.1}]\n"
    run = str(recorded.write(OFFSETS, kill))
    assert main(["backtest", run]) == 0
    shown = capsys.readouterr().out
    assert "bad: val_bpb worse than the control's by more than 0.1 at the same phase" in shown
    assert "step 300 (30%)" in shown
    assert "saves 4.87 of 26.67 GPU-hours" in shown
    strict = "arm=* metric=val_bpb worse_than_control_by=0.1 at=step after_frac=0.6"
    assert main(["backtest", run, "--rule", strict, "--race", "first=2", "--top", "2", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["top"] == ["dip", "good"]
    assert [t["arm"] for t in record["stopped"]] == ["bad"] * 3
    assert record["text"].startswith("saves ")
    assert set(record["saved"]) == {"wall_s", "gpu_s", "usd"}
    for arguments, expected in (
        ([run, "--rule", "arm=nobody metric=val_bpb worse_than_control_by=1"], "arm: nobody: covers no arm"),
        ([run, "--rule", "metric=val_bpb"], "--rule: worse_than_control_by: "),
        ([run, "--rule", "metric=val_bpb worse_than_control_by=much"], "--rule: worse_than_control_by: much: must be"),
        ([run, "--rule", "metric"], "write key=value"),
        ([run, "--rule", "metric=val_bpb metric=val_bpb"], "given twice"),
        ([run, "--rule", "metric='"], "cannot be read"),
        ([run, "--race", "first=1"], "--race: first: 1: must be"),
        ([run + "x"], "no such run folder"),
    ):
        assert main(["backtest", *arguments]) == 2, arguments
        error = capsys.readouterr().err
        assert expected in error
        assert error.count("\n") == 1
    recorded.root = recorded.root.with_name("bare")
    assert main(["backtest", str(recorded.write(OFFSETS))]) == 2
    assert "has no rules and no race; give --rule or --race" in capsys.readouterr().err


def test_a_run_without_job_times_saves_an_unknown_time() -> None:
    """The example of the docs has no jobs/; 0 s and $0.00 would be wrong."""
    root = Path(__file__).parents[3] / "docs/example/mlp-bits"
    found = backtest(root, [Race(metric="sliding_bpb", first=2)])
    assert found.text.startswith("saves an unknown time, stops 2 of 12 trials; ")
