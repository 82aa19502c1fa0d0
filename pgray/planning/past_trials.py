"""The finished trials of a run folder, with what a plan learns from them: sizes, step times, wall times."""

from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from pgray.store.outcomes import read_result
from trainer.config import Config
from trainer.records.layout import RunLayout
from trainer.records.ledger import last_entries, read_ledger
from trainer.records.results import TrainingRecord, TrialResult
from trainer.records.states import TrialState
from trainer.run.config import Machine

MAX_READ = 100
"""The newest so many: a plan of a large sweep must stay quick, and more would not make it better."""


@dataclass(frozen=True)
class FinishedTrial:
    """`training`: the record of its training run; None where that folder has been removed."""

    arm: str
    config: Config
    result: TrialResult
    training: TrainingRecord | None
    held_gpus: bool

    def is_on(self, machine: Machine) -> bool:
        """Whether it ran on as many ranks, and on GPUs or not, as a job of this machine does."""
        return self.result.world_size == machine.world_size and self.held_gpus == bool(machine.gpus)


def model_part(config: Config) -> dict[str, Any]:
    """What makes two configs the same model."""
    return config.model_dump(include={"model", "recurrence"})


def finished_trials(layout: RunLayout) -> list[FinishedTrial]:
    """Finished trials whose files are all there and still readable, in the ledger's order; [] where there is no run."""
    entries, _ = read_ledger(layout.ledger)
    done = [entry for entry in last_entries(entries).values() if entry.state == TrialState.FINISHED]
    found = []
    for entry in done[-MAX_READ:]:
        trial = layout.trial(entry.trial_id)
        result = read_result(trial)
        if result is None:
            continue
        try:  # JSON mode, as the trainer reads it; a config of an older version may no longer be one
            config = Config.model_validate_json(trial.config.read_bytes())
        except (OSError, ValidationError):
            continue
        training = _training(layout, entry.train_fingerprint)
        found.append(FinishedTrial(entry.arm, config, result, training, bool(entry.gpu_held_s)))
    return found


def _training(layout: RunLayout, train_fingerprint: str) -> TrainingRecord | None:
    try:
        return TrainingRecord.model_validate_json(layout.trained(train_fingerprint).record.read_bytes())
    except (OSError, ValidationError):
        return None
