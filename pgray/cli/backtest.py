"""`pgray backtest`: replay kill rules and seed racing on a finished run."""

import shlex
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from rich.table import Column, Table
from rich.text import Text

from pgray.cli.options import JsonOption, RunArgument, print_json, print_line, print_table, read_states, split_pairs
from pgray.spec.stopping import KillRule, Race, StoppingSection, StoppingSections
from pgray.stopping import backtest as replay
from trainer.errors import InputError
from trainer.presets.resolve import validate
from trainer.presets.yamlfile import parse_yaml, read_yaml
from trainer.records.layout import RunLayout
from trainer.section import Section

_Section = TypeVar("_Section", bound=Section)


def backtest(
    run: RunArgument,
    rule: Annotated[
        list[str] | None,
        typer.Option(
            "--rule",
            metavar="'KEY=VALUE ...'",
            help="A kill rule, for example 'arm=* metric=val_bpb worse_than_control_by=0.02 at=step after_frac=0.3'. "
            "Repeatable. Default: the rules and the race of RUN/sweep.yaml.",
        ),
    ] = None,
    race: Annotated[
        str | None,
        typer.Option(
            metavar="'KEY=VALUE ...'", help="A race, for example 'metric=sliding_bpb first=2 confidence=0.95'."
        ),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Number of best arms whose loss is reported.")] = 3,
    as_json: JsonOption = False,
) -> None:
    read_states(run)  # raises if this is not a run folder
    found = replay.backtest(run, _rules_to_replay(run, rule or [], race), top)
    if as_json:
        print_json(found.to_json())
    else:
        _show(found)


def _parse_section(model: type[_Section], text: str, option: str) -> _Section:
    """Parse `key=value key=value` as a section of a sweep file. Raises InputError that names the key."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise InputError(option, "text", text, f"cannot be read ({error}); write 'key=value key=value'") from None
    values: dict[str, object] = {**split_pairs(words, option, "metric=sliding_bpb")}
    for key, about in model.model_fields.items():
        if key in values and about.annotation in (int, float):  # not text: a bare `*` is an alias in YAML
            values[key] = parse_yaml(str(values[key]), f"{option} {key}")
    return validate(model, values, option)


def _rules_to_replay(run: Path, rules: list[str], race: str | None) -> list[StoppingSection]:
    """Return the stopping rules of the command line or, if there are none, of the run's sweep file."""
    given: list[StoppingSection] = [_parse_section(KillRule, text, "--rule") for text in rules]
    given += [] if race is None else [_parse_section(Race, race, "--race")]
    if given:
        return given
    sweep = RunLayout(run).sweep
    raw = read_yaml(sweep) if sweep.is_file() else {}
    keys = StoppingSections.model_fields.keys() & raw if isinstance(raw, dict) else ()
    found = validate(StoppingSections, {key: raw[key] for key in keys if raw[key] is not None}, str(sweep))
    if not found.stopping:
        raise InputError(str(sweep), "kill", "none", "has no rules and no race; give --rule or --race")
    return found.stopping


def _show(found: replay.Backtest) -> None:
    for line in found.rules:
        print_line(line, "dim")
    saved, value = (Column(name, justify="right") for name in ("saved, s", found.metric))
    table = Table("arm", "seed", "stopped", saved, value, "lost", Column("reason", overflow="fold"))
    for trial in found.stopped:
        where = "not started" if trial.step is None else f"step {trial.step} ({trial.share:.0%})"
        lost = {
            "better than the control": trial.beat_control,
            f"top {len(found.top)}": trial.is_top_arm,
            "WIN": trial.is_win,
        }
        table.add_row(
            Text(trial.arm),
            str(trial.seed),
            where,
            f"{trial.saved.gpu_s or trial.saved.wall_s:.0f}",
            "unknown" if trial.value is None else f"{trial.value:.4f}",
            ", ".join(name for name, is_lost in lost.items() if is_lost) or "nothing",
            Text(trial.reason.partition(" (rule ")[0], style="dim"),
        )
    if found.stopped:
        print_table(table)
    for note in found.notes:
        print_line(f"note: {note}", "yellow")
    print(found.text)
