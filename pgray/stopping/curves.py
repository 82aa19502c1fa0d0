"""Reads a training run's curves, validation and training loss by step, while its event log is being written.

After a restart only the points that the weights went through count (`surviving_events`). No torch, no pandas: the driver
polls this.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pgray.spec.stopping import CURVE_METRICS
from trainer.records.events import Event, EventFollower, surviving_events
from trainer.run.config import TrainConfig

_SOURCES = {"val_bpb": ("val", "raw_bpb"), "train_loss_nats": ("step", "train_loss_nats")}  # metric -> event, field


@dataclass(frozen=True)
class Point:
    """One measurement after `step` optimizer steps.

    `share`: finished share of the run, 0..1, by the limit that binds (steps or clock). `train_s`: on the training clock.
    `at`: Unix time, seconds.
    """

    step: int
    share: float
    train_s: float
    at: float
    value: float


Curve = Mapping[str, Sequence[Point]]
"""Metric (one of CURVE_METRICS) -> its points, in order of step. A metric that was never measured is empty."""


class CurveFile:
    """Follows the event log of one training run.

    Args:
        path: need not exist yet.
        train: the run's training section, for its limits of steps and clock.
    """

    def __init__(self, path: Path, train: TrainConfig) -> None:
        self._log, self._train = EventFollower(path), train
        self._curve: dict[str, Sequence[Point]] = {metric: [] for metric in CURVE_METRICS}

    def read(self) -> Curve:
        """Return the curves up to now. Reads only what was appended since the last call."""
        if self._log.poll():
            events = surviving_events(self._log.events)
            for metric, (name, field) in _SOURCES.items():
                found = (self._point(event, event.get(field)) for event in events if event.get("event") == name)
                self._curve[metric] = [point for point in found if point is not None]
        return self._curve

    def _point(self, event: Event, value: object) -> Point | None:
        numbers = (event.get("step"), event.get("train_s"), event.get("at"), value)
        if not all(isinstance(x, (int, float)) and math.isfinite(x) for x in numbers):
            return None
        step, train_s, at, number = (float(x) for x in numbers)  # type: ignore[arg-type]
        share = min(1.0, max(step / self._train.iterations, train_s / self._train.wallclock_s))
        return Point(int(step), share, train_s, at, number)


def read_curve(path: Path, train: TrainConfig) -> Curve:
    """Return the curves in an event log; empty ones if there is no file."""
    return CurveFile(path, train).read()
