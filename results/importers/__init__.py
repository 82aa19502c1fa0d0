"""Reads foreign records as rows: logs of the train_gpt.py family, and submission.json files.

A format is one module in this package with a function `read_runs(file, text)` that returns the runs in a text, or None if
the text has another format; nothing else needs to know it. Modules are asked in order of name. Every value keeps the file
and line that it was read from; a value that cannot be determined is null with a reason.
"""

import pkgutil
from collections.abc import Callable, Iterable
from importlib import import_module
from pathlib import Path

from results.importers.imported_run import ImportedRun, read_text
from trainer.errors import InputError

__all__ = ["ImportedRun", "read_logs", "readers"]

Reader = Callable[[str, str], list[ImportedRun] | None]
"""(file name, text) -> the runs in it, None if it is not this reader's format; raises InputError if it is broken."""


def readers() -> dict[str, Reader]:
    """Return the `read_runs` of every module in this package that has one, by module name."""
    modules = {found.name: import_module(f"{__name__}.{found.name}") for found in pkgutil.iter_modules(__path__)}
    return {name: module.read_runs for name, module in sorted(modules.items()) if hasattr(module, "read_runs")}


def read_logs(paths: str | Path | Iterable[str | Path]) -> list[ImportedRun]:
    """Return every run in these files, in order.

    Raises:
        InputError: a file cannot be read, has no known format, or is broken.
    """
    runs: list[ImportedRun] = []
    for path in [paths] if isinstance(paths, (str, Path)) else paths:
        text = read_text(Path(path))
        found = next((rows for read in readers().values() if (rows := read(str(path), text)) is not None), None)
        if found is None:
            fix = f"no run in a known format ({', '.join(readers())}); give a log that train_gpt.py wrote"
            raise InputError(str(path), "log", f"{len(text):,} characters", fix)
        runs += found
    return runs
