"""Predict the artifact bytes of an arm from finished trials, with a range; without any, from published artifacts.

A finished trial yields two kinds of ratio: bits per symbol over a Gaussian's, for each group of its tensors; and compressed
bytes over those that its entropy predicts. An arm takes each ratio from the trials nearest to it: the same arm at another
seed is nearer than another arm of the same model, and that is nearer than another model or quantizer.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from pgray.planning.past_trials import FinishedTrial, model_part
from pgray.planning.size.reference import decay_efoldings, expected_training_factor
from pgray.planning.size.tensor_bytes import Group, StoredBytes
from pgray.planning.step_time import StepTime
from trainer.config import Config
from trainer.model.shapes import num_params
from trainer.records.fingerprint import average_part, training_part
from trainer.records.text import count_of
from trainer.run.bundle import code_bytes

SAME_ARM_ERROR, OTHER_ARM_ERROR, DEFAULT_ERROR = 0.005, 0.012, 0.02
"""Typical error, as a share of bytes, of predicting a trial from the same arm at another seed (published records), from
another arm, and from the default table (98 `cpu-smoke` trials of eleven sweeps). Each counts as PRIOR_TRIALS trials besides
those of the run folder."""

PRIOR_TRIALS = 3
MOST_LEFT_OUT = 40  # finished trials for the leave-one-out error
TOO_FAR = 4.0  # trials at this distance or more predict worse than the default table
DEFAULT_SPREAD = 0.02  # share of bytes, on top of the range of the training factor: codec, headers, initialization


@dataclass(frozen=True)
class SizePrediction:
    """Bytes of code plus compressed model, with a range of about two standard errors. `source`: in words."""

    num_bytes: int
    low_bytes: int
    high_bytes: int
    source: str


class _Candidate:
    """A config with its steps, expected or actual: what it stores, and what affects the sizes."""

    def __init__(self, step_time: StepTime) -> None:
        config, quant = step_time.config, step_time.config.quant
        self.config = config
        self.stored = StoredBytes(config)
        self.training_factor = expected_training_factor(step_time)
        self.model = model_part(config)
        self.log_params = math.log2(num_params(config))
        self.half_decays = round(2 * decay_efoldings(step_time))
        self.scheme = (quant.group_rows, (quant.clip, quant.clip_sigma), quant.prune_frac)
        self.training = {key: value for key, value in training_part(config).items() if key != "seed"}
        self.average = average_part(config)

    def distance(self, other: "_Candidate") -> float:
        """Return 0 where only the seed, the bits or the codec differ."""
        return float(
            (self.model != other.model) * min(1.0 + 1.5 * abs(self.log_params - other.log_params), TOO_FAR)
            + 0.5 * abs(self.half_decays - other.half_decays)
            + 4.0 * (self.config.quant.scale_floor != other.config.quant.scale_floor)
            + 4.0 * (self.config.quant.clip_floor != other.config.quant.clip_floor)
            + 1.0 * sum(a != b for a, b in zip(self.scheme, other.scheme, strict=True))
            + 0.5 * (self.training != other.training)
            + 0.25 * (self.average != other.average)
        )


@dataclass(frozen=True)
class _Measured:
    """The ratios of a finished trial. `codec_factor`: compressed bytes over those that the entropy predicts."""

    candidate: _Candidate
    symbol_factors: dict[Group, float]
    codec_factor: float
    model_bytes: int


def _measure(trial: FinishedTrial) -> _Measured | None:
    """Return None for a trial whose byte ledger does not fit its config, as after a change of the format."""
    candidate = _Candidate(StepTime(trial.config, trial.result.steps, trial.result.step_ms))
    stored = candidate.stored
    entropy: dict[Group, float] = defaultdict(float)  # bytes
    for tensor in trial.result.tensors:
        entropy[tensor.stored_as, tensor.tensor_class, tensor.bits] += tensor.entropy_bytes
    if entropy.keys() != stored.groups.keys():
        return None
    factors = {
        group: (entropy[group] - stored.groups[group].float_bytes) / gaussian
        for group, gaussian in stored.gaussian_bytes.items()
    }
    predicted = stored.symbol_bytes(factors)
    codec_factor = (trial.result.model_bytes - stored.fixed_bytes) / predicted if predicted > 0 else 1.0
    return _Measured(candidate, factors, codec_factor, trial.result.model_bytes)


class SizeModel:
    """Predicts the sizes of artifacts from finished trials; without any, from published artifacts."""

    def __init__(self, finished: Sequence[FinishedTrial]) -> None:
        self._measured = [measured for trial in finished if (measured := _measure(trial))]
        self._spreads: dict[float, float] = {}

    def predict(self, step_time: StepTime) -> SizePrediction:
        """Predict the size of the artifact of a config that trains for `step_time.steps`."""
        arm = _Candidate(step_time)
        code = code_bytes(step_time.config)
        if all(arm.distance(other.candidate) >= TOO_FAR for other in self._measured):
            return _from_published(arm, code)
        model_bytes, distance = self._estimate(arm, self._measured)
        spread = self._spread(distance)
        total, source = model_bytes + code, count_of(len(self._measured), "finished trial")
        return SizePrediction(round(total), round(total * (1 - spread)), round(total * (1 + spread)), source)

    def _estimate(self, arm: _Candidate, measured: Sequence[_Measured], at_least: float = 0.0) -> tuple[float, float]:
        """Predict model bytes from the nearest trials at a distance of `at_least` or more.

        Returns:
            The bytes, and the distance of the farthest trial used; infinity where a default was used.
        """
        near = [(arm.distance(other.candidate), other) for other in measured]
        factors: dict[Group, float] = {}
        farthest = 0.0
        for group, default in arm.stored.default_factors(arm.training_factor.value).items():
            choices = [
                (distance + _group_distance(group, theirs), factor)
                for distance, other in near
                for theirs, factor in other.symbol_factors.items()
            ]
            factors[group], used = _nearest(choices, at_least, default)
            farthest = max(farthest, used)
        codec_factors = [
            (distance + 0.1 * _bits_distance(arm.config, other.candidate.config), other.codec_factor)
            for distance, other in near
            if other.candidate.config.export.codec == arm.config.export.codec
        ]
        codec_factor, used = _nearest(codec_factors, at_least, 1.0)
        model_bytes = arm.stored.fixed_bytes + arm.stored.symbol_bytes(factors) * codec_factor
        return model_bytes, max(farthest, used)

    def _spread(self, distance: float) -> float:
        """Return two leave-one-out standard errors, as a share, using only trials at `distance` or more."""
        if distance not in self._spreads:
            typical = DEFAULT_ERROR if distance == math.inf else OTHER_ARM_ERROR if distance else SAME_ARM_ERROR
            squares = [typical**2] * PRIOR_TRIALS
            latest = self._measured[-MOST_LEFT_OUT:]
            for index, one in enumerate(latest):
                others = latest[:index] + latest[index + 1 :]
                predicted, used = self._estimate(one.candidate, others, distance)
                if used < math.inf:
                    squares.append((one.model_bytes / predicted - 1) ** 2)
            self._spreads[distance] = 2 * math.sqrt(math.fsum(squares) / len(squares))
        return self._spreads[distance]


def _nearest(choices: Sequence[tuple[float, float]], at_least: float, default: float) -> tuple[float, float]:
    """Return the mean of the values at the smallest distance from `at_least` to TOO_FAR, and that distance."""
    allowed = [(distance, value) for distance, value in choices if at_least <= distance < TOO_FAR]
    if not allowed:
        return default, math.inf
    closest = min(distance for distance, _ in allowed)
    values = [value for distance, value in allowed if distance == closest]
    return math.fsum(values) / len(values), closest


def _group_distance(a: Group, b: Group) -> float:
    return 2.0 * (a[0] != b[0]) + 1.0 * (a[1] != b[1]) + 0.5 * abs(a[2] - b[2])


def _bits_distance(a: Config, b: Config) -> int:
    ours, theirs = a.quant.bits.model_dump(), b.quant.bits.model_dump()
    return sum(abs(ours[name] - theirs[name]) for name in ours)


def _from_published(arm: _Candidate, code: int) -> SizePrediction:
    factor, rest = arm.training_factor, arm.stored.fixed_bytes + code
    symbols = arm.stored.symbol_bytes(arm.stored.default_factors(1.0))
    shares = factor.value, (1 - DEFAULT_SPREAD) * factor.low, (1 + DEFAULT_SPREAD) * factor.high
    num_bytes, low_bytes, high_bytes = (round(rest + symbols * share) for share in shares)
    return SizePrediction(num_bytes, low_bytes, high_bytes, "default table")
