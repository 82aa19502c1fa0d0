"""Artifact bytes of an arm, from finished trials where there are some, and how far off that may be.

A finished trial says two kinds of ratio: bits per symbol over a Gaussian's, per kind, class and bit width of its tensors; and
compressed bytes over what its entropy predicts. An arm takes each from the trials nearest to it, where the same arm at
another seed is nearer than another arm of the same model, and that nearer than another model or quantizer.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pgray.planning.past_trials import FinishedTrial, model_part
from pgray.planning.size.reference import Maturity, decay_dose, expected_maturity
from pgray.planning.size.tensor_bytes import (
    Group,
    StoredPart,
    codec_factor,
    default_symbol_factor,
    fixed_bytes,
    parts_of,
)
from pgray.planning.step_time import StepTime
from trainer.config import Config
from trainer.model.shapes import num_params
from trainer.records.fingerprint import average_part, training_part
from trainer.run.bundle import code_bytes

TWIN_ERROR, OTHER_ERROR, DEFAULT_ERROR = 0.005, 0.012, 0.02
"""Typical error, as a share of bytes, of predicting a trial from the same arm at another seed (as published records vary with
their seeds), from another arm, and where the default table must help (98 `cpu-smoke` trials of eleven sweeps). They count as
PRIOR_TRIALS trials beside those of the run folder."""

PRIOR_TRIALS = 3
MOST_FORETOLD = 40  # of the finished trials, to see how well each is foretold by the others
TOO_FAR = 4.0  # trials as far away say less than the default table
DEFAULT_SPREAD = 0.02  # of bytes, beside the range of the maturity: codec, headers, initialization


@dataclass(frozen=True)
class SizePrediction:
    """Bytes of code plus compressed model, with the range that the figures behind it suggest; `source` in words."""

    num_bytes: int
    low_bytes: int
    high_bytes: int
    source: str


@dataclass(frozen=True)
class _Look:
    """What of a config bears on the sizes of its tensors, whatever their class and bits."""

    model: dict[str, Any]
    log_params: float
    half_doses: int  # of weight decay, in half e-foldings
    scale_floor: float | None
    scheme: tuple[Any, ...]
    training: dict[str, Any]
    average: dict[str, Any]

    def distance(self, other: "_Look") -> float:
        """0 where nothing but the seed differs."""
        return float(
            (self.model != other.model) * min(1.0 + 1.5 * abs(self.log_params - other.log_params), TOO_FAR)
            + 0.5 * abs(self.half_doses - other.half_doses)
            + 4.0 * (self.scale_floor != other.scale_floor)
            + 1.0 * sum(a != b for a, b in zip(self.scheme, other.scheme, strict=True))
            + 0.5 * (self.training != other.training)
            + 0.25 * (self.average != other.average)
        )


def _look(pace: StepTime) -> _Look:
    config, quant = pace.config, pace.config.quant
    training = {key: value for key, value in training_part(config).items() if key != "seed"}
    scheme = (quant.group_rows, (quant.clip, quant.clip_sigma), quant.prune_frac)
    log_params, half_doses = math.log2(num_params(config)), round(2 * decay_dose(pace))
    return _Look(model_part(config), log_params, half_doses, quant.scale_floor, scheme, training, average_part(config))


@dataclass(frozen=True)
class _Stored:
    """What a config stores: fixed bytes, and per group the entropy of its symbols if Gaussian."""

    config: Config
    look: _Look
    maturity: Maturity
    fixed_bytes: float
    gaussian_bytes: dict[Group, float]

    @classmethod
    def of(cls, pace: StepTime, parts: list[StoredPart]) -> "_Stored":
        gaussian: dict[Group, float] = defaultdict(float)
        for part in parts:
            if part.gaussian_bytes:
                gaussian[part.group] += part.gaussian_bytes
        fixed = fixed_bytes(parts, pace.config.export.codec)
        return cls(pace.config, _look(pace), expected_maturity(pace), fixed, dict(gaussian))

    def coded(self, symbol_factors: Mapping[Group, float]) -> float:
        """Bytes of the symbols as the default codec factors have it."""
        codec = self.config.export.codec
        return math.fsum(
            gaussian * symbol_factors[group] * codec_factor(codec, group[2])
            for group, gaussian in self.gaussian_bytes.items()
        )


@dataclass(frozen=True)
class _Measured:
    stored: _Stored
    symbol_factors: dict[Group, float]
    codec_correction: float
    model_bytes: int

    @classmethod
    def of(cls, trial: FinishedTrial) -> "_Measured | None":
        """None for a trial whose byte ledger is not that of its config, as after a change of the format."""
        parts = parts_of(trial.config)
        stored = _Stored.of(StepTime(trial.config, trial.result.steps, trial.result.step_ms), parts)
        symbols: dict[Group, float] = defaultdict(float)
        for tensor in trial.result.tensors:
            symbols[tensor.stored_as, tensor.tensor_class, tensor.bits] += tensor.entropy_bytes
        if symbols.keys() != {part.group for part in parts}:
            return None
        for part in parts:
            symbols[part.group] -= part.float_bytes
        factors = {group: symbols[group] / gaussian for group, gaussian in stored.gaussian_bytes.items()}
        coded = stored.coded(factors)
        correction = (trial.result.model_bytes - stored.fixed_bytes) / coded if coded > 0 else 1.0
        return cls(stored, factors, correction, trial.result.model_bytes)


class SizeModel:
    """Predicts sizes from finished trials; without any, from what others published."""

    def __init__(self, finished: Sequence[FinishedTrial]) -> None:
        self._measured = [measured for trial in finished if (measured := _Measured.of(trial))]
        self._spreads: dict[float, float] = {}

    def predict(self, pace: StepTime) -> SizePrediction:
        """The size of the artifact that a config will give, trained at that pace."""
        stored = _Stored.of(pace, parts_of(pace.config))
        if all(stored.look.distance(other.stored.look) >= TOO_FAR for other in self._measured):
            return _from_published(stored)
        model_bytes, distance = self._estimate(stored, self._measured)
        spread = self._spread(distance)
        total = model_bytes + code_bytes(pace.config)
        count = len(self._measured)
        source = f"{count} finished trial{'s' * (count != 1)}"
        return SizePrediction(round(total), round(total * (1 - spread)), round(total * (1 + spread)), source)

    def _estimate(self, stored: _Stored, measured: Sequence[_Measured], at_least: float = 0.0) -> tuple[float, float]:
        """Model bytes from the nearest trials, none nearer than `at_least`, and how far away the farthest used is."""
        looks = [(stored.look.distance(other.stored.look), other) for other in measured]
        factors: dict[Group, float] = {}
        farthest = 0.0
        for group in stored.gaussian_bytes:
            choices = [
                (look + _group_distance(group, theirs), factor)
                for look, other in looks
                for theirs, factor in other.symbol_factors.items()
            ]
            factors[group], distance = _nearest(choices, at_least, default_symbol_factor(group, stored.maturity.value))
            farthest = max(farthest, distance)
        codec, bits = stored.config.export.codec, stored.config.quant.bits.model_dump()
        corrections = [
            (look + 0.1 * _num_bits(bits, other.stored.config), other.codec_correction)
            for look, other in looks
            if other.stored.config.export.codec == codec
        ]
        correction, distance = _nearest(corrections, at_least, 1.0)
        return stored.fixed_bytes + stored.coded(factors) * correction, max(farthest, distance)

    def _spread(self, distance: float) -> float:
        """Two standard errors, as a share, of predicting each finished trial from others at least as far away."""
        if distance not in self._spreads:
            typical = DEFAULT_ERROR if distance == math.inf else OTHER_ERROR if distance else TWIN_ERROR
            squares = [typical**2] * PRIOR_TRIALS
            latest = self._measured[-MOST_FORETOLD:]
            for index, one in enumerate(latest):
                others = latest[:index] + latest[index + 1 :]
                guess, used = self._estimate(one.stored, others, distance)
                if used < math.inf:
                    squares.append((one.model_bytes / guess - 1) ** 2)
            self._spreads[distance] = 2 * math.sqrt(math.fsum(squares) / len(squares))
        return self._spreads[distance]


def _nearest(choices: Sequence[tuple[float, float]], at_least: float, default: float) -> tuple[float, float]:
    """Mean value of the nearest choices neither nearer than `at_least` nor too far, and their distance; else the default."""
    allowed = [(distance, value) for distance, value in choices if at_least <= distance < TOO_FAR]
    if not allowed:
        return default, math.inf
    closest = min(distance for distance, _ in allowed)
    values = [value for distance, value in allowed if distance == closest]
    return math.fsum(values) / len(values), closest


def _group_distance(a: Group, b: Group) -> float:
    return 2.0 * (a[0] != b[0]) + 1.0 * (a[1] != b[1]) + 0.5 * abs(a[2] - b[2])


def _num_bits(bits: Mapping[str, int], other: Config) -> int:
    return sum(abs(bits[name] - value) for name, value in other.quant.bits.model_dump().items())


def _from_published(stored: _Stored) -> SizePrediction:
    maturity = stored.maturity
    symbols = stored.coded({group: default_symbol_factor(group, 1.0) for group in stored.gaussian_bytes})
    rest = stored.fixed_bytes + code_bytes(stored.config)
    low, high = (1 - DEFAULT_SPREAD) * maturity.low, (1 + DEFAULT_SPREAD) * maturity.high
    return SizePrediction(
        round(rest + symbols * maturity.value),
        round(rest + symbols * low),
        round(rest + symbols * high),
        "default table",
    )
