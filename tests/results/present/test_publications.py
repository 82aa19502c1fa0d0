"""The published tables, and how `pgray table --with` shows them."""

import json
from pathlib import Path

import pandas as pd
import pytest

import results
from pgray.cli.entry import main
from results.importers import read_logs
from results.schema import NAMES
from tests.results import foreign_logs as made


@pytest.mark.parametrize("number", [51, 488, 975, 1002, 1032])
def test_published_tables(number: int) -> None:
    table = results.published(number)
    assert list(table.columns) == [*NAMES, "claimed_bpb", "caveat"]
    assert len(table) > 0
    assert table["caveat"].notna().all()
    assert table["source"].str.startswith(f"published: PR {number}, ").all()
    known = table.dropna(subset=["artifact_bytes"])
    assert (known["is_within_cap"] == (known["artifact_bytes"] <= 16_000_000)).all()
    parts = table.dropna(subset=["artifact_bytes", "model_bytes", "code_bytes"])
    assert (parts["artifact_bytes"] == parts["model_bytes"] + parts["code_bytes"]).all()
    gaps = table.dropna(subset=["quant_gap"])
    assert ((gaps["post_quant_bpb"] - gaps["float_bpb"] - gaps["quant_gap"]).abs() < 5.1e-5).all()
    over = table[table["is_within_cap"].eq(False).fillna(False)]
    assert over["caveat"].str.contains("over the cap").all()


@pytest.mark.skipif(not made.REAL.is_dir(), reason="the logs of PR 975 are not here")
def test_the_published_table_agrees_with_its_logs() -> None:
    names = [
        "float_bpb",
        "post_quant_bpb",
        "sliding_bpb",
        "raw_bpb",
        "artifact_bytes",
        "steps",
        "qat_on_step",
        "train_s",
    ]
    runs = read_logs(sorted(made.REAL.glob("*.log")))
    table = results.published("975")[names].astype("float64")
    pd.testing.assert_frame_equal(table, pd.DataFrame([run.columns for run in runs])[names].astype("float64"))


def test_published_tables_follow_the_own_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(tmp_path / "run")
    made.imported(tmp_path / "run", made.write(tmp_path / "base.log", made.family(975)), "base")
    capsys.readouterr()
    main(["table", run, "--format", "md"])
    alone = capsys.readouterr().out
    assert main(["table", run, "--format", "md", "--with", "published:975", "--with", "published:1002"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(alone.rstrip("\n"))
    assert "## Published: PR 975 (results of others, not part of the statistics" in text
    assert "16,145,336!" in text
    for number in (975, 1002):
        for caveat in results.published(number)["caveat"]:
            assert caveat in text
    assert main(["table", run, "--with", "published:975"]) == 0
    assert "Published: PR 975" in capsys.readouterr().out
    assert main(["table", run, "--with", "published:975", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert [arm["arm"] for arm in printed["arms"]] == ["base"]
    assert [row["arm"] for row in printed["published"]["975"]] == ["baseline", "+QNA", "+QNA+SQWA"]
    for arguments in (["--with", "published:1"], ["--with", "975"], ["--with", "published:975", "--format", "csv"]):
        assert main(["table", run, *arguments]) == 2
        assert capsys.readouterr().err.startswith("error: --with")
