"""Contract of every importer: any text gives rows, None (not its format) or one InputError. Formats are found by themselves."""

import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import results.importers
from results.importers import ImportedRun, read_logs, readers
from results.importers.imported_run import BY_IMPORT
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


def assert_contract(path: Path, content: str) -> None:
    """Ask every importer for the runs in a file, and `read_logs` as well."""
    path.write_text(content, encoding="utf-8", newline="")
    for read in [*readers().values(), lambda file, _: read_logs(file)]:
        try:
            runs = read(str(path), content)
        except InputError:
            continue
        if runs is not None:
            assert_rows(runs)


def assert_rows(runs: list[ImportedRun]) -> None:
    for run in runs:
        assert set(run.columns) | set(run.nulls) == set(NAMES) - set(BY_IMPORT)
        assert ImportedRun.model_validate_json(run.model_dump_json()) == run
        assert all(math.isfinite(v) for v in run.columns.values() if isinstance(v, float))
    assert runs


@FUZZ
@given(content=st.binary(max_size=400).map(lambda content: content.decode("utf-8", errors="replace")))
def test_any_text(content: str, tmp_path: Path) -> None:
    for name in ("x.log", "x.json"):
        assert_contract(tmp_path / name, content)


@FUZZ
@given(lines=st.lists(st.sampled_from(ALL_LINES) | BROKEN_LINES, max_size=60))
def test_any_mixture_of_whole_and_broken_lines(lines: list[str], tmp_path: Path) -> None:
    assert_contract(tmp_path / "x.log", "\n".join(lines))


@FUZZ
@given(number=st.sampled_from(made.PULL_REQUESTS), data=st.data())
def test_a_log_with_lines_lost_doubled_and_broken(number: int, data: st.DataObject, tmp_path: Path) -> None:
    lines = made.family(number)
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(0, len(lines) - 1))
        lines[at : at + 1] = data.draw(st.sampled_from([[], lines[at : at + 1] * 2, [data.draw(BROKEN_LINES)]]))
    assert_contract(tmp_path / "x.log", "\n".join(lines))


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
    assert_contract(tmp_path / "submission.json", json.dumps(content, indent=indent))


def test_each_sample_has_one_importer() -> None:
    samples = {("log", f"{number}.log"): "\n".join(made.family(number)) for number in made.PULL_REQUESTS}
    samples["submission_json", "submission.json"] = '{"val_bpb": 1.1}'
    assert set(readers()) == {name for name, _ in samples}
    for (name, file), text in samples.items():
        assert [reader for reader, read in readers().items() if read(file, text)] == [name]


TOY = """
from results.importers.imported_run import RowBuilder

def read_runs(file, text):
    if not text.startswith("toy"):
        return None
    row = RowBuilder(file)
    row.set("sliding_bpb", float(text.split()[1]), 1)
    row.set("status", "finished", 1)
    return [row.finish(f"{file}:1", "digest of the text")]
"""


def test_a_new_format_is_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "toy.py").write_text(TOY)
    (tmp_path / "x.txt").write_text("toy 1.25")
    with pytest.raises(InputError, match=r"no run in a known format \(log, submission_json\)"):
        read_logs(tmp_path / "x.txt")
    monkeypatch.setattr(results.importers, "__path__", [*results.importers.__path__, str(tmp_path)])
    (run,) = read_logs(tmp_path / "x.txt")
    assert (run.get("sliding_bpb"), run.sources["sliding_bpb"]) == (1.25, f"{tmp_path}/x.txt:1")
    assert made.imported(tmp_path / "run", tmp_path / "x.txt", "toy", "--seed", "1") == 0
    assert results.load(tmp_path / "run")["sliding_bpb"].tolist() == [1.25]
    monkeypatch.delitem(sys.modules, "results.importers.toy")
