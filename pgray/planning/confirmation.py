"""Make a sweep that re-runs chosen arms of a run on fresh seeds, together with the control.

The best of many arms was also lucky: on the seeds that chose it, its mean is better than on others. So the new sweep has its
own run folder, and no seed of the run that the arms were chosen from.
Source: the bias of the best of several noisy estimates, Cawley and Talbot 2010, JMLR 11:2079-2107.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pgray.planning.planner import Plan
from pgray.spec.expand import shared_overrides
from results.loading.arm_labels import find_arm
from trainer.errors import InputError
from trainer.presets.resolve import preset_names
from trainer.records.files import read_json
from trainer.records.layout import RunLayout
from trainer.records.ledger import last_entries, read_ledger

NUM_FRESH_SEEDS = 5
MAX_TOP = 3  # arms, if neither their number nor their names are given


@dataclass(frozen=True)
class Selection:
    """Arms chosen from a run. `metric`: the column that ranked them; None if they were named. `seeds`: all of the run's."""

    arms: tuple[str, ...]
    metric: str | None
    seeds: tuple[int, ...]


def select_arms(plan: Plan, layout: RunLayout, top: int | None, names: Sequence[str]) -> Selection:
    """Choose the `top` best arms of a run, and those called `names`. Without either, up to three of the best.

    Raises:
        InputError: no such arm, or fewer than `top` arms have finished within the constraints.
    """
    control = plan.expansion.control
    others = [arm.name for arm in plan.expansion.arms if arm.name != control]
    named = [find_arm(name, plan.expansion.labels) or name for name in names]
    for name in named:
        if name not in others:
            what = "is the control, which is added anyway" if name == control else "no such arm"
            raise InputError("--arm", "arm", name, f"{what}; use one of {', '.join(others)}")
    metric, ranked = (None, []) if top is None and names else _ranked(plan, layout)
    if len(ranked) < (top or bool(not names)):
        found = f"arms that finished all seeds within the constraints: {', '.join(ranked) or 'none'}"
        raise InputError("--top", "arms", top or MAX_TOP, f"{found}; lower it, or name arms with --arm")
    seeds = sorted({entry.seed for entry in last_entries(read_ledger(layout.ledger)[0]).values()})
    return Selection(tuple(dict.fromkeys([*ranked[: top or MAX_TOP], *named])), metric, tuple(seeds))


def _ranked(plan: Plan, layout: RunLayout) -> tuple[str, list[str]]:
    """Return the metric that ranks the arms, and the arms that finished within the constraints, the best first."""
    if (study := plan.study) is not None:
        feasible = [proposal.name for proposal in study.ranked() if study.score(proposal.name).is_feasible]
        front = [proposal.name for proposal in study.best()]
        return next(iter(study.space.objectives)), list(dict.fromkeys([*front, *feasible]))
    from results.analysis.confirmation import rank_arms  # pandas takes half a second

    return rank_arms(layout.root, plan.expansion.control)


def fresh_seeds(used: Collection[int]) -> list[int]:
    """Return the smallest positive seeds that a run has not used."""
    return [seed for seed in range(1, len(used) + NUM_FRESH_SEEDS + 1) if seed not in used][:NUM_FRESH_SEEDS]


def confirming_sweep(plan: Plan, layout: RunLayout, name: str, selection: Selection, seeds: Sequence[int]) -> str:
    """Return the text of the sweep. It stands alone: options of the launch are folded in, and data paths are absolute."""
    sweep, file, run, control = plan.sweep, plan.sweep.file, layout.root.resolve().name, plan.expansion.control
    is_path = file.preset not in preset_names() and Path(file.preset).stem == sweep.preset.name
    arms: dict[str, dict[str, Any]] = {}
    for arm in plan.expansion.arms:
        if arm.name in (control, *selection.arms):
            paths = _data_paths(plan, layout, arm.name)
            own = {key: paths.get(key, value) for key, value in arm.changes.items()}
            arms[arm.name] = {key: value for key, value in own.items() if key not in sweep.overrides}
    content: dict[str, Any] = {
        "name": name,
        "question": f"Do {', '.join(selection.arms)} of {sweep.name} hold on fresh seeds?",
        "source": f"run {run}",
        "preset": str(Path(file.preset).absolute()) if is_path else sweep.preset.name,
        "set": shared_overrides(sweep) | dict(sweep.overrides) | _data_paths(plan, layout, control),
        "seeds": list(seeds),
        "control": control,
        "arms": {arm: arms[arm] for arm in (control, *selection.arms)},
        "confirms": {"run": run, "metric": selection.metric, "seeds": list(selection.seeds)},
        "resources": sweep.machine.model_dump(include={"gpus", "cpus", "nodes"}),
        "nproc": sweep.machine.nproc,
        "launcher": sweep.machine.launcher,
    }
    if kept := {arm: label for arm, label in plan.expansion.labels.items() if arm in arms and label != arm}:
        content["names"] = kept
    sections = {"budget": file.budget, "failures": file.failures}
    content |= {
        key: section.model_dump(mode="json", exclude_unset=True) for key, section in sections.items() if section
    }
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120)
    return f"# Written by `pgray confirm {run}`. `pgray run` of this file repeats it.\n{text}"


def _data_paths(plan: Plan, layout: RunLayout, arm: str) -> dict[str, str]:
    """Return the absolute paths of the data that an arm was trained with, by config key."""
    own = [trial for trial in plan.trials if trial.arm == arm]
    stored = (read_json(layout.trial(e.trial_id).config) for e in read_ledger(layout.ledger)[0] if e.arm == arm)
    data = next((config["data"] for config in stored if config), own[0].config.data.model_dump())
    return {f"data.{key}": str(data[key]) for key in ("path", "tokenizer") if data.get(key)}
