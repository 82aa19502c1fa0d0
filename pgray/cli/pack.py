"""`pgray pack`: write one arm of a run as a submission folder, after checking the challenge's rules."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from pgray.cli.options import ControlOption, JsonOption, RunArgument, print_json, print_table
from results.submission.folder import AUTHOR_PLACEHOLDER, GITHUB_PLACEHOLDER, refuse_unless_new, write_folder
from results.submission.gather import gather
from results.submission.rules import Rule, check, failed
from trainer.errors import InputError

_STYLES = {"PASS": "green", "WARN": "yellow", "FAIL": "bold red"}


def pack(
    run: RunArgument,
    arm: Annotated[str, typer.Option("--arm", metavar="NAME", help="The arm to submit.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="The new folder.")],
    control: ControlOption = None,
    author: Annotated[str | None, typer.Option(help="Your name, for submission.json.")] = None,
    github: Annotated[str | None, typer.Option(help="Your GitHub id, for submission.json.")] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Write the folder even if a rule is broken; its README reports the rule.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    refuse_unless_new(out)
    submission = gather(run, arm, control or None)
    rules = check(submission)
    broken = failed(rules)
    if broken and not force:
        _refuse(run, arm, broken)
    files = write_folder(submission, rules, out, author or AUTHOR_PLACEHOLDER, github or GITHUB_PLACEHOLDER)
    if as_json:
        print_json(
            {
                "out": str(out),
                "arm": submission.arm,
                "seeds": [row["seed"] for row in submission.rows],
                "bytes_code": len(submission.code),
                "rules": [asdict(rule) for rule in rules],
                "files": files,
            }
        )
    else:
        _print(rules, out, files, has_author=bool(author and github))


def _refuse(run: Path, arm: str, broken: Sequence[Rule]) -> None:
    first, *others = broken
    problem = f"must be {first.limit}" + (f" ({first.note})" if first.note else "")
    if others:
        problem += f"; {len(others)} more broken: {', '.join(rule.name for rule in others)}"
    raise InputError(f"{run}: arm {arm}", first.name, first.measured, f"{problem}; --force writes the folder anyway")


def _print(rules: Sequence[Rule], out: Path, files: list[str], has_author: bool) -> None:
    table = Table("", "rule", "measured", "limit")
    table.add_column("note", overflow="fold")
    for rule in rules:
        status = Text(rule.status, style=_STYLES[rule.status])
        table.add_row(status, rule.name, Text(rule.measured), Text(rule.limit), Text(rule.note, style="dim"))
    print_table(table)
    print(f"{out}: {', '.join(files)}")
    if not has_author:
        print("submission.json has a placeholder for its author: give --author and --github, or edit the file")
