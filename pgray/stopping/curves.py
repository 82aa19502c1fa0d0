"""A training run's curves, from its event log: validation and training loss by step, read while they are being written.

No torch, no pandas: a driver polls this. Once a run has been restarted or resumed from a checkpoint, only what its
weights went through counts: points of an abandoned stretch are dropped.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pgray.spec.kill_rule import CURVE_METRICS
from trainer.run.config import TrainConfig

_SOURCES = {"val_bpb": ("val", "raw_bpb"), "train_loss_nats": ("step", "train_loss_nats")}  # metric -> event, field


@dataclass(frozen=True)
class Point:
    """One measurement after `step` optimizer steps.

    `share`: of the run, 0..1, by whichever limit binds, steps or clock. `train_s`: on the training clock. `at`: Unix
    time, seconds.
    """

    step: int
    share: float
    train_s: float
    at: float
    value: float


Curve = Mapping[str, Sequence[Point]]
"""Metric (one of CURVE_METRICS) -> its points, in order of step. A metric that was never measured is empty."""


class CurveFile:
    """Follows one `events.jsonl`.

    Args:
        path: need not exist yet.
        train: the run's training section, for its limits of steps and clock.
    """

    def __init__(self, path: Path, train: TrainConfig) -> None:
        self._path, self._train = path, train
        self._start_over()

    def _start_over(self) -> None:
        self._offset = 0
        self._curve: dict[str, list[Point]] = {metric: [] for metric in CURVE_METRICS}
        self._abandoned = self._curve

    def read(self) -> Curve:
        """The curves so far. Reads only what was appended since the last call; a line still being written waits."""
        try:
            if self._path.stat().st_size < self._offset:
                self._start_over()
            with self._path.open("rb") as file:
                file.seek(self._offset)
                lines = file.read().split(b"\n")
        except OSError:
            return self._curve
        for line in lines[:-1]:
            self._offset += len(line) + 1
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if isinstance(event, dict):
                self._take(event)
        return self._curve

    def _take(self, event: dict[str, Any]) -> None:
        if event.get("event") == "training":  # an attempt begins; what came before counts if it says `resumed`
            self._abandoned, self._curve = self._curve, {metric: [] for metric in CURVE_METRICS}
        elif event.get("event") == "resumed" and isinstance(event.get("step"), int):
            self._curve = {m: [p for p in points if p.step <= event["step"]] for m, points in self._abandoned.items()}
        for metric, (source, field) in _SOURCES.items():
            if event.get("event") == source:
                point = self._point(event, event.get(field))
                if point is not None:
                    self._curve[metric].append(point)

    def _point(self, event: dict[str, Any], value: object) -> Point | None:
        numbers = (event.get("step"), event.get("train_s"), event.get("at"), value)
        if not all(isinstance(x, (int, float)) and math.isfinite(x) for x in numbers):
            return None
        step, train_s, at, number = (float(x) for x in numbers)  # type: ignore[arg-type]
        share = min(1.0, max(step / self._train.iterations, train_s / self._train.wallclock_s))
        return Point(int(step), share, train_s, at, number)


def read_curve(path: Path, train: TrainConfig) -> Curve:
    """The curves in an event log; empty ones where there is no file."""
    return CurveFile(path, train).read()
