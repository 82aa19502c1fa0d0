"""End to end: the command line, real Ray, real torchrun with two ranks and the real trainer, on a model of a few kilobytes."""

import json
from pathlib import Path

import pytest

from pgray.cli.entry import main
from tests.pgray.conftest import marked, wait_for

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.usefixtures("ray")]

TINY = """
  model: {{layers: 2, dim: 32, heads: 2, kv_heads: 1, rope_dims: 8, xsa_last_n: 0, bigram.buckets: 0,
          value_embed: {{dim: 0, layers: []}}}}
  train: {{seq_len: 32, batch_tokens: 256, iterations: 6, log_every: 1, warmup_steps: 1}}
  optim.warmdown.value: 3
  eval: {{seq_len: 32, stride: 16}}
"""
SWEEP = (
    """
name: pulse
preset: cpu-smoke
resources: {{cpus: 2}}
nproc: 2
seeds: [1]
control: int8
set:
  data.path: {data}
  model.vocab_size: 320
  quant.fp16_max_elements: 0
"""
    + TINY.lstrip("\n")
    + """
arms:
  int8: {{}}
  int4: {{quant.bits.mlp: 4}}
  nan: {{optim.matrix_lr: 1.0e+30, optim.embed_lr: 1.0e+30, optim.scalar_lr: 1.0e+30}}
"""
)


def test_a_sweep_end_to_end(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "pulse.yaml"
    path.write_text(SWEEP.format(data=data))
    command = ["run", str(path), "--runs", str(tmp_path / "runs"), "--json"]
    code = main(command)
    outcome = json.loads(capsys.readouterr().out)
    assert (code, outcome["trials"]) == (3, {"finished": 2, "failed": 1}), outcome
    assert outcome["launched_jobs"] == 2  # int8 and int4 share a training run
    assert main(["table", outcome["run"], "--json"]) == 0
    table = json.loads(capsys.readouterr().out)
    rows = {row["arm"]: row for row in table["trials"]}
    assert rows["nan"]["failure_kind"] == "diverged"
    assert "loss is nan" in rows["nan"]["reason"]
    assert rows["int8"]["world_size"] == 2
    assert rows["int8"]["steps"] == 6
    assert rows["int8"]["float_bpb"] == rows["int4"]["float_bpb"]
    assert rows["int4"]["model_bytes"] < rows["int8"]["model_bytes"]
    assert main(["logs", outcome["run"], "int8"]) == 0
    assert "step=6" in capsys.readouterr().out
    wait_for(lambda: not marked(Path(outcome["run"])), 5)

    assert main(command) == 3
    again = json.loads(capsys.readouterr().out)
    assert (again["launched_jobs"], again["trials"]) == (0, outcome["trials"])

    assert main([argument for argument in command if argument != "--json"]) == 3
    captured = capsys.readouterr()
    assert "Nothing to run: all trials have ended.\nSome trials failed. " in captured.err
    assert "int4" in captured.out
