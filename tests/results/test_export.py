"""Export to trackers: every trial is there with the numbers of the table; what was not measured is left out."""

import math
from pathlib import Path

import pandas as pd
import pytest

import results
from results import export
from tests.results.five_seeds import write_five_seeds

CURVE_TAGS = {"curve/val_bpb", "curve/val_loss_nats", "curve/train_s"}


@pytest.fixture(scope="module")
def trials(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """One finished trial of each of two arms, a failed one and a queued one."""
    loaded = results.load(write_five_seeds(tmp_path_factory.mktemp("runs") / "five-seeds").root)
    chosen = loaded[loaded["arm"].isin(["int6", "late-qat", "muon-vs", "waiting"]) & (loaded["seed"] == 1)]
    chosen.attrs = loaded.attrs
    return chosen


def row(trials: pd.DataFrame, arm: str) -> pd.Series:  # type: ignore[type-arg]
    return trials[trials["arm"] == arm].iloc[0]


def test_tensorboard(trials: pd.DataFrame, tmp_path: Path) -> None:
    from tensorboardX.proto.event_pb2 import Event

    assert export.to_tensorboard(trials, tmp_path) == 4
    found = {}
    for folder in tmp_path.iterdir():
        (file,) = folder.glob("events*")
        data, at = file.read_bytes(), 0
        scalars = {}
        while at < len(data):  # a record: length, its checksum, the event, its checksum
            length = int.from_bytes(data[at : at + 8], "little")
            event = Event.FromString(data[at + 12 : at + 12 + length])
            scalars |= {(value.tag, event.step): value.simple_value for value in event.summary.value}
            at += 16 + length
        found[folder.name] = scalars
    finished = row(trials, "late-qat")
    own = found[finished["trial_id"]]
    assert own["result/sliding_bpb", 0] == pytest.approx(finished["sliding_bpb"], rel=1e-6)
    assert {tag for tag, step in own if step == 250} == CURVE_TAGS
    assert ("result/ttt_bpb", 0) not in own
    assert not [tag for tag, _ in found[row(trials, "waiting")["trial_id"]] if tag.startswith("result/")]


@pytest.mark.filterwarnings("ignore")  # MLflow's own
def test_mlflow(trials: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow")
    from mlflow.tracking import MlflowClient

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    uri = (tmp_path / "mlruns").as_uri()
    assert export.to_mlflow(trials, "five", uri) == 4
    assert export.to_mlflow(trials, "five", uri) == 0  # nothing twice
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("five")
    runs = {run.data.tags["arm"]: run for run in client.search_runs([experiment.experiment_id])}
    finished = row(trials, "late-qat")
    own = runs["late-qat"]
    assert own.data.metrics["sliding_bpb"] == finished["sliding_bpb"]
    assert own.data.params["qat.enabled"] == "True"
    assert own.data.params["seed"] == "1"
    assert "ttt_bpb" not in own.data.metrics
    history = client.get_metric_history(own.info.run_id, "curve/val_bpb")
    assert max(point.step for point in history) == finished["steps"]
    assert runs["muon-vs"].info.status == "FAILED"
    assert "loss is not finite" in runs["muon-vs"].data.tags["reason"]
    assert not math.isnan(sum(own.data.metrics.values()))


@pytest.mark.filterwarnings("ignore")  # Weights & Biases' own
def test_wandb(trials: pd.DataFrame, tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    assert export.to_wandb(trials, "five", mode="offline", dir=str(tmp_path)) == 4
    names = {path.name.rpartition("-")[0] for path in (tmp_path / "wandb").glob("offline-run-*")}
    files = list((tmp_path / "wandb").glob("offline-run-*/*.wandb"))
    assert len(files) == 4
    assert names
    stored = next(path for path in files if row(trials, "late-qat")["trial_id"] in path.name).read_bytes()
    assert b"qat" in stored
    assert b"sliding_bpb" in stored
