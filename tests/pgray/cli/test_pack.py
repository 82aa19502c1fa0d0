"""`pgray pack` on a real run: the packed train_gpt.py, run in an empty folder, gives the same artifact and numbers."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from pgray.cli.entry import main
from pgray.planning.decision import decide
from pgray.planning.planner import make_plan
from pgray.scheduler.provenance import write_provenance
from pgray.spec.sweep import Sweep
from pgray.store.ledger import Ledger
from results.importers import read_logs
from results.submission.gather import gather
from trainer.pipeline import run_job
from trainer.records.files import write_sealed
from trainer.records.job import Job, TrialSpec
from trainer.records.layout import RunLayout
from trainer.records.ledger import LedgerEntry
from trainer.records.results import TrialResult
from trainer.run.dist import DistContext

SET = (
    "model: {layers: 2, dim: 32, bigram.buckets: 64, bigram.dim: 16, value_embed: {dim: 16, layers: [1]}, rope_dims: 4}, "
    "train: {seq_len: 32, batch_tokens: 256, warmup_steps: 1, log_every: 1}, optim.warmdown.value: 4, "
    "quant.fp16_max_elements: 256, eval: {seq_len: 32, stride: 16, batch_tokens: 1024}"
)
ARMS = "  int8: {}\n  int4: {quant.bits.mlp: 4}\n  qat: {extends: int4, qat: {enabled: true, start: {kind: step, value: 3}}}\n"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, data: Path) -> RunLayout:
    """A finished sweep of three arms and two seeds, really trained, on one thread, with the jobs that pgray makes."""
    from tests.pgray.conftest import SWEEP, VOCAB

    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("pack")
    text = SWEEP.format(vocab=VOCAB, name="tiny", data=data, set=SET, seeds="[42, 7]", arms=ARMS, iterations=6)
    (folder / "tiny.yaml").write_text(text)
    sweep, layout = Sweep.from_yaml(folder / "tiny.yaml"), RunLayout(folder / "runs/tiny")
    plan = make_plan(sweep)
    layout.root.mkdir(parents=True)
    git_sha = write_provenance(layout, sweep, plan.expansion)
    for trials in decide(plan, layout).jobs_to_run():
        specs = [TrialSpec(trial_id=trial.trial_id, config=trial.config) for trial in trials]
        job = Job(
            job_id=specs[0].trial_id, train_fingerprint=trials[0].train_fingerprint, trials=specs, git_sha=git_sha
        )
        assert len(run_job(job, layout.root, DistContext(0, 1, torch.device("cpu")))) == len(specs)
    finished = [
        LedgerEntry(
            at=0.0, sweep="tiny", arm=t.arm, seed=t.seed, trial_id=t.trial_id, train_fingerprint=t.train_fingerprint,
            config_sha=t.config_sha, state="finished", source="run",
        )
        for t in plan.trials
    ]  # fmt: skip
    Ledger(layout.ledger).append(*finished)
    return layout


def pack(run: RunLayout, out: Path, *options: str, arm: str = "qat") -> int:
    return main(["pack", str(run.root), "--arm", arm, "--out", str(out), *options])


def result_of(folder: Path) -> tuple[TrialResult, bytes]:
    (path,) = folder.glob("trials/*/result.json")
    return TrialResult.model_validate_json(path.read_text()), path.with_name("artifact.pgz").read_bytes()


def repeat(folder: Path, nproc: int, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run torchrun in a folder with only train_gpt.py, isolated from this checkout and from the caller's environment."""
    command = [sys.executable, "-I", "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={nproc}"]
    kept = {key: os.environ[key] for key in ("PATH", "HOME", "TMPDIR") if key in os.environ}
    return subprocess.run(
        [*command, "train_gpt.py"],
        cwd=folder,
        env={**kept, "PYTHONSAFEPATH": "1", "OMP_NUM_THREADS": "1", **environment},
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def packed(run: RunLayout, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("packed") / "submission"
    assert pack(run, out, "--author", "A. Author", "--github", "author") == 0
    return out


def alone(packed: Path, folder: Path) -> Path:
    folder.mkdir()
    shutil.copy(packed / "train_gpt.py", folder)
    return folder


def test_the_packed_script_repeats_the_run_bit_for_bit(run: RunLayout, packed: Path, tmp_path: Path) -> None:
    folder = alone(packed, tmp_path / "empty")
    done = repeat(folder, 1)
    assert done.returncode == 0, done.stderr[-3000:]
    row = gather(run.root, "qat").rows[0]
    before = TrialResult.model_validate_json(run.trial(row["trial_id"]).result.read_text())
    again, artifact = result_of(folder / "reproduced")
    assert artifact == run.trial(row["trial_id"]).artifact.read_bytes()
    same = (
        "seed",
        "steps",
        "float_bpb",
        "post_quant_bpb",
        "sliding_bpb",
        "model_bytes",
        "code_bytes",
        "artifact_bytes",
    )
    assert {name: getattr(again, name) for name in same} == {name: getattr(before, name) for name in same}
    assert again.qat_on_step == 3
    assert f"post_quant_bpb={before.post_quant_bpb!r} " in done.stdout
    assert again.code_bytes == (folder / "train_gpt.py").stat().st_size
    once_more = [sys.executable, "-I", "train_gpt.py"]  # would report the first run's result
    assert "exists" in subprocess.run(once_more, cwd=folder, capture_output=True, text=True, check=False).stderr


def test_two_ranks_and_a_seed_from_the_environment(run: RunLayout, packed: Path, tmp_path: Path) -> None:
    folder = alone(packed, tmp_path / "empty")
    done = repeat(folder, 2, SEED="7")
    assert done.returncode == 0, done.stderr[-3000:]
    again, _ = result_of(folder / "reproduced")
    row = next(row for row in gather(run.root, "qat").rows if row["seed"] == 7)
    assert (again.seed, again.world_size) == (7, 2)
    assert again.post_quant_bpb == pytest.approx(
        row["post_quant_bpb"], abs=1e-2
    )  # two ranks sum in another order, and int4 amplifies it
    assert again.post_quant_bpb != gather(run.root, "qat").rows[0]["post_quant_bpb"]


def test_the_packed_script_runs_from_its_own_sources(packed: Path, tmp_path: Path) -> None:
    code = (
        "import runpy; packed = runpy.run_path('train_gpt.py'); import trainer.run.reproduce as used; "
        "assert used.__file__.startswith(packed['D']), used.__file__; print(packed['C']['qat'], sorted(packed['S'])[:1])"
    )
    folder = alone(packed, tmp_path / "empty")
    done = subprocess.run([sys.executable, "-I", "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "{'enabled': True, 'start': {'kind': 'step', 'value': 3.0}} ['trainer/__init__.py']\n"
    wrong = subprocess.run(
        [sys.executable, "-I", "train_gpt.py", "--seed", "x"], cwd=folder, capture_output=True, text=True, check=False
    )
    assert (wrong.returncode, wrong.stderr) == (2, "error: train_gpt.py: seed: x: must be a whole number\n")
    assert not list(folder.glob("reproduced"))


def test_the_folder_agrees_with_the_table(run: RunLayout, packed: Path) -> None:
    names = ["README.md", "requirements.txt", "submission.json", "train_gpt.py", "train_seed42.log", "train_seed7.log"]
    assert sorted(path.name for path in packed.iterdir()) == names
    submission = gather(run.root, "qat")
    record = json.loads((packed / "submission.json").read_text())
    code_bytes = (packed / "train_gpt.py").stat().st_size
    assert (record["author"], record["github_id"], record["bytes_code"]) == ("A. Author", "author", code_bytes)
    assert (record["track"], record["metric"], record["seeds"]) == ("non_record_16mb", "sliding_bpb", [42, 7])
    assert record["bytes_total"] == max(row["model_bytes"] for row in submission.rows) + code_bytes
    assert record["val_bpb"] == pytest.approx(sum(row["sliding_bpb"] for row in submission.rows) / 2)
    for row, read in zip(submission.rows, read_logs(packed / "submission.json"), strict=True):
        assert read.get("artifact_bytes") == row["model_bytes"] + code_bytes
        for column in ("seed", "sliding_bpb", "post_quant_bpb", "steps", "step_ms", "model_bytes"):
            assert read.get(column) == row[column], column
    text = (packed / "README.md").read_text()
    for row in submission.rows:
        assert f"{row['post_quant_bpb']:.6f}" in text
        assert (packed / f"train_seed{row['seed']}.log").read_text() == submission.log(row).read_text()
    for part in ("mean ± std", "TOO FEW SEEDS", "`qat.enabled`", "| WARN", "OMP_NUM_THREADS=1 torchrun --standalone"):
        assert part in text
    assert f"torch=={torch.__version__.partition('+')[0]}\n" in (packed / "requirements.txt").read_text()


def test_pack_as_json(run: RunLayout, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert pack(run, tmp_path / "out", "--json", arm="int8") == 0
    printed = json.loads(capsys.readouterr().out)
    warned = {rule["name"] for rule in printed["rules"] if rule["status"] != "PASS"}
    assert warned == {
        "seeds",
        "improvement",
        "p (Holm)",
        "hardware",
        "validation split",
        "techniques active",  # its few steps leave 73 % of the initial weights in the EMA
    }  # the packed code is the code that ran
    assert set(printed["files"]) == {path.name for path in (tmp_path / "out").iterdir()}
    assert json.loads((tmp_path / "out/submission.json").read_text())["author"] == "YOUR NAME"


def copy_with_changes(run: RunLayout, copy: Path, **changes: Any) -> RunLayout:
    """Copy the run and write other results of the first seed of `qat`."""
    shutil.copytree(run.root, copy)
    layout = RunLayout(copy)
    path = layout.trial(gather(copy, "qat").rows[0]["trial_id"]).result
    written = json.loads(path.read_text())
    del written["own_sha256"]
    write_sealed(path, written | changes)
    return layout


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("result.json", '"steps": 6', '"steps": 7', "result.json has been changed since it was written"),
        ("config.json", '"iterations": 6', '"iterations": 7', "seed 42: its config.json is not the config that ran"),
    ],
)
def test_a_result_or_config_that_has_been_changed_is_refused(
    run: RunLayout, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, old: str, new: str, message: str
) -> None:
    shutil.copytree(run.root, tmp_path / "run")
    path = RunLayout(tmp_path / "run").trial(gather(run.root, "qat").rows[0]["trial_id"]).root / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    assert pack(RunLayout(tmp_path / "run"), tmp_path / "out") == 2
    assert message in capsys.readouterr().err


def test_a_broken_rule_is_refused_in_one_line_and_recorded_with_force(
    run: RunLayout, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = copy_with_changes(run, tmp_path / "run", model_bytes=16_000_000, train_s=900.0)
    out = tmp_path / "out"
    assert pack(changed, out) == 2
    assert not out.exists()
    (line,) = capsys.readouterr().err.splitlines()
    assert "artifact bytes: 16,0" in line
    assert "must be <= 16,000,000" in line
    assert "1 more broken: training clock; --force" in line
    assert pack(changed, out, "--force") == 0
    text = (out / "README.md").read_text()
    assert text.count("| FAIL") == 2
    assert json.loads((out / "submission.json").read_text())["compliance"]["train_under_600s"] is False


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"arm": "int9"}, "--arm: arm: int9: not among the arms: int8, int4, qat"),
        ({"control": "int9"}, "--control: arm: int9: not among the arms"),
        ({"exists": True}, "is not empty; give a new folder"),
        ({"out": "file/out"}, "cannot be written (File exists)"),
    ],
)
def test_wrong_input(
    run: RunLayout, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: dict[str, Any], message: str
) -> None:
    if "exists" in options:
        (tmp_path / "out").mkdir()
        (tmp_path / "out/README.md").write_text("edited")
    (tmp_path / "file").touch()
    more = ["--control", options["control"]] if "control" in options else []
    assert pack(run, tmp_path / options.get("out", "out"), "--force", *more, arm=options.get("arm", "qat")) == 2
    assert message in capsys.readouterr().err
