"""Warnings about settings that are allowed in a sweep but probably not intended. They follow from the configs alone."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from pgray.spec.expand import Expansion, identical_arms
from trainer.config import Config
from trainer.model.shapes import parameter_shapes
from trainer.quant.tensor_plan import plan_tensors


def config_warnings(expansion: Expansion) -> list[str]:
    """Return one line per warning, each naming its arms."""
    found = [f"arms {' and '.join(names)} have the same configuration" for names in identical_arms(expansion.arms)]
    found += [f"dropped: {name}" for name in expansion.dropped]
    return found + merge_arms({arm.name: list(_coverage_warnings(arm.config)) for arm in expansion.arms})


def merge_arms(warnings: Mapping[str, Sequence[str]]) -> list[str]:
    """Turn the warnings of each arm into one line per distinct warning, which begins with the arms it concerns."""
    arms_with: dict[str, list[str]] = defaultdict(list)
    for arm, found in warnings.items():
        for warning in found:
            arms_with[warning].append(arm)
    lines = []
    for warning, arms in arms_with.items():
        which = "every arm" if len(arms) == len(warnings) else f"arm{'s' * (len(arms) > 1)} {', '.join(arms)}"
        lines.append(f"{which}: {warning}")
    return lines


def qat_coverage(config: Config) -> float | None:
    """Predict the column `qat_coverage`; None with QAT off."""
    if not config.qat.enabled:
        return None
    plans = plan_tensors(parameter_shapes(config), config.quant).values()
    total = sum(plan.int_elements for plan in plans)
    return sum(plan.int_elements for plan in plans if plan.tensor_class in config.qat.scope) / total if total else 0.0


def _coverage_warnings(config: Config) -> Iterator[str]:
    if qat_coverage(config) == 0:
        yield "qat covers nothing: no tensor of the classes in qat.scope is stored as integers"
    for name, section in config.weight_techniques.items():
        if name == "qat" or not section.is_on:
            continue
        if not any(plan.scheme for plan in plan_tensors(parameter_shapes(config), config.quant).values()):
            yield f"{name} covers nothing: no tensor is stored as integers"
        elif config.qat.enabled and config.qat.start.kind == "immediately":
            yield f"{name} has no effect: it ends when QAT starts, and QAT is on from the first step"
    schemes = [plan.scheme for plan in plan_tensors(parameter_shapes(config), config.quant).values() if plan.scheme]
    few = min((scheme.bits for scheme in schemes), default=8)
    if config.quant.clip_floor and few < 6:
        step = config.quant.clip_floor / (2 ** (few - 1) - 1)
        yield f"quant.clip_floor {config.quant.clip_floor:g} with {few} bits: no scale is below {step:.2g}; null removes it"
    if config.average.start == "qat" and config.average.kind in ("ema", "sqwa") and not config.qat.enabled:
        yield "the average never starts: average.start is qat, and QAT is off"
