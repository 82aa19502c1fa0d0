"""Anything at all as a log or a submission.json: rows, or one refusal."""

import json
import math
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from results.importers import ImportedRun, read_logs, read_submission
from results.importers.record import BY_IMPORT
from results.schema import NAMES
from tests.results import foreign_logs as made
from trainer.errors import InputError

FUZZ = settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
ALL_LINES = [line for number in made.PULL_REQUESTS for line in made.family(number)] + made.SOURCE
NOISE = st.text(st.characters(codec="utf-8"), max_size=30)
BROKEN_LINES = st.builds(
    lambda line, at, cut, noise: line[: at % (len(line) + 1)] + noise + line[at % (len(line) + 1) + cut :],
    st.sampled_from(ALL_LINES), st.integers(0, 200), st.integers(0, 5), 
    st.sampled_from(["0", "9", "-", ".", ":", "nan", "1e999", "٣", "\r", "\0"]) | NOISE,
)  # fmt: skip


def assert_rows_or_refusal(path: Path, runs_from: Any = read_logs) -> None:
    try:
        runs = runs_from(path)
    except InputError:
        return
    for run in runs:
        assert set(run.columns) | set(run.nulls) == set(NAMES) - set(BY_IMPORT)
        assert ImportedRun.model_validate_json(run.model_dump_json()) == run
        assert all(math.isfinite(v) for v in run.columns.values() if isinstance(v, float))
    assert runs


@FUZZ
@given(content=st.binary(max_size=400))
def test_any_bytes_as_a_log(content: bytes, tmp_path: Path) -> None:
    for name in ("x.log", "x.json"):
        (tmp_path / name).write_bytes(content)
        assert_rows_or_refusal(tmp_path / name)


@FUZZ
@given(lines=st.lists(st.sampled_from(ALL_LINES) | BROKEN_LINES, max_size=60))
def test_any_mixture_of_whole_and_broken_lines(lines: list[str], tmp_path: Path) -> None:
    (tmp_path / "x.log").write_text("\n".join(lines), encoding="utf-8")
    assert_rows_or_refusal(tmp_path / "x.log")


@FUZZ
@given(number=st.sampled_from(made.PULL_REQUESTS), data=st.data())
def test_a_log_with_lines_lost_doubled_and_broken(number: int, data: st.DataObject, tmp_path: Path) -> None:
    lines = made.family(number)
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(0, len(lines) - 1))
        lines[at : at + 1] = data.draw(st.sampled_from([[], lines[at : at + 1] * 2, [data.draw(BROKEN_LINES)]]))
    (tmp_path / "x.log").write_text("\n".join(lines), encoding="utf-8")
    assert_rows_or_refusal(tmp_path / "x.log")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | NOISE,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["val_bpb", "seeds", "42"]) | NOISE, inner)
    ),
    max_leaves=12,
)
KEYS = st.sampled_from(
    ["val_bpb", "bytes_total", "seed", "seed_results", "seed_42", "step_stop", "gpu", "roundtrip_val_bpb"]
)


@FUZZ
@given(content=st.dictionaries(KEYS | NOISE, JSON, max_size=8), indent=st.sampled_from([None, 0, 2, "\t"]))
def test_any_json_as_a_submission(content: dict[str, Any], indent: Any, tmp_path: Path) -> None:
    (tmp_path / "submission.json").write_text(json.dumps(content, indent=indent), encoding="utf-8")
    assert_rows_or_refusal(tmp_path / "submission.json", read_submission)
