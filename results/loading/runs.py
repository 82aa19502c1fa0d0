"""Reads run folders into one DataFrame with a row for every trial: finished, failed, killed, queued.

The ledger holds the trials and their states; `trials/<id>/result.json` holds the numbers of finished ones. Rows imported
from foreign logs (`imported/`) come after the run's own trials. A ledger line or result that cannot be read becomes a
visible reason, never a crash or a missing row. No pickle is read.
"""

import glob
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import ValidationError, create_model

from results.importers.store import read_imports
from results.loading.configs import config_columns
from results.loading.hard_limits import is_within_cap, size_note
from results.loading.lookup import sweep_names
from results.loading.older_records import fill_older
from results.loading.remote import copy_runs
from results.loading.slow_nodes import slow_node_notes
from results.schema import NAMES, Row, frame
from trainer.errors import InputError
from trainer.presets.yamlfile import read_yaml
from trainer.records.files import is_changed, read_json
from trainer.records.layout import RunLayout
from trainer.records.ledger import LedgerEntry, job_costs, last_entries, newest_trials, read_ledger
from trainer.records.record import Record
from trainer.records.results import TrialResult
from trainer.records.states import TrialState

# A TrialResult without its lists: they are not columns, and take nine tenths of the time of reading one.
_FIELDS: dict[str, Any] = {
    name: (field.annotation, field)
    for name, field in TrialResult.model_fields.items()
    if name not in ("tensors", "antilayer")
}
_Scalars = create_model("_Scalars", __base__=Record, **_FIELDS)
_FROM_RESULT = tuple(n for n in NAMES if n in TrialResult.model_fields and n not in ("trial_id", "seed", "notes"))

_FROM_LEDGER = ("sweep", "arm", "seed", "trial_id", "train_fingerprint", "config_sha", "failure_kind", "source", "node")


def load(runs: str | Path | Iterable[str | Path], *, configs: bool = False) -> pd.DataFrame:
    """Return the trials of one or several run folders.

    Args:
        runs: a run folder, a glob pattern such as "runs/qat-*", an address such as "s3://bucket/runs/qat-*" (its small
            files are copied: `results/loading/remote.py`), or a list of these.
        configs: add a column for each config key, such as `optim.matrix_lr`; null in imported rows and before a launch.
    Returns:
        The columns of `results.schema`, one row per trial; rows in the order in which trials first appear in the
        ledger, runs in the order given (a glob's in name order). `attrs`: `runs` (folders), `problems` (unreadable
        files), and for a single run `sweep`, `question`, `control`, `on_failed_seeds` and `names` (labels of arms).
    Raises:
        InputError: no run folder there.
    """
    folders = _folders([runs] if isinstance(runs, (str, Path)) else runs)
    rows: list[Row] = []
    problems: list[str] = []
    paths: list[Path] = []
    for folder in folders:
        layout = RunLayout(folder)
        new_rows, new_problems = _load_run(layout)
        rows += new_rows
        paths += [layout.trial(str(row["trial_id"])).config for row in new_rows] if configs else []
        problems += new_problems
    for row, note in zip(rows, slow_node_notes(rows), strict=True):
        known = dict.fromkeys(NAMES) | row
        row["notes"] = "; ".join(filter(None, (row.get("notes"), note, size_note(known)))) or None
        row["is_within_cap"] = is_within_cap(known)
    trials = frame(rows).join(config_columns(paths)) if configs else frame(rows)
    trials.attrs = {"runs": [str(f) for f in folders], "problems": problems}
    if len(folders) == 1:
        about, problem = read_sweep(RunLayout(folders[0]))
        trials.attrs.update(about)
        problems += [problem] if problem else []
    return trials


def read_sweep(layout: RunLayout) -> tuple[dict[str, Any], str | None]:
    """Return `sweep`, `question`, `control`, `names`, `on_failed_seeds` and `data_warnings` of a run, and the problem with
    sweep.yaml if any.

    `question` and `control` are None where not given. The control is that of the latest launch (provenance.json: some
    designs do not name it in the sweep file), else that of sweep.yaml. A missing or broken file is not an error: a table
    can be made without it.
    """
    about: dict[str, Any] = {"sweep": layout.root.resolve().name, "question": None, "control": None}
    about["on_failed_seeds"] = "incomplete"
    raw: Any = {}
    problem = None
    if layout.sweep.is_file():
        try:
            raw = read_yaml(layout.sweep)
        except InputError as error:
            problem = str(error)
        if not isinstance(raw, dict):
            raw, problem = {}, f"{layout.sweep}: not a mapping"
    for key, name in (("sweep", "name"), ("question", "question"), ("control", "control")):
        if isinstance(raw.get(name), str) and raw[name].strip():
            about[key] = " ".join(raw[name].split())
    if raw.get("on_failed_seeds") == "ignore":
        about["on_failed_seeds"] = "ignore"
    launch = read_json(layout.provenance)
    if isinstance(launch.get("control"), str):
        about["control"] = launch["control"]
    about["data_warnings"] = [str(warning) for warning in launch.get("data_warnings", [])]
    about["names"] = sweep_names(layout)
    return about, problem


def current_trials(folder: Path) -> dict[tuple[str, int], str]:
    """Return (arm, seed) -> trial id of the rows that a folder already has, imported or run here; {} for a new folder."""
    layout = RunLayout(folder)
    own = newest_trials(read_ledger(layout.ledger)[0])
    return own | {(stored.arm, stored.seed): stored.trial_id for stored in read_imports(layout)[0]}


def _is_run(folder: Path) -> bool:
    layout = RunLayout(folder)
    return layout.ledger.is_file() or layout.imports.is_dir()


def _folders(runs: Iterable[str | Path]) -> list[Path]:
    folders: list[Path] = []
    for run in runs:
        path = Path(run)
        if path.is_dir() and not _is_run(path):
            raise InputError(str(path), "ledger.jsonl", "missing", "not a run folder; give the folder that contains it")
        if isinstance(run, str) and "://" in run:
            found = copy_runs(run)
        else:
            found = [path] if path.is_dir() else [Path(name) for name in sorted(glob.glob(str(run)))]  # noqa: PTH207
        if not (known := [folder for folder in found if _is_run(folder)]):
            fix = "no such run folder; give the path that `pgray run` printed"
            raise InputError("results.load", "run", str(run), fix)
        folders += [folder for folder in known if folder not in folders]
    return folders


def _load_run(layout: RunLayout) -> tuple[list[Row], list[str]]:
    entries, problems = read_ledger(layout.ledger)
    newest = newest_trials(entries)
    costs: dict[str, list[LedgerEntry]] = {}  # per trial
    for (trial_id, _), entry in job_costs(entries).items():
        costs.setdefault(trial_id, []).append(entry)
    rows = []
    for trial_id, entry in last_entries(entries).items():
        current = newest.get((entry.arm, entry.seed))  # None if only an older configuration of the arm has this seed
        row, problem = _row(layout, entry)
        row |= _total_cost(costs.get(trial_id, []))
        by = f" by {current}" if current else ""
        replaced = f"superseded{by}: the sweep has since given this arm another configuration"
        reasons = [entry.reason, problem, replaced if current != trial_id else None]
        row["reason"] = "; ".join(filter(None, reasons)) or None
        row["is_current"] = current == trial_id
        problems += [f"{trial_id}: {problem}"] if problem else []
        rows.append(row)
    imports, unreadable = read_imports(layout)
    name = read_sweep(layout)[0]["sweep"] if imports else None
    run_here = {(entry.arm, entry.seed): entry.trial_id for entry in entries}
    for stored in imports:
        own = run_here.get((stored.arm, stored.seed))  # run here after the import: one row of the two must count
        superseded = {"is_current": False, "reason": f"superseded by {own}, run here"} if own else {}
        rows.append(stored.row() | {"sweep": name} | superseded)
    return rows, problems + unreadable


def _total_cost(jobs: list[LedgerEntry]) -> dict[str, float | None]:
    """Return the cost over all attempts, failed ones included. If one price is unknown, so is the sum."""
    prices = [job.cost_usd for job in jobs if job.cost_usd is not None]
    return {
        "gpu_held_s": sum(job.gpu_held_s or 0.0 for job in jobs) if jobs else None,
        "cost_usd": sum(prices) if jobs and len(prices) == len(jobs) else None,
    }


def _row(layout: RunLayout, entry: LedgerEntry) -> tuple[Row, str | None]:
    """Return one trial's row and the problem with its result file. Only a finished trial has numbers."""
    row: Row = {name: getattr(entry, name) for name in _FROM_LEDGER} | {"status": entry.state}
    if entry.state != TrialState.FINISHED:
        return row, None
    path = layout.trial(entry.trial_id).result
    try:
        stat = path.stat()
        values = _read_result(path, stat.st_mtime_ns, stat.st_size)
    except FileNotFoundError:
        return row, "result.json is missing, so its numbers are unknown"
    except (OSError, ValueError) as error:
        return row, f"result.json cannot be read, so its numbers are unknown ({first_line(error)})"
    if values["trial_id"] != entry.trial_id or values["seed"] != entry.seed:
        return row, f"result.json is that of {values['trial_id']} seed {values['seed']}, so it is not used"
    row = fill_older(layout, row | {name: values[name] for name in (*_FROM_RESULT, "notes")})
    tokens = values["scored_tokens"]
    row["bytes_per_token"] = values["scored_bytes"] / tokens if tokens else None
    if not values["is_changed"]:
        return row, None
    problem = f"trials/{entry.trial_id}/result.json has been changed since it was written"
    row["notes"] = "; ".join(filter(None, (row["notes"], problem)))
    return row, f"{problem}; run the sweep again to repeat the trial"


@lru_cache(maxsize=100_000)
def _read_result(path: Path, mtime_ns: int, num_bytes: int) -> Row:  # noqa: ARG001
    """Read the columns from a result file. Cached by its time and size: the table is rewritten after every trial."""
    content = path.read_bytes()
    result: Any = _Scalars.model_validate_json(content)
    notes = "; ".join(result.notes) or None
    values = {n: getattr(result, n) for n in (*_FROM_RESULT, "trial_id", "seed")}
    return values | {"notes": notes, "is_changed": is_changed(content)}


def first_line(error: Exception) -> str:
    """Return the first problem of an error in one line."""
    if isinstance(error, ValidationError):
        detail = error.errors(include_url=False, include_input=False)[0]
        return ": ".join([".".join(map(str, detail["loc"])), detail["msg"]] if detail["loc"] else [detail["msg"]])
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def current(trials: pd.DataFrame) -> pd.DataFrame:
    """Return the trials of each arm's current configuration; a null or absent is_current counts as true."""
    if "is_current" not in trials:
        return trials
    return trials[trials["is_current"].astype("boolean").fillna(True)]
