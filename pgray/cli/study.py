"""`pgray study`: the proposals of a search, and its export to Optuna's dashboard."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from pgray.cli.options import JsonOption, RunArgument, print_json, print_line, print_table, read_states
from pgray.planning.planner import make_plan
from pgray.scheduler.provenance import launched_sweep
from pgray.search.proposals import Proposal
from pgray.search.study import MIN_FOR_IMPORTANCES, Study
from results.analysis.confirmation import confirmed_arms, selection_lines
from results.loading.study import StudySummary
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
    sort: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Order by this objective or constraint, or by proposal.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    read_states(run)  # raises if this is not a run folder
    layout = RunLayout(run)
    found = make_plan(launched_sweep(layout), layout=layout, reads_data=False).study
    if found is None:
        raise InputError(str(layout.sweep), "search", "missing", "this sweep has no search section; see pgray table")
    columns = found.columns
    if sort not in (None, "proposal", *columns):
        raise InputError("--sort", "column", sort, f"use proposal or one of {', '.join(columns)}")
    if to is not None:
        exported = found.export(to)
        if as_json:
            print(json.dumps({"run": str(run), **asdict(exported)}))
        else:
            print(f"{count_of(exported.num_trials, 'trial')} in study {exported.study} of {exported.storage}", end="; ")
            print(f"to see them: optuna-dashboard {exported.storage}")
    elif as_json:
        confirmed = [asdict(arm) for arm in confirmed_arms(run)]
        print_json({**found.summary(), "confirmed": confirmed})
    else:
        _show(found, found.proposals if sort == "proposal" else found.ranked(sort))
        for line in selection_lines(run, StudySummary.model_validate(found.summary())):
            print_line(line)


def _show(study: Study, proposals: Sequence[Proposal]) -> None:
    objectives = study.space.objectives
    limits = {bound.column: bound.text.removeprefix(f"{bound.column} ") for bound in study.search.bounds}
    best = [proposal.name for proposal in study.best()]
    table = Table("proposal")
    table.add_column("state", no_wrap=True)
    for name in study.columns:
        table.add_column(f"{name}\n{limits.get(name, '')}".strip(), justify="right")
    table.add_column("changes", overflow="fold", min_width=24)
    for proposal in proposals:
        score = study.score(proposal.name)
        broken = [f"{text.split()[0]} by {_number(over, None)}" for text, over in score.excess.items() if over > 0]
        state = f"breaks {' and '.join(broken)}" if broken else score.state
        values = [_number(score.means.get(name), score.stds.get(name)) for name in study.columns]
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
    if abs(mean) >= 1e5:  # bytes
        return f"{mean:,.0f}" if std is None else f"{mean:,.0f} ± {std:,.0f}"
    return f"{mean:.6g}" if std is None else f"{mean:.6g} ± {std:.2g}"


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else json.dumps(value)
