"""`pgray study`: the proposals of a search, and its export to Optuna's dashboard."""

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from pgray.cli.options import JsonOption, RunArgument, print_json, print_line, print_table, read_states
from pgray.planning.planner import make_plan
from pgray.scheduler.provenance import launched_sweep
from pgray.search.study import MIN_FOR_IMPORTANCES, Study
from trainer.errors import InputError
from trainer.records.layout import RunLayout
from trainer.records.text import count_of


def study(
    run: RunArgument,
    to: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Copy the search to this Optuna storage, for example sqlite:///searches.db, for optuna-dashboard.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    read_states(run)  # raises if this is not a run folder
    layout = RunLayout(run)
    found = make_plan(launched_sweep(layout), layout=layout, reads_data=False).study
    if found is None:
        raise InputError(str(layout.sweep), "search", "missing", "this sweep has no search section; see pgray table")
    if to is not None:
        exported = found.export(to)
        if as_json:
            print(json.dumps({"run": str(run), **asdict(exported)}))
        else:
            print(f"{count_of(exported.num_trials, 'trial')} in study {exported.study} of {exported.storage}", end="; ")
            print(f"to see them: optuna-dashboard {exported.storage}")
    elif as_json:
        print_json(found.summary())
    else:
        _show(found)


def _show(study: Study) -> None:
    objectives = study.space.objectives
    best = [proposal.name for proposal in study.best()]
    table = Table("proposal", "state", *objectives, "changes")
    for proposal in study.proposals:
        score = study.score(proposal.name)
        state = "breaks a constraint" if score.state == "complete" and not score.is_feasible else score.state
        values = [_number(score.means.get(name), score.stds.get(name)) for name in objectives]
        changes = " ".join(f"{key}={_short(value)}" for key, value in proposal.changes.items())
        note = f" ({score.reason})" if score.reason else ""
        table.add_row(proposal.name, "best" if proposal.name in best else state, *values, Text(changes + note))
    print_table(table)
    num_done = len(study.proposals) - study.num_open
    print_line(
        f"{num_done} of {study.search.trials} proposals done" + (f", {study.num_open} open" if study.num_open else "")
    )
    goals = " and ".join(f"{direction} {name}" for name, direction in objectives.items())
    print_line(f"best ({goals}): {', '.join(best) or 'none yet'}")
    if shares := study.importances():
        print_line(f"importance of each key: {', '.join(f'{key} {share:.0%}' for key, share in shares.items())}")
    else:
        num_feasible = sum(study.score(proposal.name).is_feasible for proposal in study.proposals)
        print_line(f"Importances need {MIN_FOR_IMPORTANCES} feasible proposals ({num_feasible} so far).")
    if study.why_exhausted:
        print_line(study.why_exhausted)


def _number(mean: float | None, std: float | None) -> str:
    if mean is None:
        return ""
    return f"{mean:.6g}" if std is None else f"{mean:.6g} ± {std:.2g}"


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else json.dumps(value)
