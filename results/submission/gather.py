"""Gathers one arm of a run for submission: scored seeds, configs, comparison with the control, packed code.

`results/submission/rules.py` checks it and `results/submission/folder.py` writes it. Imported rows cannot be submitted:
without a config they cannot be repeated.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from results.analysis.ablation import ablation
from results.loading.arm_labels import arm_labels, find_arm
from results.loading.configs import Change, changes
from results.loading.runs import current, load
from results.schema import Row, records
from trainer.config import Config
from trainer.errors import InputError
from trainer.presets.resolve import input_error
from trainer.records.files import read_json, read_model
from trainer.records.layout import RunLayout
from trainer.records.results import SCORES, TrainingRecord
from trainer.records.states import TrialState
from trainer.run.bundle import bundle_code


@dataclass(frozen=True)
class Submission:
    """One arm of a run.

    rows: its finished trials with a score, in the table's order. missing: its other trials. configs: by seed. trained: by
    seed, if the training run's record still exists. comparison: the arm's row of `results.ablation` against `control` in
    `compared_metric`; None without a control.
    """

    layout: RunLayout
    sweep: str
    question: str | None
    arm: str
    rows: list[Row]
    missing: list[Row]
    metric: str
    configs: dict[int, Config]
    trained: dict[int, TrainingRecord]
    control: str | None
    control_config: Config | None
    comparison: Row | None
    compared_metric: str | None
    provenance: dict[str, Any]

    @property
    def config(self) -> Config:
        """The config of the first seed. Others should differ in the seed only."""
        return self.configs[self.rows[0]["seed"]]

    @cached_property
    def code(self) -> bytes:
        """The train_gpt.py to ship: the current trainer with `config` in it."""
        return bundle_code(self.config)

    def artifact_bytes(self, row: Row) -> int:
        """Return the size of packed weights and shipped code. The code may differ from what the trial counted."""
        return int(row["model_bytes"]) + len(self.code)

    def log(self, row: Row) -> Path:
        """Return the path of the log, or of the events if the job ran without a supervisor."""
        folder = self.layout.trial(row["trial_id"])
        return folder.log if folder.log.is_file() else folder.events


def gather(run: str | Path, arm: str, control: str | None = None) -> Submission:
    """Gather one arm of a run.

    Args:
        control: the arm to compare with; None: the sweep's own, unless it is `arm`.
    Raises:
        InputError: no such run, arm or control; no scored trial; a config that is missing or is not of this version.
    """
    trials = load(run)
    layout, rows = RunLayout(Path(run)), records(current(trials))
    arms = list(dict.fromkeys(row["arm"] for row in rows))
    labels = arm_labels(arms, trials.attrs["names"])
    arm, control = find_arm(arm, labels) or arm, control and (find_arm(control, labels) or control)
    for option, name in (("--arm", arm), ("--control", control)):
        if name is not None and name not in arms:
            raise InputError(option, "arm", name, f"not among the arms: {', '.join(arms) or 'there are none'}")
    own = [row for row in rows if row["arm"] == arm]
    scored = _scored(own)
    if not scored:
        states = ", ".join(f"seed {row['seed']} {row['status']}" for row in own)
        raise InputError(f"{run}: arm {arm}", "trials", states, "none has a score; finish one first")
    control = trials.attrs["control"] if control is None and trials.attrs["control"] in arms else control
    control = None if control == arm else control
    others = _scored([row for row in rows if row["arm"] == control])
    compared, comparison, control_config = None, None, None
    if control is not None:
        compared = _metric([*scored, *others])
        lines = records(ablation(trials, control, compared, on_mismatch="mark"))
        comparison = next(line for line in lines if line["arm"] == arm)
    if others:
        with suppress(InputError):  # it only lists differences, so a control without a config is allowed
            control_config = read_config(layout, others[0])
    records_of = {row["seed"]: layout.trained(str(row["train_fingerprint"])).record for row in scored}
    return Submission(
        layout=layout,
        sweep=trials.attrs["sweep"],
        question=trials.attrs["question"],
        arm=arm,
        rows=scored,
        missing=[row for row in own if row not in scored],
        metric=_metric(scored),
        configs={row["seed"]: read_config(layout, row) for row in scored},
        trained={seed: found for seed, path in records_of.items() if (found := read_model(TrainingRecord, path))},
        control=control,
        control_config=control_config,
        comparison=comparison,
        compared_metric=compared,
        provenance=read_json(layout.provenance),
    )


def differences(config: Config, control: Config) -> list[Change]:
    """Return the keys in which two configs differ, without the seed."""
    return changes(config.model_dump(mode="json"), control.model_dump(mode="json"))


def read_config(layout: RunLayout, row: Row) -> Config:
    """Return the config of a trial. Raises InputError: it is missing or not valid in this version."""
    path = layout.trial(row["trial_id"]).config
    try:
        return Config.model_validate_json(path.read_bytes())
    except OSError:
        raise InputError(str(path), "config", "missing", "an imported row has no config and cannot be packed") from None
    except ValidationError as error:
        raise input_error(error, str(path)) from None


def _scored(rows: Sequence[Row]) -> list[Row]:
    finished = [row for row in rows if row["status"] == TrialState.FINISHED]
    return [row for row in finished if any(row[name] is not None for name in SCORES)]


def _metric(rows: Sequence[Row]) -> str:
    return next((name for name in SCORES if all(row[name] is not None for row in rows)), SCORES[-1])
