"""A search over the ledger: proposals, the scores that the sampler gets, the best proposals, and resuming after a kill."""

import itertools
import json
import math
import random
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

import optuna
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pgray.search.export import ExportedStudy
from pgray.search.optuna_adapter import optuna_study, quiet, suggest
from pgray.search.proposals import Proposal, SeedRow, read_proposals
from pgray.search.samplers import sampler_names
from pgray.search.study import Study
from pgray.spec.expressions import Condition
from pgray.spec.search import Search
from trainer.config import Config
from trainer.errors import InputError
from trainer.presets.resolve import build_config, load_preset
from trainer.records.files import write_json
from trainer.records.ledger import LedgerEntry
from trainer.records.results import METRICS, TrialResult
from trainer.records.states import TrialState

BASE = load_preset("cpu-smoke").overrides
SAMPLERS = sampler_names()
NUMBERS = {
    "optim.matrix_lr": {"log_uniform": [1e-3, 0.1]},
    "model.mlp_mult": {"uniform": [1, 4]},
    "optim.ns_steps": {"int": [1, 12]},
}
CONDITIONAL = {
    "average.kind": {"choice": ["none", "ema"]},
    "average.decay": {"uniform": [0.9, 0.99]},
    "quant.keep_fp16": {"choice": [[], ["embed*"]]},
}
WHEN = {"average.decay": "average.kind == 'ema'"}


def build(changes: Mapping[str, Any], where: str) -> Config:
    return build_config({**BASE, **changes}, f"t.yaml: {where}")


def make_study(
    proposals: Iterable[Proposal] = (), name: str = "s", seed: int = 5, where: str = "", **section: Any
) -> Study:
    search = Search.model_validate({"trials": 12, "space": NUMBERS, **section})
    conditions = [Condition(where, "t.yaml", "where.0")] if where else []
    return Study(name, search, build, seed, proposals, conditions)


def measured(changes: Mapping[str, Any], seed: int = 1) -> dict[str, float]:
    """Return made-up metrics: bpb falls with size, so that the best proposal exceeds the cap."""
    lr, mult, steps = (float(changes[key]) for key in NUMBERS)
    bpb = 2 + (math.log10(lr) + 2) ** 2 - 0.5 * mult + 0.01 * steps + 0.02 * random.Random(f"{lr} {seed}").random()
    return {"sliding_bpb": bpb, "post_quant_bpb": bpb, "artifact_bytes": 6_000_000 * mult, "train_s": 10.0 * steps}


def row(seed: int, metrics: Mapping[str, float], state: TrialState = "finished") -> SeedRow:
    return SeedRow(seed, f"trial-{seed}", state, metrics if state == "finished" else {})


def ask(study: Study) -> Proposal:
    return cast(Proposal, study.ask())


def run(study: Study, seeds: Iterable[int] = (1,)) -> Study:
    while (proposal := study.ask()) is not None:
        study.tell(proposal.name, [row(seed, measured(proposal.changes, seed)) for seed in seeds])
    return study


class Ledger:
    """A ledger and its results in memory, with a driver whose steps are chosen by the test."""

    def __init__(self, entries: Iterable[LedgerEntry] = (), results: Mapping[str, TrialResult] | None = None) -> None:
        self.entries, self.results = list(entries), dict(results or {})

    def write(self, proposal: Proposal, seed: int, state: TrialState, **fields: Any) -> None:
        trial_id = f"{proposal.name}-s{seed}"
        about = {
            "at": 0.0,
            "sweep": "s",
            "arm": proposal.name,
            "seed": seed,
            "trial_id": trial_id,
            "train_fingerprint": "f",
        }
        entry = LedgerEntry(**about, state=state, **fields)
        self.entries.append(LedgerEntry.model_validate_json(entry.model_dump_json(exclude_none=True)))
        if state == "finished":
            blank = dict.fromkeys(TrialResult.model_fields)
            values = {**blank, **measured(proposal.changes, seed), "trial_id": trial_id, "seed": seed}
            self.results[trial_id] = TrialResult.model_construct(**values)

    def proposals(self) -> list[Proposal]:
        return read_proposals(self.entries, self.results.get)

    def rows(self, name: str) -> tuple[SeedRow, ...]:
        return next(proposal.seeds for proposal in self.proposals() if proposal.name == name)

    def step(self, study: Study, action: int) -> None:
        """Ask for a proposal or end one seed of an open one, as the number `action` selects."""
        todo = [(p, r.seed) for p in self.proposals() for r in p.seeds if r.is_open]
        if not todo or (action % 3 == 0 and study.num_open < 3):
            proposal = study.ask()
            if proposal is not None:
                for seed in (1, 2):
                    self.write(proposal, seed, "queued", changes=proposal.changes)
                study.tell(proposal.name, self.rows(proposal.name))
                return
        if todo:
            proposal, seed = todo[action % len(todo)]
            self.write(proposal, seed, "running")
            if action % 7 == 1:
                self.write(proposal, seed, "failed", failure_kind="diverged", reason="loss is not finite")
            else:
                self.write(proposal, seed, "finished")
            study.tell(proposal.name, self.rows(proposal.name))


@pytest.mark.parametrize("sampler", ["random", "tpe", "nsga2", "cmaes"])
@given(actions=st.lists(st.integers(0, 20), min_size=1, max_size=24), data=st.data())
@settings(max_examples=12, deadline=None)
def test_a_killed_search_resumes_with_the_same_proposals(sampler: str, actions: list[int], data: st.DataObject) -> None:
    extra = {} if sampler == "cmaes" else {"space": NUMBERS | CONDITIONAL, "when": WHEN}
    study, ledger = make_study(sampler=sampler, **extra), Ledger()
    states = []
    for action in actions:
        ledger.step(study, action)
        states.append((study.proposals, len(ledger.entries)))
    cut = data.draw(st.integers(0, len(actions) - 1))
    proposals, length = states[cut]
    after = Ledger(ledger.entries[:length], ledger.results)
    rebuilt = make_study(after.proposals(), sampler=sampler, **extra)
    assert rebuilt.proposals == proposals
    for action in actions[cut + 1 :]:
        after.step(rebuilt, action)
    assert rebuilt.proposals == study.proposals
    assert rebuilt.summary() == study.summary()
    assert [p.name for p in study.proposals] == [f"t{number:03d}" for number in range(len(study.proposals))]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_proposal_over_the_cap_is_never_best(sampler: str) -> None:
    num_trials = 16
    if sampler == "gp":  # the first 10 of gp and tpe are random, and gp is slow
        torch.set_num_threads(1)
        num_trials = 11
    study = run(make_study(sampler=sampler, trials=num_trials))
    assert len(study.proposals) == num_trials
    results = {p.name: measured(p.changes) for p in study.proposals}
    over = {name for name, result in results.items() if result["artifact_bytes"] > 16_000_000}
    (best,) = study.best()
    assert over
    assert best.name not in over
    assert best.name == min(set(results) - over, key=lambda name: results[name]["sliding_bpb"])
    states = {score["name"]: (score["state"], score["is_feasible"]) for score in study.summary()["trials"]}
    assert states == {name: ("complete", name not in over) for name in results}


def test_without_a_feasible_proposal_none_is_best() -> None:
    study = run(make_study(trials=4, constraints={"artifact_bytes": "<= 1000"}))
    assert study.best() == []
    assert study.importances() == {}


@pytest.mark.parametrize("sampler", ["nsga2", "tpe"])
def test_two_objectives_give_their_pareto_set(sampler: str) -> None:
    study = run(make_study(trials=32, sampler=sampler, objectives={"sliding_bpb": "min", "train_s": "max"}))
    points = {p.name: measured(p.changes) for p in study.proposals}
    points = {name: point for name, point in points.items() if point["artifact_bytes"] <= 16_000_000}

    def beats(a: Mapping[str, float], b: Mapping[str, float]) -> bool:
        pairs = [(a["sliding_bpb"], b["sliding_bpb"]), (-a["train_s"], -b["train_s"])]
        return all(x <= y for x, y in pairs) and any(x < y for x, y in pairs)

    front = {name for name in points if not any(beats(points[other], points[name]) for other in points)}
    best = [proposal.name for proposal in study.best()]
    assert set(best) == front
    assert len(front) > 1
    assert best == sorted(best, key=lambda name: points[name]["sliding_bpb"])


@pytest.mark.parametrize("sampler", ["random", "tpe", "nsga2", "cmaes"])
def test_proposals_are_those_of_one_long_optuna_study(sampler: str) -> None:
    """The study that is rebuilt for each draw keeps generations and CMA-ES's distribution."""
    study, lag = make_study(trials=32, sampler=sampler), 3  # number of open proposals
    with quiet():
        reference = optuna.create_study()
    asked: list[optuna.Trial] = []
    for number in range(32):
        made = [proposal.changes for proposal in study.proposals]
        for attempt in itertools.count():
            reference.sampler = study._sampler(number, attempt)
            trial = reference.ask()
            expected = study.space.draw(lambda key, trial=trial: suggest(trial, key, study.search.space[key]))  # type: ignore[misc]
            if expected not in made:
                break
            reference.tell(trial, state=optuna.trial.TrialState.FAIL)  # samplers ignore failed trials
        asked.append(trial)
        assert ask(study).changes == expected
        if number < lag:
            continue
        metrics = measured(study.proposals[number - lag].changes)
        excess = study.tell(f"t{number - lag:03d}", [row(1, metrics)]).excess["artifact_bytes <= 16000000"]
        trial = asked[number - lag]
        if sampler == "cmaes" and excess > 0:
            reference.tell(trial, state=optuna.trial.TrialState.FAIL)
            continue
        if sampler != "cmaes":
            trial.set_constraint("cap", excess)
        reference.tell(trial, metrics["sliding_bpb"])
    generations = [v for t in reference.trials for k, v in t.system_attrs.items() if k.endswith("generation")]
    assert sampler in ("random", "tpe") or max(generations) >= 1


def test_another_seed_gives_other_proposals_and_no_two_are_equal() -> None:
    first, second = (run(make_study(sampler="random", seed=seed)) for seed in (1, 2))
    changes = [p.changes for study in (first, second) for p in study.proposals]
    assert all(a != b for a, b in itertools.combinations(changes, 2))


@pytest.mark.parametrize("sampler", ["random", "tpe", "nsga2"])
def test_no_proposal_repeats_and_a_small_space_is_exhausted(sampler: str) -> None:
    space = {"optim.ns_steps": {"int": [1, 3]}, "optim.muon_momentum_steps": {"int": [10, 12]}}
    study = make_study(sampler=sampler, trials=30, space=space)
    while (proposal := study.ask()) is not None:
        value = float(proposal.changes["optim.ns_steps"])
        study.tell(proposal.name, [row(1, {"sliding_bpb": value, "artifact_bytes": 1.0})])
    made = [tuple(p.changes.values()) for p in study.proposals]
    assert sorted(made) == sorted(itertools.product((1, 2, 3), (10, 11, 12)))
    assert study.why_exhausted == "of 320 draws 320 had been proposed before"
    assert len(study.best()) == 3  # a tie


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_invalid_and_excluded_combinations_are_not_proposed(sampler: str) -> None:
    space = {
        "model.heads": {"choice": [2, 4]},
        "model.kv_heads": {"choice": [1, 2, 4]},
        "optim.ns_steps": {"int": [1, 9]},
    }
    study = make_study(sampler=sampler, trials=18, space=space, where="model.kv_heads != 1 and optim.ns_steps < 6")
    while (proposal := study.ask()) is not None:
        study.tell(proposal.name, [row(1, {"sliding_bpb": float(len(study.proposals)), "artifact_bytes": 1.0})])
    made = {tuple(p.changes[key] for key in space) for p in study.proposals}
    valid = {(heads, kv) for heads, kv in itertools.product((2, 4), (2, 4)) if heads % kv == 0}
    assert made == {(*pair, steps) for pair in valid for steps in range(1, 6)}
    assert "others are not allowed" in str(study.why_exhausted)


def test_conditional_keys_are_absent_where_their_condition_does_not_hold() -> None:
    for sampler in ("random", "tpe", "nsga2"):
        study = run(make_study(sampler=sampler, trials=24, space=NUMBERS | CONDITIONAL, when=WHEN))
        kinds = {p.changes["average.kind"] for p in study.proposals}
        assert kinds == {"none", "ema"}
        for proposal in study.proposals:
            assert ("average.decay" in proposal.changes) == (proposal.changes["average.kind"] == "ema")
            assert proposal.changes["quant.keep_fp16"] in ([], ["embed*"])


def test_the_sampler_gets_the_mean_over_seeds_once_all_have_ended() -> None:
    study = make_study(constraints={"train_s": "<= 10"})
    name = ask(study).name
    rows = [
        row(seed, {"sliding_bpb": bpb, "artifact_bytes": 5.0, "train_s": s})
        for seed, bpb, s in ((1, 1.0, 9.0), (2, 3.0, 11.0))
    ]
    assert study.tell(name, [rows[0], row(2, {}, "running")]).state == "open"
    assert study.num_open == 1
    score = study.tell(name, rows)
    assert score.means == {"sliding_bpb": 2.0, "artifact_bytes": 5.0, "train_s": 10.0}
    assert score.stds["sliding_bpb"] == pytest.approx(math.sqrt(2))
    assert score.excess == {"artifact_bytes <= 16000000": 5.0 - 16e6, "train_s <= 10": 1.0}
    assert not score.is_feasible  # one seed took longer than allowed, though their mean did not
    trial = optuna_study(study.space, [(study.proposals[0], score)]).trials[0]
    assert (trial.value, trial.state) == (2.0, optuna.trial.TrialState.COMPLETE)
    assert trial.constraints == score.excess
    assert trial.user_attrs["trial_ids"] == ["trial-1", "trial-2"]
    ended_after = study.proposals[0].ended_after
    ask(study)
    study.tell(name, rows)  # once more: nothing changes
    assert study.proposals[0].ended_after == ended_after


@pytest.mark.parametrize("state", ["failed", "killed"])
def test_a_failed_seed_fails_its_proposal_until_a_retry_succeeds(state: TrialState) -> None:
    study = make_study()
    name = ask(study).name
    good = row(1, {"sliding_bpb": 1.0, "artifact_bytes": 5.0})
    assert study.tell(name, [good, row(2, {}, state)]).state == "failed"
    assert study.tell(name, [good, row(2, {}, "invalid")]).means["sliding_bpb"] == 1.0  # seed 2 is no longer asked for
    assert study.tell(name, [good, row(2, {}, "queued")]).state == "open"
    assert study.tell(name, [good, row(2, {"sliding_bpb": 2.0, "artifact_bytes": 5.0})]).means["sliding_bpb"] == 1.5
    unmeasured = study.tell(name, [good, row(2, {"artifact_bytes": 5.0})])
    assert (unmeasured.state, unmeasured.reason) == ("failed", "sliding_bpb was not measured")


def test_read_proposals_from_a_ledger() -> None:
    ledger, study = Ledger(), make_study()
    for _ in range(3):
        proposal = ask(study)
        ledger.write(proposal, 1, "queued", changes=proposal.changes)
    first, second, third = study.proposals
    ledger.write(Proposal("int8", {}), 1, "failed", source="import")  # a foreign log: no arm of the search
    ledger.write(first, 1, "finished")
    ledger.write(first, 2, "queued")  # the sweep was given another seed
    ledger.write(second, 1, "lost")
    ledger.write(third, 1, "finished")
    ledger.results.pop("t002-s1")
    found = ledger.proposals()
    assert [(p.name, p.changes) for p in found] == [(p.name, p.changes) for p in study.proposals]
    assert [[r.state for r in p.seeds] for p in found] == [["finished", "queued"], ["lost"], ["lost"]]
    assert all(p.ended_after is None for p in found)
    assert set(found[0].seeds[0].metrics) <= set(METRICS)
    fourth = ask(study)
    ledger.write(fourth, 1, "queued", changes=fourth.changes)
    ledger.write(first, 2, "finished")
    assert ledger.proposals()[0].ended_after == 4


def test_seeds_of_an_earlier_base_are_not_in_a_proposals_mean() -> None:
    """The sweep was edited and run on another seed: both proposals keep their place, and only the new seed counts."""
    about: dict[str, Any] = {"at": 0.0, "sweep": "s", "train_fingerprint": "f"}
    entries = [
        LedgerEntry(
            **about, arm=arm, seed=seed, trial_id=f"{arm}-{sha}", config_sha=sha, state=state, changes={"x": arm}
        )
        for sha, seed, arms in (("old", 1, ("t000", "t001")), ("new", 2, ("t001", "t000")))
        for state in ("queued", "killed")
        for arm in arms
    ]
    proposals = read_proposals(entries, {}.get)
    assert [(p.name, [row.trial_id for row in p.seeds]) for p in proposals] == [
        ("t000", ["t000-new"]),
        ("t001", ["t001-new"]),
    ]


def test_a_lost_ledger_line_does_not_repeat_a_name() -> None:
    before = run(make_study(trials=4)).proposals
    study = make_study([before[0], before[1], before[3]])
    assert ask(study).name == "t004"


def test_proposals_outside_a_changed_space_are_kept_and_not_best() -> None:
    before = run(make_study(trials=8))
    best = before.best()[0]
    narrow = {**NUMBERS, "optim.ns_steps": {"int": [13, 14]}}
    study = make_study(before.proposals, trials=10, space=narrow, sampler="nsga2")
    assert {study.score(p.name).state for p in study.proposals} == {"outside"}
    assert study.best() == []
    added = ask(study)
    assert added.name == "t008"
    assert added.changes["optim.ns_steps"] in (13, 14)
    wide = {**NUMBERS, "optim.ns_steps": {"int": [1, 20]}}
    assert make_study(before.proposals, space=wide).best() == [best]


def test_importances_need_twenty_trials() -> None:
    space = {"optim.matrix_lr": {"uniform": [0, 1]}, "model.mlp_mult": {"uniform": [1, 2]}}
    study = make_study(trials=60, space=space, sampler="random")
    for number in range(60):
        assert (study.importances() == {}) == (number < 20)
        proposal = ask(study)
        study.tell(proposal.name, [row(1, {"sliding_bpb": proposal.changes["optim.matrix_lr"], "artifact_bytes": 1.0})])
    shares = study.importances()
    assert list(shares) == ["optim.matrix_lr", "model.mlp_mult"]
    assert shares["optim.matrix_lr"] > 0.8
    assert sum(shares.values()) == pytest.approx(1)


def test_nothing_is_printed_or_warned(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    before = optuna.logging.get_verbosity()
    study = run(make_study(trials=22, space=NUMBERS | CONDITIONAL, when=WHEN))
    study.summary()
    study.export(f"sqlite:///{tmp_path}/x.db")
    assert capfd.readouterr() == ("", "")
    assert optuna.logging.get_verbosity() == before


def content(url: str) -> list[tuple[Any, ...]]:
    storage = optuna.storages.RDBStorage(url)
    trials = optuna.load_study(study_name="s", storage=storage).trials
    storage.remove_session()
    storage.engine.dispose()
    return [(t.number, t.state.name, t.values, t.params, t.constraints, t.user_attrs) for t in trials]


def test_an_export_has_every_trial_and_repeating_it_adds_none(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/searches.db"
    objectives = {"sliding_bpb": "min", "artifact_bytes": "min"}
    study = make_study(trials=12, sampler="nsga2", objectives=objectives, space=NUMBERS | CONDITIONAL, when=WHEN)
    for number in range(9):
        proposal = ask(study)
        rows = [row(seed, measured(proposal.changes, seed)) for seed in (1, 2)]
        study.tell(proposal.name, [rows[0], row(2, {}, "failed")] if number == 3 else rows)
    ask(study)
    assert study.export(url) == ExportedStudy("s", url, 10)
    first = content(url)
    assert [t[1] for t in first] == [*["COMPLETE"] * 3, "FAIL", *["COMPLETE"] * 5, "RUNNING"]
    for trial, proposal in zip(first, study.proposals, strict=True):
        score = study.score(proposal.name)
        assert trial[5]["name"] == proposal.name
        assert trial[5]["changes"] == proposal.changes
        assert trial[3].keys() == proposal.changes.keys()
        if score.state == "complete":
            assert trial[2] == [score.means[name] for name in objectives]
            assert trial[4].items() >= score.excess.items()
            assert trial[5]["seeds"]["2"]["sliding_bpb"] == measured(proposal.changes, 2)["sliding_bpb"]
    study.export(url)
    assert content(url) == first
    run(study)
    study.export(url)  # trials were added
    assert content(url)[:10] == first
    assert len(content(url)) == 12
    study.tell("t009", [row(1, measured(study.proposals[9].changes))])
    study.export(url)  # one that was running has ended
    assert [t[1] for t in content(url)] == [*["COMPLETE"] * 3, "FAIL", *["COMPLETE"] * 8]
    assert content(url)[:9] == first[:9]


def test_a_storage_that_cannot_be_used_is_refused_in_one_line(tmp_path: Path) -> None:
    study = run(make_study(trials=2))
    url = f"sqlite:///{tmp_path}/x.db"
    storage = optuna.storages.RDBStorage(url)
    optuna.create_study(study_name="s", storage=storage).optimize(
        lambda trial: trial.suggest_float("x", 0, 1), n_trials=3
    )
    storage.remove_session()
    storage.engine.dispose()
    with pytest.raises(InputError, match="--to: study: s: the storage has another study of this name"):
        study.export(url)
    assert len(content(url)) == 3
    (tmp_path / "text.db").write_text("not a database " * 100)
    for bad in ("x.db", "", "sqlite:////no/such/folder/x.db", "nosuch://x", f"sqlite:///{tmp_path}/text.db"):
        with pytest.raises(InputError, match=r"--to: storage: .*cannot be used as an Optuna storage") as caught:
            study.export(bad)
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError) as caught:
        study.export("nosuch://me:secret@host/x")
    assert "secret" not in str(caught.value)


def test_the_summary_is_json(tmp_path: Path) -> None:
    study = run(make_study(trials=3))
    ask_again = study.ask()
    assert ask_again is None
    write_json(tmp_path / "study.json", study.summary())
    assert json.loads((tmp_path / "study.json").read_text()) == study.summary()
    assert study.summary()["best"] == [p.name for p in study.best()]
