"""The console that tables are printed on: as wide as the terminal, and of any width where the output goes to a file."""

from rich.console import Console

_ANY_WIDTH = 10_000


def open_console() -> Console:
    """Return a console on standard output. A file or a pipe has no width, so nothing is wrapped, cut or hidden there."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _ANY_WIDTH
    return console
