"""`pgray backtest`: what kill rules and seed racing would have done to a run, before they are let loose on one."""

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from pgray.cli.inspect import JsonOption, RunArgument, read_states

if TYPE_CHECKING:
    from pgray.spec.kill_rule import KillRule
    from pgray.spec.race import Race
    from pgray.spec.sections import SweepSection
    from pgray.stopping.backtest import Backtest

_Section = TypeVar("_Section", bound="SweepSection")


def add_to(app: typer.Typer) -> None:
    app.command()(backtest)


def backtest(
    run: RunArgument,
    rule: Annotated[
        list[str] | None,
        typer.Option(
            "--rule",
            metavar="'KEY=VALUE ...'",
            help="A kill rule, such as 'arm=* metric=val_bpb worse_than_control_by=0.02 at=step after_frac=0.3'; "
            "may be repeated. Default: the rules and the race of RUN/sweep.yaml.",
        ),
    ] = None,
    race: Annotated[
        str | None,
        typer.Option(metavar="'KEY=VALUE ...'", help="A race, such as 'metric=sliding_bpb first=2 confidence=0.95'."),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="How many of the best arms to watch over.")] = 3,
    as_json: JsonOption = False,
) -> None:
    """Replay kill rules and seed racing over a finished run: what they save, and what they would have lost."""
    from pgray.stopping.backtest import backtest as replay

    read_states(run)  # for its error about what is no run folder
    rules, raced = _asked(run, rule or [], race)
    found = replay(run, rules, raced, top)
    if as_json:
        print(json.dumps(found.to_json(), indent=1))
    else:
        _show(found)


def parse_section(model: type[_Section], text: str, place: str) -> _Section:
    """`key=value key=value` as a section of a sweep file. Raises InputError naming the key."""
    from pydantic import ValidationError

    from trainer.errors import InputError
    from trainer.presets.resolve import input_error
    from trainer.presets.yamlfile import parse_yaml

    try:
        words = shlex.split(text)
    except ValueError as error:
        raise InputError(place, "text", text, f"cannot be read ({error}); write 'key=value key=value'") from None
    values: dict[str, object] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or key in values:
            problem = "given twice; give it once" if equals else "no value; write key=value"
            raise InputError(place, key, word, problem)
        is_number = key in model.model_fields and model.model_fields[key].annotation in (int, float)
        values[key] = parse_yaml(value, f"{place} {key}") if is_number else value  # `*` alone means something in YAML
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise input_error(error, place) from None


def _asked(run: Path, rules: list[str], race: str | None) -> "tuple[list[KillRule], Race | None]":
    """The rules and the race to replay: those given, else those of the run's sweep file."""
    from pydantic import ValidationError

    from pgray.spec.kill_rule import KillRule
    from pgray.spec.race import Race
    from trainer.errors import InputError
    from trainer.presets.resolve import input_error
    from trainer.presets.yamlfile import read_yaml
    from trainer.records.layout import RunLayout

    given = [parse_section(KillRule, text, "--rule") for text in rules]
    if given or race is not None:
        return given, None if race is None else parse_section(Race, race, "--race")
    sweep = RunLayout(run).sweep
    raw = read_yaml(sweep) if sweep.is_file() else {}
    kill, raced = (raw.get("kill") or [], raw.get("race")) if isinstance(raw, dict) else ([], None)
    if not kill and raced is None:
        raise InputError(str(sweep), "kill", "none", "has no rules and no race; give --rule or --race")
    try:
        found = [KillRule.model_validate(rule) for rule in kill]
        return found, None if raced is None else Race.model_validate(raced)
    except ValidationError as error:
        raise input_error(error, str(sweep), "kill") from None


def _show(found: "Backtest") -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    for line in found.rules:
        console.print(Text(line, style="dim"), soft_wrap=True)
    table = Table("arm", "seed", "stopped", box=None, padding=(0, 1), pad_edge=False)
    for heading in ("saves, s", found.metric, "would have been lost"):
        table.add_column(heading, justify="right" if heading != "would have been lost" else "left")
    table.add_column("why", overflow="fold")
    for trial in found.stopped:
        where = "not begun" if trial.step is None else f"step {trial.step} ({trial.share:.0%})"
        lost = {
            "better than the control": trial.beat_control,
            f"top {len(found.top)}": trial.is_top_arm,
            "WIN": trial.is_win,
        }
        value = "unknown" if trial.value is None else f"{trial.value:.4f}"
        table.add_row(
            Text(trial.arm),
            str(trial.seed),
            where,
            f"{trial.saved.gpu_s or trial.saved.wall_s:.0f}",
            value,
            ", ".join(what for what, is_so in lost.items() if is_so) or "nothing",
            Text(trial.reason.partition(" (rule ")[0], style="dim"),
        )
    if found.stopped:
        console.print(table)
    for note in found.notes:
        console.print(Text(f"note: {note}", style="yellow"), soft_wrap=True)
    print(found.text)
