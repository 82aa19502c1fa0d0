"""What is allowed in a sweep and probably not meant: the plan's warnings, each naming the arms it concerns."""

from collections import defaultdict
from collections.abc import Iterator

from pgray.expand import Expansion, identical_arms
from trainer.config import Config


def plain_doubts(expansion: Expansion) -> list[str]:
    """One line per doubt, the arms it concerns first."""
    found = [f"arms {' and '.join(names)} have the same configuration" for names in identical_arms(expansion.arms)]
    found += [f"dropped: {name}" for name in expansion.dropped]
    concerned: dict[str, list[str]] = defaultdict(list)
    for arm in expansion.arms:
        for doubt in _doubts(arm.config):
            concerned[doubt].append(arm.name)
    for doubt, names in concerned.items():
        who = "every arm" if len(names) == len(expansion.arms) else f"arm {', '.join(names)}"
        found.append(f"{who}: {doubt}")
    return found


def _doubts(config: Config) -> Iterator[str]:
    warmdown, iterations = config.optim.warmdown, config.train.iterations
    if warmdown.kind == "iterations" and warmdown.value > iterations:
        yield f"optim.warmdown.value {warmdown.value:g} is longer than train.iterations {iterations}"
    if config.qat.enabled:
        if all(getattr(config.quant.bits, name) == 16 for name in config.qat.scope):
            yield "qat covers nothing, since every class in qat.scope is stored with 16 bits"
        if config.qat.start.kind == "step" and config.qat.start.value >= iterations:
            yield f"qat starts at step {config.qat.start.value:g} of {iterations}: never"
