"""A sweep: the sections of its YAML file as checked models, and the options of the command line.

`SweepFile` is the file as written. `Sweep` adds the preset, the machine and the seeds in use. `pgray/spec/expand.py` turns
a sweep into arms and trials.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self, TypedDict, Unpack

from pydantic import Field

from pgray.spec.search import Search
from pgray.spec.sections import Budget, Confirmation, FailurePolicy, LeaveOneOut, PresetOverrides, Resources
from pgray.spec.stopping import StoppingSections
from trainer.errors import InputError
from trainer.presets.resolve import Preset, load_preset, preset_names, validate
from trainer.presets.yamlfile import MAX_CHARS, parse_yaml, read_text
from trainer.records.text import kind_of, suggestion
from trainer.run.config import Machine
from trainer.section import Rules

DESIGNS = ("arms", "grid", "one_factor", "leave_one_out", "search")
_MAX_SEED = 2**31


class SweepFile(StoppingSections):
    """A sweep file as written. Exactly one of the fields in `DESIGNS` is set."""

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
    names: dict[str, str] = Field(default_factory=dict)  # arm, or its automatic label -> label in tables and charts
    where: list[str] = Field(default_factory=list)
    when: dict[str, str] = Field(default_factory=dict)
    at: dict[str, PresetOverrides] = Field(default_factory=dict)
    resources: Resources | None = None
    nproc: int | None = Field(None, ge=1)
    launcher: str | None = None
    confirms: Confirmation | None = None
    budget: Budget | None = None
    failures: FailurePolicy = Field(default_factory=FailurePolicy)
    on_failed_seeds: Literal["incomplete", "ignore"] = "incomplete"

    @property
    def design(self) -> str:
        return next(name for name in DESIGNS if getattr(self, name) is not None)

    def rules(self) -> Rules:
        designs = [name for name in DESIGNS if getattr(self, name) is not None]
        found = " and ".join(designs) or "none"
        yield len(designs) != 1, "design", f"give exactly one of {', '.join(DESIGNS)}", found
        yield not getattr(self, self.design), self.design, "is empty; name at least one"
        yield self.when and self.arms, "when", "does not apply to arms; use when with grid or one_factor", "given"
        yield self.when and self.search, "when", "a search has its own; move it into search: {when: ...}", "given"
        for name, at in self.at.items():
            fix = f"unknown preset; {suggestion(name, preset_names())}"
            yield name not in preset_names(), f"at.{name}", fix, name
            is_unused = at.constraints and not self.search
            yield is_unused, f"at.{name}.constraints", "is for a search; remove it", at.constraints


class SweepOptions(TypedDict, total=False):
    """Options of a launch, which take precedence over the sweep file."""

    preset: str | None  # replaces the file's preset, its `resources` and its `nproc`
    seeds: Sequence[int] | None  # replace the file's seeds
    overrides: Mapping[str, Any] | None  # dotted key -> value, applied to every arm after everything in the file


@dataclass(frozen=True)
class Sweep:
    """A sweep that is ready to be expanded. Create it with `from_yaml` or `from_text`."""

    file: SweepFile
    origin: str  # names the file in errors
    text: str  # of the file; copied into the run folder
    preset: Preset
    machine: Machine
    seeds: tuple[int, ...]
    overrides: Mapping[str, Any]  # `--set`: dotted key -> value, applied last

    @property
    def name(self) -> str:
        return self.file.name

    @property
    def at(self) -> PresetOverrides:
        """The replacements for the preset in use."""
        return self.file.at.get(self.preset.name) or PresetOverrides()

    @property
    def search(self) -> Search | None:
        """The search, with the constraints for the preset in use."""
        search = self.file.search
        return search and search.model_copy(update={"constraints": search.constraints | self.at.constraints})

    @property
    def usd_per_gpu_hour(self) -> float | None:
        return self.file.budget.usd_per_gpu_hour if self.file.budget else None

    @property
    def warnings(self) -> list[str]:
        idle = self.file.budget.limits if self.file.budget and not self.machine.gpus else []
        return [f"budget.{key} limits nothing here: it counts GPU-hours, and a job holds no GPU" for key in idle]

    @classmethod
    def from_yaml(cls, path: str | Path, **options: Unpack[SweepOptions]) -> Self:
        """Read a sweep file. `options`: see `SweepOptions`. Raises InputError, which names file, key, value and fix."""
        return cls.from_text(read_text(Path(path), MAX_CHARS), str(Path(path)), **options)

    @classmethod
    def from_text(cls, text: str, origin: str = "<sweep>", **options: Unpack[SweepOptions]) -> Self:
        """Read the text of a sweep file, as `from_yaml` does. `origin` names it in errors."""
        preset, seeds = options.get("preset"), options.get("seeds")
        raw = parse_yaml(text, origin)
        if not isinstance(raw, dict):
            fix = "a sweep is a mapping with name, preset, seeds, arms"
            raise InputError(origin, "document", kind_of(raw), fix)
        if "script" in raw:
            raise InputError(origin, "script", "given", "not supported yet; remove it")
        file = validate(SweepFile, raw, origin)
        seeds_in_use = _check_seeds(file.seeds, origin) if seeds is None else _check_seeds(seeds, "--seeds")
        if file.confirms:
            _check_fresh(file.confirms, seeds_in_use, origin if seeds is None else "--seeds")
        loaded = load_preset(preset or file.preset, "--preset" if preset else origin)
        machine = loaded.machine if preset else _machine(file, loaded.machine, origin)
        if file.budget and file.budget.limits and not machine.gpus and not preset:
            fix = "would limit nothing: it counts GPU-hours, and a job holds no GPU; remove it, or set resources.gpus"
            raise InputError(origin, "budget", ", ".join(file.budget.limits), fix)
        return cls(
            file=file,
            origin=origin,
            text=text,
            preset=loaded,
            machine=machine,
            seeds=seeds_in_use,
            overrides=dict(options.get("overrides") or {}),
        )


def _check_seeds(seeds: Sequence[int], origin: str) -> tuple[int, ...]:
    if not seeds:
        raise InputError(origin, "seeds", list(seeds), "give at least one seed, such as [42, 1337]")
    seen: set[int] = set()
    for index, seed in enumerate(seeds):
        if not 0 <= seed < _MAX_SEED:
            raise InputError(origin, f"seeds.{index}", seed, f"must be within 0..{_MAX_SEED - 1}")
        if seed in seen:
            raise InputError(origin, f"seeds.{index}", seed, "the same seed twice gives the same trial; remove one")
        seen.add(seed)
    return tuple(seeds)


def _check_fresh(confirms: Confirmation, seeds: Sequence[int], origin: str) -> None:
    for seed in seeds:
        if seed in confirms.seeds:
            fix = f"was used in run {confirms.run}, which chose these arms by their luck on it; use fresh seeds"
            raise InputError(origin, "seeds", seed, fix)


def _machine(file: SweepFile, default: Machine, origin: str) -> Machine:
    """Return the machine of one job: the file's resources, with the preset's for those that it leaves out."""
    given = file.resources or Resources()
    gpus = default.gpus if given.gpus is None else given.gpus
    nproc = file.nproc or (default.nproc if gpus == default.gpus else gpus or 1)
    if gpus and nproc > gpus:
        fix = f"more ranks than the {gpus} GPUs of a job; each rank needs its own GPU"
        raise InputError(origin, "nproc", nproc, fix)
    nodes = given.nodes or default.nodes
    launcher = file.launcher or ("torchrun" if nodes * nproc > 1 else default.launcher)
    return Machine(gpus=gpus, cpus=given.cpus or default.cpus, nodes=nodes, nproc=nproc, launcher=launcher)
