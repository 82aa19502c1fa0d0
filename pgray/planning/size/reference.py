"""How far training moves weights from Gaussian: read off finished artifacts that others published.

Weight decay is what matters: it takes the bulk of the weights to zero and leaves a few large ones, so each symbol carries
less. The dose is the number of e-foldings it takes from a matrix, Muon LR x weight decay x sum of the LR multipliers: up to
about 4, published artifacts weigh what Gaussian weights would; beyond 5, some 15 % less, at 6 bits as at 8.
"""

import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pgray.planning.size.tensor_bytes import codec_factor, default_symbol_factor, fixed_bytes, parts_of
from pgray.planning.step_time import StepTime
from trainer.model.shapes import num_params
from trainer.presets.resolve import build_config, flatten, load_preset
from trainer.presets.yamlfile import read_yaml

TABLE = Path(__file__).with_name("published_sizes.yaml")
_SMOKE = (0.2, 0.49e6, 1.005)  # dose, parameters and maturity of the `cpu-smoke` models that CLASS_FACTOR is from
_NEIGHBOURHOOD = 0.6


@dataclass(frozen=True)
class Maturity:
    """Factor on the bits per symbol of Gaussian weights, and the range in which it is believed to lie."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class _Reference:
    dose: float
    log_params: float
    maturity: float

    def distance(self, dose: float, log_params: float) -> float:
        """In units of one e-folding, or a factor 16 in parameters."""
        return math.hypot(self.dose - dose, (self.log_params - log_params) / 4)


def decay_dose(pace: StepTime) -> float:
    """E-foldings that weight decay takes from the matrices over a run."""
    optim = pace.config.optim
    return optim.matrix_lr * optim.weight_decay * pace.mean_lr_scale * pace.steps


def expected_maturity(pace: StepTime) -> Maturity:
    """Mean over the published models nearest in dose and size; the range is theirs, wider the farther away they are.

    Where the step time is unknown, the steps may be far fewer than the config allows: then a third of the dose counts too.
    """
    dose, log_params = decay_dose(pace), math.log2(num_params(pace.config))
    nearest = [_nearest(dose, log_params)]
    if pace.step_ms is None:
        nearest.append(_nearest(dose / 3, log_params))
    value = sum(found.value for found in nearest) / len(nearest)
    return Maturity(value, min(found.low for found in nearest), max(found.high for found in nearest))


def _nearest(dose: float, log_params: float) -> Maturity:
    references = _references()
    dose = min(dose, max(ref.dose for ref in references))  # weights that have forgotten their start forget no more
    near = sorted((ref.distance(dose, log_params), ref.maturity) for ref in references)
    closest = near[0][0]
    values = [maturity for distance, maturity in near if distance <= closest + _NEIGHBOURHOOD]
    margin = 0.02 + 0.02 * closest
    return Maturity(sum(values) / len(values), min(values) - margin, max(values) + margin)


@cache
def _references() -> tuple[_Reference, ...]:
    dose, params, maturity = _SMOKE
    found = [_Reference(dose, math.log2(params), maturity)]
    for entry in read_yaml(TABLE):
        changes = dict(flatten(entry.get("set", {})))
        config = build_config({**load_preset(entry["preset"]).overrides, **changes}, str(TABLE))
        steps = entry["steps"]
        pace = StepTime(config, steps, 1000 * config.train.wallclock_s / steps)
        parts, codec = parts_of(config), config.export.codec
        symbols = math.fsum(
            part.gaussian_bytes * default_symbol_factor(part.group, 1.0) * codec_factor(codec, part.bits)
            for part in parts
        )
        measured = entry["model_bytes"] - fixed_bytes(parts, codec)
        found.append(_Reference(decay_dose(pace), math.log2(num_params(config)), measured / symbols))
    return tuple(found)
