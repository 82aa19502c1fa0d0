"""`pgray study`: what a search has found so far, and its way into Optuna's dashboard."""

import json
from typing import TYPE_CHECKING, Annotated

import typer

from pgray.cli.inspect import JsonOption, RunArgument, read_states

if TYPE_CHECKING:
    from pgray.search.study import Study


def add_to(app: typer.Typer) -> None:
    app.command()(study)


def study(
    run: RunArgument,
    to: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Copy the search into this Optuna storage, such as sqlite:///searches.db, for optuna-dashboard.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """The proposals of a search, the best of them, and which keys mattered; while it runs or after."""
    from pgray.planning.planner import make_plan
    from pgray.scheduler.provenance import launched_sweep
    from trainer.errors import InputError
    from trainer.records.layout import RunLayout

    read_states(run)  # for its error about what is no run folder
    layout = RunLayout(run)
    searched = make_plan(launched_sweep(layout), layout=layout, reads_data=False).study
    if searched is None:
        raise InputError(str(layout.sweep), "search", "missing", "this sweep searches nothing; see pgray table")
    if to is not None:
        exported = searched.export(to)
        if as_json:
            print(json.dumps({"run": str(run), **exported}))
        else:
            print(f"{exported['num_trials']} trials in study {exported['study']} of {exported['storage']}", end="; ")
            print(f"look at them with: optuna-dashboard {exported['storage']}")
    elif as_json:
        print(json.dumps(searched.summary(), indent=1))
    else:
        _show(searched)


def _show(searched: "Study") -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    objectives = searched.space.objectives
    best = [proposal.name for proposal in searched.best()]
    lines = Table("proposal", "state", *objectives, "what it sets", box=None, padding=(0, 1))
    for proposal in searched.proposals:
        score = searched.score(proposal.name)
        state = "breaks a constraint" if score.state == "complete" and not score.is_feasible else score.state
        values = [_number(score.means.get(name), score.stds.get(name)) for name in objectives]
        changes = " ".join(f"{key}={_short(value)}" for key, value in proposal.changes.items())
        note = f" ({score.reason})" if score.reason else ""
        lines.add_row(proposal.name, "best" if proposal.name in best else state, *values, Text(changes + note))
    console = Console()
    console.print(lines)
    shares = searched.importances()
    told = ", ".join(f"{key} {share:.0%}" for key, share in shares.items()) or "from 20 feasible proposals on"
    console.print(
        Text(f"{len(searched.proposals)} of {searched.search.trials} proposals made, {searched.num_open} open")
    )
    console.print(
        Text(
            f"best by {' and '.join(f'{d} {name}' for name, d in objectives.items())}: {', '.join(best) or 'none yet'}"
        )
    )
    console.print(Text(f"share in being among the best tenth: {told}"))
    if searched.why_exhausted:
        console.print(Text(searched.why_exhausted))


def _number(mean: float | None, std: float | None) -> str:
    if mean is None:
        return ""
    return f"{mean:.6g}" if std is None else f"{mean:.6g} ± {std:.2g}"


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else json.dumps(value)
