"""What is allowed in a sweep and probably not meant: warnings that follow from the configs alone. Each names its arms."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence

from pgray.spec.expand import Expansion, identical_arms
from trainer.config import Config
from trainer.model.shapes import parameter_shapes
from trainer.quant.tensor_plan import TensorPlan, plan_tensors


def plain_doubts(expansion: Expansion) -> list[str]:
    """What the configs alone show; one line per doubt."""
    found = [f"arms {' and '.join(names)} have the same configuration" for names in identical_arms(expansion.arms)]
    found += [f"dropped: {name}" for name in expansion.dropped]
    return found + by_arm({arm.name: list(_coverage_doubts(arm.config)) for arm in expansion.arms})


def by_arm(doubts: Mapping[str, Sequence[str]]) -> list[str]:
    """Doubts of each arm -> one line per doubt, the arms it concerns first."""
    concerned: dict[str, list[str]] = defaultdict(list)
    for name, found in doubts.items():
        for doubt in found:
            concerned[doubt].append(name)
    lines = []
    for doubt, names in concerned.items():
        who = "every arm" if len(names) == len(doubts) else f"arm{'s' * (len(names) > 1)} {', '.join(names)}"
        lines.append(f"{who}: {doubt}")
    return lines


def coverage(config: Config, touches: Callable[[TensorPlan], bool]) -> float:
    """Share of the elements stored as integers that a technique touches; 0 where nothing is stored as integers."""
    plans = plan_tensors(parameter_shapes(config), config.quant).values()
    total = sum(plan.int_elements for plan in plans)
    return sum(plan.int_elements for plan in plans if touches(plan)) / total if total else 0.0


def qat_coverage(config: Config) -> float | None:
    """What `qat_coverage` of the result will be; None with QAT off."""
    return coverage(config, lambda plan: plan.tensor_class in config.qat.scope) if config.qat.enabled else None


def _coverage_doubts(config: Config) -> Iterator[str]:
    if qat_coverage(config) == 0:
        yield "qat covers nothing: no tensor of the classes in qat.scope is stored as integers"
    for name, section in config.weight_techniques.items():
        if name == "qat" or not section.is_on:
            continue
        if not coverage(config, lambda plan: plan.scheme is not None):
            yield f"{name} covers nothing: no tensor is stored as integers"
        elif config.qat.enabled and config.qat.start.kind == "immediately":
            yield f"{name} never acts: it ends where QAT begins, and QAT is on from the start"
    if config.average.start == "qat" and config.average.kind in ("ema", "sqwa") and not config.qat.enabled:
        yield "the average never begins: average.start is qat, and QAT is off"
