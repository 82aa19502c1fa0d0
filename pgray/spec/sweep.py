"""A sweep: one YAML file that asks a question, as checked models, and what the command line changed in it.

`SweepFile` is the text as written; `Sweep` is that text with its preset loaded and its machine, seeds and control settled.
Which arms and trials follow from it is `expand.py`'s business. Grammar: contracts.md, section "Sweep file".
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pydantic import Field, ValidationError

from pgray.spec.budget import Budget
from pgray.spec.failure_policy import FailurePolicy
from pgray.spec.kill_rule import KillRule
from pgray.spec.race import Race
from pgray.spec.search import Search, check_constraint
from pgray.spec.sections import SweepSection
from trainer.errors import InputError
from trainer.presets.resolve import Preset, input_error, load_preset, preset_names
from trainer.presets.yamlfile import parse_yaml, read_text
from trainer.run.config import Machine

DESIGNS = ("arms", "grid", "one_factor", "leave_one_out", "search")
NOT_YET = ("script",)
_MAX_SEED = 2**31


class Resources(SweepSection):
    """What one job holds; a field left out is the preset's."""

    gpus: int | None = Field(None, ge=0)
    cpus: int | None = Field(None, ge=1)
    nodes: int | None = Field(None, ge=1)


class LeaveOneOut(SweepSection):
    """`full`: the arm with every part. `parts`: name -> what stands in when that part is left out.

    Each key of a part must be set in `full`. The part's value replaces it; the same value as in `full` means that the
    key falls back to the preset.
    """

    full: dict[str, Any]
    parts: dict[str, dict[str, Any]]


class PresetOverrides(SweepSection):
    """What stands in at one preset, where a value only makes sense at one size."""

    set: dict[str, Any] = Field(default_factory=dict)
    arms: dict[str, dict[str, Any]] = Field(default_factory=dict)
    constraints: dict[str, str] = Field(default_factory=dict)  # of a search


class SweepFile(SweepSection):
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=100)
    question: str = ""
    source: str = ""
    preset: str
    set: dict[str, Any] = Field(default_factory=dict)
    seeds: list[int]
    control: str | None = None
    arms: dict[str, dict[str, Any] | None] | None = None
    grid: dict[str, list[Any]] | None = None
    one_factor: dict[str, list[Any]] | None = None
    leave_one_out: LeaveOneOut | None = None
    search: Search | None = None
    where: list[str] = Field(default_factory=list)
    when: dict[str, str] = Field(default_factory=dict)
    at: dict[str, PresetOverrides] = Field(default_factory=dict)
    resources: Resources | None = None
    nproc: int | None = Field(None, ge=1)
    launcher: str | None = None
    budget: Budget | None = None
    kill: list[KillRule] = Field(default_factory=list)
    race: Race | None = None
    failures: FailurePolicy = Field(default_factory=FailurePolicy)

    @property
    def design(self) -> str:
        return next(name for name in DESIGNS if getattr(self, name, None) is not None)


@dataclass(frozen=True)
class Sweep:
    """A sweep that is ready to be expanded. Build it with `from_yaml` or `from_text`.

    `origin` names the file in errors; `text` is copied into the run folder; `overrides` are the `--set` overrides,
    which win over everything.
    """

    file: SweepFile
    origin: str
    text: str
    preset: Preset
    machine: Machine
    seeds: tuple[int, ...]
    overrides: Mapping[str, Any]

    @property
    def name(self) -> str:
        return self.file.name

    @property
    def sha(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def search(self) -> Search | None:
        """The search, with the constraints that stand in at the preset in use."""
        search, at = self.file.search, self.file.at.get(self.preset.name)
        if search is None or at is None or not at.constraints:
            return search
        return search.model_copy(update={"constraints": {**search.constraints, **at.constraints}})

    @property
    def failures(self) -> FailurePolicy:
        return self.file.failures

    @property
    def usd_per_gpu_hour(self) -> float | None:
        return self.file.budget.usd_per_gpu_hour if self.file.budget else None

    @classmethod
    def from_yaml(
        cls,
        path: str | Path,
        *,
        preset: str | None = None,
        seeds: Sequence[int] | None = None,
        overrides: Mapping[str, Any] | None = None,
    ) -> Self:
        """Read a sweep file.

        Args:
            path: the file.
            preset: replaces the file's preset, its `resources` and its `nproc`.
            seeds: replace the file's seeds.
            overrides: dotted key -> value for every arm, over everything the file says.
        Raises:
            InputError: names file, key, value and fix.
        """
        return cls.from_text(read_text(Path(path)), str(Path(path)), preset=preset, seeds=seeds, overrides=overrides)

    @classmethod
    def from_text(
        cls,
        text: str,
        origin: str = "<sweep>",
        *,
        preset: str | None = None,
        seeds: Sequence[int] | None = None,
        overrides: Mapping[str, Any] | None = None,
    ) -> Self:
        """As `from_yaml`, from the text of a sweep file; `origin` names it in errors."""
        file = _parse(text, origin)
        loaded = load_preset(preset or file.preset, "--preset" if preset else origin)
        machine = loaded.machine if preset else _machine(file, loaded.machine, origin)
        return cls(
            file=file,
            origin=origin,
            text=text,
            preset=loaded,
            machine=machine,
            seeds=_seeds(file.seeds, origin) if seeds is None else _seeds(seeds, "--seeds"),
            overrides=dict(overrides or {}),
        )


def _parse(text: str, origin: str) -> SweepFile:
    raw = parse_yaml(text, origin)
    if not isinstance(raw, dict):
        raise InputError(origin, "document", type(raw).__name__, "a sweep is a mapping with name, preset, seeds, arms")
    for keys, key in _keys(raw):
        if not isinstance(key, str):
            raise InputError(origin, ".".join([*keys, str(key)]), key, "a name must be text; put it in quotes")
    for key in NOT_YET:
        if key in raw:
            raise _not_yet(origin, key, "given", "remove it")
    designs = [name for name in DESIGNS if raw.get(name) is not None]
    if len(designs) != 1:
        found = " and ".join(designs) or "none"
        raise InputError(origin, "design", found, f"give exactly one of {', '.join(DESIGNS)}")
    try:
        file = SweepFile.model_validate(raw)
    except ValidationError as error:
        raise input_error(error, origin) from None
    if not raw[designs[0]]:
        raise InputError(origin, designs[0], raw[designs[0]], "is empty; name at least one")
    if file.when and file.design == "arms":
        raise InputError(origin, "when", "given", "arms are written out by hand; use when with grid or one_factor")
    for name, at in file.at.items():
        if at.constraints and file.search is None:
            raise InputError(origin, f"at.{name}.constraints", at.constraints, "is for a search; remove it")
        for column, text in at.constraints.items():
            check_constraint(column, text, f"{origin}: at.{name}")
    if file.when and file.design == "search":
        raise InputError(origin, "when", "given", "a search has its own; move it into search: {when: ...}")
    for name in file.at:
        if name not in preset_names():
            raise InputError(origin, f"at.{name}", name, f"unknown preset; use one of {', '.join(preset_names())}")
    return file


def _keys(node: Any, above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield above, key
            yield from _keys(value, (*above, str(key)))


def _not_yet(origin: str, key: str, value: object, fix: str) -> InputError:
    return InputError(origin, key, value, f"not supported yet; {fix}")


def _seeds(seeds: Sequence[int], origin: str) -> tuple[int, ...]:
    if not seeds:
        raise InputError(origin, "seeds", list(seeds), "give at least one seed, such as [42, 1337]")
    for index, seed in enumerate(seeds):
        if not 0 <= seed < _MAX_SEED:
            raise InputError(origin, f"seeds.{index}", seed, f"must be within 0..{_MAX_SEED - 1}")
        if seed in seeds[:index]:
            raise InputError(origin, f"seeds.{index}", seed, "the same seed twice gives the same trial; remove one")
    return tuple(seeds)


def _machine(file: SweepFile, default: Machine, origin: str) -> Machine:
    """The machine of one job: the file's resources, and the preset's where the file is silent."""
    asked = file.resources or Resources()
    gpus = default.gpus if asked.gpus is None else asked.gpus
    nproc = file.nproc
    if nproc is None and gpus == default.gpus:
        nproc = default.nproc
    elif nproc is None:
        nproc = gpus or 1
    if gpus and nproc > gpus:
        raise InputError(
            origin, "nproc", nproc, f"more ranks than the {gpus} GPUs of a job; one rank needs a GPU of its own"
        )
    nodes = asked.nodes or default.nodes
    launcher = file.launcher or ("torchrun" if nodes * nproc > 1 else default.launcher)
    return Machine(gpus=gpus, cpus=asked.cpus or default.cpus, nodes=nodes, nproc=nproc, launcher=launcher)
