"""Contract of a sampler: it is found by its file, supports what it declares, and refuses the rest in one line."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from pgray.search import samplers
from pgray.search.proposals import SeedRow
from pgray.search.samplers import load_sampler, sampler_names
from pgray.search.study import Study
from pgray.spec.search import Search
from pgray.spec.sweep import Sweep
from trainer.config import Config
from trainer.errors import InputError
from trainer.presets.resolve import build_config, load_preset
from trainer.records.states import TrialState

BASE = load_preset("cpu-smoke").overrides
NUMBERS = {"optim.matrix_lr": {"log_uniform": [1e-3, 0.1]}, "optim.ns_steps": {"int": [1, 12]}}
CHOICE = {"average.kind": {"choice": ["none", "ema"]}}
SEARCHES: dict[str, dict[str, Any]] = {
    "numbers": {},
    "several_objectives": {"objectives": {"sliding_bpb": "min", "train_s": "min"}},
    "conditional_keys": {"when": {"optim.ns_steps": "optim.matrix_lr > 0.01"}},
    "choices": {"space": NUMBERS | CHOICE},
    "constraints": {"constraints": {"train_s": "<= 0.05"}},
}


def build(changes: Any, label: str) -> Config:
    return build_config({**BASE, **changes}, f"t.yaml: {label}")


def proposals(search: Search, seed: int, trials: int) -> list[dict[str, Any]]:
    """What the search proposes where each proposal ends before the next one."""
    study = Study("s", search, build, seed, origin="t.yaml")
    for _ in range(trials):
        proposal = study.ask()
        assert proposal is not None
        lr = float(proposal.changes["optim.matrix_lr"])
        metrics = {"sliding_bpb": 2 + lr, "train_s": 0.1 - lr, "artifact_bytes": 1.0}
        study.tell(proposal.name, [SeedRow(1, proposal.name, TrialState.FINISHED, metrics)])
    return [proposal.changes for proposal in study.proposals]


@pytest.mark.parametrize("ability", SEARCHES)
@pytest.mark.parametrize("sampler", sampler_names())
def test_a_sampler_supports_what_it_declares_and_refuses_the_rest(sampler: str, ability: str) -> None:
    search = Search.model_validate({"trials": 20, "sampler": sampler, "space": NUMBERS, **SEARCHES[ability]})
    if ability not in ("numbers", "constraints") and not getattr(load_sampler(sampler), ability):
        with pytest.raises(
            InputError, match=rf"^t\.yaml: search\.sampler: {sampler}: does not support .* or use one of "
        ):
            Study("s", search, build, 0, origin="t.yaml")
        return
    torch.set_num_threads(1)  # gp uses torch
    made = proposals(search, 0, 11)  # the first 10 of gp and tpe are random, and gp is slow
    assert len({repr(changes) for changes in made}) == 11
    assert made == proposals(search, 0, 11)
    assert made[:3] != proposals(search, 1, 3)
    for changes in made:
        build(changes, "proposal")


TOY = """
from optuna.samplers import QMCSampler
from pgray.search.samplers import SearchSampler

SAMPLER = SearchSampler(lambda _, seed: QMCSampler(seed=seed, warn_asynchronous_seeding=False), conditional_keys=False)
"""


def test_a_sampler_is_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "halton.py").write_text(TOY)
    monkeypatch.setattr(samplers, "__path__", [*samplers.__path__, str(tmp_path)])
    assert "halton" in sampler_names()
    assert len(proposals(Search.model_validate({"trials": 5, "sampler": "halton", "space": NUMBERS}), 0, 5)) == 5
    text = "name: s\npreset: cpu-smoke\nseeds: [1]\nsearch:\n  trials: 5\n  sampler: halton\n  space:\n    {}\n"
    sweep = Sweep.from_text(text.format("optim.ns_steps: {int: [1, 3]}"))
    assert sweep.search is not None
    assert sweep.search.sampler == "halton"
    two = {"trials": 5, "sampler": "cmaes", "space": NUMBERS, **SEARCHES["several_objectives"]}
    with pytest.raises(InputError, match=r"several objectives; .* or use one of gp, halton, nsga2"):
        Study("s", Search.model_validate(two), build, 0)


def test_a_plan_without_a_search_does_not_import_optuna(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text("name: s\npreset: cpu-smoke\nseeds: [1]\narms: {a: {}}\n")
    code = (
        "import sys\nfrom pgray.planning.planner import make_plan\nfrom pgray.spec.sweep import Sweep\n"
        f"make_plan(Sweep.from_yaml({str(tmp_path / 's.yaml')!r}), reads_data=False)\n"
        "assert 'optuna' not in sys.modules and 'ray' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[3])
