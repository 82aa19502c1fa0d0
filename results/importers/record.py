"""One imported run: its columns, where each value stands, and why the others are null."""

import math
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from results.schema import NAMES
from trainer.errors import InputError

Value = bool | int | float | str
BY_IMPORT = ("sweep", "arm", "trial_id", "source", "schema_version", "is_current")
"""Columns that whoever stores the run fills in; all others are in `columns` or in `nulls`."""
MAX_FILE_BYTES = 64 * 2**20
_MAX_INT = 2**53  # beyond this no count in a log is meant seriously, and a table could not hold it
_NEVER_IN_A_LOG = {
    "train_fingerprint": "a foreign run has no fingerprint",
    "entropy_bytes": "the published scripts do not measure it",
    "export_s": "the published scripts do not measure it",
    "wall_s": "the published scripts do not measure it",
    "gpu_held_s": "the published scripts do not measure it",
    "cost_usd": "the published scripts do not measure it",
    "qat_coverage": "the published scripts do not measure it",
    "qat_is_live": "the published scripts do not measure it",
    "node": "not in the file",
    "git_sha": "not in the file",
    "data_sha": "not in the file: only a path",
    "tokenizer_sha": "not in the file: only a path",
}


class ImportedRun(BaseModel):
    """A row read from a foreign file, without the columns of `BY_IMPORT`."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)
    label: str  # file and lines
    columns: dict[str, Value]  # column -> value, known ones only
    sources: dict[str, str]  # column -> "file:line", or "file:line,line" where it follows from several
    nulls: dict[str, str]  # column -> why it is null
    digest: str  # of the text that the run was read from
    claimed_bpb: float | None = None  # a score whose kind of evaluation the file does not say; in no column

    def get(self, column: str) -> Any:
        return self.columns.get(column)


class Findings:
    """Collects columns with their lines; the first value found for a column stays."""

    def __init__(self, file: str) -> None:
        self.file = file.encode("utf-8", "replace").decode()  # a name may hold what JSON cannot
        self.columns: dict[str, Value] = {}
        self._lines: dict[str, tuple[int, ...]] = {}
        self._nulls: dict[str, str] = {}
        self._notes: list[str] = []

    def found(self, column: str, value: Value, *lines: int) -> None:
        if column in self.columns:
            return
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if number and not (math.isfinite(value) and abs(value) < _MAX_INT):  # type: ignore[arg-type]
            self.missing(column, f"{value} at {self.at(*lines)} is no usable number")
        else:
            self.columns[column], self._lines[column] = value, tuple(dict.fromkeys(lines))

    def missing(self, column: str, reason: str) -> None:
        self._nulls.setdefault(column, reason)

    def note(self, text: str, *lines: int) -> None:
        self._notes.append(text)
        self._lines["notes"] = tuple(dict.fromkeys((*self._lines.get("notes", ()), *lines)))

    def derived(self, column: str, of: tuple[str, ...], value: Value) -> None:
        """A value that follows from other columns; its lines are theirs."""
        self.found(column, value, *(line for name in of for line in self._lines[name]))

    def reason(self, column: str) -> str:
        return self._nulls.get(column, "no line of the file says it")

    def lines(self, column: str) -> tuple[int, ...]:
        return self._lines.get(column, ())

    def has(self, *columns: str) -> bool:
        return all(name in self.columns for name in columns)

    def at(self, *lines: int) -> str:
        return f"{self.file}:{','.join(map(str, lines))}"

    def finish(self, label: str, digest: str, claimed_bpb: float | None = None) -> ImportedRun:
        if self._notes:
            self.columns["notes"] = "; ".join(dict.fromkeys(self._notes))
        reasons = {"notes": "no remark", "failure_kind": "no failure seen", "reason": "nothing to say"}
        reasons |= _NEVER_IN_A_LOG | self._nulls
        unknown = [name for name in NAMES if name not in self.columns and name not in BY_IMPORT]
        return ImportedRun(
            label=label,
            columns={name: self.columns[name] for name in NAMES if name in self.columns},
            sources={name: self.at(*self._lines[name]) for name in NAMES if self._lines.get(name)},
            nulls={name: reasons.get(name, self.reason(name)) for name in unknown},
            digest=digest,
            claimed_bpb=claimed_bpb,
        )


def read_text(path: Path) -> str:
    """The text of a foreign file; bytes that are no UTF-8 become U+FFFD.

    Raises:
        InputError: no such file, not readable, or too big to be a log.
    """
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise InputError(str(path), "file", f"{path.stat().st_size:,} bytes", "too big for a log; cut the run out")
        return path.read_bytes().decode("utf-8", errors="replace").removeprefix("\ufeff")
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        problem = getattr(error, "strerror", None) or str(error)
        raise InputError(str(path), "file", problem, "give the path of a run's log or a submission.json") from None
