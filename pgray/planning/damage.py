"""Finds finished trials whose files are damaged, exchanged or gone, and decides which of them to repeat.

Only results, artifacts and the weights that a job would use are checked; hashing them takes less than a second per
gigabyte. `pgray status` and `pgray table` do not check.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainer.records.files import changed_problem, file_problem
from trainer.records.layout import RunLayout
from trainer.records.results import TrialResult
from trainer.records.text import count_of
from trainer.records.trained import find_training, usable_training

if TYPE_CHECKING:
    from pgray.planning.planner import PlannedTrial

_SHOWN = 5  # lines about damaged trials; a further one counts the others


@dataclass(frozen=True)
class Damage:
    """repeated: ids of the finished trials to export again. lines: what is damaged, and what is done about it."""

    repeated: frozenset[str]
    lines: tuple[str, ...]


def check_finished(
    trials: Iterable["PlannedTrial"], results: Mapping[str, TrialResult | None], layout: RunLayout
) -> Damage:
    """Check the result and the artifact of trials that have finished.

    A trial whose result was changed, or whose artifact is not the one that was measured, is exported again if the trained
    weights are intact. Otherwise, and if the artifact was removed, the result stays: training again costs much more.

    Args:
        results: by trial id; None: the trial has finished, and its result is missing or broken.
    """
    repeated, lines, gone = set[str](), list[str](), list[str]()
    for trial in trials:
        result, artifact = results[trial.trial_id], layout.trial(trial.trial_id).artifact
        if result is None:
            lines.append(f"trials/{trial.trial_id}/result.json is missing or broken: the trial is exported again")
        elif not artifact.exists():
            gone.append(trial.trial_id)
        elif problem := (
            changed_problem(layout.trial(trial.trial_id).result)
            or file_problem(artifact, result.artifact_sha256, result.model_bytes)
        ):
            if usable_training(layout.trained(trial.train_fingerprint), [trial.config]):
                repeated.add(trial.trial_id)
                lines.append(f"{problem}: the trial is exported again")
            else:
                fix = "to train and export it again, delete its result.json"
                lines.append(f"{problem}, and its trained weights are not usable: the result is kept; {fix}")
    if len(lines) > _SHOWN:
        lines[_SHOWN:] = [f"{count_of(len(lines) - _SHOWN, 'more finished trial')} with damaged files"]
    if gone:
        missing = f"{count_of(len(gone), 'finished trial')} without an artifact, such as {gone[0]}"
        lines.append(f"{missing}; delete a trial's result.json to export it again")
    return Damage(frozenset(repeated), tuple(lines))


def check_weights(jobs: Iterable[Sequence["PlannedTrial"]], layout: RunLayout) -> list[str]:
    """Return a line for each job that must train again because the weights of its training run are damaged."""
    problems = (find_training(layout.trained(job[0].train_fingerprint), [t.config for t in job])[1] for job in jobs)
    return [f"{problem}: the training run is repeated" for problem in problems if problem]
