"""Read the finished trials of a run folder: a plan predicts sizes, step times and wall times from them."""

from dataclasses import dataclass
from typing import Any

from pgray.store.outcomes import read_result
from trainer.config import Config
from trainer.records.files import read_model
from trainer.records.layout import RunLayout
from trainer.records.ledger import last_entries, read_ledger
from trainer.records.results import TrainingRecord, TrialResult
from trainer.records.states import TrialState
from trainer.run.config import Machine

MAX_READ = 100  # newest trials: more would slow down the plan of a large sweep, and hardly improve it


@dataclass(frozen=True)
class FinishedTrial:
    """One finished trial. `training`: the record of its training run; None if that folder has been removed."""

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
        result, config = read_result(trial), read_model(Config, trial.config)  # an old config may be invalid by now
        training = read_model(TrainingRecord, layout.trained(entry.train_fingerprint).record)
        if result is not None and config is not None:
            found.append(FinishedTrial(config, result, training, bool(entry.gpu_held_s)))
    return found
