"""The verbs of `pgray`, and the exit code of every error.

A verb's module is imported when the verb is called, so that `pgray --help` starts fast. To add a verb, write a function in a
module of this package and add a line to `VERBS`.

Exit codes: 0 all trials finished; 1 an internal error; 2 wrong input (one line, no traceback); 3 some trials failed;
4 paused by the budget, the circuit breaker or a full disk; 130 interrupted.
"""

import builtins
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module, metadata
from keyword import iskeyword
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from pgray.cli.streams import OutputError, discard_output, guard_output
from trainer.errors import DataError, InputError

# Name -> the module of its function, and the help text.
VERBS = {
    "plan": ("plan", "Check a sweep and forecast what a run would do. Launches nothing."),
    "init": ("plan", "Write an annotated sweep file to start from."),
    "run": ("run", "Run the trials that are not finished, then print the table. Never repeats a finished trial."),
    "list": ("status", "Print every run folder with its verdict, trials and age."),
    "status": ("status", "Print the status of every trial, and whether a driver is running."),
    "table": ("table", "Print the ablation table. `--format parquet` prints bytes: redirect it to a file."),
    "logs": ("logs", "Print the log of a trial, or of the driver if no trial is given."),
    "report": ("table", "Write RUN/report.html: table, charts, configs, failures and cost in one offline file."),
    "study": ("study", "Print the proposals of a search, the best ones, and how important each key is."),
    "confirm": ("run", "Run the best arms of a run again, on fresh seeds, as a sweep of their own."),
    "import": ("imports", "Import other people's run logs as rows. Values that cannot be determined are null."),
    "show": ("imports", "Print every column of a trial, and the file and line or the record it came from."),
    "pack": ("pack", "Check the challenge's rules, then write a submission folder that repeats the run."),
    "stop": ("control", "Stop a run's driver and all its jobs on this machine. `pgray run` resumes them."),
    "retry": ("control", "Queue failed trials for the next `pgray run`. Keeps their logs in attempt-N/."),
    "backtest": ("backtest", "Replay kill rules and seed racing on a finished run: what they save, what they lose."),
}
DATA_VERBS = {
    "build": ("data", "Build the embedded corpus from the documentation of installed packages. Needs no network."),
    "fetch": ("data", "Download published FineWeb shards from the Hugging Face hub, with their tokenizer."),
    "check": ("data", "Read every shard of a data folder and list all problems. Exit code 2 if there is one."),
}


def _hide_flag_types(params: Sequence[Any]) -> Any:
    """Remove `<bool>`, which typer prints beside a flag."""
    for param in params:
        if getattr(param, "is_flag", False):
            param.metavar = ""
    return params


class _Verb(TyperCommand):
    def get_params(self, ctx: Any) -> Any:
        return _hide_flag_types(super().get_params(ctx))


class _Group(TyperGroup):
    def get_params(self, ctx: Any) -> Any:
        return _hide_flag_types(super().get_params(ctx))


class _LazyVerb(TyperCommand):
    """A verb of which only the help text is known; its callback imports the module and returns the command."""

    def make_context(self, info_name: Any, args: Any, parent: Any = None, **extra: Any) -> Any:
        assert self.callback is not None
        return self.callback().make_context(info_name, args, parent, **extra)


def _loader(name: str, module: str, help_text: str) -> Callable[[], Any]:
    def load() -> Any:
        function = getattr(
            import_module(f"pgray.cli.{module}"), f"{name}_" if iskeyword(name) or hasattr(builtins, name) else name
        )
        verb = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        verb.command(name, help=help_text, cls=_Verb)(function)
        return typer.main.get_command(verb)

    return load


def _group(help_text: str, verbs: Mapping[str, tuple[str, str]], **settings: Any) -> typer.Typer:
    group = typer.Typer(cls=_Group, help=help_text, no_args_is_help=True, add_completion=False, **settings)
    for name, (module, text) in verbs.items():
        group.command(name, help=text, cls=_LazyVerb)(_loader(name, module, text))
    return group


app = _group(
    "Ablation sweeps you can trust: one YAML file in, one table out.",
    VERBS,
    name="pgray",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(is_asked: bool) -> None:
    if is_asked:
        print(f"pgray {metadata.version('pgray')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version.")
    ] = False,
) -> None:
    """Take the options that stand before a verb."""


app.add_typer(_group("Get training data and check it.", DATA_VERBS), name="data")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line. Returns the exit code. With --json an error is also a JSON object on standard output."""
    guard_output()
    given = list(sys.argv[1:] if arguments is None else arguments)
    is_json = "--json" in given
    try:
        code = _run(given)
        sys.stdout.flush()
    except (InputError, DataError) as error:
        return _refuse(str(error), is_json, **vars(error))
    except (KeyboardInterrupt, typer.Abort):
        print("interrupted", file=sys.stderr)
        return _print_error(130, "interrupted", is_json)
    except OutputError as error:
        discard_output()
        return 0 if error.is_closed else _refuse(f"{error.filename}: {error.strerror}", is_json)
    except OSError as error:
        return _refuse(f"{error.filename or _missing_folder(error)}: {error.strerror}", is_json)
    except Exception as error:
        # A usage error: typer's class for it is in different packages in different versions.
        if hasattr(error, "format_message") and hasattr(error, "exit_code"):
            return _refuse(_usage(error), is_json) if error.format_message() else 2
        _print_error(1, f"{type(error).__name__}: {error}", is_json)
        raise
    return code


def _usage(error: Any) -> str:
    """Return the message of a usage error, and where to read more. Some texts are pydantic's."""
    text = error.format_message().replace("Value error, ", "").replace("Input should be", "must be").rstrip(".")
    verb = getattr(getattr(error, "ctx", None), "command_path", "pgray")
    return f"{text}. See {verb} --help."


def _run(arguments: list[str]) -> int:
    """Run one command line as typer's own `main` does, which turns Ctrl-C and a closed pipe into exit codes silently."""
    command = typer.main.get_command(app)
    try:
        with command.make_context("pgray", arguments) as context:
            command.invoke(context)
    except typer.Exit as end:
        return int(end.exit_code)
    return 0


def _missing_folder(error: OSError) -> str:
    """Return what to say if the working folder has been deleted: no file is named then. Else raise the error again."""
    try:
        Path.cwd()
    except FileNotFoundError:
        return "the working folder has been deleted; go to another one"
    raise error


def _refuse(message: str, is_json: bool, **facts: object) -> int:
    line = " ".join(message.split())
    print(f"error: {line}", file=sys.stderr)
    return _print_error(2, line, is_json, **facts)


def _print_error(exit_code: int, message: str, is_json: bool, **facts: object) -> int:
    """Print an error as JSON if asked to. `facts`: the fields of the exception. Returns the exit code."""
    if is_json:
        plain = {name: str(fact) if _is_no_json(fact) else fact for name, fact in facts.items()}
        print(json.dumps({"error": message, "exit_code": exit_code, **plain}, indent=1))
    return exit_code


def _is_no_json(value: object) -> bool:
    """Whether JSON cannot hold a value, such as a date or an infinite number."""
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return True
    return False
