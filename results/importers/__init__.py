"""Foreign records -> rows: logs of the train_gpt.py family, and submission.json files.

`read_logs` gives one `ImportedRun` per run found. Every value keeps the file and line that it was read from; a value
that cannot be told is null with a reason. `store.py` keeps such rows in a run folder.
"""

from collections.abc import Iterable
from pathlib import Path

from results.importers.log import read_file
from results.importers.record import ImportedRun
from results.importers.run import imported_run
from results.importers.submission_json import read_submission

__all__ = ["ImportedRun", "read_logs", "read_submission"]


def read_logs(paths: str | Path | Iterable[str | Path]) -> list[ImportedRun]:
    """Every run in these files, in order; a `.json` file is read as a submission.json.

    Raises:
        InputError: a file cannot be read, or holds no run.
    """
    files = [paths] if isinstance(paths, (str, Path)) else list(paths)
    runs: list[ImportedRun] = []
    for path in map(Path, files):
        runs += read_submission(path) if path.suffix == ".json" else [imported_run(run) for run in read_file(path)]
    return runs
