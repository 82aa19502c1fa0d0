"""The registry of metrics: a metric added to the record alone reaches every part of the program that lists metrics."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from results.schema import COLUMNS
from trainer.config import Config
from trainer.records.results import HEADLINES, LISTED, LOSSES, LOWER_IS_BETTER, METRICS, SCORES

ROOT = Path(__file__).parents[2]
TOY = '''    toy_bpb: Annotated[
        float | None,
        Metric(_BPB, "toy bpb", ".3f", is_score=True, needs="eval.ttt.enabled", evaluated_with=("eval_seq_len",)),
    ] = None
    """A toy."""
'''
SCRIPT = """
import pytest
from pgray.spec.stopping import KillRule, Race, StoppingSections, check_rules
from pgray.spec.search import Search
from results.analysis.ablation import ablation
from results.analysis.comparability import NotComparableError
from results.importers import read_logs
from results.loading.runs import load
from results.plots.differences import deltas
from results.present.files import render
from results.present.publications import _SHOWN
from results.report.html import report
from results.schema import COLUMNS, as_markdown, frame
from results.submission.gather import _metric
from tests.results.synthetic import Run
from trainer.config import Config
from trainer.errors import InputError
from trainer.records import results
from trainer.run.reproduce import _FINAL
from pathlib import Path

assert Path(results.__file__).is_relative_to(Path.cwd()), results.__file__
column = next(column for column in COLUMNS if column.name == "toy_bpb")
assert (column.dtype, column.unit, column.meaning, column.in_contract) == ("Float64", "bits per byte", "A toy.", False)
assert "| `toy_bpb` * | Float64 | bits per byte | A toy. |" in as_markdown()
assert "toy_bpb" in results.LOWER_IS_BETTER and "toy_bpb" in _FINAL and ("toy\\nbpb", "toy_bpb", ".3f") in _SHOWN
assert _metric([{name: 1.0 for name in results.SCORES}]) == "toy_bpb"
Race(metric="toy_bpb")
Search(trials=3, objectives={"toy_bpb": "min"}, space={"qna.magnitude": {"uniform": [0, 1]}})
rule = KillRule(metric="toy_bpb", worse_than_control_by=0.1)
with pytest.raises(InputError, match="set eval.ttt.enabled"):
    check_rules(StoppingSections(kill=[rule]), {"a": Config(), "b": Config()}, "a", "sweep.yaml")
run = Run(Path("run"))
for seed in (1, 2, 3):
    run.finish("int8", seed, toy_bpb=2.0 + seed / 100)
    run.finish("int6", seed, toy_bpb=1.9 + seed / 99)
trials = load("run")
assert ablation(trials, metric="toy_bpb")["verdict"].tolist() == ["CONTROL", "WIN"]
assert "toy bpb" in deltas(trials, metric="toy_bpb").layout.title.text
assert "toy_bpb" in render("run", "md").split("## Trials")[1] and "toy_bpb" in report("run")
trials.loc[0, "eval_seq_len"] = 7
with pytest.raises(NotComparableError, match="eval_seq_len"):
    ablation(trials, metric="toy_bpb")
Path("x.log").write_text("step:1/1 val_loss:1.0 val_bpb:2.0 train_time:3ms\\n")
assert "toy_bpb" in read_logs("x.log")[0].nulls
"""


def test_a_metric_added_to_the_record_alone_is_found_everywhere(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "trainer", tmp_path / "trainer", ignore=shutil.ignore_patterns("__pycache__"))
    record = tmp_path / "trainer/records/results.py"
    source = record.read_text()
    field = "    tensors: list[TensorBytes]"
    assert source.count(field) == 1
    record.write_text(source.replace(field, TOY + field))
    path = os.pathsep.join(map(str, (tmp_path, ROOT)))
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_the_facts_about_the_published_metrics() -> None:
    assert set(LOSSES) == {
        "float_bpb", "post_quant_bpb", "quant_gap", "sliding_bpb", "ttt_bpb", "val_loss_nats", "raw_bpb",
    }  # fmt: skip
    assert SCORES == ("ttt_bpb", "sliding_bpb", "post_quant_bpb")
    assert LISTED == ("float_bpb", "post_quant_bpb", "quant_gap", "sliding_bpb", "ttt_bpb")
    assert set(HEADLINES) <= set(SCORES)
    assert set(LOSSES) | {"artifact_bytes", "step_ms", "peak_memory_mib"} <= set(LOWER_IS_BETTER)
    assert not {"steps", "tokens", "qat_coverage", "node_tflops", "world_size"} & set(LOWER_IS_BETTER)
    assert {name for name, metric in METRICS.items() if metric.evaluated_with} == {"sliding_bpb", "ttt_bpb"}


@pytest.mark.parametrize("metric", METRICS)
def test_what_a_metric_needs_is_a_config_key_and_what_it_is_compared_by_a_column(metric: str) -> None:
    assert isinstance(METRICS[metric].is_measured(Config()), bool)
    assert set(METRICS[metric].evaluated_with) <= {column.name for column in COLUMNS}
