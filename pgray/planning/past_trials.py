"""Read the finished trials of a run folder: a plan predicts sizes, step times and wall times from them."""

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

MAX_READ = 100  # newest trials: more would slow down the plan of a large sweep, and hardly improve it


@dataclass(frozen=True)
class FinishedTrial:
    """One finished trial. `training`: the record of its training run; None if that folder has been removed."""

    arm: str
    config: Config
    result: TrialResult
    training: TrainingRecord | None
    held_gpus: bool

    def is_on(self, machine: Machine) -> bool:
        """Whether it ran on as many ranks as a job of this machine, and on the same kind of device."""
        return self.result.world_size == machine.world_size and self.held_gpus == bool(machine.gpus)


def model_part(config: Config) -> dict[str, Any]:
    """Return the sections that define the model, in JSON types."""
    return config.model_dump(mode="json", include={"model", "recurrence"})


def finished_trials(layout: RunLayout) -> list[FinishedTrial]:
    """Return the finished trials whose files are all readable, in the ledger's order; [] if there is no run."""
    entries, _ = read_ledger(layout.ledger)
    done = [entry for entry in last_entries(entries).values() if entry.state == TrialState.FINISHED]
    found = []
    for entry in done[-MAX_READ:]:
        trial = layout.trial(entry.trial_id)
        result = read_result(trial)
        if result is None:
            continue
        try:  # JSON mode, as the trainer reads it; a config of an older version may be invalid by now
            config = Config.model_validate_json(trial.config.read_bytes())
        except (OSError, ValidationError):
            continue
        try:
            record = layout.trained(entry.train_fingerprint).record.read_bytes()
            training = TrainingRecord.model_validate_json(record)
        except (OSError, ValidationError):
            training = None
        found.append(FinishedTrial(entry.arm, config, result, training, bool(entry.gpu_held_s)))
    return found
