"""Estimate how training changes the bits per symbol of the weights, from the sizes of published artifacts.

Weight decay and the floor under the scales matter together. Without a floor, published artifacts have the size that Gaussian
weights would have, with any weight decay: the scale follows the weights. With the usual floor (`quant.clip_floor: 1`), weights
that decay has made small use few of the integers: beyond 5 e-foldings artifacts are some 15 % smaller, at 6 bits as at 8; up
to about 2 the floor does not act. The e-foldings of a run are Muon LR x weight decay x sum of the LR multipliers.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

from pgray.planning.size.tensor_bytes import LARGE_PARAMS, StoredBytes
from pgray.planning.step_time import StepTime
from trainer.model.shapes import num_params
from trainer.presets.resolve import build_config, flatten, load_preset
from trainer.presets.yamlfile import read_yaml

TABLE = Path(__file__).with_name("published_sizes.yaml")
_GAUSSIAN_MARGIN = 0.05  # untrained weights take up to 4 % more bits than a Gaussian's (CLASS_FACTOR)
_NEIGHBORHOOD = 0.6  # references up to this much farther away than the nearest one count, too


@dataclass(frozen=True)
class TrainingFactor:
    """Bits per symbol over those of untrained weights, and the range in which the value probably lies."""

    value: float
    low: float
    high: float


class _Reference(NamedTuple):
    has_floor: bool
    decay: float  # e-foldings
    log_params: float
    factor: float


def decay_efoldings(step_time: StepTime) -> float:
    """Return how many e-foldings weight decay shrinks the matrices by over a run."""
    optim = step_time.config.optim
    return optim.matrix_lr * optim.weight_decay * step_time.mean_lr_scale * step_time.steps


def expected_training_factor(step_time: StepTime) -> TrainingFactor:
    """Return the mean over the published models nearest in weight decay and size, with a floor or without as this run.

    The range is theirs, and wider the farther away they are. Few were published without a floor, so that a run without one
    has a range that includes the models with one, and the Gaussian size. Where the step time is unknown, a run may stop
    long before train.iterations: then a third of the weight decay is considered as well.
    """
    decay, log_params = decay_efoldings(step_time), math.log2(num_params(step_time.config))
    has_floor = step_time.config.quant.clip_floor is not None
    nearest = [_nearest(has_floor, decay, log_params)]
    if step_time.step_ms is None:
        nearest.append(_nearest(has_floor, decay / 3, log_params))
    value = sum(found.value for found in nearest) / len(nearest)
    return TrainingFactor(value, min(found.low for found in nearest), max(found.high for found in nearest))


def _nearest(has_floor: bool, decay: float, log_params: float) -> TrainingFactor:
    found = _among([ref for ref in _references() if ref.has_floor == has_floor], decay, log_params)
    if has_floor or log_params < math.log2(LARGE_PARAMS):
        return found
    other = _among([ref for ref in _references() if ref.has_floor], decay, log_params)
    return TrainingFactor(found.value, min(found.low, other.low), max(found.high, other.high, 1 + _GAUSSIAN_MARGIN))


def _among(references: Sequence[_Reference], decay: float, log_params: float) -> TrainingFactor:
    decay = min(decay, max(ref.decay for ref in references))  # more decay makes no difference once all is forgotten
    # a factor 16 in parameters is as far as one e-folding
    near = sorted((math.hypot(ref.decay - decay, (ref.log_params - log_params) / 4), ref.factor) for ref in references)
    closest = near[0][0]
    values = [factor for distance, factor in near if distance <= closest + _NEIGHBORHOOD]
    margin = 0.02 + 0.02 * closest
    return TrainingFactor(sum(values) / len(values), min(values) - margin, max(values) + margin)


def published_runs() -> Iterator[tuple[str, StepTime, int]]:
    """Yield source, steps and model bytes (without code) of each published artifact."""
    for entry in read_yaml(TABLE):
        changes = dict(flatten(entry.get("set", {})))
        config = build_config({**load_preset(entry["preset"]).overrides, **changes}, f"{TABLE}: {entry['source']}")
        step_ms = 1000 * config.train.wallclock_s / entry["steps"]
        yield entry["source"], StepTime(config, entry["steps"], step_ms), entry["model_bytes"]


@cache
def _references() -> tuple[_Reference, ...]:
    found = [
        _Reference(False, 0.2, math.log2(0.49e6), 1.005)
    ]  # the `cpu-smoke` models that CLASS_FACTOR was measured on
    for _, run, model_bytes in published_runs():
        stored = StoredBytes(run.config)
        factor = (model_bytes - stored.fixed_bytes) / stored.symbol_bytes(stored.default_factors(1.0))
        has_floor = run.config.quant.clip_floor is not None
        found.append(_Reference(has_floor, decay_efoldings(run), math.log2(num_params(run.config)), factor))
    return tuple(found)
