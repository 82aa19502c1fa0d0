"""One imported run: its columns, the lines they were read from, and why the others are null."""

import math
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from results.schema import NAMES
from trainer.errors import InputError
from trainer.limits import ARTIFACT_CAP_BYTES

Value = bool | int | float | str
BY_IMPORT = ("sweep", "arm", "trial_id", "source", "schema_version", "is_current")
"""Columns that `results/importers/store.py` fills in; every other one is in `columns` or in `nulls`."""
MAX_FILE_BYTES = 64 * 2**20
_MAX_INT = 2**53  # larger counts are not plausible, and a table could not hold them
_NEVER_IN_A_LOG = {
    "train_fingerprint": "a foreign run has no fingerprint",
    **dict.fromkeys(
        ("entropy_bytes", "export_s", "wall_s", "gpu_held_s", "cost_usd", "qat_coverage", "qat_is_live"),
        "the published scripts do not measure it",
    ),
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
    sources: dict[str, str]  # column -> "file:line"; "file:line,line" if it follows from several lines
    nulls: dict[str, str]  # column -> why it is null
    digest: str  # of the text that the run was read from
    claimed_bpb: float | None = None  # a score whose evaluation the file does not name; in no column

    def get(self, column: str) -> Any:
        return self.columns.get(column)


class RowBuilder:
    """Collects the columns of one run with their lines; the first value of a column counts."""

    def __init__(self, file: str) -> None:
        self.file = file.encode("utf-8", "replace").decode()  # a file name may not be valid Unicode
        self.columns: dict[str, Value] = {}
        self._lines: dict[str, tuple[int, ...]] = {}
        self._nulls: dict[str, str] = {}
        self._notes: list[str] = []

    def set(self, column: str, value: Value, *lines: int) -> None:
        if column in self.columns:
            return
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if number and not (math.isfinite(value) and abs(value) < _MAX_INT):  # type: ignore[arg-type]
            self.set_null(column, f"{value} at {self.at(*lines)} is not a usable number")
        else:
            self.columns[column], self._lines[column] = value, tuple(dict.fromkeys(lines))

    def set_null(self, column: str, reason: str) -> None:
        self._nulls.setdefault(column, reason)

    def add_note(self, text: str, *lines: int) -> None:
        self._notes.append(text)
        self._lines["notes"] = tuple(dict.fromkeys((*self._lines.get("notes", ()), *lines)))

    def set_derived(self, column: str, of: tuple[str, ...], value: Value) -> None:
        """Set a value that follows from the columns `of`: it gets their lines."""
        self.set(column, value, *(line for name in of for line in self._lines[name]))

    def set_gap_and_cap(self) -> None:
        """Derive quant_gap and is_within_cap."""
        lacking = [name for name in ("float_bpb", "post_quant_bpb") if not self.has(name)]
        if lacking:
            self.set_null("quant_gap", f"{' and '.join(lacking)} {'is' if len(lacking) == 1 else 'are'} null")
        else:
            gap = float(self.columns["post_quant_bpb"]) - float(self.columns["float_bpb"])
            self.set_derived("quant_gap", ("post_quant_bpb", "float_bpb"), gap)
        if self.has("artifact_bytes"):
            is_within = int(self.columns["artifact_bytes"]) <= ARTIFACT_CAP_BYTES
            self.set_derived("is_within_cap", ("artifact_bytes",), is_within)
        else:
            self.set_null("is_within_cap", "artifact_bytes is null")

    def why_null(self, column: str) -> str:
        return self._nulls.get(column, "not in the file")

    def lines_of(self, column: str) -> tuple[int, ...]:
        return self._lines.get(column, ())

    def has(self, *columns: str) -> bool:
        return all(name in self.columns for name in columns)

    def at(self, *lines: int) -> str:
        return f"{self.file}:{','.join(map(str, lines))}"

    def finish(self, label: str, digest: str, claimed_bpb: float | None = None) -> ImportedRun:
        if self._notes:
            self.columns["notes"] = "; ".join(dict.fromkeys(self._notes))
        reasons = {"notes": "no remark", "failure_kind": "no failure in the file", "reason": "no remark"}
        reasons |= _NEVER_IN_A_LOG | self._nulls
        unknown = [name for name in NAMES if name not in self.columns and name not in BY_IMPORT]
        return ImportedRun(
            label=label,
            columns={name: self.columns[name] for name in NAMES if name in self.columns},
            sources={name: self.at(*self._lines[name]) for name in NAMES if self._lines.get(name)},
            nulls={name: reasons.get(name, self.why_null(name)) for name in unknown},
            digest=digest,
            claimed_bpb=claimed_bpb,
        )


def read_text(path: Path) -> str:
    """Return the text of a foreign file; bytes that are not UTF-8 become U+FFFD.

    Raises:
        InputError: no such file, not readable, or too big to be a log.
    """
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise InputError(str(path), "file", f"{path.stat().st_size:,} bytes", "too big for a log; cut out the run")
        return path.read_bytes().decode("utf-8", errors="replace").removeprefix("\ufeff")
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        problem = getattr(error, "strerror", None) or str(error)
        raise InputError(str(path), "file", problem, "give the path of a run's log or a submission.json") from None
