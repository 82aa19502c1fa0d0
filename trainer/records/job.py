"""A job: one training run and the exports of its trials. pgray writes the file, the trainer reads it. Torch-free."""

from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, model_validator

from trainer.config import Config
from trainer.errors import InputError
from trainer.presets.resolve import build_config, flatten, load_preset, validate
from trainer.presets.yamlfile import read_yaml
from trainer.records.fingerprint import average_key, digest, training_part


class TrialSpec(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    trial_id: str
    config: Config


class Job(BaseModel):
    """`train_fingerprint` names the folder of the trained weights, `job_id` the folder of the job's own records."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    job_id: str
    train_fingerprint: str
    trials: list[TrialSpec]
    git_sha: str | None = None
    code_sha: str | None = None  # `bundle.code_sha` of the trainer that must run it; None: any

    @property
    def config(self) -> Config:
        """The config of the training run; all trials have the same training part."""
        return self.trials[0].config

    @property
    def averages(self) -> dict[str, Config]:
        """The averages that trials export: key -> the config of one such trial."""
        return {average_key(trial.config): trial.config for trial in self.trials}

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.trials:
            raise ValueError("a job needs at least one trial")
        first = training_part(self.trials[0].config)
        for trial in self.trials[1:]:
            if training_part(trial.config) != first:
                raise ValueError(f"trial {trial.trial_id} trains differently from {self.trials[0].trial_id}")
        return self


def load_job(path: Path) -> Job:
    """Read a job file as pgray writes it, or the short form `{preset: NAME, set: {...}}` of one trial. Raises InputError."""
    raw: Any = read_yaml(path, is_limited=False)  # a job may have thousands of trials
    if not isinstance(raw, dict):
        raise InputError(str(path), "document", type(raw).__name__, "a job is a mapping with trials, or preset and set")
    if "trials" in raw:
        return validate(Job, raw, str(path), strict=False)
    unknown = sorted(str(key) for key in set(raw) - {"preset", "set"})
    if unknown:
        raise InputError(str(path), unknown[0], "unknown key", "use preset and set")
    preset = load_preset(str(raw.get("preset", "")), str(path))
    config = build_config({**preset.overrides, **dict(flatten(raw.get("set") or {}))}, str(path))
    identity, training = digest(config.model_dump(mode="json")), digest(training_part(config))
    spec = TrialSpec(trial_id=f"trial-{identity}", config=config)
    return Job(job_id=f"job-{identity}", train_fingerprint=f"standalone-{training}", trials=[spec])
