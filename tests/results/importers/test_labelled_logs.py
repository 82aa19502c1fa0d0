"""Precision and recall per column over more than 150 public logs, labelled by reading them.

labelled_logs.txt holds facts only: path, pull request, commit and blob of a log of openai/parameter-golf, the right values,
and the few lines that hold them. Sampled with two seeds, half by log and half by the wording of their scores.
"""

import re
from collections import Counter
from pathlib import Path

import pytest

from results.importers import ImportedRun, read_logs

FILE = Path(__file__).with_name("labelled_logs.txt")
SCORES = ("float_bpb", "post_quant_bpb", "sliding_bpb", "ttt_bpb", "raw_bpb", "other_bpb")
FACTS = (
    "artifact_bytes", "model_bytes", "code_bytes", "steps", "train_s", "step_ms", "seed", "qat_on_step", "num_params",
    "world_size", "peak_memory_mib",
)  # fmt: skip
MIN_PRECISION, MIN_RECALL = 0.99, 0.90
MIN_PRECISION_OF_OTHER = 0.95  # of several other scores, the last is not always the best one to show


def labelled() -> list[tuple[str, dict[str, float], str]]:
    found = []
    for block in FILE.read_text().split("### ")[1:]:
        name, values, lines = block.split("\n", 2)
        pairs = (pair.split("=") for pair in values.removeprefix("# ").split())
        found.append((name, {column: float(value) for column, value in pairs}, lines))
    return found


def is_right(run: ImportedRun, column: str, truth: dict[str, float]) -> bool:
    value = run.get(column)
    expected = truth.get(column, truth.get("raw_bpb") if column == "float_bpb" else None)  # nothing was averaged
    return expected is not None and value == pytest.approx(expected, abs=6e-5, rel=6e-5)


def test_precision_and_recall_of_every_column(tmp_path: Path) -> None:
    given, right, wanted, recalled = Counter[str](), Counter[str](), Counter[str](), Counter[str]()
    wrong = []
    logs = labelled()
    for name, truth, lines in logs:
        path = tmp_path / "a.log"
        path.write_text(lines)
        (run,) = read_logs(path)
        for column in (*SCORES, *FACTS):
            wanted[column] += column in truth
            if run.get(column) is None:
                continue
            given[column] += 1
            right[column] += is_right(run, column, truth)
            recalled[column] += column in truth and is_right(run, column, truth)
            if not is_right(run, column, truth):
                wrong.append(f"{name} {column}: {run.get(column)}, labelled {truth.get(column)}")
    assert len(logs) >= 150
    for column in (*SCORES, *FACTS):
        share = MIN_PRECISION_OF_OTHER if column == "other_bpb" else MIN_PRECISION
        assert right[column] >= share * given[column], (column, wrong)
        assert recalled[column] >= MIN_RECALL * wanted[column], (column, recalled[column], wanted[column])


def test_the_set_holds_facts_and_no_source() -> None:
    code = re.compile(r"^\s*(?:def|class|import|from|return|if|for)\b|log0\(|print\(", re.M)
    assert not [name for name, _, lines in labelled() if code.search(lines)]
