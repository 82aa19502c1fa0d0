"""Reads and writes imported runs in a run folder: one file per row, `RUN/imported/<trial_id>.json`.

The caller holds the run's lock. The id hashes the text that the run was read from: importing a log twice gives one row.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict

from results.importers.imported_run import ImportedRun
from trainer.errors import InputError
from trainer.records.files import changed_problem, read_model, write_sealed
from trainer.records.fingerprint import digest, slug
from trainer.records.layout import RunLayout
from trainer.records.record import SCHEMA_VERSION
from trainer.records.results import HEADLINES, SCORES

_SOURCE_OF = (*HEADLINES, *SCORES, "float_bpb")  # the row's source is that of the first of these that it has
_MAX_SEED = 2**53


class StoredImport(BaseModel):
    """The content of one file."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    schema_version: int = SCHEMA_VERSION
    position: int  # order of import
    trial_id: str
    arm: str
    seed: int
    seed_source: str  # file and line, or the command line
    run: ImportedRun

    def row(self) -> dict[str, Any]:
        """Return the columns of `results.schema` without `sweep`, which the reader fills in."""
        main = next((self.run.sources[name] for name in _SOURCE_OF if name in self.run.sources), self.run.label)
        return self.run.columns | {
            "arm": self.arm,
            "seed": self.seed,
            "trial_id": self.trial_id,
            "source": f"imported: {main}",
            "schema_version": self.schema_version,
            "is_current": True,
        }


def plan_imports(
    runs: Sequence[ImportedRun],
    arm: str,
    seed: int | None,
    taken: Mapping[tuple[str, int], str],
    before: Sequence[StoredImport] = (),
) -> list[StoredImport]:
    """Give every run its arm, seed and trial id.

    Args:
        seed: for runs whose file does not give one; must not contradict the others.
        taken: (arm, seed) -> trial id of the rows already in the run folder.
        before: earlier imports of the folder; a run that is imported again keeps its position.
    Raises:
        InputError: a seed is unknown, contradicts `seed`, or occurs twice for this arm.
    """
    if not arm.strip() or any(not c.isprintable() for c in arm):
        raise InputError("--arm", "arm", arm, "give the name to show in the table")
    if seed is not None and not 0 <= seed < _MAX_SEED:
        raise InputError("--seed", "seed", seed, "give a whole number from 0")
    planned: dict[int, StoredImport] = {}
    positions = {stored.trial_id: stored.position for stored in before}
    for run in runs:
        stated = run.get("seed")
        if stated is None and seed is None:
            raise InputError(run.label, "seed", "unknown", f"{run.nulls['seed']}; give it with --seed")
        if stated is not None and seed not in (None, stated):
            fix = f"contradicts --seed {seed} ({run.sources['seed']}); omit --seed"
            raise InputError(run.label, "seed", stated, fix)
        own = int(seed or 0) if stated is None else int(stated)
        trial_id = f"{slug(arm)}-s{own}-{digest([arm, own, run.digest], 10)}"
        if own in planned and planned[own].trial_id != trial_id:
            fix = f"also in {planned[own].run.label}; select one with --only N, N = 1 to {len(runs)}"
            raise InputError(run.label, "seed", own, fix)
        if taken.get((arm, own), trial_id) != trial_id:
            fix = f"{arm} already has this seed ({taken[arm, own]}); give another --arm, or remove that row"
            raise InputError(run.label, "seed", own, fix)
        where = run.sources["seed"] if stated is not None else "--seed"
        position = positions.setdefault(trial_id, max(positions.values(), default=-1) + 1)
        planned[own] = StoredImport(position=position, trial_id=trial_id, arm=arm, seed=own, seed_source=where, run=run)
    return list(planned.values())


def write_imports(layout: RunLayout, imports: Iterable[StoredImport]) -> None:
    """Write one file per import, each atomically."""
    for stored in imports:
        write_sealed(layout.imported(stored.trial_id), stored.model_dump(mode="json"))


def read_imports(layout: RunLayout) -> tuple[list[StoredImport], list[str]]:
    """Return the imports of a run folder in the order of import, and a line per file that cannot be read."""
    found = {path: read_model(StoredImport, path) for path in sorted(layout.imports.glob("[!.]*.json"))}
    problems = [f"{path}: not an imported row; ignored" for path, stored in found.items() if stored is None]
    changed = (changed_problem(path) for path, stored in found.items() if stored)
    problems += [f"{problem}; import the log again" for problem in changed if problem]
    return sorted(filter(None, found.values()), key=lambda stored: stored.position), problems
