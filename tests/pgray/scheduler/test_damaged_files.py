"""What a run does about weights, artifacts and results that were damaged, exchanged or removed since they were written."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import results
from pgray.cli.entry import main
from pgray.scheduler.driver import Outcome
from pgray.store.outcomes import read_result
from tests.pgray.conftest import RecordedProgress
from tests.pgray.scheduler.test_driver import drive, launches
from trainer.records.files import write_json
from trainer.records.layout import RunLayout
from trainer.records.trained import usable_result

pytestmark = pytest.mark.usefixtures("executor")
ARMS = (
    "  int8: {}\n  int6: {quant.bits.mlp: 6}\n  other: {optim.matrix_lr: 0.03}\n"  # int8 and int6 share their training
)
DAMAGES: dict[str, Callable[[Path, Path], object]] = {
    "changed": lambda path, _: path.write_bytes(path.read_bytes()[:-2] + b"?\n"),
    "another's": lambda path, other: shutil.copyfile(other, path),
    "cut off": lambda path, _: path.write_bytes(path.read_bytes()[:-5]),
}


class Finished:
    """A finished run that can be broken and run again. `lines`: what the last run said."""

    def __init__(self, path: Path, runs: Path) -> None:
        self.path, self.runs = path, runs
        self.layout = RunLayout(self.run().run_root)
        self.trained = launches(self.layout.root)

    def run(self) -> Outcome:
        reporter = RecordedProgress()
        outcome = drive(self.path, self.runs, reporter=reporter)
        self.lines = reporter.lines
        assert outcome.counts == {"finished": 3}
        return outcome

    def trial(self, arm: str) -> Path:
        (folder,) = self.layout.root.glob(f"trials/{arm}-s1-*")
        return folder

    def weights(self, arm: str) -> Path:
        result = read_result(self.layout.trial(self.trial(arm).name))
        assert result is not None
        return self.layout.trained(result.train_fingerprint).weights(result.average)

    def planned(self, capsys: pytest.CaptureFixture[str]) -> str:
        capsys.readouterr()
        assert main(["plan", str(self.path), "--runs", str(self.runs)]) == 0
        return " ".join(capsys.readouterr().out.split())


@pytest.fixture
def finished(write_sweep: Callable[..., Path], tmp_path: Path) -> Finished:
    return Finished(write_sweep(arms=ARMS, seeds="[1]"), tmp_path / "runs")


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_weights_are_trained_again_before_a_trial_is_exported(
    damage: str, finished: Finished, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = finished.weights("int8")
    DAMAGES[damage](weights, finished.weights("other"))
    (finished.trial("int8") / "result.json").unlink()
    said = "is not the file that was written"
    assert said in finished.planned(capsys)
    outcome = finished.run()
    assert outcome.num_launched_trials == 1
    assert launches(finished.layout.root)[weights.parent.name] == 2
    (line,) = [line for line in finished.lines if "the training run is repeated" in line]
    assert line.startswith(f"warning: trained/{weights.parent.name}/{weights.name} {said}")
    name = f"{finished.trial('int8').name}/result.json is missing or broken"
    assert [line for line in finished.lines if name in line]
    assert finished.run().num_launched_jobs == 0


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_artifact_is_exported_again_from_the_weights(
    damage: str, finished: Finished, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = finished.layout.trial(finished.trial("int6").name)
    DAMAGES[damage](folder.artifact, finished.trial("other") / "artifact.pgz")
    said = f"trials/{folder.root.name}/artifact.pgz is not the file that was written"
    assert said in finished.planned(capsys)
    assert usable_result(folder) is None
    assert finished.run().num_launched_trials == 1
    assert [line for line in finished.lines if said in line and line.endswith("the trial is exported again")]
    assert launches(finished.layout.root) == finished.trained
    assert usable_result(folder) is not None


def test_a_damaged_artifact_without_weights_is_named_and_nothing_is_trained(finished: Finished) -> None:
    """Training again costs much more than the artifact is worth to somebody who has removed the weights."""
    shutil.rmtree(finished.weights("other").parent)
    artifact = finished.trial("other") / "artifact.pgz"
    artifact.write_bytes(b"")
    for _ in range(2):
        assert finished.run().num_launched_jobs == 0
        assert [line for line in finished.lines if f"{artifact.parent.name}/artifact.pgz is not the file" in line]


def test_a_changed_result_is_noted_in_the_table_and_exported_again(
    finished: Finished, capsys: pytest.CaptureFixture[str]
) -> None:
    """One digit of a score, as after a flipped bit: the file is still valid."""
    name = finished.trial("int6").name
    path = finished.layout.trial(name).result
    before = results.load(finished.layout.root).set_index("trial_id").loc[name, "post_quant_bpb"]
    path.write_text(path.read_text().replace(f'"post_quant_bpb": {before}', '"post_quant_bpb": 1.11'))
    said = f"trials/{name}/result.json has been changed since it was written"
    trials = results.load(finished.layout.root)
    assert said in trials.set_index("trial_id").loc[name, "notes"]
    assert [problem for problem in trials.attrs["problems"] if said in problem]
    assert said in finished.planned(capsys)
    assert finished.run().num_launched_trials == 1
    assert [line for line in finished.lines if line == f"warning: {said}: the trial is exported again"]
    trials = results.load(finished.layout.root).set_index("trial_id")
    assert trials.loc[name, "post_quant_bpb"] == before
    assert trials["notes"].isna().all()
    assert finished.run().num_launched_jobs == 0


def test_an_artifact_of_another_size_is_noticed_without_a_hash(finished: Finished) -> None:
    """Records before version 3 have no hash, but they have the size."""
    folder = finished.layout.trial(finished.trial("int6").name)
    result = json.loads(folder.result.read_text())
    del result["artifact_sha256"], result["own_sha256"]
    write_json(folder.result, result | {"model_bytes": folder.artifact.stat().st_size})
    assert finished.run().num_launched_jobs == 0
    folder.artifact.write_bytes(folder.artifact.read_bytes()[:-5])
    assert finished.run().num_launched_trials == 1
    assert [line for line in finished.lines if f"{folder.root.name}/artifact.pgz is not the file" in line]
