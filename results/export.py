"""Exports trials to MLflow, Weights & Biases and TensorBoard: one run there per trial here.

Each run gets the config keys as parameters, every measured number as a metric, and the training curve by step. Values that
were not measured are left out, because the trackers have no null. Trials without a result are exported too, with status
and reason. Trackers are imported when used: `pip install 'pgray[mlflow]'`, `[wandb]`; tensorboardX comes with ray[tune].
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from results.loading.configs import config_of
from results.loading.curves import curves as read_curves
from results.schema import COLUMNS, records
from trainer.presets.resolve import flatten
from trainer.records.states import TrialState

_NUMBERS = [column.name for column in COLUMNS if column.dtype in ("Int64", "Float64") and column.name != "seed"]
_TEXTS = [column.name for column in COLUMNS if column.dtype in ("string", "boolean")]
_CURVES = ("train_s", "lr_scale", "train_loss_nats", "val_bpb", "val_loss_nats")


@dataclass(frozen=True)
class _Trial:
    """params: config keys and seed. texts: columns that are no numbers. curve: step -> logged values."""

    name: str
    params: dict[str, Any]
    texts: dict[str, str]
    numbers: dict[str, float]
    curve: dict[int, dict[str, float]]


def to_mlflow(trials: pd.DataFrame, experiment: str, tracking_uri: str | None = None) -> int:
    """Write trials into an MLflow experiment. A trial that is already there (by trial_id) is skipped.

    Args:
        trials: rows as from `results.load`; configs and curves are read from the run folders of their `attrs`.
        tracking_uri: None: MLflow's own (MLFLOW_TRACKING_URI).
    Returns:
        The number of runs written.
    """
    from mlflow.entities import Metric, Param, RunTag
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri)
    found = client.get_experiment_by_name(experiment)
    target = found.experiment_id if found else client.create_experiment(experiment)
    count = 0
    for trial in _trials(trials):
        if client.search_runs([target], f"tags.trial_id = '{trial.texts['trial_id']}'", max_results=1):
            continue
        run_id = client.create_run(target, run_name=trial.name).info.run_id
        metrics = [Metric(name, value, 0, 0) for name, value in trial.numbers.items()]
        metrics += [Metric(f"curve/{n}", x, 0, step) for step, row in trial.curve.items() for n, x in row.items()]
        params = [Param(name, str(value)) for name, value in trial.params.items()]
        tags = [RunTag(name, value) for name, value in trial.texts.items()]
        for start in range(0, max(len(metrics), len(params), 1), 100):  # MLflow takes 100 parameters at a time
            part = slice(start, start + 100)
            client.log_batch(run_id, metrics[part], params[part], tags[part])
        client.set_terminated(run_id, "FINISHED" if trial.texts["status"] == TrialState.FINISHED else "FAILED")
        count += 1
    return count


def to_wandb(trials: pd.DataFrame, project: str, **options: Any) -> int:
    """Write trials into a Weights & Biases project, with trial_id as the run's id, and return their number.

    Args:
        options: of `wandb.init`, such as `mode="offline"`, `entity`, `dir`.
    """
    import wandb

    for trial in _trials(trials):
        about = {"id": trial.texts["trial_id"], "name": trial.name, "group": trial.texts["arm"]}
        run = wandb.init(project=project, config=trial.params, reinit="create_new", **{**about, **options})
        for step, row in trial.curve.items():
            run.log({f"curve/{name}": value for name, value in row.items()}, step=step)
        run.summary.update({**trial.texts, **trial.numbers})
        run.finish(exit_code=0 if trial.texts["status"] == TrialState.FINISHED else 1)
    return len(trials)


def to_tensorboard(trials: pd.DataFrame, folder: str | Path) -> int:
    """Write curves, numbers and parameters to `folder/<trial_id>/` for TensorBoard, and return the number of trials."""
    from tensorboardX import SummaryWriter

    for trial in _trials(trials):
        with SummaryWriter(str(Path(folder) / trial.texts["trial_id"])) as writer:
            for step, row in trial.curve.items():
                for name, value in row.items():
                    writer.add_scalar(f"curve/{name}", value, step)
            for name, value in trial.numbers.items():
                writer.add_scalar(f"result/{name}", value, 0)
            about = {**trial.texts, **{name: str(value) for name, value in trial.params.items()}}
            writer.add_text("trial", "\n".join(f"- {name}: {value}" for name, value in about.items()))
    return len(trials)


def _trials(trials: pd.DataFrame) -> Iterator[_Trial]:
    runs = trials.attrs.get("runs", [])
    logged: dict[str, dict[int, dict[str, float]]] = {}
    for point in records(read_curves(runs)) if runs else []:
        values = {name: float(point[name]) for name in _CURVES if point[name] is not None}
        logged.setdefault(point["trial_id"], {})[point["step"]] = values
    for row in records(trials):
        yield _Trial(
            name=f"{row['arm']} seed {row['seed']}",
            params=dict(flatten(config_of([row], runs) | {"seed": row["seed"]})),
            texts={name: str(row[name]) for name in _TEXTS if row[name] is not None},
            numbers={name: float(row[name]) for name in _NUMBERS if row[name] is not None},
            curve=logged.get(row["trial_id"], {}),
        )
