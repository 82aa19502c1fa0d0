"""`pgray`: parse, call, print. One file per group of verbs; what they call is imported when a verb runs.

Exit codes: 0 all asked-for trials finished; 1 an internal error; 2 the input is wrong (one line, no traceback);
3 some trials failed; 4 paused by the budget, the breaker or a full disk; 130 interrupted. Nothing heavy (torch, ray,
pandas) is imported to show help.
"""

import errno
import sys
from collections.abc import Sequence

import typer

from pgray.cli import backtest as cli_backtest
from pgray.cli import control as cli_act
from pgray.cli import data as cli_data
from pgray.cli import imports as cli_import
from pgray.cli import inspect as cli_look
from pgray.cli import pack as cli_pack
from pgray.cli import report as cli_report
from pgray.cli import study as cli_study
from pgray.cli import sweep as cli_sweep
from trainer.errors import DataError, InputError

app = typer.Typer(
    name="pgray",
    help="Ablation sweeps you can trust: one YAML file in, one table out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
cli_sweep.add_to(app)
cli_look.add_to(app)
cli_report.add_to(app)
cli_study.add_to(app)
cli_import.add_to(app)
cli_pack.add_to(app)
cli_act.add_to(app)
cli_backtest.add_to(app)
cli_data.add_to(app)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line. Returns the exit code."""
    try:
        code = app(args=arguments, prog_name="pgray", standalone_mode=False)
    except (InputError, DataError) as error:
        return _refuse(str(error))
    except (KeyboardInterrupt, typer.Abort):
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output left, as in `pgray logs RUN TRIAL | head`
        sys.stderr.close()
        return 0
    except OSError as error:
        if error.filename is None and error.errno != errno.ENOSPC:
            raise
        return _refuse(f"{error.filename or 'standard output'}: {error.strerror}")
    except Exception as error:
        # Bad usage, as typer raises it; its class lives in different packages in different versions of typer.
        if hasattr(error, "format_message") and hasattr(error, "exit_code"):
            return _refuse(f"{error.format_message()} See pgray --help.") if error.format_message() else 2
        raise
    return code if isinstance(code, int) else 0


def _refuse(message: str) -> int:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
