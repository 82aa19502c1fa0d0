"""`pgray pack`: one arm of a run as a submission folder, checked against the challenge's rules."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pgray.cli.inspect import JsonOption, RunArgument

if TYPE_CHECKING:
    from results.submission.gather import Submission
    from results.submission.rules import Rule

_STYLES = {"PASS": "green", "WARN": "yellow", "FAIL": "bold red"}


def add_to(app: typer.Typer) -> None:
    app.command()(pack)


def pack(
    run: RunArgument,
    arm: Annotated[str, typer.Option("--arm", metavar="NAME", help="The arm to submit.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="The new folder.")],
    control: Annotated[str | None, typer.Option(help="Arm to compare with; default: the sweep's control.")] = None,
    author: Annotated[str | None, typer.Option(help="Your name, for submission.json.")] = None,
    github: Annotated[str | None, typer.Option(help="Your GitHub id, for submission.json.")] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Write it although a rule is broken; the README says so.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """A submission folder: README, submission.json, logs, and a train_gpt.py that repeats the run. Checks the rules."""
    from results.submission.folder import AUTHOR_PLACEHOLDER, GITHUB_PLACEHOLDER, refuse_unless_new, write_folder
    from results.submission.gather import gather
    from results.submission.rules import check, failed

    refuse_unless_new(out)
    submission = gather(run, arm, control or None)
    rules = check(submission)
    broken = failed(rules)
    if broken and not force:
        _refuse(run, arm, broken)
    files = write_folder(submission, rules, out, author or AUTHOR_PLACEHOLDER, github or GITHUB_PLACEHOLDER)
    if as_json:
        print(json.dumps(_record(submission, rules, out, files), indent=1))
    else:
        _print(rules, out, files, has_author=bool(author and github))


def _refuse(run: Path, arm: str, broken: "Sequence[Rule]") -> None:
    from trainer.errors import InputError

    first, *others = broken
    said = f"must be {first.limit}" + (f" ({first.note})" if first.note else "")
    if others:
        said += f"; {len(others)} more broken: {', '.join(rule.name for rule in others)}"
    raise InputError(f"{run}: arm {arm}", first.name, first.measured, f"{said}; --force writes the folder all the same")


def _record(submission: "Submission", rules: "Sequence[Rule]", out: Path, files: list[str]) -> dict[str, Any]:
    return {
        "out": str(out),
        "arm": submission.arm,
        "seeds": [row["seed"] for row in submission.rows],
        "bytes_code": len(submission.code),
        "rules": [dataclasses.asdict(rule) for rule in rules],
        "files": files,
    }


def _print(rules: "Sequence[Rule]", out: Path, files: list[str], has_author: bool) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("", "rule", "measured", "limit", box=None, padding=(0, 1), pad_edge=False)
    table.add_column("note", overflow="fold")
    for rule in rules:
        status = Text(rule.status, style=_STYLES[rule.status])
        table.add_row(status, rule.name, Text(rule.measured), Text(rule.limit), Text(rule.note, style="dim"))
    Console(highlight=False).print(table)
    print(f"{out}: {', '.join(files)}")
    if not has_author:
        print("submission.json has a placeholder for its author: give --author and --github, or edit it")
