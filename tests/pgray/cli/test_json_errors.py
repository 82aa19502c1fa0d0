"""With --json, an error of any verb is a JSON object on standard output, and the line on standard error stays."""

import json
from pathlib import Path

import pytest

from pgray.cli.entry import DATA_VERBS, VERBS, main

_EXTRA = {"import": ["--into", "x", "--arm", "a"], "pack": ["--arm", "a", "--out", "o"], "show": ["t"]}
_COMMANDS = [[name, "nowhere", *_EXTRA.get(name, [])] for name in VERBS if name not in ("list", "init")] + [
    ["data", name, *(["nowhere"] if name == "check" else ["--no-such-option"])] for name in DATA_VERBS
]


@pytest.mark.parametrize("command", _COMMANDS, ids=" ".join)
def test_every_verb_reports_errors_as_json(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    code = main([*command, "--json"])
    captured = capsys.readouterr()
    assert code == 2, captured
    record = json.loads(captured.out)
    if command[:2] != ["data", "check"]:  # lists the problems of the folder
        assert record["exit_code"] == 2
        assert captured.err == f"error: {record['error']}\n"


def test_the_parts_of_a_message_are_fields(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = tmp_path / "s.yaml"
    sweep.write_text("name: s\npreset: cpu-smoke\nsedes: [1]\narms: {a: {}}\n")
    assert main(["plan", str(sweep), "--json"]) == 2
    record = json.loads(capsys.readouterr().out)
    assert (record["key"], record["value"], record["origin"]) == ("sedes", "[1]", str(sweep))
    assert record["fix"] == "unknown key; did you mean seeds?"
