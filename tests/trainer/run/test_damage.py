"""Weights, artifacts and checkpoints that were damaged or exchanged on disk are not used."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from safetensors import SafetensorError

from trainer.config import Config
from trainer.errors import DataError, PgrayError
from trainer.pipeline import run_job
from trainer.records.events import read_events
from trainer.records.files import sha256_of, write_json
from trainer.records.fingerprint import LAST_WEIGHTS, average_key
from trainer.records.job import Job, TrialSpec
from trainer.records.layout import RunLayout
from trainer.records.results import TrainingRecord, TrialResult
from trainer.run.checkpoint import Checkpoint, WeightsFile, load_weights
from trainer.run.dist import DistContext


class Finished(NamedTuple):
    """Two finished jobs, `f` and `g`, that differ in the seed, in one run folder. Copy what you break."""

    jobs: dict[str, Job]
    layout: RunLayout
    results: dict[str, TrialResult]
    checkpoints: dict[str, Path]  # the last one of each


def job_of(config: Config, name: str) -> Job:
    return Job(job_id=name, train_fingerprint=name, trials=[TrialSpec(trial_id=f"trial-{name}", config=config)])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny: Callable[..., Config], alone: DistContext) -> Finished:
    small = {"train.iterations": 4, "train.warmup_steps": 0, "eval.stride": 0, "model.layers": 1}
    small |= {
        "model.value_embed.layers": [0],
        "average.kind": "ema",
        "average.decay": 0.5,
        "train.checkpoint_every_s": 1e-9,
    }
    jobs = {name: job_of(tiny(seed=seed, **small), name) for name, seed in (("f", 1), ("g", 2))}
    layout = RunLayout(tmp_path_factory.mktemp("finished"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoint, "remove", lambda _: None)
        results = {name: run_job(job, layout.root, alone)[0] for name, job in jobs.items()}
    kept = tmp_path_factory.mktemp("checkpoints")
    checkpoints = {name: layout.trained(name).checkpoint.rename(kept / name) for name in jobs}
    return Finished(jobs, layout, results, checkpoints)


DAMAGES: dict[str, Callable[[Path, Path], object]] = {
    "a flipped bit": lambda path, _: path.write_bytes(flip(path.read_bytes())),
    "that of another run": lambda path, other: shutil.copyfile(other, path),
    "truncated": lambda path, _: path.write_bytes(path.read_bytes()[:-100]),
    "gone": lambda path, _: path.unlink(),
}


def flip(content: bytes) -> bytes:
    """Flip one bit in the middle, in the numbers: the file remains valid."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 64]) + content[middle + 1 :]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("which", ["ema", "last"])
def test_damaged_weights_are_trained_again(
    which: str, damage: str, finished: Finished, tmp_path: Path, alone: DistContext
) -> None:
    layout = RunLayout(shutil.copytree(finished.layout.root, tmp_path / "run"))
    key = {"ema": average_key(finished.jobs["f"].config), "last": LAST_WEIGHTS}[which]
    DAMAGES[damage](layout.trained("f").weights(key), layout.trained("g").weights(key))
    layout.trial("trial-f").result.unlink()
    (result,) = run_job(finished.jobs["f"], layout.root, alone)
    before = finished.results["f"]
    assert (result.post_quant_bpb, result.raw_bpb) == (before.post_quant_bpb, before.raw_bpb)
    assert result.artifact_sha256 == before.artifact_sha256
    events = read_events(layout.trained("f").events)
    assert [event["event"] for event in events].count("training") == 2
    (reason,) = [event["reason"] for event in events if event["event"] == "training_again"]
    what = "is missing" if damage == "gone" else "is not the file that was written (sha256 "
    assert reason.startswith(f"trained/f/{key}.safetensors {what}")


def edit(path: Path, old: str, new: str) -> None:
    """Change a digit as a flipped bit may, so that the file remains valid JSON."""
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_a_changed_training_record_is_not_used(finished: Finished, tmp_path: Path, alone: DistContext) -> None:
    layout = RunLayout(shutil.copytree(finished.layout.root, tmp_path / "run"))
    edit(layout.trained("f").record, '"steps": 4', '"steps": 6')
    layout.trial("trial-f").result.unlink()
    (result,) = run_job(finished.jobs["f"], layout.root, alone)
    assert result.steps == 4
    (reason,) = [e["reason"] for e in read_events(layout.trained("f").events) if e["event"] == "training_again"]
    assert reason == "trained/f/training.json has been changed since it was written"


def test_weights_of_another_run_are_not_used_with_a_record_that_fits_them(
    finished: Finished, tmp_path: Path, alone: DistContext
) -> None:
    """A record that somebody has written again, with the hash of the exchanged file: the file names its training run."""
    layout = RunLayout(shutil.copytree(finished.layout.root, tmp_path / "run"))
    key = average_key(finished.jobs["f"].config)
    weights = layout.trained("f").weights(key)
    shutil.copyfile(layout.trained("g").weights(key), weights)
    record = TrainingRecord.model_validate_json(layout.trained("f").record.read_bytes()).model_dump(mode="json")
    for average in record["averages"]:
        average["sha256"] = sha256_of(layout.trained("f").weights(average["key"]))
    write_json(layout.trained("f").record, record)
    layout.trial("trial-f").result.unlink()
    (result,) = run_job(finished.jobs["f"], layout.root, alone)
    assert result.post_quant_bpb == finished.results["f"].post_quant_bpb
    (reason,) = [e["reason"] for e in read_events(layout.trained("f").events) if e["event"] == "training_again"]
    assert reason == f"trained/f/{weights.name} is that of g/{key}"


def test_a_changed_result_is_exported_again(finished: Finished, tmp_path: Path, alone: DistContext) -> None:
    layout = RunLayout(shutil.copytree(finished.layout.root, tmp_path / "run"))
    before = finished.results["f"].post_quant_bpb
    edit(layout.trial("trial-f").result, str(before), str(before - 0.1))
    (result,) = run_job(finished.jobs["f"], layout.root, alone)
    assert result.post_quant_bpb == before


def test_a_training_record_of_another_run_is_not_used(finished: Finished, tmp_path: Path, alone: DistContext) -> None:
    layout = RunLayout(shutil.copytree(finished.layout.root, tmp_path / "run"))
    shutil.copytree(layout.trained("g").root, layout.trained("f").root, dirs_exist_ok=True)
    layout.trial("trial-f").result.unlink()
    (result,) = run_job(finished.jobs["f"], layout.root, alone)
    assert result.post_quant_bpb == finished.results["f"].post_quant_bpb


def test_intact_weights_are_used(finished: Finished, tmp_path: Path, alone: DistContext) -> None:
    layout = RunLayout(shutil.copytree(finished.layout.root, tmp_path / "run"))
    layout.trial("trial-f").result.unlink()
    (result,) = run_job(finished.jobs["f"], layout.root, alone)
    assert result.artifact_sha256 == finished.results["f"].artifact_sha256
    assert [event["event"] for event in read_events(layout.trained("f").events)].count("training") == 1


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_artifact_is_exported_again(
    damage: str, finished: Finished, tmp_path: Path, alone: DistContext
) -> None:
    layout = RunLayout(shutil.copytree(finished.layout.root, tmp_path / "run"))
    artifact = layout.trial("trial-f").artifact
    whole = artifact.read_bytes()
    DAMAGES[damage](artifact, layout.trial("trial-g").artifact)
    run_job(finished.jobs["f"], layout.root, alone)
    assert artifact.read_bytes() == whole


def test_weights_that_change_during_a_job_are_named(finished: Finished, tmp_path: Path) -> None:
    path = tmp_path / "ema.safetensors"
    path.write_bytes(finished.layout.trained("f").weights(LAST_WEIGHTS).read_bytes()[:-100])
    with pytest.raises(PgrayError, match=r"ema\.safetensors: is no longer the file that the training run wrote"):
        load_weights(WeightsFile(path, "0" * 64))
    with pytest.raises(DataError, match=r"ema\.safetensors: holds no weights") as caught:
        load_weights(WeightsFile(path, None))
    assert not isinstance(caught.value, SafetensorError)
    with pytest.raises(PgrayError, match=r"gone\.safetensors: cannot be read"):
        load_weights(WeightsFile(tmp_path / "gone.safetensors", None))


def resume(
    finished: Finished, root: Path, alone: DistContext, damage: Callable[[Path], object]
) -> dict[str, str | None]:
    """Start job `f` where a kill has left its last checkpoint. Return event name -> reason, of all events."""
    layout = RunLayout(root)
    shutil.copytree(finished.checkpoints["f"], layout.trained("f").checkpoint)
    damage(layout.trained("f").checkpoint)
    (result,) = run_job(finished.jobs["f"], root, alone)
    assert result.artifact_sha256 == finished.results["f"].artifact_sha256
    return {event["event"]: event.get("reason") for event in read_events(layout.trained("f").events)}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("part", ["common", "rank-0"])
def test_a_damaged_checkpoint_is_not_resumed(
    part: str, damage: str, finished: Finished, tmp_path: Path, alone: DistContext
) -> None:
    name = f"step-4/{part}.safetensors"
    events = resume(
        finished, tmp_path, alone, lambda folder: DAMAGES[damage](folder / name, finished.checkpoints["g"] / name)
    )
    assert "resumed" not in events
    what = "it is incomplete, or another" if damage == "gone" else f"{name} is not the file that was written"
    assert str(events["fresh_start"]).startswith(f"the checkpoint is not used: {what}")


def test_a_checkpoint_is_resumed_only_in_its_own_training_run(
    finished: Finished, tmp_path: Path, alone: DistContext
) -> None:
    intact = resume(finished, tmp_path / "intact", alone, lambda _: None)
    assert "resumed" in intact
    assert "fresh_start" not in intact

    def exchange(folder: Path) -> None:
        shutil.rmtree(folder)
        shutil.copytree(finished.checkpoints["g"], folder)

    assert (
        resume(finished, tmp_path / "exchanged", alone, exchange)["fresh_start"]
        == "the checkpoint is not used: it is that of g"
    )


def test_a_checkpoint_whose_position_has_changed_is_not_resumed(
    finished: Finished, tmp_path: Path, alone: DistContext
) -> None:
    events = resume(finished, tmp_path, alone, lambda folder: edit(folder / "latest.json", '"step": 4', '"step": 0'))
    what = "latest.json has been changed since it was written"
    assert events["fresh_start"] == f"the checkpoint is not used: {what}"
